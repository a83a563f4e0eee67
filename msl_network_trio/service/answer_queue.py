"""The send queue of a Service: answers and notifications, added in any thread.

It owns the encoded answers of a connection, the limits of what may wait, and the waiting for room. Its
methods run in the threads that the headings name, and acquire the mutex themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import outcome
import trio

from msl_network_trio.exceptions import BacklogFull, ConnectionLost
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.service_lines import OutgoingLine
from msl_network_trio.service.coalescing import MAX_DELAY, Coalescing, Emitter
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import CHUNK
from msl_network_trio.transport.shared_send_queue import TRIO_THREAD, SharedSendQueue

_MAX_AHEAD: Final = 1_048_576
"""Bytes from which a thread that emits notifications waits, since answers wait behind them."""


class RequestWorker(Protocol):
    """A thread or task that carries out requests."""

    request: Any
    """The request that is not answered yet; None: there is none."""


class AnswerQueue(SharedSendQueue):
    """The answers and notifications of a connection, from when they are added until they are sent.

    Args:
        stream: The stream.
        max_unsent: Bytes from which `is_full` is True.
        on_error: Called in the Trio thread when nothing can be sent any more.

    Attributes:
        max_unsent: See above.
        will_be_flushed: Whether the code that runs in the Trio thread now will call `flush` afterwards.
    """

    def __init__(self, stream: Stream, max_unsent: int, on_error: Callable[[ConnectionLost], None]) -> None:
        super().__init__(stream)
        self.max_unsent = max_unsent
        self.will_be_flushed = False
        self._max_ahead = min(max_unsent, _MAX_AHEAD)
        self._on_error = on_error
        self._flush_is_due = False
        self._room = threading.Condition(self._mutex)
        self._threads_waiting = 0
        self._tasks_wait = False
        self._emitters: dict[int, Emitter] = {}
        self._coalescing = Coalescing()
        self._timer_task: trio.lowlevel.Task | None = None
        """The task `flush_delayed`, while it is parked."""
        self._on_late: Callable[[], object] | None = None

    @property
    def is_full(self) -> bool:
        """Whether more bytes wait than `max_unsent`."""
        return self.unsent > self.max_unsent

    # ---- the source ----

    def on_change(self) -> None:
        """See `SharedSendQueue.on_change`."""
        self._wake_waiting()

    def on_progress(self) -> None:
        """See `SendQueue.on_progress`; `on_change` has woken all that wait."""

    def on_error(self, error: Exception) -> None:
        """See `SendQueue.on_error`."""
        assert isinstance(error, ConnectionLost)
        self.close()
        self._on_error(error)

    def start_task(self) -> None:
        """See `SendQueue.start_task`: the connection starts `run` in any case."""

    def on_mended(self) -> None:
        """See `SharedSendQueue.on_mended`."""
        self._flush_is_due = False  # the thread may not have scheduled it
        self._room.notify_all()

    # ---- adding, in other threads ----

    def enter(self, worker: Emitter) -> None:
        """Register this thread as a worker: its notifications may be coalesced with its answers."""
        if self.threads_may_send:
            self._emitters[threading.get_ident()] = worker

    def leave(self) -> None:
        """Undo `enter`."""
        self._emitters.pop(threading.get_ident(), None)

    def send(self, line: OutgoingLine, worker: Emitter) -> None:
        """Add the answer to a request and send it.

        Args:
            line: The answer.
            worker: The thread that has carried the request out. Its `Emitter.request` becomes None under the
                same hold of the mutex under which the answer is added, so that no other thread can see both
                or none.
        """
        try:
            with self._mutex:
                if worker.emitted:
                    self._coalescing.answered(worker)
                if self.is_watched:
                    self._wake_waiting()
                if self.closed:
                    worker.request = None
                    return
                before = len(self._pieces)
                try:
                    self._append(line)
                    worker.request = None
                except BaseException:
                    if len(self._pieces) == before:
                        self._append(line)
                    worker.request = None
                    raise
                if self._batch is not None:
                    return
                if not self.threads_may_send:
                    self._flush_in_trio_thread()
                    return
                self._take_batch(worker)
            self._send_in_thread(worker)
        except BaseException:
            self.mend(worker)
            raise

    # ---- adding notifications, in any thread ----

    @trio.lowlevel.enable_ki_protection
    def emit(self, line: OutgoingLine) -> None:
        """Add a notification, and send it now, soon, or with the answer that follows it.

        In a thread other than Trio's it waits while many bytes wait to be sent.

        Raises:
            BacklogFull: It is full, and this is the Trio thread.
            ConnectionLost: The connection has ended.
        """
        thread = threading.get_ident()
        if thread == self._thread:
            self._emit(line, TRIO_THREAD, None)
            return
        try:
            self._emit(line, thread, self._emitters.get(thread))
        except (BacklogFull, ConnectionLost):
            raise
        except BaseException:
            self.mend(thread)
            raise

    def _emit(self, line: OutgoingLine, sender: object, worker: Emitter | None) -> None:
        in_trio_thread = sender is TRIO_THREAD
        with self._mutex:
            limit = self.max_unsent if in_trio_thread else self._max_ahead
            while self.unsent > limit and not self.closed:
                self._wait_for_room(in_trio_thread)
            if self.closed:
                raise ConnectionLost(
                    "The Service is not connected any more, so it cannot emit a notification"
                )
            self._append(line)
            if self._batch is not None:
                return
            # Notifications often come in series, which are sent together.
            if self.unsent < CHUNK or not (in_trio_thread or self.threads_may_send):
                if in_trio_thread:
                    if not self.will_be_flushed:
                        self.flush_soon()
                elif worker is None or not self._coalescing.may_delay(worker):
                    self._flush_in_trio_thread()
                return
            if not in_trio_thread:
                self._take_batch(sender)
        if in_trio_thread:
            self.flush()
        else:
            self._send_in_thread(sender)

    def _wait_for_room(self, in_trio_thread: bool) -> None:
        if in_trio_thread:
            raise BacklogFull(
                f"{self.unsent:,} bytes wait to be written (max_unsent is {self.max_unsent:,}), so the "
                "notification was not emitted; await something between notifications"
            )
        self._threads_waiting += 1
        self.is_watched = True
        try:
            self._room.wait()
        finally:
            self._threads_waiting -= 1

    def _flush_in_trio_thread(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self.flush()
        if self._coalescing.was_useful and self._timer_task is not None:
            task, self._timer_task = self._timer_task, None
            trio.lowlevel.reschedule(task, RESUME)

    # ---- the task of the coalescing ----

    async def flush_delayed(self) -> None:
        """Send delayed notifications whose answer does not follow within `MAX_DELAY`, until cancelled."""
        coalescing = self._coalescing
        while True:
            self._timer_task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_timer_task)
            coalescing.has_timer = True
            try:
                while coalescing.has_timer:
                    await trio.sleep(MAX_DELAY)
                    with self._mutex:
                        coalescing.has_timer = coalescing.was_useful
                        coalescing.was_useful = False
                    self.flush()
            finally:
                with self._mutex:
                    coalescing.has_timer = False
                self.flush()

    def _forget_timer_task(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        self._timer_task = None
        return trio.lowlevel.Abort.SUCCEEDED

    # ---- waiting ----

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true that depends on what is sent and on which requests are open.

        Args:
            condition: Evaluated with the mutex held, whenever data was sent or a request was finished.
        """
        while True:
            with self._mutex:
                if condition():
                    return
                self._tasks_wait = self.is_watched = True
            await self.wait_progress()

    def done(self, worker: RequestWorker) -> None:
        """Note that a worker has finished its request without an answer; in any thread."""
        with self._mutex:
            worker.request = None
            self._wake_waiting()

    async def drain(self) -> None:
        """Wait until everything is sent, or nothing can be sent any more."""
        self.flush()
        await self.wait_until(lambda: self.unsent == 0 or self.failed)

    def _wake_waiting(self) -> None:
        """Wake threads that wait for room, and tasks in `wait_until`; the mutex is held."""
        if self._threads_waiting and (self.closed or self.unsent <= self._max_ahead):
            self._room.notify_all()
        if self._tasks_wait:
            self._tasks_wait = False
            self.call_soon(self.wake_waiting)
        if self._on_late is not None:
            try:
                self._token.run_sync_soon(self._note_late)
            except trio.RunFinishedError:
                pass  # nothing waits any more
        self.is_watched = self._threads_waiting > 0 or self._on_late is not None

    def _note_late(self) -> None:
        with self._mutex:
            pass  # the thread that has woken this marks its request as finished before it releases the mutex
        assert self._on_late is not None
        self._on_late()

    # ---- the end ----

    def abandon(self, on_late: Callable[[], object]) -> None:
        """Drop what waits, and accept nothing more, since the connection is lost.

        Args:
            on_late: Called in the Trio thread whenever a request has been finished from now on.
        """
        with self._mutex:
            self._on_late = on_late
            self.is_watched = True
        self.close()
        self.discard()

    def close(self, last: Callable[[], Sequence[OutgoingLine]] = tuple) -> None:
        """Accept nothing more; what was accepted is still sent. Idempotent.

        Args:
            last: Returns the very last lines; called with the mutex held, so that no worker can add an answer
                meanwhile.
        """
        with self._mutex:
            if not self.closed:
                for line in last():
                    self._append(line)
            self.closed = True
            self._wake_waiting()
