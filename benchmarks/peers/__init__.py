"""Other packages for calls between processes, in modules with the same interface.

Each module has ``serve(files, announce)``, which serves ``add(a, b)`` and ``echo(value)`` until it is
killed, over TLS if there are files, and announces its port; and ``measure(task)`` like any client. Both use
the fastest method in the documentation of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.processes import venv_program

Announce = Callable[..., None]
"""Called with the port on which a peer listens, and its server processes unless it is this one."""


class Files(NamedTuple):
    """Certificate and key for TLS."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Peer:
    """Facts about a peer that are available without importing it."""

    name: str
    package: str
    """Name of the distribution to install."""

    module: str
    needs: str
    """Name of the module to import."""

    transports: tuple[str, ...]
    about: str
    """Description of its use and its features in comparison with this package."""

    program: str = ""
    """Program that it needs."""

    def missing(self) -> str | None:
        """Return the reason why it cannot be measured here; None if it can be."""
        if find_spec(self.needs) is None:
            return f"{self.package} is not installed"
        if self.program and venv_program(self.program) is None:
            return f"the program {self.program} is not installed"
        return None


PEERS: Final = (
    Peer(
        "rpyc",
        "rpyc",
        "benchmarks.peers.on_rpyc",
        "rpyc",
        ("tcp", "tls"),
        "Threads. Point to point: no hub at which clients and services find each other. Remote objects "
        "are used like local ones; async_() for concurrent calls; floats as a tuple, which is passed by "
        "value, without JSON.",
    ),
    Peer(
        "Pyro5",
        "Pyro5",
        "benchmarks.peers.on_pyro5",
        "Pyro5",
        ("tcp", "tls"),
        "Threads. Point to point. A connection executes one call at a time: the 100 in flight are "
        "batches, whose results arrive together. Serializer marshal, the fastest of the package; json for "
        "batches.",
    ),
    Peer(
        "aiorpcX",
        "aiorpcX",
        "benchmarks.peers.on_aiorpcx",
        "aiorpcx",
        ("tcp", "tls"),
        "asyncio, on uvloop if installed. Point to point. JSON-RPC in lines, the protocol most similar to "
        "MSL-Network; its load limits are switched off.",
    ),
    Peer(
        "pyzmq",
        "pyzmq",
        "benchmarks.peers.on_pyzmq",
        "zmq",
        ("tcp",),
        "Blocking DEALER and ROUTER sockets, MessagePack by msgspec. Point to point, messages instead of "
        "calls: numbers, errors, names and the list of peers are left to the user. No TLS (CURVE "
        "instead).",
    ),
    Peer(
        "NATS",
        "nats-py",
        "benchmarks.peers.on_nats",
        "nats",
        ("tcp", "tls"),
        "asyncio, on uvloop if installed. A hub written in Go. Request and reply by subject, MessagePack "
        "by msgspec; arguments, errors and the list of peers are left to the user.",
        program="nats-server",
    ),
    Peer(
        "gRPC",
        "grpcio",
        "benchmarks.peers.on_grpc",
        "grpc",
        ("tcp", "tls"),
        "Its asyncio API, over a core in C++. Point to point, HTTP/2, MessagePack by msgspec instead of "
        "compiled message types.",
    ),
)
"""All peers; those that are not installed are skipped."""


def peer_named(name: str) -> Peer | None:
    """Return the peer with a name, or None."""
    return next((peer for peer in PEERS if peer.name == name), None)
