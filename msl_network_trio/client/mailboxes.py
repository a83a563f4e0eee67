"""Notifications of one connection that were received and are not yet handled: limits, losses, waits.

A `Mailbox` holds those that wait for one handler or stream. `Mailboxes` limits the mailboxes of a connection
together, counts what they lose, and numbers what is received, so that a thread can wait until the handlers
have returned for everything that was received before the reply to its call.
"""

from __future__ import annotations

import _thread
import threading
from collections import Counter, deque
from typing import Protocol

import trio

from msl_network_trio.arguments import number
from msl_network_trio.constants import MAX_UNHANDLED
from msl_network_trio.portal.process import is_exiting
from msl_network_trio.portal.waiting import release_if_held
from msl_network_trio.protocol.messages import Notification, NotificationBatch

OVERHEAD = 500
"""Bytes that a notification is counted for besides its line: what Python needs for its objects, about."""

_MAX_PER_CONNECTION = 256 * 1024 * 1024


class Waiter:
    """A thread that waits until a handler has returned for what was received up to some moment.

    Args:
        last: The number of the last notification that the thread waits for.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def release(self) -> None:
        """Let the thread go on; releasing it again does no harm."""
        if not is_exiting():
            try:
                self._gate.release()
            except RuntimeError:
                pass  # it was released before

    def timed_wait(self, seconds: float) -> bool:
        """Wait for `release`; see the portal's `wait`."""
        return self._gate.acquire(True, seconds)


