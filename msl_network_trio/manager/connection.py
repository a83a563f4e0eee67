"""One connection of a Manager: its peer, its stream, and the queue of lines to send.

Runs in the Trio thread. Nothing waits for a peer to read: `PeerConnection.flush` sends what the kernel takes,
and only while it takes no more does a task send the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import BacklogLimit, PeerQueue
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.route import CONGESTED, NO_ROUTE
from msl_network_trio.transport.base import Pollable, Stream
from msl_network_trio.transport.send_queue import CHUNK, SendQueue, Stalled

logger = get_logger(__name__)

_FLUSH_TIMEOUT: Final = 5.0
"""Seconds for a peer to read the last lines."""

_LINGER: Final = 1.0
"""Seconds to wait for a peer to close its end: what it has not read is lost when the Manager closes first."""

_CLOSING: Final = Phase.CLOSING


class Poller(Protocol):
    """Receives for peers that have no task."""

    def wake(self, connection: PeerConnection) -> None:
        """Start a task that serves a peer from now on."""


class PeerConnection(PeerQueue):
    """The connection of a peer, and the `Route` to it.

    Args:
        peer: The peer.
        stream: The connection.
        limit: The limit that all queues of the Manager share.
        start_soon: Starts a task of the Manager.
        stalled_after: Seconds in which the peer accepts nothing until it is dropped.

    Attributes:
        stream: The connection.
        pollable: The socket of the stream, if it can be polled.
        scope: Cancels the task that serves the peer; None: it has none at the moment.
        poller: The poller that serves the peer while no task does.
        has_stalled: Whether it was dropped because it did not read.
        cut_off: Whether a part of a line may have been sent of which the rest will not be.
    """

    __slots__ = (
        "_sender",
        "_stalled_after",
        "_start_soon",
        "cut_off",
        "has_stalled",
        "pollable",
        "poller",
        "scope",
        "stream",
    )

    def __init__(
        self,
        peer: Peer,
        stream: Stream,
        limit: BacklogLimit,
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        stalled_after: float,
    ) -> None:
        super().__init__(peer, limit)
        self.stream = stream
        self.pollable: Pollable | None = stream.pollable
        self.scope: trio.CancelScope | None = None
        self.poller: Poller | None = None
        self.has_stalled = False
        self.cut_off = False
        self._start_soon = start_soon
        self._stalled_after = stalled_after
        self._sender: _Sender | None = None

    # ---- sending ----

    def flush(self) -> None:
        """Send queued lines without waiting, and stop receiving from a peer that is closing.

        Most of the time the peer accepts all lines in one call. Only if it does not is there a `_Sender`.
        """
        if self.peer.phase is _CLOSING:
            self._stop_receiving()
        pieces = self.pieces
        if self._sender is not None or not pieces:
            return
        if not self.has_large:
            self.pieces = []
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            try:
                sent = self.stream.send_nowait(data)
            except Exception as error:  # noqa: BLE001 - it is logged there
                self.fail(error)
                return
            self.backlog -= sent
            self.sent += sent
            if sent == len(data):
                return
            self.writing = [memoryview(data)[sent:]]
        self._sender = _Sender(self, self._stalled_after)
        self._sender.flush()
        self.end_sender()

    def start_sender(self, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the task of the sender."""
        self._start_soon(send)

    def end_sender(self) -> None:
        """Remove the sender, unless it has data left to send or has failed."""
        if self._sender is not None and not self._sender.is_blocked:
            self._sender = None

    def fail(self, error: Exception) -> None:
        """Drop the peer, to which nothing can be sent any more because of an error."""
        reason = str(error)
        if isinstance(error, Stalled):
            self.has_stalled = self.cut_off = True
            reason = "it does not read"
            logger.warning("%s has read nothing for %g seconds and is dropped", self.peer.name, error.seconds)
        elif not isinstance(error, ConnectionLost):
            # An error of this program. It must not cost the peers that have queued something for this one.
            logger.error("%s failed", self.peer, exc_info=error)
            self.cut_off = True
            reason = repr(error)
        self._lose(reason)

    async def wait_drained(self, limit: int = CONGESTED) -> None:
        """Wait until no more than `limit` bytes are queued, or the connection is closing."""
        while self.backlog > limit and self.peer.phase is not _CLOSING:
            await self._wait_progress()
            # The task of a peer that is dropped is woken first, and cancelled then.
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _wait_progress(self) -> None:
        assert self._sender is not None  # else nothing would be queued
        await self._sender.wait_progress()

    # ---- the end ----

    async def finish(self, linger: float = _LINGER) -> None:
        """Wait until the peer has read the last lines, within the time limits.

        Args:
            linger: Maximum seconds to wait for the peer to close its end.
        """
        with trio.move_on_after(_FLUSH_TIMEOUT):
            while self.backlog > 0:
                await self._wait_progress()
        if self.backlog > 0 or self.cut_off:
            return
        self.stream.send_eof()
        try:
            with trio.move_on_after(linger):
                while await self.stream.receive():
                    pass
        except ConnectionLost:
            pass  # the peer does not read the rest

    def close(self) -> None:
        """Close the connection at once; it is reset if something is still queued."""
        cut_off = self.cut_off or self.backlog > 0
        self.peer.route = NO_ROUTE  # no cycle of references, so that the memory is free at once
        self.peer.close("the connection has ended")
        self._drop_queued()
        if not cut_off:
            self.stream.send_eof()
        self.stream.end(cut_off=cut_off)

    def reset(self, reason: str) -> None:
        """Reset the connection and drop what is queued."""
        self._lose(reason)
        self.stream.abort()

    def _lose(self, reason: str) -> None:
        """Stop sending and receiving: the connection is broken."""
        self.peer.close(reason)
        self._drop_queued()
        self._stop_receiving()

    def _drop_queued(self) -> None:
        self.pieces = []
        self.backlog = 0
        if self._sender is not None:
            self._sender.discard()

    def _stop_receiving(self) -> None:
        """Let a task disconnect the peer, and wake the tasks that wait for room in its queue."""
        if self._sender is not None:
            self._sender.wake_waiting()
        if self.scope is not None:
            self.scope.cancel()
        elif self.poller is not None:
            self.poller.wake(self)


