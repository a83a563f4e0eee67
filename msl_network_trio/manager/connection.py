"""One connection of a Manager: what is to be written is written without anybody waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.manager.delivery import BUSY
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

_JOINED = 262_144
"""How many bytes of small lines to send at a time."""

_GRACE = 5.0
"""How many seconds a peer has to read what it is told last."""

_LINGER = 1.0
"""How many seconds to wait for a peer to close its end: what it has not read is lost when we close ours."""


class Watch(Protocol):
    """Waits for what peers send."""

    def rouse(self, peer: PeerConnection) -> None:
        """Have a task of its own serve a peer from now on."""


class Stalled(ConnectionLost):
    """A peer does not read what waits for it."""


class PeerConnection(Peer):
    """A peer and its carrier.

    What is to be written is sent at once by `flush`. A task writes only while the peer takes less than there
    is for it.

    Args:
        transport: The carrier.
        host: The computer at the other end, or just its name.
        port: The number of its port.
        start_soon: Starts a task of the Manager.
        stalled_after: After how many seconds in which it takes nothing a peer is given up.

    Attributes:
        transport: The carrier.
        reading: Cancels the task that serves the peer; None: there is none at the moment.
        watch: What waits for what the peer sends, while no task does.
        has_stalled: Whether it has been given up because it does not read.
        cut_off: Whether what has been sent may end in the middle of a line.
    """

    __slots__ = (
        "_drained",
        "_stalled_after",
        "_start_soon",
        "_writing",
        "cut_off",
        "has_stalled",
        "reading",
        "transport",
        "watch",
    )

    def __init__(
        self,
        transport: Stream,
        host: Host | str,
        port: int,
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        stalled_after: float,
    ) -> None:
        super().__init__(host, port)
        self.transport = transport
        self.reading: trio.CancelScope | None = None
        self.watch: Watch | None = None
        self._start_soon = start_soon
        self._stalled_after = stalled_after
        self.has_stalled = False
        self.cut_off = False
        self._writing = False
        self._drained: trio.lowlevel.ParkingLot | None = None  # made when needed: most peers take all at once

    def flush(self) -> None:
        """See `Peer.flush`."""
        if self.closing:
            self._stop_reading()
            self._wake()
        outgoing = self.outgoing
        if self._writing or not outgoing:
            return
        self.outgoing = []
        if self.large:
            rest = outgoing
        else:
            data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
            try:
                sent = self.transport.send_nowait(data)
            except ConnectionLost as error:
                self._lose(str(error))
                return
            except Exception as error:
                # A mistake of ours. It must not cost the peer whose line this is its connection.
                logger.exception("%s failed", self)
                self.cut_off = True
                self._lose(repr(error))
                return
            self.backlog -= sent
            self.sent += sent
            if sent == len(data):
                return
            rest = [memoryview(data)[sent:]]
        self._writing = True
        self._start_soon(lambda: self._write(rest))

    async def wait_drained(self, limit: int = BUSY) -> None:
        """Wait until no more than this many bytes wait to be written, or the peer has gone."""
        while self.backlog > limit and not self.closing:
            await self._wait()

    async def _wait(self) -> None:
        """Wait until somebody should look again how much waits to be written."""
        if self._drained is None:
            self._drained = trio.lowlevel.ParkingLot()
        await self._drained.park()

    def _wake(self) -> None:
        if self._drained:
            self._drained.unpark_all()

    async def finish(self, linger: float = _LINGER) -> None:
        """Have the peer read what it is told last, for as long as that makes sense.

        Args:
            linger: How many seconds to wait for it to close its end.
        """
        with trio.move_on_after(_GRACE):
            while self.backlog > 0:
                await self._wait()
        if self.backlog > 0 or self.cut_off:
            return
        self.transport.send_eof()
        try:
            with trio.move_on_after(linger):
                while await self.transport.receive():
                    pass
        except ConnectionLost:
            pass  # it has read as much as it wanted

    def close(self) -> None:
        """Close the connection, at once; it is reset if something still waits to be written."""
        cut_off = self.cut_off or self.backlog > 0
        self.outgoing = []
        self.backlog = 0
        self.closing = self.closing or "the connection has ended"
        self._wake()
        if not cut_off:
            self.transport.send_eof()
        self.transport.end(cut_off=cut_off)

    def reset(self, reason: str) -> None:
        """Reset the connection and drop what waits to be written."""
        self._lose(reason)
        self.transport.abort()

    def _lose(self, reason: str) -> None:
        """The peer cannot be reached: nothing is to be written to it any more."""
        self.outgoing = []
        self.backlog = 0
        self.closing = self.closing or reason
        self._stop_reading()
        self._wake()

    def _stop_reading(self) -> None:
        """Have whoever waits for what the peer sends see to its end."""
        if self.reading is not None:
            self.reading.cancel()
        elif self.watch is not None:
            self.watch.rouse(self)

    @trio.lowlevel.enable_ki_protection
    async def _write(self, pieces: list[bytes | memoryview]) -> None:
        """Write what the peer did not take at once, and what comes after it."""
        try:
            while pieces:
                self.writing = pieces
                for number, piece in enumerate(pieces):
                    await self._write_piece(memoryview(piece))
                    pieces[number] = b""  # it need not be kept until all of them are written
                pieces, self.outgoing = self.outgoing, []
                if not self.large:
                    pieces = _joined(pieces)
                self.large = False
        except ConnectionLost as error:
            self.has_stalled = self.cut_off = isinstance(error, Stalled)
            self._lose(str(error))
        except Exception as error:
            # A mistake of ours. It must not cost other peers their connections.
            logger.exception("%s failed", self)
            self.cut_off = True
            self._lose(repr(error))
        finally:
            self._writing = False
            self.writing = []

    async def _write_piece(self, view: memoryview) -> None:
        while view:
            with trio.move_on_after(self._stalled_after) as scope:
                await self.transport.wait_send()
            if scope.cancelled_caught:
                logger.warning(
                    "%s has read nothing for %g seconds and is dropped", self.name, self._stalled_after
                )
                raise Stalled("it does not read")
            sent = self.transport.send_nowait(view)
            view = view[sent:]
            self.backlog -= sent
            self.sent += sent
            if self.backlog <= BUSY // 2:
                self._wake()


def _joined(lines: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Put small lines together, so that each of them does not take a call of the operating system."""
    joined: list[bytes | memoryview] = []
    batch: list[bytes | memoryview] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= _JOINED:
            joined.append(b"".join(batch))
            batch = []
            size = 0
    if batch:
        joined.append(b"".join(batch))
    return joined
