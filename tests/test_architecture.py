"""The layers: a module imports only from those above it, and the protocol does no I/O."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import msl_network_trio

PACKAGE = Path(msl_network_trio.__file__).parent
ORDER = [
    "visible",
    "hidden",
    "arguments",
    "validators",
    "exceptions",
    "constants",
    "files",
    "logger",
    "endings",
    "signals",
    "resuming",
    "asyncio_advice",
    "groups",
    "portal.process",
    "portal.interrupts",
    "portal.waiting",
    "portal.errand",
    "portal.portal",
    "portal.worker",
    "portal.script",
    "protocol.messages",
    "protocol.top_level",
    "protocol.codec",
    "protocol.framing",
    "protocol.handshake",
    "protocol.outgoing",
    "protocol.presence",
    "protocol.uids",
    "protocol.request_errors",
    "protocol.unread",
    "protocol.client",
    "protocol.service",
    "protocol.verdicts",
    "protocol.peer",
    "protocol.logins",
    "protocol.holdings",
    "protocol.records",
    "protocol.identity",
    "protocol.registry",
    "protocol.answers",
    "protocol.terminal",
    "protocol.delivery",
    "protocol.admission",
    "protocol.open_requests",
    "protocol.notification_rate",
    "protocol.own_requests",
    "protocol.routing",
    "protocol.manager",
    "transport.liveness",
    "transport.base",
    "transport.memory",
    "transport.tcp",
    "transport.tls",
    "transport.trust",
    "transport.frames",
    "transport.websocket",
    "transport.opening_handshake",
    "transport.listening",
    "client.opening",
    "client.prompts",
    "client.reply",
    "client.writer",
    "client.watch",
    "client.turn",
    "client.unhandled",
    "client.threads",
    "client.user_code",
    "client.notifications",
    "client.signatures",
    "client.connection",
    "client.address",
    "client.connecting",
    "client.locks",
    "client.identities",
    "client.link",
    "client.client",
    "client.linked_client",
    "sync.futures",
    "sync.calls",
    "sync.twins",
    "sync.handlers",
    "sync.prompts",
    "sync.link",
    "sync.client",
    "sync.linked_client",
    "service.holding",
    "service.outlet",
    "service.turn",
    "service.requests",
    "service.threads",
    "service.tasks",
    "service.lookup",
    "service.reading",
    "service.identity",
    "service.logging_level",
    "service.serving",
    "service.state",
    "service.service",
    "service.filters",
    "service.command",
    "examples.echo",
    "examples.basic_math",
    "examples.my_array",
    "examples.heartbeat",
    "web.pages",
    "web.door",
    "manager.secret",
    "manager.addresses",
    "manager.self_signed",
    "manager.certificates",
    "manager.certificate_in_use",
    "manager.generating",
    "manager.describing",
    "manager.logs",
    "manager.hostnames",
    "manager.gateways",
    "manager.settings",
    "manager.open_files",
    "manager.lobby",
    "manager.passwords",
    "manager.tables",
    "manager.password_checks",
    "manager.database",
    "manager.rights",
    "manager.status",
    "manager.large_answers",
    "manager.connection",
    "manager.admin",
    "manager.replacing",
    "manager.verdicts",
    "manager.watch",
    "manager.conversations",
    "manager.entrance",
    "manager.server",
    "manager.running",
    "gateway.visit",
    "gateway.relay",
    "gateway.server",
    "gateway.running",
    "ssh.script",
    "ssh.connecting",
    "ssh.executing",
    "ssh.starting",
    "testing",
    "demo",
    "cli.console",
    "cli.numbers",
    "cli.parser",
    "cli.passwords",
    "cli.user",
    "cli.hostname",
    "cli.keygen",
    "cli.certgen",
    "cli.certdump",
    "cli.delete",
    "cli.completion",
    "cli.limits",
    "cli.serving",
    "cli.manager",
    "cli.gateway",
    "cli.demo",
    "cli.admin",
    "cli.certreload",
    "cli.status",
    "cli.disconnect",
    "cli.unlock",
    "cli.commands",
    "cli.main",
    "__main__",
]
PACKAGES = [
    "portal",
    "protocol",
    "transport",
    "client",
    "manager",
    "gateway",
    "cli",
    "service",
    "examples",
    "ssh",
    "sync",
    "web",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """Modules imported when this one is, which leaves out those for type checkers only."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_every_module_has_its_place_in_the_order():
    assert set(modules()) - {"", *PACKAGES} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_comes_before_it(module):
    prefix = "msl_network_trio."
    ours = {name.removeprefix(prefix) for name in imports(modules()[module]) if name.startswith(prefix)}
    # "from msl_network_trio.protocol import codec" names a package, which is above what it contains
    ours = {name for name in ours if name not in PACKAGES}
    assert ours <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [name for name in ORDER if name.startswith("protocol")])
def test_the_protocol_does_no_io(module):
    roots = {name.partition(".")[0] for name in imports(modules()[module])}
    assert not roots & {"trio", "socket", "ssl", "asyncio", "threading", "selectors"}


def test_no_module_has_a_lock_that_a_fork_would_leave_locked():
    # The thread that holds it does not exist in a process that was forked.
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                assert "Lock" not in ast.unparse(node.value.func), module


CONFIGURE_LOGGING = {"logger", "manager.logs", "cli.demo", "service.logging_level", "ssh.connecting"}
"""The modules that may ask `logging` for a logger: the first wraps it, the others configure it."""


@pytest.mark.parametrize("module", [name for name in ORDER if name not in CONFIGURE_LOGGING])
def test_a_module_logs_only_with_a_logger_that_never_raises(module):
    # A bare logger raises what a handler of the program raises, which would cost a reply or a connection.
    writing = {"getLogger", "debug", "info", "warning", "warn", "error", "exception", "critical", "log"}
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            assert node.module != "logging" or not names & {*writing, "Logger"}
        elif isinstance(node, ast.Attribute):
            assert not (node.attr in writing and ast.unparse(node.value) == "logging"), ast.unparse(node)


def test_importing_the_protocol_does_not_bring_trio_in():
    code = (
        "import sys, types\n"
        # The package itself imports the client; a stand-in shows what the protocol alone needs.
        f"package = types.ModuleType('msl_network_trio'); package.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['msl_network_trio'] = package\n"
        "import msl_network_trio.protocol.client\n"
        "assert not {'trio', 'ssl', 'socket', 'asyncio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_does_not_bring_in_what_is_not_needed():
    code = (
        "import sys, msl_network_trio\n"
        "unneeded = {'asyncio', 'numpy', 'msl', 'cryptography', 'trio_websocket', 'wsproto', 'h11', 'paramiko'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_exported_exists_and_is_sorted():
    assert list(msl_network_trio.__all__) == sorted(msl_network_trio.__all__)
    for name in msl_network_trio.__all__:
        assert getattr(msl_network_trio, name) is not None