class _Sender(SendQueue):
    """The send queue of a peer while the peer does not accept all that is queued for it.

    Args:
        connection: The connection of the peer.
        stalled_after: See `SendQueue`.
    """

    __slots__ = ("_connection", "_has_taken", "stalled_after")

    caught = (Exception,)

    def __init__(self, connection: PeerConnection, stalled_after: float) -> None:
        super().__init__(connection.stream)
        self.stalled_after = stalled_after
        self._connection = connection
        self._has_taken = False

    def take(self) -> bytes | memoryview:
        """See `SendQueue.take`. The data stays in `PeerQueue.writing` until the next call, to be counted."""
        connection = self._connection
        if self._has_taken:
            assert connection.writing is not None
            connection.writing.pop()  # it has been sent
        if not connection.writing:
            pieces, connection.pieces = connection.pieces, []
            connection.writing = pieces[::-1] if connection.has_large else _joined(pieces)[::-1]
            connection.has_large = False
        self._has_taken = bool(connection.writing)
        if self._has_taken:
            return connection.writing[-1]
        connection.writing = None
        return b""

    def on_sent(self, count: int) -> None:
        """See `SendQueue.on_sent`."""
        self._connection.backlog -= count
        self._connection.sent += count

    def on_progress(self) -> None:
        """See `SendQueue.on_progress`; waiters continue at half the limit, to avoid the next wait at once."""
        if self._connection.backlog <= CONGESTED // 2:
            self.wake_waiting()

    def on_error(self, error: Exception) -> None:
        """See `SendQueue.on_error`."""
        self._connection.fail(error)

    def start_task(self) -> None:
        """See `SendQueue.start_task`."""
        self._connection.start_sender(self._run)

    async def _run(self) -> None:
        await self.send_rest()
        self._connection.end_sender()


def flush_all(touched: list[PeerQueue]) -> None:
    """Flush queues and empty their list, so that lines received together are also sent together."""
    for queue in touched:
        queue.flush()
    touched.clear()


def _joined(lines: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """Join small lines, so that not each of them takes a system call."""
    joined: list[bytes | memoryview] = []
    batch: list[bytes | memoryview] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= CHUNK:
            joined.append(b"".join(batch))
            batch = []
            size = 0
    if batch:
        joined.append(b"".join(batch))
    return joined
