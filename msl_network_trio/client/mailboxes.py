"""Mailboxes: bounded queues of notifications that were received and are not handled yet.

A `Mailbox` is the queue of one handler or stream. `Mailboxes` limits those of a client together, counts
dropped notifications, and numbers received ones, so that a thread can wait until the handlers have returned
for everything that was received before the reply to its call. Each `Gap` has a position between two
notifications. Gaps are kept beside the queue, and never dropped.

The reader fills mailboxes in the Trio thread. Streams and handlers empty them there, or in the thread of a
blocking handler. `Mailbox` has a lock for its counters, used once threads share the connection.
"""

from __future__ import annotations

import _thread
import threading
from collections import Counter, deque
from functools import reduce
from typing import Protocol

import trio

from msl_network_trio.arguments import number
from msl_network_trio.constants import MAX_UNHANDLED
from msl_network_trio.portal.process import is_exiting
from msl_network_trio.portal.waiting import release_if_held
from msl_network_trio.protocol.messages import Gap, Notification, NotificationBatch

OVERHEAD = 500
"""Bytes that a notification counts in addition to its line: about the size of its Python objects."""

_MAX_PER_CONNECTION = 256 * 1024 * 1024


class Waiter:
    """A thread that waits until a handler has returned for all notifications up to one.

    Args:
        last: Number of that notification.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def release(self) -> None:
        """Wake the thread. May be repeated."""
        if not is_exiting():
            try:
                self._gate.release()
            except RuntimeError:
                pass  # it was released before

    def timed_wait(self, seconds: float) -> bool:
        """Wait until `release`, at most this many seconds; see `waiting.wait`."""
        return self._gate.acquire(True, seconds)


class Mailbox:
    """Bounded queue of the notifications for one consumer: a handler or a stream.

    If it is full, the oldest notifications are dropped and counted.

    Args:
        service: Name of the Service.
        mailboxes: The mailboxes of the client.
        max_count: Maximum number of notifications; None: the maximum of bytes of the mailboxes.

    Attributes:
        queue: The notifications. Consumers take from its left end, after the gap before it.
        gaps: The gaps that were not taken yet, each with the number of notifications put before it. Not
            changed in place, so that the thread of a handler may read it.
        at_work: Whether the last notification taken may not have been handled yet. To be set before it is
            taken.
        dropped: Number of notifications that were dropped.
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
        self.gaps: tuple[tuple[int, Gap], ...] = ()
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

        For each: number of notifications put up to its end, number of the last one (see `NotificationBatch`),
        its own count, and its bytes, including the overhead.
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

    @trio.lowlevel.enable_ki_protection
    def put_gap(self, gap: Gap) -> None:
        """Add a gap behind the notifications in the queue, merged with the gaps that are due together."""
        with self._lock:
            self.gaps = (*self.gaps, (self._put, gap))
            due = self._due_gaps()
            if len(due) > 1:  # nothing is left between them, so they do not pile up if nothing is taken
                self.gaps = ((self.gaps[0][0], reduce(Gap.merged, due)), *self.gaps[len(due) :])
            elif len(self.gaps) > 1 and self.gaps[-2][0] == self._put:
                self.gaps = (*self.gaps[:-2], (self._put, self.gaps[-2][1].merged(gap)))
        self._wanted.unpark_all()

    def skip(self, batch: NotificationBatch) -> None:
        """Count notifications as received for which there is no handler."""
        self._received = batch.last
        if self.waiters:
            self.release_waiters()

    def size(self) -> int:
        """Return the queued bytes; 0 if the number of notifications is limited instead."""
        if self._max_count is not None:
            return 0
        with self._lock:
            return self._exact_size()

    def shrink(self, size: float) -> None:
        """Drop the oldest notifications until at most this many bytes, or one notification, are queued."""
        while len(self.queue) > 1:
            with self._lock:
                excess = self._exact_size() - size
                if excess <= 0:
                    return
                # How many to drop of the first batch.
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
        """Accept no more notifications; the consumer still gets those in the queue, unless `drop` is set."""
        self.has_ended = True
        if drop:
            self.queue.clear()
            self.gaps = ()
        self._wanted.unpark_all()
        with self._lock:
            waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.release()

    # ---- for the consumer ----

    @trio.lowlevel.enable_ki_protection
    async def wait(self, *, for_gaps: bool = False) -> bool:
        """Wait until there are notifications; return False at the end.

        Args:
            for_gaps: Whether to return for a gap, too.
        """
        if self.queue or self.has_ended or (for_gaps and self.gaps):
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self.queue and not (for_gaps and self.gaps):
            if self.has_ended:
                return False
            await self._wanted.park()
        return True

    @trio.lowlevel.enable_ki_protection
    def take_gap(self) -> Gap | None:
        """Return the gap before the first notification in the queue, or at its end; None if there is none."""
        try:
            with self._lock:
                due = self._due_gaps()
                self.gaps = self.gaps[len(due) :]
        except BaseException:  # another thread may have injected an exception
            release_if_held(self._lock)
            raise
        return reduce(Gap.merged, due) if due else None

    @trio.lowlevel.enable_ki_protection
    def release_waiters(self) -> None:
        """Wake the threads whose notifications the handler has handled; in any thread."""
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
        """Return whether notifications up to this number may not have been handled yet; lock-free."""
        # In this order: notifications are queued before they count, and `at_work` is set before they are
        # taken.
        return self._received < last or bool(self.queue) or self.at_work

    def add_waiter(self, waiter: Waiter) -> bool:
        """Register a waiter, released when the handler has caught up; return False if it has already."""
        try:
            with self._lock:
                # Added before the check, since a handler releases waiters after it has taken a notification.
                self.waiters = [*self.waiters, waiter]
                waits = not self.has_ended and self._handled_number() < waiter.last
                if not waits:
                    self.waiters.remove(waiter)
                return waits
        except BaseException:
            release_if_held(self._lock)
            raise

    def remove_waiter(self, waiter: Waiter) -> None:
        """Remove a waiter."""
        try:
            with self._lock:
                self.waiters = [other for other in self.waiters if other is not waiter]
        except BaseException:
            release_if_held(self._lock)
            raise

    # ---- with the lock held ----

    def _due_gaps(self) -> list[Gap]:
        """Return the gaps that no queued notification precedes."""
        taken = self._put - len(self.queue)
        return [gap for position, gap in self.gaps if position <= taken]

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
    """Caller of a notification handler, for threads that wait for it; see `HandlerRunner`."""

    def is_behind(self, last: int) -> bool:
        """Return whether notifications up to this number may not have been handled yet."""

    def add_waiter(self, waiter: Waiter) -> bool:
        """See `Mailbox.add_waiter`."""

    def remove_waiter(self, waiter: Waiter) -> None:
        """See `Mailbox.remove_waiter`."""

    def give_up_on(self, last: int, seconds: float) -> None:
        """Make threads wait no longer until the handler has caught up, and log that."""


