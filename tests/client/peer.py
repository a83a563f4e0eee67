"""Scripted Manager at the other end of a connection in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from msl_network_trio.dialing import connect as connecting
from msl_network_trio.transport.memory import MemoryStream, memory_pair
from msl_network_trio.transport.websocket import WebSocketStream
from tests.transport.websockets import open_websocket_pair

MANAGER = "Manager[vm:1875]"
ECHO = {
    "attributes": {"add": "(x, y)", "const": 42},
    "address": "vm:1234",
    "language": "Python 3.11.7",
    "os": "Linux",
    "max_clients": -1,
}


@attrs.define
class Peer:
    """The Manager's end of a connection."""

    transport: Any
    client_end: Any
    received: list[dict[str, Any]] = attrs.field(factory=list)
    _buffer: bytes = b""

    async def line(self) -> dict[str, Any] | None:
        """Return the next line from the client; None at the end of the stream."""
        while b"\n" not in self._buffer:
            data = await self.transport.receive()
            if not data:
                assert not self._buffer, f"half a line on the wire: {self._buffer[:80]!r}"
                return None
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\n")
        line = json.loads(text)
        self.received.append(line)
        return line

    async def expect(self, attribute: str) -> str:
        """Wait for a request for this attribute and return its uid."""
        line = await self.line()
        assert line is not None, "the client closed the connection"
        assert line["attribute"] == attribute, line
        return line["uid"]

    async def expect_end(self, *, goodbye: bool = True) -> None:
        """Wait for __disconnect__ or the end of the stream, and close this side as a Manager does."""
        if goodbye:
            await self.expect("__disconnect__")
        else:
            assert await self.line() is None
        self.transport.close()

    def send(self, **fields: Any) -> None:
        data = json.dumps(fields).encode() + b"\r\n"
        assert self.transport.send_nowait(data) == len(data)

    def ask(self, attribute: str, *args: Any) -> None:
        self.send(args=args, attribute=attribute, error=False, kwargs={}, requester=MANAGER, uid="")

    def reply(self, uid: str, result: Any) -> None:
        self.send(error=False, requester="Client[vm:1]", result=result, uid=uid)

    def fail(self, uid: str, message: str, requester: str = "Client[vm:1]") -> None:
        self.send(error=True, message=message, requester=requester, result=None, traceback=[], uid=uid)

    async def shake_hands(self) -> None:
        self.ask("identity")
        line = await self.line()
        assert line is not None
        assert line["result"]["type"] == "client"

    async def link(self, identity: Any = ECHO) -> None:
        self.reply(await self.expect("link"), identity)

    async def serve(self) -> None:
        """Serve like a Manager with one Service: link, unlink, identity, add; close on __disconnect__."""
        while (line := await self.line()) is not None:
            match line["attribute"]:
                case "link":
                    self.reply(line["uid"], ECHO)
                case "unlink":
                    self.reply(line["uid"], True)
                case "identity":
                    self.reply(
                        line["uid"],
                        {"hostname": "vm", "port": 1875, "clients": {}, "services": {"Echo": ECHO}},
                    )
                case "add":
                    self.reply(line["uid"], sum(line["args"]))
                case "size":
                    self.reply(line["uid"], len(line["args"][0]))
                case "silent":
                    pass
                case "__disconnect__":
                    break
                case other:
                    self.fail(line["uid"], f"AttributeError: {other}")
        self.transport.close()


class LinesEnd:
    """The Manager's end of a WebSocket, with the interface of a connection in memory.

    Args:
        websocket: The WebSocket.
        carrier: The stream below it.
    """

    def __init__(self, websocket: WebSocketStream, carrier: MemoryStream) -> None:
        self._websocket = websocket
        self.send_nowait = websocket.send_nowait
        self.receive = websocket.receive
        self.send_eof = websocket.send_eof
        self.reset = carrier.reset

    def close(self) -> None:
        """Close it after the data that was sent, as a connection in memory does."""
        self._websocket.send_eof()
        trio.lowlevel.spawn_system_task(self._close)

    async def _close(self) -> None:
        with trio.move_on_after(1):
            await self._websocket.receive()
        self._websocket.close()


@attrs.define
class Network:
    """A network in which each connect() gets its own peer."""

    capacity: int = 65_536
    websocket: bool = False
    """Whether to use WebSocket."""

    opened: list[tuple[Any, Any]] = attrs.field(factory=list)
    _send: trio.MemorySendChannel[Peer] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[Peer] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(100)

    async def dial(self, *_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.websocket:
            client, server, _, carrier = await open_websocket_pair(self.capacity)
            self.opened.append((client, server))
            self._send.send_nowait(Peer(LinesEnd(server, carrier), client))
            return client
        ours, theirs = memory_pair(self.capacity)
        self.opened.append((ours, theirs))
        self._send.send_nowait(Peer(theirs, ours))
        return ours

    async def accept(self) -> Peer:
        """Wait for the next connect() to dial."""
        return await self._receive.receive()

    def assert_all_closed(self) -> None:
        for ours, _ in self.opened:
            assert ours._closed, "a transport was left open"


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch, carrier: str) -> AsyncIterator[Network]:
    """Make connect() dial a `Network`, and check at the end that everything is closed and no task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    network = Network(websocket=carrier == "websocket")
    monkeypatch.setattr(connecting, "_open_stream", network.dial)
    yield network
    network.assert_all_closed()
    for _, theirs in network.opened if network.websocket else ():
        theirs.close()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= before, "a task was left running"


@asynccontextmanager
async def served(network: Network) -> AsyncIterator[trio.Nursery]:
    """Accept connections, and serve them as a Manager does."""
    async with trio.open_nursery() as nursery:

        async def one(peer: Peer) -> None:
            await peer.shake_hands()
            await peer.serve()

        async def accept() -> None:
            while True:
                nursery.start_soon(one, await network.accept())

        nursery.start_soon(accept)
        yield nursery
        nursery.cancel_scope.cancel()
