"""The send queue of a client: its source is the outbox of the protocol.

It owns the requests of a connection from when they are queued until they are sent, those of threads included.
It runs in the Trio thread, and in threads with the lock of the stream held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import MADE, Request
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import CHUNK, SendQueue

_THREAD: Final = object()
"""The sender of a batch that a thread sends, which holds the lock meanwhile."""


class RequestQueue(SendQueue):
    """The requests of a connection, from when they are queued until they are sent.

    A request that is alone is sent at once. While replies are outstanding, requests are sent by the task when
    all ready tasks have run, so that those of many tasks go out together. Until then they can be withdrawn.

    Once threads use the connection, its lock protects the queue and the protocol. In the Trio thread, the
    public methods acquire it. Threads hold it while they send, which never waits: to acquire it once more
    would cost as much as five function calls. If all is left to the Trio thread, the blocking API needs 1.88
    times the CPU time in the client.

    **Exceptions in threads.** A signal handler, or another thread, may raise an exception in a thread between
    any two instructions. Before a thread sends requests, it notes them in `_leaving`, then their bytes in
    `_batch`, of which the stream notes what it has sent. From these, `finish` completes the sending.

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
        self._traffic = protocol.traffic
        self._lock = stream.lock
        self._flush_threshold = stream.flush_threshold
        self._io = stream.thread_io
        self._gathered: deque[Request] | None = None
        """Requests of threads that are sent with others; None: no thread uses the connection."""
        self._gathered_bytes = 0
        self._leaving: list[Request] = []
        """Requests that a thread is about to send; cleared before it sends them."""
        self._after = 0
        """The `Outbox.last_sequence` before them."""
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

    def _fits(self, size: int) -> bool:
        """Return whether there is room for a request of this size, if no other waits for room."""
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
        if self._gathered is not None:
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
        """Queue a request when there is room for it, in the order of the calls. See `put`."""
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

    # ---- threads ----

    def share(self) -> None:
        """Let threads use the queue from now on; in the Trio thread."""
        if self._gathered is None:
            self._gathered = deque()

    @property
    def has_gathered(self) -> bool:
        """Whether requests wait to be sent with others; also without the lock."""
        return bool(self._gathered)

    def gather(self, request: Request) -> bool:
        """Queue a request that is sent with the next one, or by `queue_gathered`; also without the lock.

        Returns:
            Whether there was room.
        """
        assert self._gathered is not None  # it is shared
        unsent = self._outbox.unsent
        # The count is not exact if several threads add, and is corrected when the requests are taken.
        gathered = self._gathered_bytes + len(request.data)
        if self.waiting or (unsent and unsent + gathered > self.max_unsent):
            return False
        self._gathered_bytes = gathered
        self._gathered.append(request)
        return True

    def put_in_thread(self, request: Request) -> bool | None:
        """Queue a request, and send it with those that wait, if nothing is being sent; with the lock held.

        Returns:
            Whether something is left to `schedule_flush` in the Trio thread; None: there is no room, and the
            request was not queued.
        """
        if self._gathered or not self._is_clear:
            return self.send_gathered() if self.gather(request) else None
        if self.waiting:
            return None
        self._begin()
        self._leaving.append(request)
        self._send_leaving()
        return self._batch is not None

    def send_gathered(self) -> bool:
        """Send the requests that wait, if nothing is being sent; returns as `put_in_thread`."""
        gathered = self._gathered
        assert gathered is not None  # it is shared
        if not self._is_clear:
            return True
        self._begin()
        leaving = self._leaving
        size = 0
        while gathered and size < CHUNK:
            request = gathered[0]
            if request.phase is MADE:
                leaving.append(request)
                size += len(request.data)
            gathered.popleft()  # interrupted before this, the request is skipped later
        if not gathered:
            self._gathered_bytes = 0
        if leaving:
            self._send_leaving()
        return self._batch is not None or bool(gathered)

    @property
    def _is_clear(self) -> bool:
        """Whether a thread may send: nothing is being sent, nor queued before."""
        return self._batch is None and self._io is not None and self._outbox.is_clear

    def _begin(self) -> None:
        self._after = self._outbox.last_sequence

    def _send_leaving(self) -> None:
        """Send the requests in `_leaving`, and leave to the task what the kernel does not take."""
        leaving = self._leaving
        data = leaving[0].data if len(leaving) == 1 else b"".join([request.data for request in leaving])
        sent: list[int] = []
        self._batch = (_THREAD, data, sent)  # `finish` can complete everything that follows
        self._traffic.bytes_sent += len(data)
        self._mark_leaving_written()
        assert self._io is not None  # see `_is_clear`
        self._io.send_in_thread(data, sent)
        if sum(sent) == len(data):
            self._batch = None
        else:
            self.leave_to_task(_THREAD)

    def _mark_leaving_written(self) -> None:
        leaving = self._leaving
        if leaving:
            self._outbox.mark_written(leaving, self._after)
            for request in leaving:
                request.data = b""
            leaving.clear()

    def finish(self) -> None:
        """Complete what a thread was doing when an exception interrupted it; with the lock held.

        Its requests count as written, and what was not sent of them is left to the task, which
        `schedule_flush` wakes. May be repeated, also after another exception.
        """
        if self._leaving and self._batch is None:
            self._batch = (_THREAD, b"".join([request.data for request in self._leaving]), [])
        if self._batch is not None and self._batch[0] is _THREAD:
            self._mark_leaving_written()
            self.leave_to_task(_THREAD)

    def queue_gathered(self) -> None:
        """Move the requests that wait into the outbox; in the Trio thread, with the lock held."""
        self._gathered_bytes = 0
        while self._gathered:
            request = self._gathered.popleft()
            if request.phase is not MADE:
                continue  # it was abandoned, or written by a thread that an exception has interrupted
            try:
                self._protocol.request(request)
            except ConnectionLost as error:
                request.fail(error)
                request.wake()
