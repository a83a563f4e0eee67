"""Start of servers: a fake Manager, a Manager with its Services, or the server of a peer."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import SECURE, WEBSOCKET
from benchmarks.processes import Child
from benchmarks.servers.large_replies import BULK_SERVICE
from benchmarks.tasks import SERVICE, Address

FAKE: Final = "fake"
NETWORKS: Final = ("reference", "ours-plain", "ours-async")
"""Networks: that of the reference, and that of this package with async or plain methods."""

BULK_SERVER: Final = "ours-plain"
"""Package whose Service sends the large replies, in all networks.

The reference's Service needs more time to encode such a reply than its Manager to forward it, so that most
of the time none would be in transit.
"""


@dataclass(frozen=True)
class Files:
    """Files for servers: home folder of MSL-Network, a certificate and its key."""

    home: Path
    certificate: Path
    key: Path


def start(kind: str, transport: str, files: Files, stack: ExitStack, *, bulk: bool = False) -> Address:
    """Start a server, and return its address.

    Args:
        kind: ``fake``, one of `NETWORKS`, or the name of a peer.
        transport: Transport for clients.
        files: Files of the servers.
        stack: Ends the processes.
        bulk: Whether to start the Service for large replies.

    Raises:
        ChildFailed: A process did not start.
    """
    secure = ["--certificate", str(files.certificate), "--key", str(files.key)]
    certificate = str(files.certificate) if transport in SECURE else None
    name = f"{kind}-{transport}"
    if kind == FAKE:
        fake = stack.enter_context(
            Child(name, "benchmarks.servers.fake_manager", "--until-eof", *secure, home=files.home)
        )
        return Address(fake.ready[transport], certificate, (fake.pid,))
    options = secure if certificate else []
    if kind not in NETWORKS:
        peer = stack.enter_context(Child(name, "benchmarks.peers.serve", kind, *options, home=files.home))
        return Address(peer.ready["port"], certificate, tuple(peer.ready.get("pids", (peer.pid,))))
    if websocket := transport in WEBSOCKET:
        options = [*options, "--websocket"]
    return _start_network(kind, name, certificate, options, files, stack, bulk=bulk, websocket=websocket)


def _start_network(
    kind: str,
    name: str,
    certificate: str | None,
    options: list[str],
    files: Files,
    stack: ExitStack,
    *,
    bulk: bool,
    websocket: bool,
) -> Address:
    # A suffix that is not printed when a child fails: the file has one line per call.
    log = str(files.home / f"{name}-manager.everything")
    whose = "reference" if kind == "reference" else "ours"
    manager = stack.enter_context(
        Child(
            f"{name}-manager",
            "benchmarks.servers.manager",
            whose,
            "--log-file",
            log,
            *options,
            home=files.home,
        )
    )
    port = manager.ready["port"]
    where = [str(port), certificate] if certificate else [str(port)]
    services = {SERVICE: kind} | ({BULK_SERVICE: BULK_SERVER} if bulk else {})
    processes = [manager]
    for service, of in services.items():
        processes.append(
            stack.enter_context(
                Child(f"{name}-{service}", "benchmarks.servers.service", of, service, *where, home=files.home)
            )
        )
    if websocket:
        port = manager.ready["websocket_port"]
    return Address(port, certificate, tuple(process.pid for process in processes))
