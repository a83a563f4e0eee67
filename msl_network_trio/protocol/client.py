r"""The client's side of the protocol, as pure state.

The contract, in the order in which a connection uses it:

- pass received bytes to `ClientProtocol.receive`, which returns events;
- make requests with `ClientProtocol.make`, queue them with `ClientProtocol.request`, and give up on them with
  `ClientProtocol.abandon`;
- after each of these, write what `ClientProtocol.take` returns until it returns nothing;
- at the end of the connection call `ClientProtocol.connection_lost`, which settles all requests.

The rules of attribution follow from the Manager of msl-network 1.0.0: it reads the lines of one client in
order, and answers every line that it processes itself before it reads the next. Replies carry the ``uid`` of
their request. Answers to admin requests, login questions, and refusals of requests to Services that are not
connected carry none:

- While an admin request is open, no other line is written (the *gate* of the `Outbox` is shut): until the
  client has logged in as an administrator, the Manager takes the next line for the user's name.
- `Refusals` attributes refusals to requests, with the watermark of `Acknowledged`.

Any thread may call `make`. All other methods are called with the connection's lock held or, as long as
threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from msl_network_trio.constants import (
    MANAGER,
    NOTIFICATION_UID,
)
from msl_network_trio.exceptions import (
    AuthenticationError,
    HandshakeError,
    NetworkError,
    StreamCorrupted,
    Unanswered,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.blocks import BlockBuffer, decode_lines, split_notifications
from msl_network_trio.protocol.client_output import ClientOutput
from msl_network_trio.protocol.handshake import (
    HANDSHAKE_LINE_LIMIT,
    QUESTIONS,
    question,
    sendable,
)
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import (
    UNSET,
    Connected,
    EmittedLine,
    ManagerNotice,
    Notification,
    NotificationBatch,
    Question,
    ReceivedLine,
    retry_after,
)
from msl_network_trio.protocol.notification_batches import batches, line_sizes, notification_of
from msl_network_trio.protocol.refusals import Barrier
from msl_network_trio.protocol.replies import Replies
from msl_network_trio.protocol.request_errors import is_refusal
from msl_network_trio.protocol.requests import (
    ABANDONED,
    NO_WAITER,
    SETTLED,
    Line,
    Request,
)
from msl_network_trio.protocol.traffic import Traffic
from msl_network_trio.visible import visible

logger = get_logger(__name__)

Event = Request | Question | Connected | NotificationBatch | ManagerNotice | LateReply
"""An event of a client.

