"""The access of threads to a connection; tasks use `TaskRequests`.

A thread that makes a request sends it, if nothing else is being sent, and reads the reply if it can take the
read lease (see `ReplyLease`). Everything else is left to the Trio thread, in `Threads.flush`: most methods
return True if it has to be called. The methods need the lock of the connection, unless they say otherwise.

**Exceptions in threads.** A signal handler, or another thread, may raise an exception in a thread between any
two instructions. So every change can be completed or repeated: that of the send queue by `Threads.finish`,
and received data stays in `_received` until it is processed, if need be by the Trio thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msl_network_trio.client.idle_probe import IdleProbe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.reply_lease import MAX_LEASE, ReplyLease
from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.late_replies import LateReply, undelivered_reply
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.protocol.requests import SETTLED, Request
from msl_network_trio.transport.base import Stream

_LINE_END = ord("\n")


class ThreadRequest(Request):
    """A request that is made by a thread, and whose `wake` is thread-safe.

    Attributes:
        is_unawaited: Whether no thread waits for the reply at the moment.
        preceding: The number of the last notification of its Service that was received before the reply, for
            handlers that are behind; 0: there is none. Its maker sets it to 0.
    """

    __slots__ = ("preceding",)

    is_unawaited = False
    preceding: int

    def wake_in_thread(self) -> bool:
        """Do what `wake` does, in a thread other than Trio's; return False if only the Trio thread can.

        An exception may interrupt the thread. So a second call, or a call of `wake`, must change nothing.
        """
        return False


class Threads:
    """The access of threads to a connection.

    Args:
        stream: The stream.
        protocol: The protocol.
        requests: The send queue.
        idle_probe: The probe that is to run while requests are open.
        mailboxes: Number the notifications.
        deliver: Processes received data in the Trio thread.
        take_late_reply: Takes replies that their callers cannot get any more, in the Trio thread.

    Attributes:
        is_shared: Whether threads use the connection.
        lease: The read lease.
    """

    def __init__(
        self,
        stream: Stream,
        protocol: ClientProtocol,
        requests: RequestQueue,
        idle_probe: IdleProbe,
        *,
        mailboxes: Mailboxes,
        deliver: Callable[[bytes], object],
        take_late_reply: Callable[[LateReply], object],
    ) -> None:
        self.is_shared = False
        self._stream = stream
        self._protocol = protocol
        self._requests = requests
        self._idle_probe = idle_probe
        self._mailboxes = mailboxes
        self._deliver = deliver
        self._take_late_reply = take_late_reply
        self._io = io = stream.thread_io
        self.lease = ReplyLease(stream.lock, threads_may_receive=io is not None and io.threads_may_receive)
        self._received: list[bytes] = []
        """Data that threads have received and that is not processed."""

    def share(self) -> None:
        """Let threads use the connection from now on; in the Trio thread."""
        if not self.is_shared:
            self._mailboxes.is_shared = True
            self._requests.share()
            self.is_shared = True

    # ---- requests ----

    def put(self, request: Request) -> bool:
        """Queue a request that is sent with the next one, or by `flush`; without the lock.

        Returns:
            Whether there was room.

        Raises:
            ConnectionLost: The connection has ended.
        """
        self._protocol.check_open(request.service)
        return self._requests.gather(request)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits to be sent or answered; also without the lock."""
        return not self._requests.has_gathered and self._protocol.in_flight == 0

    def queue(self, request: ThreadRequest) -> bool | None:
        """Queue a request, send it if nothing else is being sent, and take the read lease if it is free.

        Returns:
            Whether `flush` has to be called; None: there is no room, and the request was not queued.

        Raises:
            ConnectionLost: The connection has ended.
        """
        requests = self._requests
        requests.finish()
        self._protocol.check_open(request.service)
        needs_flush = requests.put_in_thread(request)
        if needs_flush is None:
            return None
        if needs_flush or self._idle_probe.is_asleep:
            return True
        if not request.is_unawaited:
            self.lease.take(request)
        return False

    def send(self, request: ThreadRequest) -> bool:
        """Send the requests that wait to be sent, and take the read lease for a thread that awaits this one.

        Returns:
            Whether `flush` has to be called.
        """
        self._requests.finish()
        if self._requests.send_gathered() or self._idle_probe.is_asleep:
            return True
        if not request.is_unawaited:
            self.lease.take(request)
        return False

    def finish(self) -> None:
        """Complete what a thread was doing when an exception interrupted it; see `RequestQueue.finish`."""
        self._requests.finish()

    # ---- replies ----

    def reads(self, request: Request) -> bool:
        """Return whether the thread that awaits this request holds the read lease; also without the lock."""
        return self.lease.holder is request

    def wait(self, seconds: float) -> bool:
        """Wait for data, at most `MAX_LEASE`, without the lock; see `ThreadIO.wait_in_thread`."""
        assert self._io is not None  # else no thread reads
        return self._io.wait_in_thread(min(seconds, MAX_LEASE))

    def read(self, request: Request) -> bool:
        """Receive and settle replies, if the thread that awaits this request holds the read lease.

        Returns:
            Whether `flush` has to be called.
        """
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
            return False  # a large line is not complete
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
        """Release the read lease if the thread that awaits this request holds it.

        Returns:
            Whether `flush` has to be called, since no thread reads, and one waits for a reply.
        """
        if self.lease.holder is not request:
            return False
        self.lease.release(request)
        # If no thread waits for the open requests, one soon may, and takes the lease then.
        # A list, since an exception that interrupts a generator may be lost.
        return False in [
            isinstance(other, ThreadRequest) and other.is_unawaited for other in self._protocol.open.values()
        ]

    def number(self, events: Sequence[Event]) -> None:
        """Number received notifications, and note the last one before each reply.

        In the order of the wire, and before a thread is woken, which may have to wait for handlers.
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

    # ---- in the Trio thread ----

    def flush(self, *, read: bool = True) -> None:
        """Do what threads leave to the Trio thread: send, and let the task read.

        Args:
            read: Whether to call the read lease back.
        """
        self.queue_gathered()
        self._requests.schedule_flush()
        self._idle_probe.wake(for_a_while=True)
        if read:
            self.lease.call_back()

    def abandon(self, request: Request) -> None:
        """Abandon a request, and release the read lease if its thread holds it."""
        self.lease.release(request)
        self._protocol.abandon(request)

    def give_up_reply(self, request: Request) -> None:
        """Take the reply to a request that was settled at the moment in which its caller was interrupted."""
        late = undelivered_reply(request)
        if late is not None:
            self._take_late_reply(late)

    def queue_gathered(self) -> None:
        """Queue the requests of `put`; see `RequestQueue.queue_gathered`."""
        self._requests.queue_gathered()

    # ---- for the reader task ----

    def is_worth_lending(self, events: list[Event]) -> bool:
        """Return whether to lend the read lease, now that these events have been received."""
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
        """Lend the read lease until it is not used any more, then process what threads have left.

        Without the lock.
        """
        with self._stream.lock:
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
