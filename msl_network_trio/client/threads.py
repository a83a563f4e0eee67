"""What threads may do to a connection, with its lock held; `Connection` is for tasks only.

A thread that makes a request queues it and sends it, if it can be sent, and reads the reply if the task that
reads stands aside (see `Turn`). What is left goes to the Trio thread, which `Threads.flush` is for: most of
what is told here says whether that has to be called there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msl_network_trio.client.turn import LONGEST_TURN, Turn
from msl_network_trio.client.unhandled import Unhandled
from msl_network_trio.client.watch import Watch
from msl_network_trio.client.writer import Writer
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol, Event
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.protocol.outgoing import Request
from msl_network_trio.transport.base import Transport


class ThreadRequest(Request):
    """A request whose answer a thread waits for.

    Attributes:
        preceding: The number of the last notification of its Service that was received before the answer;
            0: there was none, or it is known to be handled. To be set to 0 by what makes the request.
    """

    __slots__ = ("preceding",)

    wakes_anywhere = True

    preceding: int


class Threads:
    """A connection, as threads see it.

    Args:
        transport: The carrier.
        protocol: The protocol.
        writer: Writes.
        watch: Looks after open requests.
        unhandled: Numbers notifications.
        dispatch: Tells everybody, in the Trio thread, what has arrived for them.

    Attributes:
        are_there: Whether threads use the connection.
        turn: Whose turn it is to read.
    """

    def __init__(
        self,
        transport: Transport,
        protocol: ClientProtocol,
        writer: Writer,
        watch: Watch,
        *,
        unhandled: Unhandled,
        dispatch: Callable[[list[Event]], None],
    ) -> None:
        self.are_there = False
        self._transport = transport
        self._protocol = protocol
        self._writer = writer
        self._watch = watch
        self._unhandled = unhandled
        self._dispatch = dispatch
        self.turn = Turn(transport.lock, threads_may_receive=transport.threads_may_receive)
        self._patient: deque[Request] | None = None
        """What waits for other requests; made for threads: empty, it would be a tenth of a connection."""
        self._patient_bytes = 0
        self._read: list[Event] = []

    def come(self) -> None:
        """From now on threads use the connection; to be called in the Trio thread by what lets them."""
        if not self.are_there:
            self.are_there = self._unhandled.is_shared = True
            self._patient = deque()
            self._writer.share()

    # ---- for threads ----

    def put(self, request: Request) -> bool:
        """Take a request that nobody waits for yet, without the lock; it goes with the next one or `flush`.

        Returns:
            Whether there was room for it.

        Raises:
            ConnectionLost: The connection has ended.
        """
        size = len(request.data)
        if not self._writer.has_room(self._patient_bytes + size):
            return False
        self._protocol.check_open(request.service)
        assert self._patient is not None  # threads have come
        # Two threads may count but one request here; it counts when it is queued.
        self._patient_bytes += size
        self._patient.append(request)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether a request would be alone, and need not wait for others; also without the lock."""
        return not self._patient and self._protocol.in_flight == 0

    def queue(self, request: Request) -> bool | None:
        """Queue a request, and send it if it can be sent.

        Returns:
            Whether `flush` has to be called; None: there is no room, and the request was not queued.

        Raises:
            ConnectionLost: The connection has ended.
        """
        if self._patient:
            self.queue_patient()
        if not self._writer.has_room(len(request.data)):
            self._protocol.check_open(request.service)
            return None
        self._protocol.request(request)
        return self.send(request)

    def send(self, request: Request) -> bool:
        """Send what waits, and take the turn to read if somebody waits for this request.

        Returns:
            Whether `flush` has to be called.
        """
        if self._patient:
            self.queue_patient()
        if not self._transport.threads_may_send:
            return True
        if not request.is_patient:
            self.turn.take(request)
        return self._writer.send_at_once(also_behind_others=True) or self._watch.is_asleep

    def abandon(self, request: Request) -> bool:
        """Give up on a request; returns as `send` does."""
        self.turn.give_up(request)
        self._protocol.abandon(request)
        return True

    def reads(self, request: Request) -> bool:
        """Return whether the thread that waits for this request is to read; also without the lock."""
        return self.turn.reader is request

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, without the lock; see `Transport.wait_in_thread`."""
        return self._transport.wait_in_thread(min(seconds, LONGEST_TURN))

    def read(self, request: Request) -> bool:
        """Read, if that is the turn of the thread that waits for this request; returns as `send` does."""
        if self.turn.reader is not request:
            return False
        data = self._transport.receive_nowait()
        if data is None:
            return False
        if not data:
            self.turn.give_up(request)
            return True
        self._watch.hear()
        events = self._protocol.receive(data)
        self.number(events)
        for event in events:
            if isinstance(event, Request) and event.wakes_anywhere:
                event.wake()
            else:
                self._read.append(event)
        others_wait = self.stop_reading(request) if request.settled else False
        protocol = self._protocol
        return others_wait or bool(self._read) or bool(protocol.outbox) or protocol.broken is not None

    def stop_reading(self, request: Request) -> bool:
        """Leave reading to others; returns as `send` does."""
        if self.turn.reader is not request:
            return False
        self.turn.give_up(request)
        # If nobody waits for those that are open, somebody soon may, and will read then.
        return any(not other.is_patient for other in self._protocol.open.values())

    def number(self, events: list[Event]) -> None:
        """Number the notifications that were received, and note which of them precede an answer.

        In the order of the wire, and before any thread is woken: it may have to wait for handlers.
        """
        unhandled = self._unhandled
        for event in events:
            if isinstance(event, ThreadRequest):
                if unhandled.has_numbers:
                    last = unhandled.numbers.get(event.service, 0)
                    if last > unhandled.caught_up.get(event.service, 0):
                        event.preceding = last
            elif isinstance(event, NotificationBatch):
                unhandled.number(event)

    # ---- for the Trio thread, with the lock held ----

    def flush(self, *, read: bool = True) -> None:
        """Do what threads have left to do.

        Args:
            read: Whether to read as well.
        """
        self.queue_patient()
        self._writer.flush()
        self._watch.wake(for_a_while=True)
        if read:
            self.turn.call_back()

    def queue_patient(self) -> None:
        """Queue what was taken by `put`; also in a thread."""
        self._patient_bytes = 0
        while self._patient:
            request = self._patient.popleft()
            if request.abandoned:
                continue
            try:
                self._protocol.request(request)
            except ConnectionLost as error:
                request.settled, request.error = True, error
                request.wake()

    # ---- for the task that reads ----

    def is_to_stand_aside(self, events: list[Event]) -> bool:
        """Return whether to leave to threads what comes next, now that this has come; with the lock held."""
        requests = [event for event in events if isinstance(event, Request)]
        return (
            len(requests) == len(events)
            and self.turn.is_to_stand_aside(requests)
            and not self._protocol.outbox
            and all(request.wakes_anywhere for request in self._protocol.open.values())
        )

    async def stand_aside(self) -> None:
        """Let threads read; see `Turn.stand_aside`."""
        try:
            await self.turn.stand_aside()
        finally:
            # No thread adds to it any more, since it is the turn of the task now.
            read, self._read = self._read, []
            self._dispatch(read)