- A `Request` is settled, or has a question. Results of requests without a waiter (`NO_WAITER`) are no events.
- A `Question` of its own belongs to the handshake.
- A `NotificationBatch` holds consecutive notifications of one Service; long ones are one batch each.
- A `ManagerNotice` is a notice of a Manager that tells when Services disconnect and connect.
- A `LateReply` answers a request that was abandoned.
"""

_NOTICES: Final[tuple[Literal["tells", "gone", "came"], ...]] = ("tells", "gone", "came")


class ClientProtocol(ClientOutput):
    """The state of the protocol between one client and one Manager.

    Args:
        identity: See `ClientOutput`.
        manager: See `ClientOutput`.
        read_limit: Maximum bytes of a received line; None: no limit.
        traffic: See `ClientOutput`.
        keep_calls: See `ClientOutput`.

    Attributes:
        broken: The error because of which no further input is accepted; None: there is none.
        replies: Settles requests; threads use it to settle replies themselves.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        manager: str,
        read_limit: int | None = None,
        *,
        traffic: Traffic | None = None,
        keep_calls: bool = False,
    ) -> None:
        super().__init__(identity, manager, traffic=traffic, keep_calls=keep_calls)
        self.broken: NetworkError | None = None
        self._latencies = self.traffic.latencies
        self.replies = Replies(self.open, self._acknowledged, manager)
        self._read_limit = read_limit
        self._lines = BlockBuffer(
            HANDSHAKE_LINE_LIMIT if read_limit is None else min(read_limit, HANDSHAKE_LINE_LIMIT)
        )
        self._rejection = ""
        """The Manager's last error or notification, as the reason why it has closed the connection."""
        self._retry_after: float | None = None

    @property
    def has_limit(self) -> bool:
        """Whether the length of received lines is limited."""
        return self._lines.limit is not None

    @property
    def is_inside_a_line(self) -> bool:
        """Whether a line has been received in part."""
        return self._lines.size > 0

    def receive(self, data: bytes) -> list[Event]:
        """Process received bytes and return the events, in order.

        Afterwards check `broken`, and write what `take` returns.
        """
        events: list[Event] = []
        messages, block = self._decode(data, events)
        pop, manager, unset, acknowledged = self.open.pop, MANAGER, UNSET, self._acknowledged
        sizes: dict[int, int] = {}
        run: NotificationBatch | None = None
        for message in messages:
            request = pop(message.uid, None)
            if request is None:
                if message.uid == NOTIFICATION_UID:
                    sizes = sizes or line_sizes(messages, block)
                    run = self._take_notification(message, sizes[id(message)], run, events)
                else:
                    self._take_unaddressed(message, events)
            elif message.result is unset or message.error or request.service == manager:
                self._take_answer(request, message, events)
            else:  # what _take_answer() does, without the calls
                request.result = message.result
                request.phase = SETTLED
                if request.sequence > acknowledged.watermark:  # noqa: PLR1730 - max() takes longer
                    acknowledged.watermark = request.sequence
                if request.waiter is not NO_WAITER:
                    events.append(request)
        if acknowledged.abandoned:
            acknowledged.prune()
        self.traffic.bytes_received += len(data)
        if self._latencies.open:
            self._latencies.end()
        return events

    def settle_replies(self, data: bytes) -> list[Request] | None:
        """Process received bytes in a thread, if they are nothing but replies of Services.

        An exception may interrupt the thread at any point. Until `Replies.forget` this can be repeated with
        the same bytes, or left to `receive`.

        Args:
            data: Whole lines.

        Returns:
            The requests, which are settled and still open; None, with no state changed, if `receive` must
            process the bytes.
        """
        limit = self._lines.limit
        if self.is_inside_a_line or self.broken is not None or (limit is not None and len(data) > limit):
            return None
        messages = decode_lines(data)
        replies = self.replies.settle_all(messages) if messages else None
        if replies is not None:
            self.traffic.bytes_received += len(data)
            if self._latencies.open:
                self._latencies.end()
        return replies

    def _decode(self, data: bytes, events: list[Event]) -> tuple[Sequence[ReceivedLine], bytes]:
        """Decode received bytes, and process those that `receive` cannot attribute as a block.

        These are the handshake, notifications at the start of a block, and blocks in which a line is unusual.

        Args:
            data: The bytes.
            events: The list to which their events are appended.

        Returns:
            The messages for `receive`, and their lines.
        """
        if self.broken is not None:
            return (), b""
        messages: Sequence[ReceivedLine] | None = None
        rest = block = self._lines.feed_block(data)
        if self._handshake.is_over:
            notifications, rest = split_notifications(block)
            if notifications:
                self._take_notifications(notifications, block, len(block) - len(rest), events)
            messages = decode_lines(rest) if rest else ()
        if messages is None:
            self._receive_one_by_one(rest, events)
        if self._lines.overflow is not None and self.broken is None:
            limit, start = self._lines.limit, self._lines.overflow
            self._break(f"a line of more than {limit:,} bytes (see read_limit)", start)
        return messages or (), rest

    def _receive_one_by_one(self, block: bytes, events: list[Event]) -> None:
        """Process the lines of the handshake, or of a block in which a line is unusual."""
        for line in block[:-1].split(b"\n"):
            try:
                message = codec.decode(line)
            except codec.UndecodableLine as error:
                if line.strip():
                    self._take_undecodable(line, error, events)
            else:
                if self._handshake.is_over:
                    self._take(message, len(line) + 1, events)
                else:
                    self._shake_hands(line, message, events)
            if self.broken is not None:
                return

    def _shake_hands(self, line: bytes, message: ReceivedLine, events: list[Event]) -> None:
        """Process a line of the handshake; at its end, queue the identity."""
        try:
            events.append(self._handshake.receive(line, message))
        except (AuthenticationError, HandshakeError) as error:
            self.broken = error
            return
        self.replies.manager_name = self.manager_name
        if self._handshake.is_over:
            self.outbox.add(Line(self._handshake.identity_line))
            self._other_lines += 1
            self._lines.limit = self._read_limit

    def _take(self, message: ReceivedLine, size: int, events: list[Event]) -> None:
        """Attribute a line, as `receive` does; `size` is its bytes."""
        request = self.open.pop(message.uid, None)
        if request is not None:
            self._take_answer(request, message, events)
        elif message.uid == NOTIFICATION_UID:
            self._take_notification(message, size, None, events)
        else:
            self._take_unaddressed(message, events)

    def _take_answer(self, request: Request, message: ReceivedLine, events: list[Event]) -> None:
        """Settle a request, which is no longer open, with its answer."""
        if request.service == MANAGER and message.requester:
            self.network_name = sendable(message.requester)
        self.replies.settle(request, message)
        events.append(request)
        if request.service == MANAGER:
            self._after_manager_answer(request)
            events += self._expect_late_replies(self._services.fail_requests(request, self.manager_name))

    def _expect_late_replies(self, failed: list[Request]) -> list[Request]:
        """Remember failed requests that may be answered yet, and return all of them."""
        if self.late is not None:
            for request in failed:
                if isinstance(request.error, Unanswered) and request.error.may_have_run:
                    self.late.remember(request)
        return failed

    def _after_manager_answer(self, request: Request) -> None:
        """Open the gate, or remove the barrier, that a settled request to the Manager was."""
        request.question = None
        if isinstance(request, Barrier):
            self._refusals.remove(request)
        elif request is self._admin:
            self._open_gate()

    def _take_undecodable(self, line: bytes, error: codec.UndecodableLine, events: list[Event]) -> None:
        """Process a line that cannot be decoded: settle the request that it answers, or break the stream."""
        request = self.open.pop(error.uid, None)
        admin = self._admin
        if request is None and error.uid == "" and admin is not None and admin.may_have_run:
            self.open.pop(admin.uid, None)
            request = admin  # see _take_unaddressed()
        if request is not None:
            # It is JSON, but exceeds the limits of Python; that concerns one request only.
            self.replies.settle_undecodable(request, error)
            if request.service == MANAGER:
                self._after_manager_answer(request)
            events.append(request)
        elif not self._handshake.is_over or not isinstance(error.uid, str) or not error.uid:
            self._break("something that no Manager sends", line)
        else:  # a notification, or the reply to an abandoned request
            logger.warning("dropped a line with uid %r that cannot be decoded: %s", error.uid, error)
            self._acknowledge_abandoned(error.uid)

    def _acknowledge_abandoned(self, uid: str) -> bool:
        """Advance the watermark by the late reply to an abandoned request; return False if there is none."""
        late = self._acknowledged.forget(uid)
        if late is None:
            return False
        self._acknowledged.advance(late.sequence)
        return True

    # ---- lines that are no replies to open requests ----

    def _take_unaddressed(self, message: ReceivedLine, events: list[Event]) -> None:
        """Process a line without uid, or with the uid of no open request."""
        uid = message.uid
        admin = self._admin
        if uid:
            is_known = self._acknowledge_abandoned(uid)
            self.traffic.late_replies += 1
            late = None if self.late is None else self.late.take(message, self.manager_name)
            if late is not None:
                events.append(late)
            elif not is_known:
                logger.debug("dropped a reply, since no request with uid %r is open", uid)
        elif uid is None:
            logger.warning("Manager[%s] sent a line without uid, dropped", self.manager)
        elif message.result is UNSET and message.attribute is not None:
            self._take_login_question(message, events)
        elif message.error:
            self._take_unaddressed_error(message, events)
        elif admin is not None and admin.may_have_run:
            self._take_admin_answer(admin, message, events)
        else:
            logger.warning("Manager[%s] sent an unexpected result, dropped", self.manager)

    def _take_unaddressed_error(self, message: ReceivedLine, events: list[Event]) -> None:
        service = self._refusals.refused_service(message.message, self.manager_name)
        admin = self._admin
        if service is not None:
            events += self._expect_late_replies(self._refusals.refuse(service, self.manager_name))
        elif admin is not None and admin.may_have_run:
            self._take_admin_answer(admin, message, events)
        elif is_refusal(message.message):
            logger.debug("dropped a refusal that no open request can mean: %r", message.message)
        elif message.requester == self.manager_name:
            self._rejection = visible(message.message)
            self._retry_after = retry_after(message.again)
        else:  # a line of this client is nested deeper than the Manager can parse, for example
            text = "Manager[%s] could not read a request (one of %d): %s"
            count, failed = self._refusals.fail_unreadable(message, self.manager)
            logger.error(text, self.manager, count, visible(message.message))
            events += failed

    def _take_login_question(self, message: ReceivedLine, events: list[Event]) -> None:
        admin = self._admin
        if admin is None or not admin.may_have_run:
            logger.warning("Manager[%s] asked for %r out of turn", self.manager, message.attribute)
        elif admin.phase is ABANDONED or message.attribute not in QUESTIONS:
            # Without an answer the gate would stay shut. An empty one makes the Manager refuse the admin
            # request.
            self.answer("")
        else:
            admin.question = question(message)
            events.append(admin)

    def _take_admin_answer(self, admin: Request, message: ReceivedLine, events: list[Event]) -> None:
        self.open.pop(admin.uid, None)
        self._take_answer(admin, message, events)

    def _take_notifications(
        self, lines: Sequence[EmittedLine], block: bytes, size: int, events: list[Event]
    ) -> None:
        """Process notifications without other lines between them; arguments as in `batches`."""
        for batch in batches(lines, block, size):
            if batch[0].service == MANAGER:
                for notification in batch:
                    self._take_manager_notification(notification, events)
            else:
                events.append(batch)

    def _take_notification(
        self, message: ReceivedLine, size: int, run: NotificationBatch | None, events: list[Event]
    ) -> NotificationBatch | None:
        """Process a notification among other lines.

        Args:
            message: The notification.
            size: Bytes of its line.
            run: The batch of the notification before, to which this one is added if they are consecutive.
            events: The list to which a new batch is appended.

        Returns:
            The batch that holds it; `run` if it is malformed, or one of the Manager.
        """
        notification = notification_of(message)
        if notification is None:
            return run
        if notification.service == MANAGER:
            self._take_manager_notification(notification, events)
            return run
        if run is None or events[-1] is not run or run[0].service != notification.service:
            run = NotificationBatch.of()
            events.append(run)
        run.append(notification)
        run.size += size
        return run

    def _take_manager_notification(self, notification: Notification, events: list[Event]) -> None:
        """Process a notification of a Manager of this package itself, whose name no Service has.

        A positional argument is the reason for which it is about to close the connection; keyword arguments
        are notices about Services.
        """
        if notification.args:
            self._rejection = visible(str(notification.args[0]))
        for kind in _NOTICES if notification.kwargs else ():
            names = notification.kwargs.get(kind)
            names = names if isinstance(names, list) else [names]
            events += [ManagerNotice(kind, name) for name in names if isinstance(name, str)]

    # ---- the end ----

    def _break(self, what: str, start: bytes) -> None:
        """Accept no further input, since a line is not one of a Manager."""
        if self._handshake.is_over:
            self.broken = StreamCorrupted(self._handshake.sent(what, start), may_have_run=True)
        else:
            self.broken = self._handshake.no_manager(what, start)

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Return the error that the end of the stream means.

        Args:
            close_reason: The Manager's reason, if the transport carries one.
        """
        self._stream_has_ended = True
        return self._handshake.eof(self._lines, self._rejection, close_reason, self._retry_after)
