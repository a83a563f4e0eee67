"""A Manager without I/O, and peers whose outgoing lines tests read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import PeerQueue
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import ManagerProtocol

NAME = "Manager[vm:1875]"


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Network:
    """A Manager and its peers.

    Args:
        password: The password of the Manager; None: it has none.
        options: As for `ManagerProtocol`.
    """

    def __init__(self, password: str | None = None, **options: Any) -> None:
        options.setdefault("max_backlog", 1_000_000)
        if password is not None:
            options["authentication"] = Authentication(password)
        self.protocol = ManagerProtocol(NAME, {"hostname": "vm", "port": 1875}, **options)
        self._password = password
        self._port = 0

    def connect(self) -> Peer:
        """Connect a peer that has not said anything yet."""
        self._port += 1
        peer = Peer("vm", self._port)
        self.protocol.connect(peer)
        return peer

    def peer(self, name: str = "C", kind: str = "client", **more: Any) -> Peer:
        """Connect a peer that has said who it is."""
        peer = self.connect()
        if self._password is not None:
            self.send(peer, {"result": self._password})
        if kind == "service":
            more.setdefault("attributes", {})
        self.send(peer, {"result": {"name": name, "type": kind, **more}, "error": False, "uid": ""})
        assert read(peer)[-1]["attribute"] == "identity"
        assert peer.phase is Phase.READY
        return peer

    def send(self, peer: Peer, *lines: Any) -> None:
        """Send lines of a peer at once, as bytes or fields to encode, with as many turns as needed."""
        self.protocol.receive(peer, b"".join(encoded(line) + b"\r\n" for line in lines))
        while peer.phase is Phase.YIELDING:
            self.protocol.receive_more(peer)

    def send_in_pieces(self, peer: Peer, data: bytes, sizes: Iterable[int]) -> None:
        """Send bytes of a peer in pieces of the given sizes, and then the rest."""
        for size in sizes:
            self.protocol.receive(peer, data[:size])
            data = data[size:]
        self.protocol.receive(peer, data)


def encoded(line: Any) -> bytes:
    """A line without its end."""
    return line if isinstance(line, bytes) else json.dumps(line).encode()


def queue_of(peer: Peer) -> PeerQueue:
    """Return the lines queued for a peer."""
    assert isinstance(peer.route, PeerQueue)
    return peer.route


def raw(peer: Peer) -> bytes:
    """Take what is to be written to a peer, as the I/O layer does."""
    queue = queue_of(peer)
    data = b"".join(queue.pieces)
    queue.pieces = []
    queue.has_large = False
    queue.backlog -= len(data)
    assert queue.backlog == 0
    return data


def read(peer: Peer) -> list[Any]:
    """Take what is to be written to a peer, and decode the lines."""
    data = raw(peer)
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def request(service: str, attribute: str, *args: Any, uid: Any = "1", **kwargs: Any) -> dict[str, Any]:
    """The fields of a request."""
    return {
        "args": args,
        "attribute": attribute,
        "error": False,
        "kwargs": kwargs,
        "service": service,
        "uid": uid,
    }


def reply(to: dict[str, Any], result: Any) -> dict[str, Any]:
    """The fields of the answer of a Service to a request that it has received."""
    return {"error": False, "requester": to["requester"], "result": result, "uid": to["uid"]}


def notification(service: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The fields of a notification."""
    return {"error": False, "result": [list(args), kwargs], "service": service, "uid": "notification"}
