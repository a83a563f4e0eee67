"""Send queues: data of a source, sent in order over one stream without waiting.

A queue owns the data that is being sent, and decides by whom: one sender at a time. The source, a subclass,
owns the data that waits, and is asked for the next piece (`SendQueue.take`) when the last one has been sent.

| state   | `_batch`             | meaning                                                                  |
|---------|----------------------|--------------------------------------------------------------------------|
| idle    | None                 | Nothing is being sent; `flush` begins.                                   |
| sending | (sender, data, sent) | A thread sends, and checks for more before it stops; others only add.    |
| blocked | (`TASK`, rest, [])   | The kernel takes no more; the task waits, and sends the rest.            |
| failed  | (`TASK`, rest, [])   | The stream is broken or `discard` was called; nothing is sent any more.  |

`SendQueue` needs no lock: it is used in the Trio thread, or, if threads send as well, with a lock of its user
held. `SharedSendQueue`, in the module of that name, has a mutex of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

import outcome
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.parking import RESUME
from msl_network_trio.transport.base import Stream

CHUNK: Final = 262_144
"""Bytes of small lines that a source joins into one piece; a larger line is a piece of its own, uncopied."""

AT_ONCE: Final = 1_048_576
"""Bytes to send before other tasks run, if the kernel takes them all."""

TASK: Final = object()
"""The sender of the rest that the kernel has not taken: the task of the queue."""

Batch = tuple[object, bytes | memoryview, list[int]]
"""The sender, its data, and the numbers of bytes that a thread has sent of them."""


class Stalled(ConnectionLost):
    """The peer has accepted no data for too long.

    Attributes:
        seconds: The time limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The peer has accepted no data for {seconds:g} seconds")
        self.seconds = seconds


async def wait_send(stream: Stream, stalled_after: float) -> None:
    """Wait until a stream may accept data.

    Args:
        stream: The stream.
        stalled_after: Maximum seconds to wait; `math.inf`: no limit.

    Raises:
        Stalled: The time is over.
        ConnectionLost: The connection is broken or closed.
    """
    if stalled_after == math.inf:
        await stream.wait_send()
        return
    with trio.move_on_after(stalled_after) as scope:
        await stream.wait_send()
    if scope.cancelled_caught:
        raise Stalled(stalled_after)


