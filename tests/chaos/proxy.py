"""Proxy in front of a Manager that injects faults into the connections of clients and Services.

It runs in the Trio thread. Faults follow a `Schedule`, counted in bytes or lines of each direction. Between
TLS peers it forwards the encrypted bytes, or, for faults at lines, ends TLS on both sides.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections import Counter
from contextlib import suppress
from typing import Literal

import attrs
import trio

from tests.chaos.oracle import Ledger
from tests.chaos.schedule import DirectionSchedule, Fault, Kind, Schedule
from tests.chaos.units import NOISE, Frames, Lines, Splitter, Unit

RECEIVE = 65_536
Wire = Literal["tcp", "tls", "websocket"]
Side = Literal["to Manager", "from Manager"]

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)
"""What streams raise when the connection has ended."""


@attrs.frozen
class TlsEnds:
    """Contexts with which the proxy ends TLS on both sides.

    Args:
        accept: Towards the peer; has the key of the Manager.
        dial: Towards the Manager.
    """

    accept: ssl.SSLContext
    dial: ssl.SSLContext

    @classmethod
    def of_manager(cls, certificate: str, key: str) -> TlsEnds:
        """Return the contexts for a Manager with this certificate and key."""
        accept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        accept.load_cert_chain(certificate, key)
        dial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        dial.check_hostname = False
        dial.load_verify_locations(certificate)
        return cls(accept, dial)


class Cut(Exception):
    """The fault ends the connection."""


class FaultProxy:
    """The proxy.

    Args:
        port: Port of the Manager.
        schedule: The faults.
        wire: What is forwarded.
        ledger: Records lines that are dropped, duplicated or invalid.
        tls: Contexts for faults at lines in TLS.

    Attributes:
        counts: The faults so far, by kind.
        address: Port on which it listens.
    """

    def __init__(
        self, port: int, schedule: Schedule, wire: Wire, ledger: Ledger, tls: TlsEnds | None = None
    ) -> None:
        self.port = port
        self.wire = wire
        self.ledger = ledger
        self.counts: Counter[str] = Counter()
        self.address = 0
        self._schedule = schedule
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._number = 0
        self._calm = trio.Event()
        self._calm.set()

    # ---- control ----

    @property
    def is_calm(self) -> bool:
        """Whether no faults are injected."""
        return self._calm.is_set()

    def rage(self) -> None:
        """Start to inject faults."""
        if self.is_calm:
            self._calm = trio.Event()

    def calm(self) -> None:
        """Inject no more faults; connections that are half dead are reset, stalls end."""
        self._calm.set()

    def reset_all(self) -> None:
        """Reset all connections."""
        for connection in list(self._connections):
            connection.reset()

    async def wait_calm(self, seconds: float) -> None:
        """Wait until the proxy is calm, or some seconds have passed."""
        with trio.move_on_after(seconds):
            await self._calm.wait()

    # ---- serving ----

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept connections until cancelled; report the port."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1000)
        self.address = listener.socket.getsockname()[1]
        task_status.started(self.address)
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, peer: trio.SocketStream) -> None:
        self._number += 1
        try:
            manager = await trio.open_tcp_stream("127.0.0.1", self.port)
        except OSError:
            reset(peer)
            return
        connection = _Connection(self, peer, manager, *self._schedule.connection(self._number))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    @property
    def ends(self) -> TlsEnds | None:
        """The contexts for faults at lines in TLS; None: the wire is not TLS."""
        return self._tls if self.wire == "tls" else None


def reset(stream: trio.SocketStream) -> None:
    """Close a stream so that its peer gets a reset."""
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()


@attrs.define(eq=False)
class _Connection:
    """One connection through the proxy."""

    proxy: FaultProxy
    peer: trio.SocketStream
    manager: trio.SocketStream
    to_manager: DirectionSchedule
    from_manager: DirectionSchedule
    is_dead: bool = False
    """Whether neither direction forwards anything until the end."""

    is_held: bool = False
    """Whether the Manager's side stays open although the peer's side is closed."""

    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        with self._scope:
            try:
                await self._forward()
            except (Cut, *BROKEN):
                pass
            except BaseExceptionGroup as group:
                if group.split((Cut, *BROKEN, trio.Cancelled))[1] is not None:
                    raise
        for stream in (self.peer, self.manager):
            reset(stream)

    def reset(self) -> None:
        self._scope.cancel()

    async def _forward(self) -> None:
        peer: trio.abc.Stream = self.peer
        manager: trio.abc.Stream = self.manager
        by_line = self.to_manager.by_line
        if by_line and self.proxy.ends is not None:
            peer = trio.SSLStream(peer, self.proxy.ends.accept, server_side=True, https_compatible=True)
            manager = trio.SSLStream(
                manager, self.proxy.ends.dial, server_hostname="localhost", https_compatible=True
            )
        is_raw = not by_line or self.proxy.ends is None
        async with trio.open_nursery() as nursery:
            for side, source, sink, faults in (
                ("to Manager", peer, manager, self.to_manager),
                ("from Manager", manager, peer, self.from_manager),
            ):
                splitter = self._splitter(side) if by_line else None
                direction = _Direction(self, side, source, sink, faults, splitter, is_raw)
                nursery.start_soon(direction.run)

    def _splitter(self, side: str) -> Splitter:
        if self.proxy.wire == "websocket":
            return Frames(is_masked=side == "to Manager")
        return Lines()


@attrs.define(eq=False)
class _Direction:
    """One direction of a connection."""

    connection: _Connection
    side: str
    source: trio.abc.Stream
    sink: trio.abc.Stream
    faults: DirectionSchedule
    splitter: Splitter | None
    is_raw: bool
    """Whether the streams are sockets."""

    _fault: Fault = attrs.field(init=False)
    _left: float = attrs.field(init=False)
    _is_split: bool = False

    def __attrs_post_init__(self) -> None:
        self._advance()

    def _advance(self) -> None:
        self._fault = self.faults.next()
        self._left = self._fault.after

    @property
    def proxy(self) -> FaultProxy:
        return self.connection.proxy

    async def run(self) -> None:
        try:
            while data := await self.source.receive_some(RECEIVE):
                if self.splitter is None:
                    await self._bytes(data)
                else:
                    for unit in self.splitter.feed(data):
                        await self._unit(unit)
            if self.splitter is not None:
                await self._send(self.splitter.rest())
            await self._end()
        except BROKEN:
            if self.connection.is_held:
                await trio.sleep_forever()
            raise Cut from None

    async def _end(self) -> None:
        """Pass the end of the stream on."""
        if isinstance(self.sink, trio.SocketStream):
            await self.sink.send_eof()
        else:
            raise Cut  # TLS has no half close

    async def _send(self, data: bytes) -> None:
        if self.connection.is_dead:
            await trio.sleep_forever()
        if self._is_split:
            for position in range(len(data)):
                await self.sink.send_all(data[position : position + 1])
        elif data:
            await self.sink.send_all(data)

    # ---- faults ----

    async def _bytes(self, data: bytes) -> None:
        """Forward bytes, with faults at some of them."""
        while not self.proxy.is_calm and len(data) >= self._left:
            before, data = data[: int(self._left)], data[int(self._left) :]
            await self._send(before)
            fault = self._fault
            self._advance()
            self._is_split = False
            await self._inject(fault)
            if fault.kind == "noise":
                # The end of the line that it has cut must not arrive: the ledger would have to name the line.
                self.proxy.ledger.noise += 1
                await self._send(NOISE + b"\n")
                await self.proxy.wait_calm(0.05)
                raise Cut
        if not self.proxy.is_calm:
            self._left -= len(data)
        else:
            self._is_split = False
        await self._send(data)

    async def _unit(self, unit: Unit) -> None:
        """Forward a line or message, perhaps with a fault."""
        assert self.splitter is not None
        self._left -= not self.proxy.is_calm
        if self.proxy.is_calm or self._left > 0:
            await self._send(unit.data)
            return
        fault = self._fault
        if fault.kind in ("drop", "duplicate") and not (unit.tokens or unit.numbers):
            # The next line: what is right after the loss of an answer to `link`, say, cannot be told.
            self._left = 1
            await self._send(unit.data)
            return
        self._advance()
        ledger = self.proxy.ledger
        match fault.kind:
            case "drop":
                ledger.dropped.update(unit.tokens)
                ledger.numbers.update(unit.numbers)
                self._count(fault.kind)
                return
            case "duplicate":
                if unit.is_request:
                    ledger.duplicated.update(unit.tokens)
                ledger.numbers.update(unit.numbers)
                await self._send(unit.data)
            case "noise":
                ledger.noise += 1
                await self._send(self.splitter.noise())
            case "cut line":
                self._count(fault.kind)
                await self._send(unit.data[: max(1, len(unit.data) // 2)])
                raise Cut
        await self._inject(fault)
        await self._send(unit.data)

    def _count(self, kind: Kind) -> None:
        self.proxy.counts[f"{kind} {self.side}"] += 1

    async def _inject(self, fault: Fault) -> None:
        self._count(fault.kind)
        connection = self.connection
        match fault.kind:
            case "delay" | "stall":
                await self.proxy.wait_calm(fault.seconds)
            case "split":
                self._is_split = True
            case "reset":
                raise Cut
            case "half close":
                # The other direction goes on: the peer may still answer.
                if isinstance(self.sink, trio.SocketStream):
                    await self.sink.send_eof()
                    await self.proxy.wait_calm(1.0)
                raise Cut
            case "half dead":
                # The peer is cut off, while the Manager goes on to believe in the connection.
                connection.is_held = True
                reset(connection.peer)
                await self.proxy.wait_calm(fault.seconds)
                raise Cut
            case "black hole":
                # Neither direction forwards anything; the peers must notice by themselves.
                connection.is_dead = True
                await self.proxy.wait_calm(fault.seconds)
                raise Cut
