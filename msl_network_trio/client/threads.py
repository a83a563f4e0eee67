"""The part of a connection that threads use, with its lock held; tasks use `Connection`.

A thread that makes a request sends it, if nothing else is being sent, and reads the reply if it is granted
the read lease (see `ReadLease`). Everything else is left to the Trio thread, for `Threads.flush`: most
methods return whether that has to be called there.

**Exceptions in threads.** A signal handler, or another thread, may raise an exception in a thread between any
two steps of the interpreter. So threads change nothing that cannot be done again. Before a thread sends, it
puts the requests into `_leaving`; `finish` does all that is left to do with these, once or several times.
Received bytes stay in `_received` until they have been processed, and the Trio thread takes the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.reply_lease import MAX_LEASE, ReplyLease
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.protocol.requests import MADE, SETTLED, Request
from msl_network_trio.transport.base import Stream

_LINE_END = ord("\n")

_CHUNK = 262_144
"""Bytes of requests that are sent together, if there are as many."""


class ThreadRequest(Request):
    """A request that is made by a thread, and whose `wake` is thread-safe.

    Attributes:
        is_unawaited: Whether no thread waits for the reply at the moment.
        preceding: The number of the last notification of its Service that was received before the reply;
            0: there was none, or it is known to be handled. To be set to 0 by what makes the request.
    """

    __slots__ = ("preceding",)

    is_unawaited = False
    preceding: int

    def wake_in_thread(self) -> bool:
        """Do what `wake` does, in another thread than that of Trio, and return whether that is possible.

        An exception may interrupt the thread. So a second call, or a call of `wake`, must change nothing.
        """
        return False


class Threads:
    """A connection, as threads see it.

    Args:
        transport: The carrier.
        protocol: The protocol.
        writer: Writes.
        idle_probe: Looks after open requests.
        mailboxes: Numbers notifications.
        deliver: Takes, in the Trio thread, what a thread has received.

    Attributes:
        is_shared: Whether threads use the connection.
        turn: Whose turn it is to read.
    """

    def __init__(
        self,
        transport: Stream,
        protocol: ClientProtocol,
        writer: RequestQueue,
        idle_probe: IdleProbe,
        *,
        mailboxes: Mailboxes,
        deliver: Callable[[bytes], object],
    ) -> None:
        self.is_shared = False
        self._transport = transport
        self._protocol = protocol
        self._requests = writer
        self._idle_probe = idle_probe
        self._mailboxes = mailboxes
        self._deliver = deliver
        self._io = io = transport.thread_io
        self.lease = ReplyLease(transport.lock, threads_may_receive=io is not None and io.threads_may_receive)
        self._gathered: deque[Request] | None = None
        """What waits for other requests; made for threads: empty, it would be a tenth of a connection."""
        self._gathered_bytes = 0
        self._leaving: list[Request] = []
        """Requests that a thread is about to send; cleared before it sends them."""
        self._after = 0
        """The `Outbox.last_sequence` before them."""
        self._received: list[bytes] = []
        """What threads have received and is not processed yet."""

    def come(self) -> None:
        """From now on threads use the connection; to be called in the Trio thread by what lets them."""
        if not self.is_shared:
            self.is_shared = self._mailboxes.is_shared = True
            self._gathered = deque()
            self._requests.share()

    # ---- for threads ----

    def put(self, request: Request) -> bool:
        """Take a request that nobody waits for yet, without the lock; it goes with the next one or `flush`.

        Returns:
            Whether there was room for it.

        Raises:
            ConnectionLost: The connection has ended.
        """
        size = len(request.data)
        if not self._requests.has_room(self._gathered_bytes + size):
            return False
        self._protocol.check_open(request.service)
        assert self._gathered is not None  # threads have come
        # Two threads may count but one request here; it counts when it is queued.
        self._gathered_bytes += size
        self._gathered.append(request)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether a request would be alone, and need not wait for others; also without the lock."""
        return not self._gathered and self._protocol.in_flight == 0

    def queue(self, request: ThreadRequest) -> bool | None:
        """Queue a request, and send it if it can be sent.

        Returns:
            Whether `flush` has to be called; None: there is no room, and the request was not queued.

        Raises:
            ConnectionLost: The connection has ended.
        """
        self.finish()
        self._protocol.check_open(request.service)
        gathered = self._gathered
        assert gathered is not None  # threads have come
        size = len(request.data)
        if not self._requests.has_room(self._gathered_bytes + size):
            return None
        can_send = self._requests.is_clear
        if can_send and not request.is_unawaited:
            self.lease.take(request)
        if can_send and not gathered:
            self._begin()
            self._leaving.append(request)
            return self._send()
        self._gathered_bytes += size
        gathered.append(request)
        return self._send_gathered() if can_send else True

    def send(self, request: ThreadRequest) -> bool:
        """Send what waits, and take the turn to read if somebody waits for this request.

        Returns:
            Whether `flush` has to be called.
        """
        self.finish()
        if not self._requests.is_clear:
            return True
        if not request.is_unawaited:
            self.lease.take(request)
        return self._send_gathered() if self._gathered else self._idle_probe.is_asleep

    def _send_gathered(self) -> bool:
        """Send what waits for other requests; returns as `send` does."""
        leaving, gathered = self._leaving, self._gathered
        assert gathered is not None  # threads have come
        self._begin()
        size = 0
        while gathered and size < _CHUNK:
            request = gathered[0]
            if request.phase is MADE:
                leaving.append(request)
                size += len(request.data)
            gathered.popleft()  # interrupted before this, the request is passed over later
        if not gathered:
            self._gathered_bytes = 0
        return self._send() if leaving else self._idle_probe.is_asleep

    def _begin(self) -> None:
        self._after = self._protocol.outbox.last_sequence

    def _send(self) -> bool:
        """Send the requests in `_leaving`; returns as `send` does."""
        requests = self._requests
        leaving = self._leaving
        requests.begin(leaving[0].data if len(leaving) == 1 else b"".join([r.data for r in leaving]))
        self._mark_written()
        if not requests.send_in_thread():
            requests.leave_unsent()
            return True
        return bool(self._gathered) or self._idle_probe.is_asleep

    def _mark_written(self) -> None:
        leaving = self._leaving
        if not leaving:
            return
        self._protocol.outbox.mark_written(leaving, self._after)
        for request in leaving:
            request.data = b""
        leaving.clear()

    def finish(self) -> None:
        """Complete what a thread was doing when an exception interrupted it; may be repeated.

        Its requests count as written. What was not sent of them is left to the task, for `flush`.
        """
        requests = self._requests
        if self._leaving and requests.is_idle:
            requests.begin(b"".join([request.data for request in self._leaving]))
        if requests.is_in_thread:
            self._mark_written()
            requests.leave_unsent()

    def reads(self, request: Request) -> bool:
        """Return whether the thread that waits for this request is to read; also without the lock."""
        return self.lease.holder is request

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, without the lock; see `ThreadIO.wait_in_thread`."""
        assert self._io is not None  # else no thread reads
        return self._io.wait_in_thread(min(seconds, MAX_LEASE))

    def read(self, request: Request) -> bool:
        """Read, if that is the turn of the thread that waits for this request; returns as `send` does."""
        if self.lease.holder is not request:
            return False
        received = self._received
        assert self._io is not None  # else no thread reads
        self._io.receive_in_thread(received)
        if not received:
            return False
        self._idle_probe.note_activity()
        last = received[-1]
        if last and last[-1] != _LINE_END and not self._protocol.has_limit:
            return False  # the rest of a large line is still to come
        if not (last and self._take_replies(last if len(received) == 1 else b"".join(received))):
            self.lease.give_back(request)
            return True
        received.clear()
        return self.stop_reading(request) if request.phase is SETTLED else False

    def _take_replies(self, data: bytes) -> bool:
        """Settle replies and wake their threads; return False if the task has to process the data."""
        replies = self._protocol.settle_replies(data)
        if replies is None:
            return False
        self.number(replies)
        for reply in replies:
            if not isinstance(reply, ThreadRequest) or not reply.wake_in_thread():
                return False
        self._protocol.replies.forget(replies)
        return True

    def stop_reading(self, request: Request) -> bool:
        """Leave reading to others; returns as `send` does."""
        if self.lease.holder is not request:
            return False
        self.lease.release(request)
        # If nobody waits for those that are open, somebody soon may, and will read then.
        # In a list: an exception that interrupts a generator may be lost.
        return False in [
            isinstance(other, ThreadRequest) and other.is_unawaited for other in self._protocol.open.values()
        ]

    def number(self, events: Sequence[Event]) -> None:
        """Number the notifications that were received, and note which of them precede an answer.

        In the order of the wire, and before any thread is woken: it may have to wait for handlers.
        """
        mailboxes = self._mailboxes
        for event in events:
            if isinstance(event, ThreadRequest):
                if mailboxes.has_numbers:
                    last = mailboxes.numbers.get(event.service, 0)
                    if last > mailboxes.caught_up.get(event.service, 0):
                        event.preceding = last
            elif isinstance(event, NotificationBatch):
                mailboxes.number(event)

    # ---- for the Trio thread, with the lock held ----

    def flush(self, *, read: bool = True) -> None:
        """Do what threads have left to do.

        Args:
            read: Whether to read as well.
        """
        self.queue_gathered()
        self._requests.schedule_flush()
        self._idle_probe.wake(for_a_while=True)
        if read:
            self.lease.call_back()

    def abandon(self, request: Request) -> None:
        """Give up on a request."""
        self.lease.release(request)
        self._protocol.abandon(request)

    def queue_gathered(self) -> None:
        """Queue what was taken by `put`."""
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

    # ---- for the task that reads ----

    def is_worth_lending(self, events: list[Event]) -> bool:
        """Return whether to leave to threads what comes next, now that this has come; with the lock held."""
        requests = [event for event in events if isinstance(event, ThreadRequest)]
        return (
            len(requests) == len(events)
            and not all(request.is_unawaited for request in requests)
            and self.lease.is_worth_lending()
            and not self._protocol.outbox
            and not self._protocol.is_inside_a_line
            and all(isinstance(request, ThreadRequest) for request in self._protocol.open.values())
        )

    async def lend(self) -> None:
        """Lend the read lease to threads until it is not used any more, and process what they leave."""
        with self._transport.lock:
            self.lease.lend()
        try:
            await self.lease.wait()
        finally:
            self.lease.take_back()
            # No thread adds to it any more.
            data = b"".join(self._received)
            self._received.clear()
            if data:
                self._deliver(data)