class Mailboxes:
    """The mailboxes of one client.

    Threads may read `numbers` and `handlers`; everything else belongs to the Trio thread.

    Args:
        max_size: Maximum bytes that wait for one handler or stream. As they share the notifications of a
            Service, this is also the maximum for the Service.
        max_total: Maximum bytes of all Services together.

    Attributes:
        max_size: See above.
        numbers: Number of notifications received of each Service, if there is or was a link with it.
        has_numbers: Whether any notification was received.
        caught_up: Number of a notification, by Service, up to which threads need not wait for handlers.
        handlers: Callers of the handlers, by Service.
        dropped: Number of notifications of each Service that handlers and streams have lost in total.
        gaps: Number of gaps in the notifications of each Service.
        size: Upper bound of the bytes that wait: handled notifications are not subtracted before the maximum
            is reached, and a notification counts for each of the mailboxes that share it.
        max_total: See above.
        is_shared: Whether threads share the connection, so that mailboxes need their locks.
    """

    def __init__(self, max_size: float = MAX_UNHANDLED, max_total: float = _MAX_PER_CONNECTION) -> None:
        self.max_size = max_size
        self.numbers: dict[str, int] = {}
        self.has_numbers = False
        self.caught_up: dict[str, int] = {}
        self.handlers: dict[str, tuple[Handler, ...]] = {}
        self.dropped: Counter[str] = Counter()
        self.gaps: dict[str, int] = {}
        self.max_total = max_total
        self.size = 0
        self.is_shared = False
        self._by_service: dict[str, list[Mailbox]] = {}

    def number(self, batch: NotificationBatch) -> None:
        """Number notifications, in the order of reception; in any thread that reads."""
        service = batch[0].service
        if service in self.numbers:  # else there is no link with it
            self.numbers[service] = batch.last = self.numbers[service] + len(batch)
            self.has_numbers = True

    def add_handler(self, service: str, handler: Handler) -> None:
        """Add the caller of a handler for the notifications of a Service."""
        self.numbers.setdefault(service, 0)
        self.handlers[service] = (*self.handlers.get(service, ()), handler)

    def remove_handler(self, service: str, handler: Handler) -> None:
        """Remove the caller of a handler. May be repeated."""
        self.handlers[service] = tuple(
            other for other in self.handlers.get(service, ()) if other is not handler
        )

    def add(self, mailbox: Mailbox) -> None:
        """Add a mailbox to those that are limited together."""
        self._by_service.setdefault(mailbox.service, []).append(mailbox)

    def remove(self, mailbox: Mailbox) -> None:
        """Remove a mailbox from those that are limited together. May be repeated."""
        mailboxes = self._by_service.get(mailbox.service, [])
        if mailbox in mailboxes:
            mailboxes.remove(mailbox)
        if not mailboxes:
            self._by_service.pop(mailbox.service, None)

    def shrink(self) -> None:
        """Drop notifications of the largest mailboxes if all of them hold too many bytes."""
        sizes = {service: _largest(mailboxes) for service, mailboxes in self._by_service.items()}
        self.size = sum(sizes.values())
        for service in sorted(sizes, key=sizes.__getitem__, reverse=True):
            excess = self.size - self.max_total
            if excess <= 0:
                break
            for mailbox in self._by_service[service]:
                mailbox.shrink(sizes[service] - excess)
            self.size -= sizes[service] - _largest(self._by_service[service])


def _largest(mailboxes: list[Mailbox]) -> int:
    return max(mailbox.size() for mailbox in mailboxes)