class Mailbox:
    """Notifications that wait for one consumer: a handler or a stream.

    It is filled in the Trio thread, and emptied there or in the thread of a handler; the lock guards what is
    counted. If it is full, the oldest notifications are dropped and counted.

    Args:
        service: The name of the Service.
        mailboxes: The connection's.
        max_count: The maximum number of notifications; None: the maximum of bytes of the connection.

    Attributes:
        queue: The notifications. Consumers take from its left end.
        at_work: Whether the notification that was taken last may not have been handled yet. To be set before
            it is taken.
        dropped: Number of notifications that were lost.
        waiters: Threads that wait for the handler.
        has_ended: Whether no more notifications follow.
    """

    def __init__(self, service: str, mailboxes: Mailboxes, max_count: float | None = None) -> None:
        if max_count is not None:
            max_count = number("max_buffer_size", max_count)
            if not max_count >= 1:
                raise ValueError(
                    f"max_buffer_size must be a number from 1, math.inf, or None, not {max_count!r}"
                )
        self.service = service
        self.queue: deque[Notification] = deque()
        self.at_work = False
        self.dropped = 0
        self.waiters: list[Waiter] = []
        self.has_ended = False
        self._mailboxes = mailboxes
        self._max_count = max_count
        self._wanted = trio.lowlevel.ParkingLot()
        self._lock = threading.RLock()
        self._runs: deque[tuple[int, int, int, int]] = deque()
        """The batches that are not yet handled.

        Of each: the count of notifications put up to its end, the number of the last one (see
        `NotificationBatch`), its own count, and its bytes, the overhead included.
        """
        self._put = 0
        self._size = 0
        self._received = mailboxes.numbers.get(service, 0)

    # ---- for the reader, in the Trio thread ----

    @trio.lowlevel.enable_ki_protection
    def put(self, batch: NotificationBatch) -> None:
        """Add notifications, and drop the oldest if there are too many."""
        queue, mailboxes = self.queue, self._mailboxes
        size = batch.size + OVERHEAD * len(batch)
        if mailboxes.is_shared:
            with self._lock:
                self._add(batch, size)
        else:
            self._add(batch, size)
        if self._max_count is None:
            if self._size > mailboxes.max_size:
                self.shrink(mailboxes.max_size)
            mailboxes.size += size
            if mailboxes.size > mailboxes.max_total:
                mailboxes.shrink()
        elif len(queue) > self._max_count:
            self._drop(len(queue) - self._max_count)
        if self._wanted:
            self._wanted.unpark(count=len(queue))

    def _add(self, batch: NotificationBatch, size: int) -> None:
        queue, count = self.queue, len(batch)
        if self._runs:
            self._forget_handled(self._put - len(queue) - self.at_work)
        queue.extend(batch)
        self._put = end = self._put + count
        self._size += size
        self._received = last = batch.last
        self._runs.append((end, last, count, size))

    def skip(self, batch: NotificationBatch) -> None:
        """Count notifications as received that have no handler."""
        self._received = batch.last
        if self.waiters:
            self.release_waiters()

    def size(self) -> int:
        """Return the bytes that wait; 0 if the number is what is limited."""
        if self._max_count is not None:
            return 0
        with self._lock:
            return self._exact_size()

    def shrink(self, size: float) -> None:
        """Drop the oldest notifications until no more bytes than these wait, or just one notification."""
        while len(self.queue) > 1:
            with self._lock:
                excess = self._exact_size() - size
                if excess <= 0:
                    return
                # What has to go of the first batch, at a time.
                end, _, count, bytes_ = self._runs[0]
                number = min(-(-excess * count // bytes_), end - self._handled(), len(self.queue) - 1)
            self._drop(max(1, number))

    def _drop(self, number: float) -> None:
        dropped = 0
        while dropped < number:
            try:
                self.queue.popleft()
            except IndexError:  # a handler's thread was faster
                break
            dropped += 1
        self.dropped += dropped
        self._mailboxes.dropped[self.service] += dropped

    @trio.lowlevel.enable_ki_protection
    def end(self, *, drop: bool) -> None:
        """Let no more come; what is there is still given out unless it is dropped."""
        self.has_ended = True
        if drop:
            self.queue.clear()
        self._wanted.unpark_all()
        with self._lock:
            waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.release()

    # ---- for the consumer ----

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> bool:
        """Wait until there are notifications; return False if there never will be."""
        if self.queue or self.has_ended:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self.queue:
            if self.has_ended:
                return False
            await self._wanted.park()
        return True

    @trio.lowlevel.enable_ki_protection
    def release_waiters(self) -> None:
        """Let those threads go on that the handler has caught up with; in any thread."""
        try:
            with self._lock:
                handled = self._handled_number()
                for waiter in self.waiters:
                    if waiter.last <= handled:
                        waiter.release()
                self.waiters = [waiter for waiter in self.waiters if waiter.last > handled]
        except BaseException:  # another thread may have injected an exception
            release_if_held(self._lock)
            raise

    # ---- for threads that wait for the handler ----

    def may_hold(self, last: int) -> bool:
        """Return whether notifications may be mailboxes up to this number; lock-free."""
        # In this order: what was received is in the queue first, and `at_work` is set before it is taken.
        return self._received < last or bool(self.queue) or self.at_work

    def add_waiter(self, waiter: Waiter) -> bool:
        """Register a waiter, released when the handler has caught up; return False if it has already."""
        try:
            with self._lock:
                # It waits first, since a handler looks for waiters whenever it has taken a notification.
                self.waiters = [*self.waiters, waiter]
                waits = not self.has_ended and self._handled_number() < waiter.last
                if not waits:
                    self.waiters.remove(waiter)
                return waits
        except BaseException:
            release_if_held(self._lock)
            raise

    def remove_waiter(self, waiter: Waiter) -> None:
        """Wait no longer."""
        try:
            with self._lock:
                self.waiters = [other for other in self.waiters if other is not waiter]
        except BaseException:
            release_if_held(self._lock)
            raise

    # ---- with the lock held ----

    def _handled(self) -> int:
        """Return the number of notifications that were put and have been handled or dropped."""
        return self._put - len(self.queue) - self.at_work

    def _forget_handled(self, handled: int) -> None:
        runs = self._runs
        while runs and runs[0][0] <= handled:
            self._size -= runs.popleft()[3]

    def _exact_size(self) -> int:
        handled = self._handled()
        self._forget_handled(handled)
        if not self._runs:
            return 0
        end, _, count, size = self._runs[0]
        return self._size - size * max(0, handled - end + count) // count

    def _handled_number(self) -> int:
        """Return the number up to which every notification was handled, dropped or had no handler."""
        handled = self._handled()
        self._forget_handled(handled)
        if not self._runs:
            return self._received
        end, last, count, _ = self._runs[0]
        return last - count + max(0, handled - end + count)


class Handler(Protocol):
    """What calls the notification handler of a link, as threads see it that wait for it."""

    def is_behind(self, last: int) -> bool:
        """Return whether a thread may have to wait until notifications up to this number are handled."""

    def add_waiter(self, waiter: Waiter) -> bool:
        """See `Mailbox.add_waiter`."""

    def remove_waiter(self, waiter: Waiter) -> None:
        """See `Mailbox.remove_waiter`."""

    def give_up_on(self, last: int, seconds: float) -> None:
        """Let no thread wait again before the handler has caught up, and log that."""


class Mailboxes:
    """The notifications of one connection that wait to be handled.

    Threads may look at `numbers` and `handlers`; everything else is for the Trio thread.

    Args:
        max_size: Maximum bytes that wait for one handler or stream. As they share the notifications of a
            Service, this is also the maximum for the Service.
        max_total: Maximum bytes of all Services together.

    Attributes:
        max_size: See above.
        numbers: Number of notifications received of each Service, if there is or was a link with it.
        has_numbers: Whether any were received.
        caught_up: The number, by Service, up to which handlers are known to need no waiting for.
        handlers: What calls the handlers, by Service.
        dropped: Number of notifications of each Service that all handlers and streams together have lost.
        size: Bytes that wait, at most: what is handled is not subtracted before there are too many, and a
            notification counts for each of the mailboxes that share it.
        max_total: See above.
        is_shared: Whether threads use the connection, so that mailboxes need their locks.
    """

    def __init__(self, max_size: float = MAX_UNHANDLED, max_total: float = _MAX_PER_CONNECTION) -> None:
        self.max_size = max_size
        self.numbers: dict[str, int] = {}
        self.has_numbers = False
        self.caught_up: dict[str, int] = {}
        self.handlers: dict[str, tuple[Handler, ...]] = {}
        self.dropped: Counter[str] = Counter()
        self.max_total = max_total
        self.size = 0
        self.is_shared = False
        self._mailboxes: dict[str, list[Mailbox]] = {}

    def number(self, batch: NotificationBatch) -> None:
        """Number notifications, in the order in which they are received; in any thread that reads."""
        service = batch[0].service
        if service in self.numbers:  # else there is no link with it
            self.numbers[service] = batch.last = self.numbers[service] + len(batch)
            self.has_numbers = True

    def add_handler(self, service: str, handler: Handler) -> None:
        """Add what calls a handler of the notifications of a Service."""
        self.numbers.setdefault(service, 0)
        self.handlers[service] = (*self.handlers.get(service, ()), handler)

    def remove_handler(self, service: str, handler: Handler) -> None:
        """Remove what calls a handler; removing it again does no harm."""
        self.handlers[service] = tuple(
            other for other in self.handlers.get(service, ()) if other is not handler
        )

    def add(self, mailbox: Mailbox) -> None:
        """Limit a mailbox together with the others."""
        self._mailboxes.setdefault(mailbox.service, []).append(mailbox)

    def remove(self, mailbox: Mailbox) -> None:
        """Limit a mailbox no longer; removing it again does no harm."""
        mailboxes = self._mailboxes.get(mailbox.service, [])
        if mailbox in mailboxes:
            mailboxes.remove(mailbox)
        if not mailboxes:
            self._mailboxes.pop(mailbox.service, None)

    def shrink(self) -> None:
        """Drop notifications of the largest mailboxes if all of them hold too many bytes."""
        sizes = {service: _largest(mailboxes) for service, mailboxes in self._mailboxes.items()}
        self.size = sum(sizes.values())
        for service in sorted(sizes, key=sizes.__getitem__, reverse=True):
            excess = self.size - self.max_total
            if excess <= 0:
                break
            for mailbox in self._mailboxes[service]:
                mailbox.shrink(sizes[service] - excess)
            self.size -= sizes[service] - _largest(self._mailboxes[service])


def _largest(mailboxes: list[Mailbox]) -> int:
    return max(mailbox.size() for mailbox in mailboxes)
