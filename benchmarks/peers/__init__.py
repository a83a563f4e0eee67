"""Other packages for calls between processes, each in a module that looks the same to the harness.

Such a module has ``serve(files, announce)``, which serves ``add(a, b)`` and ``echo(value)`` until it is
killed, over TLS if there are files, and tells where; and ``measure(task)`` as any client has. It does both in
the fastest way that the documentation of its package offers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.processes import venv_program

Announce = Callable[..., None]
"""Is told the port on which a peer listens, and the processes that serve if not just this one."""


class Files(NamedTuple):
    """What TLS needs."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Peer:
    """What is known of a peer without importing it."""

    name: str
    package: str
    """As it is called where it is installed from."""

    module: str
    needs: str
    """The module that it is imported as."""

    transports: tuple[str, ...]
    about: str
    """How it is driven, and what that gives and does not give, beside ours."""

    program: str = ""
    """A program that has to be there, too."""

    def missing(self) -> str | None:
        """Return why it cannot be measured here; None if it can be."""
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
        "Threads. Point to point: no hub at which many clients and services find each other. Remote objects "
        "are used as if they were local; async_() for calls at the same time; floats as a tuple, which goes "
        "by value, without JSON.",
    ),
    Peer(
        "Pyro5",
        "Pyro5",
        "benchmarks.peers.on_pyro5",
        "Pyro5",
        ("tcp", "tls"),
        "Threads. Point to point. A connection does one call at a time: the 100 in flight are batches, all "
        "of whose results come together. Serializer marshal, the fastest of its own; for batches json.",
    ),
    Peer(
        "aiorpcX",
        "aiorpcX",
        "benchmarks.peers.on_aiorpcx",
        "aiorpcx",
        ("tcp", "tls"),
        "asyncio, on uvloop where it is installed. Point to point. JSON-RPC in lines, the nearest relative "
        "of our protocol; its limits on load are switched off.",
    ),
    Peer(
        "pyzmq",
        "pyzmq",
        "benchmarks.peers.on_pyzmq",
        "zmq",
        ("tcp",),
        "Blocking DEALER and ROUTER sockets, MessagePack by msgspec. Point to point, and no calls but "
        "messages: numbers, errors, names and who is there are left to the user. No TLS (CURVE instead).",
    ),
    Peer(
        "NATS",
        "nats-py",
        "benchmarks.peers.on_nats",
        "nats",
        ("tcp", "tls"),
        "asyncio, on uvloop where it is installed. A hub as ours is, but written in Go. Request and reply by "
        "subject, MessagePack by msgspec; arguments, errors and who is there are left to the user.",
        program="nats-server",
    ),
    Peer(
        "gRPC",
        "grpcio",
        "benchmarks.peers.on_grpc",
        "grpc",
        ("tcp", "tls"),
        "Its asyncio API, over a core in C++. Point to point, HTTP/2, MessagePack by msgspec in the place of "
        "compiled message types.",
    ),
)
"""All of them; those that are not installed are skipped."""


def peer_named(name: str) -> Peer | None:
    """Return the peer of a name, or None."""
    return next((peer for peer in PEERS if peer.name == name), None)
