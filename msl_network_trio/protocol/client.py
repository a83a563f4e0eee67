r"""The client's side of the protocol, as pure state.

The contract, in the order in which a connection uses it:

- hand over what was received, with `ClientProtocol.receive`; it returns events;
- make requests, with `ClientProtocol.make`, queue them, with `ClientProtocol.request`, and give up on them,
  with `ClientProtocol.abandon`;
- after each of these, write what `ClientProtocol.take` returns until it returns nothing;
- at the end of the connection call `ClientProtocol.lose`, which settles whatever is still open.

The rules of attribution live here and nowhere else. They follow from how the msl-network 1.0.0 Manager
works: it reads the lines of one client one after the other, and answers every line that it handles
itself before it reads the next. Replies carry the ``uid`` of their request. Answers to admin requests,
login questions, and the refusal of a request to a Service that is not there carry no uid. Therefore:

- While an admin request is open nothing else is written (the *gate* is shut): until the client has
  logged in as an administrator, the Manager takes the next line, whatever it is, for the user's name.
- A refusal ("the 'X' Service is not connected") names the Service but not the request. It can only
  mean a request behind the last one that is known to have been read (see `Acknowledged`). If there is just
  one, the refusal is its own. If there are several, all of them fail, and a *barrier* (an ``unlink``
  from a service that cannot exist) tells when no further refusal of theirs can follow.
- Requests to that Service that were read before will never be answered: a Manager forwards what a dying
  Service still said before it forgets the Service.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from msl_network_trio.constants import (
    DISCONNECT_REQUEST,
    MANAGER,
    NOTIFICATION_UID,
    SHUTDOWN_MANAGER,
)
from msl_network_trio.exceptions import (
    AuthenticationError,
    ConnectionLost,
    HandshakeError,
    NetworkError,
    ProtocolError,
    StreamCorrupted,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.acknowledged import Acknowledged
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.handshake import (
    HANDSHAKE_LINE_LIMIT,
    QUESTIONS,
    Handshake,
    question,
    sendable,
)
from msl_network_trio.protocol.messages import (
    UNSET,
    Connected,
    EmittedLine,
    Notification,
    NotificationBatch,
    Question,
    ReceivedLine,
    refusal,
)
from msl_network_trio.protocol.outbox import Outbox
from msl_network_trio.protocol.request_errors import answered_error, gone, is_refusal, not_there, remote_error
from msl_network_trio.protocol.requests import ABANDONED, NO_WAITER, QUEUED, SETTLED, Line, Request
from msl_network_trio.protocol.service_addresses import ServiceAddresses
from msl_network_trio.protocol.uids import Uids
from msl_network_trio.visible import visible

logger = get_logger(__name__)

R = TypeVar("R", bound=Request)

_service_of = attrgetter("service")


class _Barrier(Request):
    """A request that changes nothing, whose answer tells that the Manager has read everything before it."""

    __slots__ = ("refused",)

    refused: str | None
    """The Service whose refusals cannot come any more then; None: just to know."""


_LONG = 4096
"""Above how many bytes, on average, the lines of notifications are measured one by one."""


Event = Request | Question | Connected | NotificationBatch
"""A `Request` has been settled or has a question; a bare `Question` belongs to the handshake.

That a result has come which `NO_WAITER` waits for is no event.

