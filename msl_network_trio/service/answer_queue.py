"""The way out of a Service: whoever has a line hands it over, from any thread, and whoever can sends it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

import outcome
import trio

from msl_network_trio.exceptions import BacklogFull, ConnectionLost
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.service_lines import OutgoingLine
from msl_network_trio.service.coalescing import MAX_DELAY, Coalescing, Emitter
from msl_network_trio.transport.base import Stream

_CHUNK = 262_144
"""How many bytes to join into one message; a larger piece goes alone, so that it is not copied."""

_AT_ONCE = 1_048_576
"""How many bytes to send before other tasks get their turn, if the kernel takes them all."""


_AHEAD = 1_048_576
"""How many bytes may wait before a thread that emits notifications has to: answers wait behind them."""


class Worker(Protocol):
    """Whoever carries out requests."""

    request: Any
    """The request that is not answered yet; None: there is none."""


class AnswerQueue:
    """The lines that are to be written.

    One thread at a time sends. It is the one that finds nobody sending (`_sending`); before it stops, it
    looks whether others have added something in the meantime. When the kernel takes no more, it hands over
    to the Trio task `run`, which then is the one that sends, and the only one that waits in the middle of a
    line.

    The mutex is held for the bookkeeping only, never while something is sent.

    **Exceptions in threads.** Another thread may inject an exception into one between any two steps of the
    interpreter. So what a thread does here can be mended (`mend`): lines go in and out as a whole, and what
    was sent of them is known at any moment.

    Args:
        transport: Where to.
        max_unsent: How many bytes may wait before it is `is_full`.
        on_error: Called in the Trio thread when nothing can be sent any more.

    Attributes:
        unsent: How many bytes wait to be written.
        will_be_flushed: Whether what runs in the Trio thread just now is followed by a `flush` in any case.
    """

    def __init__(
        self, transport: Stream, max_unsent: int, on_error: Callable[[ConnectionLost], None]
    ) -> None:
        self.max_unsent = max_unsent
        self.will_be_flushed = False
        self._max_ahead = min(max_unsent, _AHEAD)
        self._transport = transport
        self._io = transport.thread_io
        self._on_error = on_error
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._mutex = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self.unsent = 0
        self._closed = False
        self._failed = False
        self._sending: tuple[object, bytes, list[int]] | None = None
        """The sender, the data, and the bytes that a thread has sent of it; None: there is no sender."""
        self._rest: bytes | memoryview = b""
        self._handed_over = False
        """Whether it is for `run` to send `_rest` and to go on."""
        self._flush_is_due = False
        self._parked: trio.lowlevel.Task | None = None
        self._room = threading.Condition(self._mutex)
        self._threads_waiting = 0
        self._progress = trio.lowlevel.ParkingLot()
        self._watched = False
        self._emitters: dict[int, Emitter] = {}
        self._coalescing = Coalescing()
        self._looker: trio.lowlevel.Task | None = None

    @property
    def is_full(self) -> bool:
        """Whether more bytes wait than should."""
        return self.unsent > self.max_unsent

    # ---- in the Trio thread ----

    def add(self, line: OutgoingLine) -> None:
        """Add a line, which `flush` or `flush_soon` sends. To be called in the Trio thread."""
        with self._mutex:
            if self._watched:
                self._tell_watchers()
            if not self._closed:
                self._append(line)

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Send what there is, without waiting. To be called in the Trio thread."""
        with self._mutex:
            if self._sending is not None or not self._pieces:
                return
            self._take(self)
        self._send(self)

    def flush_soon(self) -> None:
        """Send what there is when the tasks that can run now have run. To be called in the Trio thread."""
        task = self._parked
        if task is not None:
            self._parked = None
            trio.lowlevel.reschedule(task, RESUME)

    # ---- in any thread ----

    def enter(self, worker: Emitter) -> None:
        """Note that this thread carries out requests: what it emits may wait for its answers."""
        if self._io is not None:
            self._emitters[threading.get_ident()] = worker

    def leave(self) -> None:
        """Note that this thread carries out no more requests."""
        self._emitters.pop(threading.get_ident(), None)

    def send(self, line: OutgoingLine, worker: Emitter) -> None:
        """Add the answer to a request and send it. To be called in other threads.

        Args:
            line: The answer.
            worker: Who has carried the request out, and has done with it now. This is known at the same
                moment as the answer, so that nobody can miss both, nor see both.
        """
        try:
            with self._mutex:
                if worker.emitted:
                    self._coalescing.answered(worker)
                if self._watched:
                    self._tell_watchers()
                if self._closed:
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
                if self._sending is not None:
                    return
                if self._io is None:
                    self._flush_in_trio_thread()
                    return
                self._take(worker)
            self._send(worker)
        except BaseException:
            self.mend(worker)
            raise

    @trio.lowlevel.enable_ki_protection
    def emit(self, line: OutgoingLine) -> None:
        """Add a line that nobody has asked for, and see to it that it is sent.

        In another thread than that of Trio this waits while much is waiting to be written.

        Raises:
            BacklogFull: It is full, and this is the Trio thread.
            ConnectionLost: The connection has ended.
        """
        thread = threading.get_ident()
        in_trio_thread = thread == self._thread
        sender = self if in_trio_thread else thread
        try:
            self._emit(line, sender, None if in_trio_thread else self._emitters.get(thread))
        except (BacklogFull, ConnectionLost):
            raise
        except BaseException:
            if not in_trio_thread:
                self.mend(thread)
            raise

    def _emit(self, line: OutgoingLine, sender: object, worker: Emitter | None) -> None:
        in_trio_thread = sender is self
        with self._mutex:
            most = self.max_unsent if in_trio_thread else self._max_ahead
            while self.unsent > most and not self._closed:
                self._wait_for_room(in_trio_thread)
            if self._closed:
                raise ConnectionLost(
                    "The Service is not connected any more, so it cannot emit a notification"
                )
            self._append(line)
            if self._sending is not None:
                return
            # A notification seldom comes alone: let some of them gather.
            if self.unsent < _CHUNK or not (in_trio_thread or self._io is not None):
                if in_trio_thread:
                    if not self.will_be_flushed:
                        self.flush_soon()
                elif worker is None or not self._coalescing.may_delay(worker):
                    self._flush_in_trio_thread()
                return
            self._take(sender)
        self._send(sender)

    def mend(self, sender: object) -> None:
        """Go on with what a thread did here when an exception interrupted it.

        To be called in that thread; again does no harm. The rest of what it was sending is left to the task.

        Args:
            sender: The worker; or the identifier of a thread that has emitted something.
        """
        with self._mutex:
            sending = self._sending
            if sending is not None and sending[0] == sender and not self._handed_over:
                self._rest = memoryview(sending[1])[sum(sending[2]) :]
                self._handed_over = True
        self._call_soon(self._mend)

    def _mend(self) -> None:
        """Recount what is unsent, and wake all waiters."""
        with self._mutex:
            if not self._failed:
                sending = self._sending
                size = 0 if sending is None else len(self._rest if self._handed_over else sending[1])
                self.unsent = size + sum(map(len, self._pieces))
            self._room.notify_all()
        self._progress.unpark_all()
        self._flush_now()
        self.flush_soon()

    def _wait_for_room(self, in_trio_thread: bool) -> None:
        if in_trio_thread:
            raise BacklogFull(
                f"{self.unsent:,} bytes wait to be written (max_unsent is {self.max_unsent:,}), so the "
                "notification was not emitted; await something between notifications"
            )
        self._threads_waiting += 1
        try:
            self._room.wait()
        finally:
            self._threads_waiting -= 1

    # ---- sending ----

    def _append(self, line: OutgoingLine) -> None:
        if isinstance(line, bytes):
            self._pieces.append(line)
            self.unsent += len(line)
        else:
            self._pieces.extend(line)
            self.unsent += sum(map(len, line))

    def _take(self, sender: object) -> None:
        """Take the next bytes to send, joined, into `_sending`; the mutex is held, and there are some."""
        pieces = self._pieces
        data = pieces[0]
        left = len(pieces) - 1
        if left and (size := len(data)) < _CHUNK:
            parts = [data]
            for piece in islice(pieces, 1, None):
                size += len(piece)
                if size > _CHUNK:
                    break
                parts.append(piece)
            data = b"".join(parts)
            left = len(pieces) - len(parts)
        sending: tuple[object, bytes, list[int]] = (sender, data, [])
        try:
            self._sending = sending
            while len(pieces) > left:
                pieces.popleft()
        except BaseException:
            self._sending = sending
            while len(pieces) > left:
                pieces.popleft()
            raise

    def _send(self, sender: object) -> None:
        """Send until nothing is left, or hand over to `run`; called by who has taken something to send."""
        at_once = 0
        transport = self._transport
        while True:
            assert self._sending is not None
            _, data, pieces_sent = self._sending
            if sender is self:
                try:
                    sent = transport.send_nowait(data)
                except ConnectionLost as error:
                    self._fail(error)
                    return
            else:
                assert self._io is not None  # else no thread sends
                with transport.lock:
                    self._io.send_in_thread(data, pieces_sent)
                sent = sum(pieces_sent)
            at_once += sent
            if sent < len(data) or at_once >= _AT_ONCE:
                break
            with self._mutex:
                self.unsent -= sent
                if self._watched or self._threads_waiting:
                    self._tell_watchers()
                if not self._pieces:
                    self._sending = None
                    return
                self._take(sender)
        with self._mutex:
            self.unsent -= sent
            self._rest = memoryview(data)[sent:]
            self._handed_over = True
            self._tell_watchers()
        self._call_soon(self.flush_soon)

    def _flush_in_trio_thread(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self.flush()
        if self._coalescing.was_useful and self._looker is not None:
            task, self._looker = self._looker, None
            trio.lowlevel.reschedule(task, RESUME)

    def _call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the Trio thread."""
        if threading.get_ident() == self._thread:
            function(*args)
            return
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            pass  # nobody is interested any more

    # ---- the task ----

    async def run(self) -> None:
        """Send what could not be sent at once, until cancelled."""
        while True:
            if not self._handed_over:
                self.flush()
            if self._handed_over and not self._failed:
                await self._send_rest()
            else:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._forget_task)

    async def flush_delayed(self) -> None:
        """Send notifications that wait for an answer which does not come, until cancelled."""
        coalescing = self._coalescing
        while True:
            self._looker = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_looker)
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

    async def _send_rest(self) -> None:
        rest = memoryview(self._rest)
        while True:
            await self._transport.wait_send()
            sent = 0
            if rest:
                try:
                    sent = self._transport.send_nowait(rest)
                except ConnectionLost as error:
                    self._fail(error)
                    return
                rest = rest[sent:]
            with self._mutex:
                self.unsent -= sent
                self._rest = rest
                self._tell_watchers()
                if rest:
                    continue
                self._handed_over = False
                if not self._pieces:
                    self._sending = None
                    return
                self._take(self)
            self._send(self)
            return

    def _forget_task(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _forget_looker(self, _: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
        self._looker = None
        return trio.lowlevel.Abort.SUCCEEDED

    # ---- waiting ----

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true that depends on what is sent and on what workers do.

        Args:
            condition: Is looked at whenever something was sent, or a worker has done with a request.
        """
        while True:
            with self._mutex:
                if condition():
                    return
                self._watched = True
            await self._progress.park()

    def done(self, worker: Worker) -> None:
        """Note that a worker has done with its request, without an answer. From any thread."""
        with self._mutex:
            worker.request = None
            self._tell_watchers()

    async def drain(self) -> None:
        """Wait until everything is sent, or nothing can be sent any more."""
        self.flush()
        await self.wait_until(lambda: self.unsent == 0 or self._failed)

    def _tell_watchers(self) -> None:
        """Wake those who wait; the mutex is held."""
        if self._threads_waiting and (self._closed or self.unsent <= self._max_ahead):
            self._room.notify_all()
        if self._watched:
            self._watched = False
            self._call_soon(self._progress.unpark_all)

    # ---- the end ----

    def close(self, last: Callable[[], Sequence[OutgoingLine]] = tuple) -> None:
        """Accept nothing more; what was accepted is still sent. Calling it again does no harm.

        Args:
            last: Gives the very last lines; called at a moment at which no worker can hand anything over.
        """
        with self._mutex:
            if not self._closed:
                for line in last():
                    self._append(line)
            self._closed = True
            self._tell_watchers()

    def _fail(self, error: ConnectionLost) -> None:
        self._failed = True
        self.close()
        with self._mutex:
            self._pieces.clear()
            self.unsent = 0
        self._on_error(error)
