r"""The Service's side of the protocol, as pure state.

The contract, in the order in which a connection uses it:

- pass received bytes to `ServiceProtocol.receive`, which returns events;
- write what `ServiceProtocol.take` returns, until the Manager has accepted the Service;
- answer every `IncomingRequest` with a line of `protocol.service_lines`, in any order and from any thread.

A Manager does not acknowledge an identity. So a request without effect (an ``unlink`` from a Service that
cannot exist) follows the identity: the Manager answers it if it has accepted the identity, or sends an error
instead.

`ServiceProtocol` is used by one thread at a time: that of the task that reads or, under the read lease, one
that reads in its place. There is no lock.
"""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER, NOTIFICATION_UID
from msl_network_trio.exceptions import (
    AuthenticationError,
    HandshakeError,
    NetworkError,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.framing import SkippingLineBuffer
from msl_network_trio.protocol.handshake import HANDSHAKE_LINE_LIMIT, Handshake, quote, sendable
from msl_network_trio.protocol.incoming_requests import (
    IncomingRequest,
    envelope_of,
    envelope_of_top_level,
    envelope_of_undecodable,
    fill,
    has_reserved_uid,
    requester_of,
)
from msl_network_trio.protocol.messages import Connected, Question, retry_after
from msl_network_trio.protocol.requests import encode_request
from msl_network_trio.protocol.service_lines import encode_error
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_RESERVED_UID: Final = msgspec.Raw(codec.encode_value(NOTIFICATION_UID))
_decode: Final = msgspec.json.Decoder(IncomingRequest).decode


class Refused(msgspec.Struct, gc=False):
    """A request that cannot be served, and its answer."""

    answer: bytes


Event = Question | Connected | IncomingRequest | Refused
"""An event of a Service; `Connected`: the Manager has accepted its identity."""


class ServiceProtocol:
    """The state of the protocol between one Service and one Manager.

    Args:
        identity: The identity of the Service, with ``attributes`` and ``max_clients``.
        manager: The ``host:port`` that the user gave, for messages.
        read_limit: Maximum bytes of a received line; None: no limit.

    Attributes:
        network_name: The Manager's name for the Service, ``"name[HOST:port]"``; empty until the Manager has
            accepted it.
        broken: The error because of which no further input is accepted: an invalid line, or a rejection by
            the Manager; None: there is none.
    """

    def __init__(self, identity: dict[str, Any], manager: str, read_limit: int | None = None) -> None:
        self.manager = manager
        self.network_name = ""
        self.broken: NetworkError | None = None
        self._handshake = Handshake(identity, manager)
        self._read_limit = read_limit
        self._lines = SkippingLineBuffer(
            HANDSHAKE_LINE_LIMIT if read_limit is None else min(read_limit, HANDSHAKE_LINE_LIMIT)
        )
        self._output: list[bytes] = []
        self._barrier_uid = os.urandom(8).hex()
        self._rejection = ""
        """The Manager's last error, as the reason why it has closed the connection."""
        self._retry_after: float | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the Manager has accepted the identity."""
        return bool(self.network_name)

    @property
    def manager_name(self) -> str:
        """The Manager's name for itself, ``"Manager[HOST:port]"``; empty until it is received."""
        return self._handshake.manager_name

    @property
    def awaits(self) -> str:
        """See `Handshake.awaits`."""
        return self._handshake.awaits

    # ---- output ----

    def answer(self, text: str) -> None:
        """Queue the answer to the Manager's question; raises as `Handshake.answer` does."""
        self._output.append(self._handshake.answer(text))

    def take(self) -> bytes:
        """Remove and return the queued lines, joined; empty if there are none.

        The identity and the request behind it are written together: a Manager that rejects the identity has
        most likely received both then, and closes the connection without a reset.
        """
        data = b"".join(self._output)
        self._output.clear()
        return data

    def ping(self) -> bytes:
        """Return a request without effect, which a Manager answers."""
        return self._barrier()

    def _barrier(self) -> bytes:
        nobody = (f"nobody is called {self._barrier_uid}",)
        return encode_request(MANAGER, "unlink", nobody, {}, self._barrier_uid)

    def goodbye(self) -> bytes:
        """Return the line that makes the Manager close the connection."""
        return encode_request(self.network_name, DISCONNECT_REQUEST, (), {}, "goodbye")

    # ---- input ----

    def receive(self, data: bytes) -> list[Event]:
        """Process received bytes and return the events, in order; check `broken` afterwards."""
        if (request := self.only_request(data)) is not None:
            return [request]
        events: list[Event] = []
        if self.broken is not None:
            return events
        buffer = self._lines
        if buffer.unfinished is not None:
            data = buffer.skip(data)
        for line in buffer.feed(data):
            if not self._handshake.is_over:
                self._shake_hands(line, events)
            else:
                request = _decode_usual(line)
                if request is None:
                    self._receive_unusual(line, events)
                else:
                    events.append(request)
            if self.broken is not None:
                return events
        if buffer.overflow is not None or buffer.too_long:
            self._refuse_too_long(buffer, events)
        return events

    def only_request(self, data: bytes) -> IncomingRequest | None:
        """Return the request that was received if it is a single one, complete and usual; else None.

        This changes no state, so `receive` may process the same bytes.
        """
        buffer, end = self._lines, len(data) - 1
        if (
            self.broken is not None
            or not self._handshake.is_over
            or buffer.size
            or buffer.unfinished is not None
        ):
            return None
        if data.find(b"\n") != end or end < 0 or (buffer.limit is not None and end > buffer.limit):
            return None
        return _decode_usual(data[:end])

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Return the error that the end of the stream means.

        Args:
            close_reason: The Manager's reason, if the transport carries one.
        """
        return self._handshake.eof(self._lines, self._rejection, close_reason, self._retry_after)

    def _break(self, what: str, start: bytes) -> None:
        self.broken = self._handshake.no_manager(what, start)

    def _shake_hands(self, line: bytes, events: list[Event]) -> None:
        """Process a line of the handshake."""
        try:
            event = self._handshake.receive(line, codec.decode(line))
        except codec.UndecodableLine:
            if line.strip():
                self._break("something that no Manager sends", line)
        except (AuthenticationError, HandshakeError) as error:
            self.broken = error
        else:
            if isinstance(event, Question):
                events.append(event)
            else:
                self._identify()

    def _identify(self) -> None:
        """Queue the identity, and the request whose answer acknowledges it."""
        self._lines.limit = self._read_limit
        self._lines.skips = True
        self._output.append(self._handshake.identity_line)
        self._output.append(self._barrier())

    def _receive_unusual(self, line: bytes, events: list[Event]) -> None:
        """Process a line that `_decode_usual` refuses: an unusual request, or a line of the Manager."""
        try:
            fields = codec.decode_object(line)
        except codec.UndecodableLine as error:
            if line.strip():
                self._refuse_undecodable(line, error, events)
            return
        if "attribute" not in fields:
            self._receive_from_manager(fields, events)
            return
        request = envelope_of(fields)
        try:
            fill(request, fields, len(line))
        except (TypeError, ValueError) as error:
            self._refuse(request, error, events)
        else:
            if fields.get("uid") == NOTIFICATION_UID:
                self._log_reserved(request)
            else:
                events.append(request)

    def _receive_from_manager(self, fields: dict[str, Any], events: list[Event]) -> None:
        """Process a line of the Manager: the answer to the request behind the identity, or an error."""
        if fields.get("error"):
            text = str(fields.get("message") or "The Manager refused to connect")
            again = retry_after(fields.get("again"))
            if self.is_connected:
                logger.error("Manager[%s] sent an error: %s", self.manager, visible(text))
                self._rejection = visible(text)
                self._retry_after = again
            else:
                self.broken = AuthenticationError(visible(text), retry_after=again)
        elif fields.get("uid") == self._barrier_uid and isinstance(fields.get("requester"), str):
            if self.is_connected:
                return  # the answer to `ping`
            self.network_name = sendable(fields["requester"])
            events.append(Connected(self._handshake.manager_name))
        else:
            logger.warning("Manager[%s] sent an unexpected line, dropped", self.manager)

    # ---- refusals ----

    def _refuse_undecodable(self, line: bytes, error: codec.UndecodableLine, events: list[Event]) -> None:
        request = envelope_of_undecodable(line, error)
        if request is None:
            logger.error(
                "Manager[%s] sent an unreadable line: %s (%s)",
                self.manager,
                quote(line),
                visible(str(error)),
            )
        else:
            self._refuse(request, ValueError(f"The request cannot be decoded: {error}"), events)

    def _refuse_too_long(self, buffer: SkippingLineBuffer, events: list[Event]) -> None:
        if buffer.overflow is not None:  # in the handshake
            self._break(f"a line of more than {buffer.limit:,} bytes (see read_limit)", buffer.overflow)
        for fields in buffer.too_long:
            request = envelope_of_top_level(fields)
            if request is None:
                logger.error("Manager[%s] sent a line of more than %d bytes", self.manager, buffer.limit)
            else:
                text = f"The request has more than {buffer.limit:,} bytes, the read_limit of the Service"
                self._refuse(request, ValueError(text), events)
        buffer.too_long.clear()

    def _refuse(self, request: IncomingRequest, error: Exception, events: list[Event]) -> None:
        if has_reserved_uid(request):
            self._log_reserved(request)
            return
        logger.error("refused a request of %s: %s", requester_of(request), visible(str(error)))
        events.append(Refused(encode_error(request, error, without=(__package__,))))

    def _log_reserved(self, request: IncomingRequest) -> None:
        # A Manager would take the answer for a notification, and expects more fields in that.
        logger.error(
            "request for %r without answer, since its uid is %r", request.attribute, NOTIFICATION_UID
        )


def _decode_usual(line: bytes) -> IncomingRequest | None:
    """Decode a line; return None if it is no request, or an unusual one."""
    try:
        request = _decode(line)
        if not line.isascii():
            line.decode("utf-8")  # msgspec does not check the encoding of what it skips
    except codec.DECODING_ERRORS:
        return None
    if request.error or request.uid == _RESERVED_UID or (b"\\" in line and b"\\" in bytes(request.uid)):
        return None
    request.size = len(line)
    return request
