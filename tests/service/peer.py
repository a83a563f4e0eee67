"""A scripted Manager at the other end of a Service's connection."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from msl_network_trio import Service
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.memory import memory_pair
from msl_network_trio.transport.tcp import TcpStream

MANAGER = "Manager[vm:1875]"
CLIENT = "Client[vm:50124]"


def tcp_pair() -> tuple[TcpStream, TcpStream]:
    """Return two connected transports."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.socket()
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    for each in (one, other):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setblocking(False)
    return TcpStream(one), TcpStream(other)


@attrs.define
class Peer:
    """The Manager's end of a connection, and the Service that runs at the other end."""

    transport: Stream
    service_end: Stream
    nursery: trio.Nursery | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    error: BaseException | None = None
    received: list[dict[str, Any]] = attrs.field(factory=list)
    _uids: Any = attrs.field(factory=lambda: itertools.count(1))
    _lines: LineBuffer = attrs.field(factory=LineBuffer)
    _ready: list[bytes] = attrs.field(factory=list)

    @classmethod
    def over(cls, carrier: str, capacity: int = 65_536) -> Peer:
        ours, theirs = tcp_pair() if carrier == "tcp" else memory_pair(capacity)
        return cls(theirs, ours)

    async def dial(self) -> Stream:
        await trio.lowlevel.checkpoint()
        return self.service_end

    async def raw_line(self) -> bytes | None:
        """Return the next line from the Service without decoding; None at the end of the stream."""
        while not self._ready:
            data = await self.transport.receive()
            if not data:
                assert not self._lines, f"half a line on the wire: {self._lines.start!r}"
                return None
            self._ready = self._lines.feed(data)[::-1]
        return self._ready.pop()

    async def line(self) -> dict[str, Any] | None:
        """Return the next line from the Service, which must be a JSON object; None at the end."""
        raw = await self.raw_line()
        if raw is None:
            return None
        line = json.loads(raw)
        if "result" in line and self.received:
            assert raw.endswith(b"}\r"), "some clients read up to CRLF"
        self.received.append(line)
        return line

    async def send(self, **fields: Any) -> None:
        await self.transport.send_all(json.dumps(fields).encode() + b"\r\n")

    async def ask(self, attribute: str, *args: Any) -> None:
        await self.send(args=args, attribute=attribute, error=False, kwargs={}, requester=MANAGER, uid="")

    async def shake_hands(self, *, accept: bool = True) -> dict[str, Any]:
        """Request the identity, accept it, and return it."""
        await self.ask("identity")
        line = await self.line()
        assert line is not None
        barrier = await self.line()
        assert barrier is not None
        assert barrier["attribute"] == "unlink"
        if accept:
            await self.accept(barrier["uid"])
        return line["result"]

    async def accept(self, uid: str, name: str = "Service[vm:50123]") -> None:
        await self.send(error=False, requester=name, result=True, uid=uid)

    async def request(self, attribute: str, *args: Any, **kwargs: Any) -> str:
        """Forward a request and return its uid."""
        uid = str(next(self._uids))
        await self.send(
            args=args,
            attribute=attribute,
            error=False,
            kwargs=kwargs,
            service="Service",
            uid=uid,
            requester=CLIENT,
        )
        return uid

    async def answer(self) -> dict[str, Any]:
        """Return the next line, which must be a reply or a notification."""
        line = await self.line()
        assert line is not None, "the Service closed the connection"
        assert "result" in line, line
        return line

    async def call(self, attribute: str, *args: Any, **kwargs: Any) -> Any:
        """Make a request and return its result."""
        uid = await self.request(attribute, *args, **kwargs)
        answer = await self.answer()
        assert not answer["error"], answer
        assert answer["uid"] == uid
        assert answer["requester"] == CLIENT
        return answer["result"]

    async def fail(self, attribute: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Make a request and return its error."""
        uid = await self.request(attribute, *args, **kwargs)
        answer = await self.answer()
        assert answer["error"], answer
        assert answer["result"] is None
        assert answer["uid"] == uid
        assert answer["requester"] == CLIENT
        return answer

    async def expect_goodbye(self) -> None:
        """Read the goodbye, after which the Service waits for the Manager to close the connection."""
        line = await self.line()
        assert line is not None
        assert line["attribute"] == "__disconnect__", line
        assert line.keys() == {"args", "attribute", "error", "kwargs", "service", "uid"}
        assert line["service"] == "Service[vm:50123]"
        self.transport.close()

    async def expect_goodbye_or_end(self) -> None:
        """Read lines up to the goodbye of the Service or the end of the stream."""
        while (line := await self.line()) is not None:
            if line.get("attribute") == "__disconnect__":
                break
        self.transport.close()

    async def run(self, service: Service, **kwargs: Any) -> None:
        """Run a Service and keep what it raises."""
        try:
            with self.scope:
                await Service.run(service, transport=self.dial, **kwargs)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()
            assert closed(self.service_end), "the transport was left open"


def closed(transport: Stream) -> bool:
    if isinstance(transport, TcpStream):
        return transport._sock.fileno() < 0
    return transport._closed


@asynccontextmanager
async def running(
    service: Service, carrier: str = "memory", capacity: int = 65_536, **kwargs: Any
) -> AsyncIterator[Peer]:
    """Run a Service; at the end cancel it, and close our side."""
    peer = Peer.over(carrier, capacity)
    try:
        async with trio.open_nursery() as nursery:
            peer.nursery = nursery
            nursery.start_soon(lambda: peer.run(service, **kwargs))
            await peer.shake_hands()
            await trio.testing.wait_all_tasks_blocked()
            yield peer
            peer.transport.close()
            await peer.ended.wait()
    finally:
        peer.transport.close()