class SendQueue(ABC):
    """The send queue of a stream, for the Trio thread only.

    Its task sends the rest when the kernel takes no more. It is started when it is first needed, and is
    either `run`, which stays, or `send_rest`, which ends when nothing is left: an idle connection then costs
    little memory.

    Args:
        stream: The stream, which nothing else sends over.

    Attributes:
        stream: See above.
        failed: Whether nothing is sent any more; see the state of that name.
        stalled_after: Maximum seconds in which the peer accepts nothing.
        caught: The exceptions of the stream that are passed to `on_error`; others are errors of this program,
            and are raised.
    """

    __slots__ = ("_batch", "_has_task", "_parked", "_progress", "failed", "stream")

    stalled_after: float = math.inf
    caught: ClassVar[tuple[type[Exception], ...]] = (ConnectionLost,)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.failed = False
        self._batch: Batch | None = None
        self._has_task = False
        self._parked: trio.lowlevel.Task | None = None
        self._progress: trio.lowlevel.ParkingLot | None = (
            None  # made when needed: most connections never wait
        )

    # ---- the source ----

    @abstractmethod
    def take(self) -> bytes | memoryview:
        """Return the next data to send, and remove it from the source; empty if none waits."""

    def on_sent(self, count: int) -> None:  # noqa: B027 - a source need not count
        """Note the number of bytes that the kernel has taken; 0 if it takes none now."""

    def on_progress(self) -> None:
        """Note that the peer has accepted data again for which the task had to wait."""
        self.wake_waiting()

    @abstractmethod
    def on_error(self, error: Exception) -> None:
        """Take the error because of which nothing is sent any more; called once, in the Trio thread."""

    @abstractmethod
    def start_task(self) -> None:
        """Start the task: `run` or `send_rest`."""

    # ---- sending ----

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent."""
        return self._batch is None

    @property
    def is_blocked(self) -> bool:
        """Whether a rest waits for the task, or will never be sent; it may be empty."""
        batch = self._batch
        return batch is not None and batch[0] is TASK

    @property
    def rest_size(self) -> int:
        """Bytes that have been taken from the source and are known not to be sent."""
        batch = self._batch
        return 0 if batch is None else len(batch[1]) - sum(batch[2])

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it; the task sends the rest."""
        at_once = 0
        while self._batch is None and (data := self.take()):
            sent = self._offer(data)
            self.on_sent(sent)
            at_once += sent
            if at_once >= AT_ONCE and sent == len(data):
                self._block(b"")

    def flush_soon(self) -> bool:
        """Wake the task to send the queued data, after all tasks that are ready now have run.

        Returns:
            Whether the task was idle.
        """
        task = self._parked
        if task is not None:
            self._parked = None
            trio.lowlevel.reschedule(task, RESUME)
        elif not self._has_task:
            self._has_task = True
            self.start_task()
        else:
            return False
        return True

    def _offer(self, data: bytes | memoryview) -> int:
        """Send data as far as the kernel takes it, leave the rest to the task, and return the bytes sent."""
        try:
            sent = self.stream.send_nowait(data)
        except self.caught as error:
            self._fail(error, data)
            return 0
        if sent < len(data):
            self._block(memoryview(data)[sent:])
        return sent

    def _block(self, rest: bytes | memoryview) -> None:
        """Leave a rest to the task, which sends it before anything else."""
        self._batch = (TASK, rest, [])
        self.flush_soon()

    def leave_to_task(self, sender: object) -> None:
        """Leave the rest of a sender's batch to the task, which `flush_soon` wakes; may be repeated."""
        batch = self._batch
        if batch is not None and batch[0] == sender:
            self._batch = (TASK, memoryview(batch[1])[sum(batch[2]) :], [])

    def _fail(self, error: Exception, rest: bytes | memoryview) -> None:
        self._batch = (TASK, rest, [])
        self.failed = True
        self.wake_waiting()
        self.on_error(error)

    def discard(self) -> None:
        """Send nothing any more, and forget the rest; idempotent."""
        self.failed = True
        if self._batch is None or self._batch[0] is TASK:
            self._batch = (TASK, b"", [])
        self.wake_waiting()

    # ---- the task ----

    async def run(self) -> None:
        """Send what `flush` leaves, and what waits at `flush_soon`, until cancelled."""
        self._has_task = True
        while True:
            self.flush()
            if self.is_blocked and not self.failed:
                await self._send_rest()
            else:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._forget_task)

    async def send_rest(self) -> None:
        """Send what `flush` leaves, until nothing is left."""
        self._has_task = True
        try:
            while self.is_blocked and not self.failed:
                await self._send_rest()
        finally:
            self._has_task = False

    def _forget_task(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        self._parked = None  # `_has_task` stays: a cancelled task is not started again
        return trio.lowlevel.Abort.SUCCEEDED

    async def _send_rest(self) -> None:
        """Wait until the stream accepts data, and send the rest and what follows it."""
        assert self._batch is not None
        rest = self._batch[1]
        try:
            await wait_send(self.stream, self.stalled_after)
        except self.caught as error:
            if not self.failed:
                self._fail(error, rest)
            return
        if not self.failed:
            self._send_after_wait(rest)

    def _send_after_wait(self, rest: bytes | memoryview) -> None:
        sent = self._offer(rest) if rest else 0
        self.on_sent(sent)
        if sent == len(rest):
            self._batch = None
            self.flush()
        if sent:
            self.on_progress()
        elif not rest:
            self.wake_waiting()

    # ---- waiting ----

    async def wait_progress(self) -> None:
        """Wait until `wake_waiting` is called, as by `on_progress` and `discard`."""
        if self._progress is None:
            self._progress = trio.lowlevel.ParkingLot()
        await self._progress.park()

    def wake_waiting(self) -> None:
        """Wake the tasks in `wait_progress`, which check their conditions again."""
        if self._progress:
            self._progress.unpark_all()
