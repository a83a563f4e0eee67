"""The send queue of a client: its source is the outbox of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import SendQueue

_THREAD: Final = object()
"""The sender of a batch that a thread sends, which holds the lock meanwhile."""


class RequestQueue(SendQueue):
    """The requests of a connection, from when they are queued until they are sent.

    A request that is alone is sent at once. While replies are outstanding, requests are sent by the task when
    all ready tasks have run, so that those of many tasks go out together. Until then they can be withdrawn.

    Once threads use the connection, its lock protects the queue and the protocol. Threads hold it while they
    send, which takes microseconds: a second acquisition would cost as much as a tenth of a call. In the Trio
    thread, the public methods acquire it.

    Args:
        protocol: The protocol.
        stream: The stream.
        max_unsent: Maximum bytes that wait in the outbox before a request waits for room. A single request
            may be larger.
        start: Starts the task `run`.
        on_error: Called in the Trio thread when nothing can be sent any more.
        on_accepted: Called when the peer has accepted data that had to wait.

    Attributes:
        max_unsent: See above.
        waiting: Number of requests that wait for room.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        stream: Stream,
        max_unsent: int,
        *,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        on_error: Callable[[ConnectionLost], None],
        on_accepted: Callable[[], None],
    ) -> None:
        super().__init__(stream)
        self.max_unsent = max_unsent
        self.waiting = 0
        self._protocol = protocol
        self._outbox = protocol.outbox
        self._lock = stream.lock
        self._is_shared = False
        self._flush_threshold = stream.flush_threshold
        self._io = stream.thread_io
        self._start = start
        self._on_error = on_error
        self._on_accepted = on_accepted
        self._turns = trio.StrictFIFOLock()

    # ---- the source ----

    def take(self) -> bytes:
        """See `SendQueue.take`."""
        data = self._outbox.take() if self._outbox.unsent else b""
        if self.waiting:
            self.wake_waiting()
        return data

    def on_progress(self) -> None:
        """See `SendQueue.on_progress`."""
        self._on_accepted()
        self.wake_waiting()

    def on_error(self, error: Exception) -> None:
        """See `SendQueue.on_error`."""
        assert isinstance(error, ConnectionLost)  # see `caught`
        self._on_error(error)

    def start_task(self) -> None:
        """See `SendQueue.start_task`."""
        self._start(self.run)

    # ---- room ----

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.unsent + self.rest_size

    def has_room(self, size: int) -> bool:
        """Return whether a request of this size can be queued now, and no other waits for room."""
        return self.waiting == 0 and self._fits(size)

    def _fits(self, size: int) -> bool:
        # Without the rest of the batch that is being sent: it may be larger than all room.
        unsent = self._outbox.unsent
        return unsent == 0 or unsent + size <= self.max_unsent

    # ---- queuing, in the Trio thread ----

    @trio.lowlevel.enable_ki_protection
    def put(self, request: Request) -> bool:
        """Queue a request if there is room, and send it now or with others.

        Returns:
            Whether there was room.

        Raises:
            ConnectionLost: The connection has ended.
        """
        if self._is_shared:
            with self._lock:
                return self._put(request)
        return self._put(request)

    def _put(self, request: Request) -> bool:
        outbox = self._outbox
        unsent = outbox.unsent
        size = len(request.data)
        if self.waiting or (unsent and unsent + size > self.max_unsent):
            return False
        if self._protocol.is_over:
            self._protocol.check_open(request.service)
        outbox.add(request)
        if self._batch is not None:
            return True  # the task sends it behind the rest
        if outbox.open and unsent + size < self._flush_threshold:
            self.flush_soon()
            return True
        # With no reply outstanding, no other task is likely to queue a request in the same moment.
        if data := outbox.take():
            self._offer(data)
        if outbox.unsent:
            self.flush_soon()
        return True

    @trio.lowlevel.enable_ki_protection
    async def put_when_there_is_room(self, request: Request) -> None:
        """Queue a request when there is room for it, first come, first served. See `put`."""
        size = len(request.data)
        self.waiting += 1
        try:
            async with self._turns:
                while not self._fits(size):
                    self._protocol.check_open(request.service)
                    await self.wait_progress()
                self.put_in_any_case(request)
        finally:
            self.waiting -= 1

    @trio.lowlevel.enable_ki_protection
    def put_in_any_case(self, request: Request) -> None:
        """Queue a request even if there is no room. See `put`."""
        with self._lock:
            self._protocol.request(request)
            self.schedule_flush()

    # ---- sending, in the Trio thread ----

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """See `SendQueue.flush`."""
        with self._lock:
            super().flush()

    @trio.lowlevel.enable_ki_protection
    def schedule_flush(self) -> None:
        """Flush now, or soon, together with the requests of other tasks, if replies are outstanding."""
        if self.waiting:
            self.wake_waiting()  # a withdrawn request may have made room
        if self.is_blocked or (self._outbox and self._outbox.open):
            self.flush_soon()
        elif self._outbox:
            self.flush()

    def _send_after_wait(self, rest: bytes | memoryview) -> None:
        with self._lock:
            super()._send_after_wait(rest)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """See `SendQueue.run`."""
        await super().run()

    @trio.lowlevel.enable_ki_protection
    async def drain(self) -> None:
        """Wait until everything is sent that the gate does not hold back, or until `discard`."""
        self.flush()
        while self.is_blocked and not self.failed:
            await self.wait_progress()

    # ---- threads, with the lock held ----

    def share(self) -> None:
        """Let threads use the queue from now on; in the Trio thread."""
        self._is_shared = True

    @property
    def is_clear(self) -> bool:
        """Whether a thread may send: nothing is being sent, nor waits to be sent before."""
        return self._batch is None and self._io is not None and self._outbox.is_clear

    def begin(self, data: bytes) -> None:
        """Note the data that a thread sends from now on; `leave_unsent` needs it after an interruption."""
        self._batch = (_THREAD, data, [])

    def send_in_thread(self) -> bool:
        """Send the data of `begin`, and return whether all of it was sent; else call `leave_unsent`."""
        assert self._batch is not None
        assert self._io is not None
        _, data, sent = self._batch
        self._io.send_in_thread(data, sent)  # type: ignore[arg-type]
        if sum(sent) < len(data):
            return False
        self._batch = None
        return True

    @property
    def is_in_thread(self) -> bool:
        """Whether a thread has begun to send; with the lock held, by another one: it was interrupted."""
        return self._batch is not None and self._batch[0] is _THREAD

    def leave_unsent(self) -> None:
        """Leave to the task what a thread has not sent; `schedule_flush` wakes it. May be repeated."""
        self.leave_to_task(_THREAD)