Notifications of one Service that came one behind the other are one event, but for long ones (`_LONG`), which
are one each, so that their sizes are known.
"""


class ClientProtocol:
    """One client's conversation with one Manager.

    Args:
        identity: Who we are: ``type``, ``name``, ``language``, ``os``.
        manager: The ``host:port`` that ``connect`` was given, for messages.
        read_limit: The largest line to accept, in bytes; None: no limit.

    Attributes:
        network_name: ``"name[HOST:port]"`` as the Manager calls us; empty before it said so.
        broken: Why nothing that is received can be understood any more; None while all is well.
        lost: Why the connection ended; None while it has not.
        is_over: Whether no further requests are taken: the connection has ended, or we have said goodbye.
        outbox: What waits to be written; to be looked at only.
        open: `Outbox.open`; to be looked at only.
    """

    def __init__(self, identity: dict[str, Any], manager: str, read_limit: int | None = None) -> None:
        self.manager = manager
        self.network_name = ""
        self.broken: NetworkError | None = None
        self.lost: ConnectionLost | None = None
        self._handshake = Handshake(identity, manager)
        self._read_limit = read_limit
        self._lines = LineBuffer(_smaller(read_limit, HANDSHAKE_LINE_LIMIT))
        self.is_over = False
        self._rejection = ""
        self._uids = Uids()
        self.outbox = Outbox()
        self.open = self.outbox.open
        self._acknowledged = Acknowledged(self.open)
        self._barriers: dict[str | None, _Barrier] = {}
        self._deferred_barriers: list[_Barrier] = []
        self._ping: _Barrier | None = None
        self._service_addresses = ServiceAddresses()
        self._linking: dict[str, str] = {}
        self._ended = False

    @property
    def manager_name(self) -> str:
        """``"Manager[HOST:port]"`` as the Manager calls itself; empty before it said so."""
        return self._handshake.manager_name

    @property
    def is_connected(self) -> bool:
        """Whether the handshake is over."""
        return self._handshake.is_over

    @property
    def awaits(self) -> str:
        """See `Handshake.awaits`."""
        return self._handshake.awaits

    # ---- what goes out ----

    @property
    def _admin(self) -> Request | None:
        """The open admin request, because of which nothing else may be written."""
        gate = self.outbox.gate
        assert gate is None or isinstance(gate, Request)
        return gate

    @property
    def in_flight(self) -> int:
        """How many requests were given out to be written and are not yet answered."""
        return len(self.open)

    def has_open_between(self, after: int, upto: int) -> bool:
        """Whether a request is open whose `Request.sequence` is more than `after` and at most `upto`."""
        return any(after < request.sequence <= upto for request in self.open.values())

    @property
    def has_login_question(self) -> bool:
        """Whether the Manager waits for us to log in."""
        return self._admin is not None and self._admin.question is not None

    def make(
        self,
        kind: Callable[[str, str, str, bytes], R],
        service: str,
        attribute: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> R:
        """Make a request of a kind, with a uid that no other one of this connection has; nothing is queued.

        Any thread may call this at any time.

        Raises:
            TypeError: An argument has no JSON form, or a name is not text.
            ValueError: An argument cannot be sent, or the attribute is the one that says goodbye.
        """
        if attribute == DISCONNECT_REQUEST:
            raise ValueError("Use disconnect() to end the connection")
        try:
            uid = self._uids.take()
        except IndexError:
            uid = self._uids.more()
        return kind(service, attribute, uid, codec.encode_request(service, attribute, args, kwargs, uid))

    def check_open(self, service: str) -> None:
        """Raise the error of a request that is made when the connection has ended.

        Raises:
            ConnectionLost: The connection has ended, or `say_goodbye` was called.
        """
        if self.is_over:
            raise ConnectionLost(
                f"Disconnected from Manager[{self.manager}], cannot send request to {service!r}"
            ) from self.lost

    def request(self, request: Request) -> None:
        """Queue a request; while the gate is shut, it is held back.

        Raises:
            ConnectionLost: The connection has ended.
        """
        if self.is_over:
            self.check_open(request.service)
        self.outbox.add(request)

    def note_link(self, request: Request, service: str) -> None:
        """Note with which Service a request, not yet queued, asks the Manager to link."""
        self._linking[request.uid] = service

    def abandon(self, request: Request) -> None:
        """Give up on a request.

        If it was not written, it never will be. Else its reply is dropped when it comes; if it is an
        admin request, the gate stays shut until then, and questions about it are answered with nothing.
        """
        if request.phase >= SETTLED:
            return
        self._linking.pop(request.uid, None)
        if request.phase is QUEUED:
            self.outbox.withdraw(request)
            if request is self._admin:
                self._open_gate()
            return
        request.phase = ABANDONED
        if request is self._admin:
            if request.question is not None:
                self.answer("")
        elif self.open.pop(request.uid, None) is not None:
            self._acknowledged.abandon(request)
            if self._acknowledged.needs_ping and self._ping is None and self._admin is None:
                self._ping = self._barrier(None)
                self.outbox.add(self._ping)

    def answer(self, text: str) -> None:
        """Answer the Manager's question; it may be empty once the handshake is over.

        Raises:
            AuthenticationError: An empty answer in the handshake, at which a Manager falls silent.
            ValueError: The text is not Unicode (a lone surrogate).
        """
        line = Line(self._handshake.answer(text))
        if self._admin is not None:
            self._admin.question = None
        self.outbox.add_first(line)

    def say_goodbye(self) -> bool:
        """Queue the request that ends the connection; every further request is refused.

        Returns:
            False if the gate is shut, so that it cannot be written: close without it.
        """
        self.is_over = True
        if self._admin is not None or not self._handshake.is_over:
            return False
        name = self.network_name or "Client"
        self.outbox.add(Line(codec.encode_request(name, DISCONNECT_REQUEST, (), None, "goodbye")))
        return True

    def give_out(self, request: Request) -> bytes:
        """Queue a request, and return what `take` would: the way of one that need not wait for others."""
        outbox = self.outbox
        if outbox.unsent or outbox.gate is not None or request.admin:
            self.request(request)
            return outbox.take()
        if self.is_over:
            self.check_open(request.service)
        return outbox.pass_by(request)

    def take(self) -> bytes:
        """Return the next lines to write, joined; nothing if there are none.

        From here on they count as written.
        """
        return self.outbox.take()

    def _barrier(self, refused: str | None) -> _Barrier:
        barrier = self.make(_Barrier, MANAGER, "unlink", (f"nobody is called {os.urandom(8).hex()}",), None)
        barrier.refused = refused
        return barrier

    def _open_gate(self) -> None:
        """Let go what was held back, up to and including the next admin request."""
        for barrier in self._deferred_barriers:
            self.outbox.add_first(barrier)
        self._deferred_barriers.clear()
        self.outbox.open_gate()

    # ---- what comes in ----

    def receive(self, data: bytes) -> list[Event]:
        """Take what was received and return what it means, in order.

        Afterwards look at `broken`, and write what `take` returns.
        """
        events: list[Event] = []
        if self.broken is not None:
            return events
        block = self._lines.feed_block(data)
        if block:
            self._take_block(block, events)
        if self._lines.overflow is not None and self.broken is None:
            limit, start = self._lines.limit, self._lines.overflow
            self._break(f"a line of more than {limit:,} bytes (see read_limit)", start)
        return events

    @property
    def has_limit(self) -> bool:
        """Whether lines may be no longer than a limit."""
        return self._lines.limit is not None

    @property
    def is_inside_a_line(self) -> bool:
        """Whether a line has been received in part."""
        return self._lines.size > 0

    def settle_replies(self, data: bytes) -> list[Request] | None:
        """Take what was received if it is nothing but replies of Services to open requests.

        An exception may interrupt a thread in the midst of this. So it changes nothing that `receive`, or
        another call, cannot do again: until `forget`, the requests are still among `open`.

        Args:
            data: Whole lines.

        Returns:
            The requests, which are settled; None if it is something else, which is for `receive` to take.
        """
        limit = self._lines.limit
        if self.is_inside_a_line or self.broken is not None or (limit is not None and len(data) > limit):
            return None
        messages = codec.decode_lines(data)
        if not messages:
            return None
        find, manager, unset = self.open.get, MANAGER, UNSET
        requests: list[Request] = []
        for message in messages:
            request = find(message.uid)
            if (
                request is None
                or request.service == manager
                or (message.result is unset and not message.error)
            ):
                return None
            requests.append(request)
        acknowledged = self._acknowledged
        for request, message in zip(requests, messages, strict=True):
            if message.error:
                request.error = answered_error(request, message, self.manager, self.manager_name)
            else:
                request.result = message.result
            acknowledged.advance(request.sequence)
            request.phase = SETTLED
        return requests

    def forget(self, requests: Iterable[Request]) -> None:
        """Remove requests from `open` that were settled by `settle_replies`."""
        for request in requests:
            self.open.pop(request.uid, None)
        if self._acknowledged.abandoned:
            self._acknowledged.prune()

    def _take_block(self, block: bytes, events: list[Event]) -> None:
        if self._handshake.is_over:
            lines = block
            notifications, block = codec.notifications_first(lines)
            if notifications:
                self._take_notifications(notifications, lines, len(lines) - len(block), events)
            messages = codec.decode_lines(block) if block else ()
            if messages is not None:
                self._understand_all(messages, block, events)
                return
        self._receive_one_by_one(block, events)

    def _receive_one_by_one(self, block: bytes, events: list[Event]) -> None:
        """Take lines at which somebody has to look more closely."""
        for line in block[:-1].split(b"\n"):
            try:
                message = codec.decode(line)
            except codec.UndecodableLine as error:
                if line.strip():
                    self._undecodable(line, error, events)
            else:
                if self._handshake.is_over:
                    self._understand_all((message,), line, events)
                else:
                    self._shake_hands(line, message, events)
            if self.broken is not None:
                return

    def _understand_all(self, messages: Sequence[ReceivedLine], block: bytes, events: list[Event]) -> None:
        pop, append, unset, manager = self.open.pop, events.append, UNSET, MANAGER
        acknowledged, nobody = self._acknowledged, NO_WAITER
        run = NotificationBatch.of()
        sizes: dict[int, int] = {}
        for message in messages:
            uid = message.uid
            request = pop(uid, None)
            if request is not None:
                result = message.result
                if result is unset or message.error or request.service == manager:
                    self._answer(request, message)
                    append(request)
                    if request.service == manager:
                        self._look_who_is_there(request, events)
                else:  # what _answer() does, without the calls: this is the hot path
                    request.result = result
                    request.phase = SETTLED
                    if request.sequence > acknowledged.watermark:  # noqa: PLR1730 - to call max() takes longer
                        acknowledged.watermark = request.sequence
                    if request.waiter is not nobody:
                        append(request)
            elif uid == NOTIFICATION_UID:
                notification = self._notification(message)
                if notification is not None:
                    if not run or events[-1] is not run or run[0].service != notification.service:
                        run = NotificationBatch.of()
                        append(run)
                    run.append(notification)
                    # Only now, since most blocks hold nothing but replies.
                    sizes = sizes or _line_sizes(messages, block)
                    run.size += sizes[id(message)]
            else:
                self._unaddressed(message, events)
        if acknowledged.abandoned:
            acknowledged.prune()

    def _shake_hands(self, line: bytes, message: ReceivedLine, events: list[Event]) -> None:
        try:
            events.append(self._handshake.receive(line, message))
        except (AuthenticationError, HandshakeError) as error:
            self.broken = error
            return
        if self._handshake.is_over:
            self.outbox.add(Line(self._handshake.identity_line))
            self._lines.limit = self._read_limit

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Take the end of the stream and return what it means.

        Args:
            close_reason: What the Manager said of it, if the carrier lets it.
        """
        self._ended = True
        return self._handshake.eof(self._lines, self._rejection, close_reason)

    def connection_lost(self, reason: ConnectionLost, *, cut_off: bool = False) -> list[Request]:
        """End the conversation: settle every request that is still open, and return them.

        Args:
            reason: Why it ended.
            cut_off: Whether the last line that was given out was not written to its end.
        """
        self.lost = reason
        self.is_over = True
        waiting = [line for line in self.outbox if isinstance(line, Request)]
        requests = [*self.open.values(), *waiting]
        for request in requests:
            request.phase = SETTLED
            if (
                request.attribute == SHUTDOWN_MANAGER
                and request is self._admin
                and request.may_have_run
                and request.question is None
                and self._ended
                and not cut_off
            ):
                continue  # the end of the connection is its answer
            what = f"{request.service}.{request.attribute}"
            fate = "may have been executed" if request.may_have_run else "was not sent"
            request.error = type(reason)(f"{reason}; {what} {fate}", may_have_run=request.may_have_run)
        for queue in (self.outbox, self.open, self._acknowledged, self._linking):
            queue.clear()
        return requests

    def _break(self, what: str, start: bytes) -> None:
        if self._handshake.is_over:
            self.broken = StreamCorrupted(self._handshake.sent(what, start), may_have_run=True)
        else:
            self.broken = self._handshake.no_manager(what, start)

    def _undecodable(self, line: bytes, error: codec.UndecodableLine, events: list[Event]) -> None:
        request = self.open.pop(error.uid, None)
        admin = self._admin
        if request is None and error.uid == "" and admin is not None and admin.may_have_run:
            self.open.pop(admin.uid, None)
            request = admin  # see _unaddressed()
        if request is None:
            if not self._handshake.is_over or not isinstance(error.uid, str) or not error.uid:
                self._break("something that no Manager sends", line)
                return
            # It is known what it is about: a notification, or a request that was abandoned.
            logger.warning("dropped a line with uid %r that cannot be decoded: %s", error.uid, error)
            self._forget_late(error.uid)
            return
        # A JSON line all right, but more than this Python can hold: that is one request's misfortune.
        what = f"{request.service}.{request.attribute}"
        request.error = ProtocolError(f"The reply to {what} cannot be decoded: {error}")
        self._settle(request)
        events.append(request)

    def _answer(self, request: Request, message: ReceivedLine) -> None:
        """Settle a request with its answer."""
        if request.service == MANAGER and message.requester:
            self.network_name = sendable(message.requester)
        if message.error:
            request.error = answered_error(request, message, self.manager, self.manager_name)
        elif message.result is UNSET:
            what = f"{request.service}.{request.attribute}"
            request.error = ProtocolError(f"The reply to {what} has no result")
        else:
            request.result = message.result
        self._settle(request)

    def _settle(self, request: Request) -> None:
        """Settle a request that the Manager has read."""
        request.phase = SETTLED
        self._acknowledged.advance(request.sequence)
        if request.service == MANAGER:
            request.question = None
            if request is self._ping:
                self._ping = None
            elif isinstance(request, _Barrier):
                self._barriers.pop(request.refused, None)
            elif request is self._admin:
                self._open_gate()

    def _look_who_is_there(self, request: Request, events: list[Event]) -> None:
        """Fail the requests to Services that, by this answer of the Manager, are not there any more."""
        linked = self._linking.pop(request.uid, "")
        if request.error is not None:
            return
        earlier = [r for r in self.open.values() if r.service != MANAGER and r.sequence < request.sequence]
        if linked:
            address = request.result.get("address") if isinstance(request.result, dict) else None
            absent = {linked} if self._service_addresses.observe(linked, address) else set()
        elif request.attribute == "identity":
            absent = set(self._service_addresses.observe_all(request.result, {r.service for r in earlier}))
        else:
            return
        for lost in (r for r in earlier if r.service in absent):
            del self.open[lost.uid]
            lost.phase = SETTLED
            lost.error = gone(lost, self.manager_name)
            events.append(lost)

    def _unaddressed(self, message: ReceivedLine, events: list[Event]) -> None:
        """Handle a line that is not the reply to an open request."""
        uid = message.uid
        if uid:
            if not self._forget_late(uid):
                logger.debug("dropped a reply, since no request with uid %r is open", uid)
        elif uid is None:
            logger.warning("Manager[%s] sent a line without uid, dropped", self.manager)
        elif message.result is UNSET and message.attribute is not None:
            self._login_question(message, events)
        elif message.error:
            self._unaddressed_error(message, events)
        elif self._admin is not None and self._admin.may_have_run:
            self._settle_admin(self._admin, message, events)
        else:
            logger.warning("Manager[%s] sent a result that nobody asked for, dropped", self.manager)

    def _forget_late(self, uid: str) -> bool:
        """Note that the Manager has read a request that was abandoned; False if there is none."""
        late = self._acknowledged.forget(uid)
        if late is None:
            return False
        self._acknowledged.advance(late.sequence)
        return True

    def _take_notifications(
        self, lines: Sequence[EmittedLine], block: bytes, size: int, events: list[Event]
    ) -> None:
        """Take notifications, and nothing else, that have come together.

        Args:
            lines: The notifications.
            block: What they were decoded from, and perhaps more lines behind them.
            size: Bytes of their own lines.
            events: Are added to.
        """
        received = time.time()
        lengths: list[int] = []
        end = 0
        for _, run in groupby(lines, id if size > _LONG * len(lines) else _service_of):
            batch = NotificationBatch(
                [Notification(line.service, line.result.args, line.result.kwargs, received) for line in run]
            )
            batch.last = 0
            if len(batch) == len(lines):
                batch.size = size  # the usual case, in which nobody has to know the size of each
            else:
                lengths = lengths or [len(line) + 1 for line in block.split(b"\n")]
                begin, end = end, end + len(batch)
                batch.size = sum(lengths[begin:end])
            if batch[0].service == MANAGER:
                for notification in batch:
                    self._take_last_word(notification.args)
            else:
                events.append(batch)

    def _notification(self, message: ReceivedLine) -> Notification | None:
        """Return the notification of a Service that came among other lines; None if it is something else."""
        emitted, service = message.result, message.service
        if (
            service is not None
            and type(emitted) is list
            and len(emitted) == 2
            and type(emitted[0]) is list
            and type(emitted[1]) is dict
        ):
            if service != MANAGER:
                return Notification(service, emitted[0], emitted[1])
            self._take_last_word(emitted[0])
        else:
            logger.warning("dropped a malformed notification from %r", service)
        return None

    def _take_last_word(self, args: list[Any]) -> None:
        """Take what our own Manager, as which no Service is called, says before it closes the connection."""
        if args:
            self._rejection = visible(str(args[0]))

    def _login_question(self, message: ReceivedLine, events: list[Event]) -> None:
        admin = self._admin
        if admin is None or not admin.may_have_run:
            logger.warning("Manager[%s] asked for %r out of turn", self.manager, message.attribute)
        elif admin.phase is ABANDONED or message.attribute not in QUESTIONS:
            # Nobody will answer, and without an answer the gate would stay shut for ever. To an empty
            # one the Manager replies that this takes an administrator, and goes on.
            self.answer("")
        else:
            admin.question = question(message)
            events.append(admin)

    def _settle_admin(self, admin: Request, message: ReceivedLine, events: list[Event]) -> None:
        self.open.pop(admin.uid, None)
        self._answer(admin, message)
        events.append(admin)

    def _unaddressed_error(self, message: ReceivedLine, events: list[Event]) -> None:
        service = self._refused_service(message.message)
        if service is not None:
            self._service_refused(service, events)
        elif self._admin is not None and self._admin.may_have_run:
            self._settle_admin(self._admin, message, events)
        elif is_refusal(message.message):
            logger.debug("dropped a refusal that no open request can mean: %r", message.message)
        elif message.requester == self.manager_name:
            self._rejection = visible(message.message)
        else:
            self._line_unread(message, events)

    def _refused_service(self, text: str) -> str | None:
        """Return the Service that this refusal names, if a request of ours can be meant."""
        if is_refusal(text):
            for service in self._services_that_may_refuse():
                if service is not None and text == refusal(service, self.manager_name):
                    return service
        return None

    def _services_that_may_refuse(self) -> Iterator[str | None]:
        """Those that are expected to come first: each look through all open requests takes long."""
        yield from self._barriers
        yield from self._acknowledged.services

    def _service_refused(self, service: str, events: list[Event]) -> None:
        suspects = [request for request in self._acknowledged if request.service == service]
        if service in self._barriers or not suspects:
            return  # one more refusal of requests that have failed already, or a forgery
        refused = suspects[0] if len(suspects) == 1 else None
        for request in [r for r in self.open.values() if r.service == service]:
            del self.open[request.uid]
            request.phase = SETTLED
            request.error = not_there(request, self.manager_name, may_have_run=request is not refused)
            events.append(request)
        for request in suspects:
            self._acknowledged.forget(request.uid)
        if refused is not None:
            self._acknowledged.advance(refused.sequence)
            return
        barrier = self._barriers[service] = self._barrier(service)
        if self._admin is not None and self._admin.may_have_run:
            self._deferred_barriers.append(barrier)
        else:
            # In front of whatever waits to be written, since the refusals of that come after it.
            self.outbox.add_first(barrier)

    def _line_unread(self, message: ReceivedLine, events: list[Event]) -> None:
        """The Manager could not parse a line of ours (nested deeper than it can, for example)."""
        suspects = list(self._acknowledged)
        logger.error(
            "Manager[%s] could not read a request (one of %d): %s",
            self.manager,
            len(suspects),
            visible(message.message),
        )
        for request in suspects:
            self._acknowledged.forget(request.uid)
            if self.open.pop(request.uid, None) is not None:
                request.phase = SETTLED
                request.error = remote_error(request, message, self.manager)
                events.append(request)


def _line_sizes(messages: Sequence[ReceivedLine], block: bytes) -> dict[int, int]:
    """Return the bytes of each line of a block, by the `id` of the message that it holds."""
    lines = block.removesuffix(b"\n").split(b"\n")
    return {id(message): len(line) + 1 for message, line in zip(messages, lines, strict=True)}


def _smaller(limit: int | None, other: int) -> int:
    return other if limit is None else min(limit, other)
