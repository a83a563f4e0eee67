"""A send queue to which any thread may add, and from which any thread may send.

It owns the lines that wait and the record of who sends. Its mutex protects both, and is not held while data
is sent; the lock of the stream is acquired for that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import trio

from msl_network_trio.transport.base import Stream, ThreadIO
from msl_network_trio.transport.send_queue import AT_ONCE, CHUNK, TASK, Batch, SendQueue

TRIO_THREAD: Final = object()
"""The sender that sends in the Trio thread without waiting."""


class SharedSendQueue(SendQueue):
    """A send queue for several threads, with its source: lines that were added.

    A thread that finds the queue idle under the mutex puts the next lines into `_batch` and sends them.
    Before it stops, it checks under the mutex whether others have added something. If the kernel takes no
    more, it leaves the rest to the task. The mutex is held for bookkeeping only, never while data is sent.

    **Exceptions in threads.** Another thread, or a signal handler, may raise an exception in a thread between
    any two instructions. So `_batch`, one attribute, holds the sender and its data at any moment, the stream
    appends to its list what was sent in the instruction that sends, and lines are added and taken as a whole.
    `mend` leaves the rest to the task, and may be repeated.

    Args:
        stream: The stream, which nothing else sends over.

    Attributes:
        unsent: Bytes that wait to be sent.
        threads_may_send: Whether threads may send; else they leave everything to the Trio thread.
        closed: Whether nothing is added any more; what was added before is still sent.
        is_watched: Whether to call `on_change`.
    """

    __slots__ = (
        "_io",
        "_mutex",
        "_pieces",
        "_thread",
        "_token",
        "closed",
        "is_watched",
        "threads_may_send",
        "unsent",
    )

    _io: ThreadIO

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.unsent = 0
        self.closed = False
        self.is_watched = False
        self._pieces: deque[bytes] = deque()
        self._mutex = threading.Lock()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        io = stream.thread_io
        self.threads_may_send = io is not None
        if io is not None:
            self._io = io

    # ---- the source ----

    def add(self, line: bytes | Sequence[bytes]) -> None:
        """Add a line, which `flush` or `flush_soon` sends; in the Trio thread. No effect if it is closed."""
        with self._mutex:
            if self.is_watched:
                self.on_change()
            if not self.closed:
                self._append(line)

    def on_change(self) -> None:
        """Note that something was sent or is added; called with the mutex held, if `is_watched`."""

    def _append(self, line: bytes | Sequence[bytes]) -> None:
        """Add a line: one piece, or several of which large ones are not copied; with the mutex held."""
        if isinstance(line, bytes):
            self._pieces.append(line)
            self.unsent += len(line)
        else:
            self._pieces.extend(line)
            self.unsent += sum(map(len, line))

    def _take_batch(self, sender: object) -> bytes:
        """Move the next pieces, joined, into `_batch`, and return them; empty if none waits.

        With the mutex held.
        """
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0]
        left = len(pieces) - 1
        if left and (size := len(data)) < CHUNK:
            parts = [data]
            for piece in islice(pieces, 1, None):
                size += len(piece)
                if size > CHUNK:
                    break
                parts.append(piece)
            data = b"".join(parts)
            left = len(pieces) - len(parts)
        batch: Batch = (sender, data, [])
        try:
            self._batch = batch
            while len(pieces) > left:
                pieces.popleft()
        except BaseException:
            self._batch = batch
            while len(pieces) > left:
                pieces.popleft()
            raise
        return data

    def take(self) -> bytes:
        """See `SendQueue.take`."""
        return self._take_batch(TRIO_THREAD)

    def on_sent(self, count: int) -> None:
        """See `SendQueue.on_sent`; for the task, whose batch no thread changes."""
        with self._mutex:
            self._note_sent(count)

    def _note_sent(self, count: int) -> None:
        self.unsent -= count
        if self.is_watched:
            self.on_change()

    # ---- in the Trio thread ----

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """See `SendQueue.flush`. Batches are taken with the mutex held, since threads send as well."""
        with self._mutex:
            if self._batch is not None or not (data := self._take_batch(TRIO_THREAD)):
                return
        at_once = 0
        while True:
            sent = self._offer(data)
            at_once += sent
            with self._mutex:
                self.unsent -= sent
                if self.is_watched:
                    self.on_change()
                if sent < len(data):
                    return
                if at_once >= AT_ONCE:
                    self._block(b"")
                    return
                self._batch = None
                if not self._pieces or not (data := self._take_batch(TRIO_THREAD)):
                    return

    def _fail(self, error: Exception, rest: bytes | memoryview) -> None:
        super()._fail(error, rest)
        with self._mutex:
            self._pieces.clear()
            self.unsent = 0

    def discard(self) -> None:
        """See `SendQueue.discard`."""
        with self._mutex:
            super().discard()
            self._pieces.clear()

    # ---- in other threads ----

    def _send_in_thread(self, sender: object) -> None:
        """Send the data that `_take_batch` has put into `_batch` for this sender, and what follows it."""
        at_once = 0
        while True:
            assert self._batch is not None
            _, data, pieces_sent = self._batch
            with self.stream.lock:
                self._io.send_in_thread(data, pieces_sent)  # type: ignore[arg-type]
            sent = sum(pieces_sent)
            at_once += sent
            with self._mutex:
                self._note_sent(sent)
                if sent < len(data) or at_once >= AT_ONCE or self.failed:
                    self._batch = (TASK, memoryview(data)[sent:], [])
                    break
                self._batch = None
                if not self._take_batch(sender):
                    return
        self.call_soon(self.flush_soon)

    def mend(self, sender: object) -> None:
        """Complete what a thread did here when an exception interrupted it, in that thread; may be repeated.

        The task sends the rest of what the thread was sending.
        """
        with self._mutex:
            self.leave_to_task(sender)
        self.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Complete the work of a thread that an exception has interrupted; in the Trio thread."""
        with self._mutex:
            if not self.failed:
                in_hand = 0 if self._batch is None else len(self._batch[1])
                self.unsent = in_hand + sum(map(len, self._pieces))
            self.on_mended()
        self.wake_waiting()
        self.flush()
        self.flush_soon()

    def on_mended(self) -> None:
        """Wake whatever waits, with the mutex held, after an exception in a thread."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the Trio thread: now if this is the Trio thread, else soon."""
        if threading.get_ident() == self._thread:
            function()
            return
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass  # the connection has ended
