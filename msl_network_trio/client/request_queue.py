"""The way out: from the protocol's queue to the transport, one message after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from msl_network_trio.transport.base import Stream

_AT_ONCE = 1_048_576
"""How many bytes to write before other tasks get their turn, if the kernel takes them all."""


class RequestQueue:
    """Writes what the protocol has to write.

    A caller that has queued something calls `flush`, which never waits. What is worth it is sent at once, the
    rest by the task `run` when all tasks that can go on now have had their turn. It is the only one that
    waits in the middle of a message, so no caller can leave half a line behind. It is started when it is
    first needed, which on many a connection is never.

    Threads queue requests as well, with the transport's lock held, which is why it is held here around
    whatever changes the protocol or depends on it.

    Args:
        protocol: Whose lines to write.
        transport: Where to.
        max_unsent: Maximum bytes that wait behind the message that is being written before a request has to
            wait for room.
        start: Starts the task `run`.
        look_after: Called for requests that go out together, once: sees to it that somebody cares for them.
        on_progress: Called when the peer has taken something that we had to wait with.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        transport: Stream,
        max_unsent: int,
        *,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        look_after: Callable[[], None],
        on_progress: Callable[[], None],
    ) -> None:
        self.max_unsent = max_unsent
        self._look_after = look_after
        self._on_progress = on_progress
        self._protocol = protocol
        self._outbox = protocol.outbox
        self._transport = transport
        self._lock = transport.lock
        self._flush_threshold = transport.flush_threshold
        self._rest: memoryview | None = None
        self._start = start
        self._is_idle = True
        """Whether the task has nothing in its hands: it is parked, or was never needed."""
        self._parked: trio.lowlevel.Task | None = None
        self._progress = trio.lowlevel.ParkingLot()
        self._queue = trio.StrictFIFOLock()
        self.waiting = 0
        """How many requests wait for room."""
        self._closed = False
        self.put: Callable[..., bool] = self.put_alone
        """`put_alone`, or after `share` what does the same with the lock, which takes its time."""

    @property
    def unsent(self) -> int:
        """How many bytes wait to be written."""
        rest = self._rest
        return self._outbox.unsent + (0 if rest is None else len(rest))

    @property
    def is_clear(self) -> bool:
        """Whether nothing is being written, so that a thread may send."""
        return self._is_idle and self._rest is None

    def leave(self, rest: memoryview) -> None:
        """Leave to the task what a thread could not send; `flush` wakes it."""
        self._rest = rest

    @property
    def is_inside_a_message(self) -> bool:
        """Whether a message has been written in part."""
        return self._rest is not None

    def has_room(self, size: int) -> bool:
        """Whether a request of this many bytes can be queued now; one larger than all room can if alone."""
        # If others wait for room, they were here first.
        return self.waiting == 0 and self._fits(size)

    def _fits(self, size: int) -> bool:
        # Without what is left of the message that is being written: it may be larger than all room, and would
        # keep small requests out.
        unsent = self._outbox.unsent
        return unsent == 0 or unsent + size <= self.max_unsent

    @trio.lowlevel.enable_ki_protection
    def put_alone(self, request: Request) -> bool:
        """Queue a request if there is room for it, and return whether there was.

        Args:
            request: The request.

        Raises:
            ConnectionLost: The connection has ended.
        """
        protocol = self._protocol
        unsent = self._outbox.unsent + len(request.data)
        # Without a call if there is room: this is on the way of every request.
        if (self._rest is not None or self.waiting or unsent > self.max_unsent) and not self.has_room(
            len(request.data)
        ):
            return False
        if (protocol.open and unsent < self._flush_threshold) or self._rest is not None:
            protocol.request(request)
            if self._is_idle:
                self._wake()
                self._look_after()
        else:
            # With nothing in flight nobody else is likely to write in the same moment.
            protocol.request(request)
            all_sent = self._send(protocol.take())
            if (not all_sent or self._outbox.unsent) and self._is_idle:
                self._wake()
            self._look_after()
        return True

    @trio.lowlevel.enable_ki_protection
    def _put_among_threads(self, request: Request) -> bool:
        with self._lock:
            return self.put_alone(request)

    def share(self) -> None:
        """From now on threads use the connection as well: hold the lock; in the Trio thread."""
        self.put = self._put_among_threads

    @trio.lowlevel.enable_ki_protection
    async def put_when_there_is_room(self, request: Request) -> None:
        """Queue a request when there is room for it; who came first is served first. See `put_alone`."""
        size = len(request.data)
        self.waiting += 1
        try:
            async with self._queue:
                while not self._fits(size):
                    self._protocol.check_open(request.service)
                    await self._progress.park()
                self.put_in_any_case(request)
        finally:
            self.waiting -= 1

    @trio.lowlevel.enable_ki_protection
    def put_in_any_case(self, request: Request) -> None:
        """Queue a request, whatever else waits. See `put_alone`."""
        with self._lock:
            self._protocol.request(request)
            self._send_or_wake()
        self._look_after()

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """See to it that what the protocol has to write is written, without waiting."""
        with self._lock:
            if self.waiting:
                self._progress.unpark_all()  # something may have been withdrawn
            self._send_or_wake()

    def _send_or_wake(self) -> None:
        if self._is_idle and self.send_at_once():
            self._wake()

    def _wake(self) -> None:
        """Have the task write what waits; it is idle, and this is the Trio thread."""
        self._is_idle = False
        task, self._parked = self._parked, None
        if task is not None:
            trio.lowlevel.reschedule(task, RESUME)
        else:
            self._start(self.run)

    @trio.lowlevel.enable_ki_protection
    def send_at_once(self, *, also_behind_others: bool = False) -> bool:
        """Send what can be sent without the writer's task, and return whether it has to be woken.

        That is for `flush` to do, in the Trio thread. Any thread may call this, if the transport lets threads
        send, with the transport's lock held.

        Args:
            also_behind_others: Do so also if others are likely to write in the same moment.
        """
        if not self._is_idle:
            return False  # a writer that is at work looks for more before it parks
        if self._rest is not None:
            return True  # another thread could not send everything
        if not self._outbox:
            return False
        if also_behind_others or not self._protocol.open:
            # An idle writer has nothing left to write: the shortest way is to send it here.
            return not self._send(self._protocol.take()) or bool(self._outbox)
        return True

    def _send(self, data: bytes) -> bool:
        """Send what nothing is in front of, and return whether all was sent; the rest is for the task."""
        sent = 0
        try:
            if data:  # else all is held back
                sent = self._transport.send_nowait(data)
        except ConnectionLost:
            pass  # the writer will meet it again, and knows what to do
        if sent == len(data):
            return True
        self._rest = memoryview(data)[sent:]
        return False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Write what there is, park, and so on.

        Raises:
            ConnectionLost: Nothing can be written any more.
        """
        transport = self._transport
        at_once = 0
        waited = False
        while True:
            with self._lock:  # another thread must not find it idle with lines in its hands
                data = self._rest if self._rest is not None else self._protocol.take()
                if not data:
                    self._parked = trio.lowlevel.current_task()
                    self._is_idle = True
            if not data:
                self._progress.unpark_all()
                await trio.lowlevel.wait_task_rescheduled(self._forget_task)
                at_once = 0
                continue
            sent = transport.send_nowait(data)
            if waited and sent:
                self._on_progress()
            waited = sent < len(data)
            if waited:
                self._rest = memoryview(data)[sent:]
                await transport.wait_send()
                at_once = 0
            else:
                self._rest = None
                at_once += sent
                if at_once >= _AT_ONCE:
                    await trio.lowlevel.checkpoint()
                    at_once = 0
            if self._progress:
                self._progress.unpark_all()

    def _forget_task(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        self._parked = None
        self._is_idle = False  # nobody shall wake it any more
        return trio.lowlevel.Abort.SUCCEEDED

    @trio.lowlevel.enable_ki_protection
    async def drain(self) -> None:
        """Wait until everything that may be written has been; `close` ends the waiting as well."""
        while not self._is_idle and not self._closed:
            await self._progress.park()

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Forget what is not written, and wake whoever waits."""
        self._closed = True
        self._rest = None
        self._progress.unpark_all()
