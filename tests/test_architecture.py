"""Tests of the architecture: modules import from their own layer or below only, and never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msl_network_trio

PACKAGE = Path(msl_network_trio.__file__).parent

LAYERS = [
    "base",
    "limits",
    "protocol",
    "protocol.manager",
    "portal",
    "transport",
    "dialing",
    "client",
    "sync",
    "service",
    "web",
    "manager",
    "gateway",
    "ssh",
    "examples",
    "programs",
    "cli",
]
"""The layers, the lowest first. Each is the folder of its name, but for those of `LAYERS_OF_MODULES`."""

LAYERS_OF_MODULES = {"testing": "programs", "demo": "programs", "__main__": "cli"}
"""The layers of modules at the top of the package; all others there are in ``base``."""

PURE = {"limits", "protocol", "protocol.manager"}
"""The layers that neither do I/O nor know threads."""


@cache
def modules() -> dict[str, Path]:
    """Return all modules but the package's own ``__init__``, by their names without the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]  # it re-exports the public names, and may import everything
    return found


def layer(module: str) -> int:
    """Return the index of a module's layer in `LAYERS`."""
    folder = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    return LAYERS.index(folder or LAYERS_OF_MODULES.get(module, "base"))


@cache
def nodes(module: str) -> list[ast.AST]:
    """Return all nodes of the syntax tree of a module; the first one is the tree."""
    return list(ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))))


def imports(module: str) -> Iterator[str]:
    """Yield the full names of all imports of a module, in functions and for type checkers too."""
    for node in nodes(module):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def ours(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package == "msl_network_trio":
            while rest not in modules() and rest:
                rest = rest.rpartition(".")[0]
            if rest:
                found.add(rest)
    return found - {module}


def circles() -> list[list[str]]:
    """Return the groups of modules that import each other, directly or indirectly."""
    reach = {module: ours(module) for module in modules()}
    for middle, beyond in reach.items():  # Warshall's algorithm
        for reached in reach.values():
            if middle in reached:
                reached |= beyond
    groups = set()
    for module in sorted(reach):
        group = tuple(other for other in sorted(reach[module]) if module in reach[other])
        if group:
            groups.add(group)
    return sorted(map(list, groups))


def test_a_module_imports_only_from_its_own_layer_and_those_below():
    above = {(module, name) for module in modules() for name in ours(module) if layer(name) > layer(module)}
    assert above == set()


def test_no_modules_import_each_other_in_a_circle():
    assert circles() == []


TYPES_OF_VIEWS = {"client.client", "client.link", "client.linked_client", "client.views"}
"""The modules that name, by the package, the types of the blocking forms of their classes."""


def test_a_module_imports_the_package_itself_only_to_name_types_of_the_blocking_api():
    # The package may import every layer, so this would be a way around the layers.
    importing = {module for module in modules() if "msl_network_trio" in imports(module)}
    assert importing <= TYPES_OF_VIEWS
    for module in importing:
        tree = nodes(module)[0]
        for_types = {
            id(node)
            for block in tree.body
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in nodes(module):
            if isinstance(node, ast.Import) and "msl_network_trio" in {alias.name for alias in node.names}:
                assert id(node) in for_types, module
        used = {ast.unparse(name) for name in nodes(module) if isinstance(name, ast.Attribute)}
        used = {name for name in used if name.startswith("msl_network_trio.") and name.count(".") == 2}
        assert all(name.startswith("msl_network_trio.sync.") for name in used), module


def test_the_protocol_does_no_io():
    for module in modules():
        if LAYERS[layer(module)] in PURE:
            roots = {name.partition(".")[0] for name in imports(module)}
            assert not roots & {"trio", "socket", "ssl", "asyncio", "threading", "selectors"}, module


def test_no_module_has_a_lock_that_a_fork_would_leave_locked():
    # A fork copies the lock, but not the thread that holds it.
    for module in modules():
        for node in nodes(module)[0].body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                assert "Lock" not in ast.unparse(node.value.func), module


CONFIGURE_LOGGING = {"logger", "manager.logs", "cli.demo", "service.logging_level", "ssh.connecting"}
"""The modules that may use `logging.getLogger`: the first wraps it, the others configure it."""


def test_a_module_logs_only_with_a_logger_that_never_raises():
    # A bare logger raises what a handler of the program raises, which would cost a reply or a connection.
    writing = {"getLogger", "debug", "info", "warning", "warn", "error", "exception", "critical", "log"}
    for module in modules().keys() - CONFIGURE_LOGGING:
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                assert node.module != "logging" or not names & {*writing, "Logger"}, module
            elif isinstance(node, ast.Attribute) and node.attr in writing:
                assert ast.unparse(node.value) != "logging", module


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
