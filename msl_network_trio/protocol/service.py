r"""The Service's side of the protocol: requests come in, answers and notifications go out.

The contract, in the order in which a connection uses it:

- hand over what was received, with `ServiceProtocol.receive`; it returns events;
- until the Manager has accepted us, write what `ServiceProtocol.take` returns;
- encode an answer to every `IncomingRequest`, with `encode_result` or `encode_error`, in any order and in any
  thread.

A Manager says nothing when it accepts an identity. So a request that changes nothing (an ``unlink`` from a
Service that cannot exist) goes out right behind the identity: the Manager answers it to whoever is
registered, and a rejection comes in its place.

A Manager forwards what a Service writes as it is. Some clients read up to a carriage return and a newline, so
that is how the lines of a Service end; and nothing is written that would end the Manager's conversation with
us.
"""

from __future__ import annotations

import os
import traceback
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
from msl_network_trio.protocol.messages import Connected, Question
from msl_network_trio.protocol.top_level import is_unicode
from msl_network_trio.visible import visible

logger = get_logger(__name__)

LARGE: Final = 131_072
"""From how many bytes a line is given out in pieces: joining them would take longer than writing them."""

OutgoingLine = bytes | tuple[bytes, ...]
"""A line to be written, or the pieces of a large one."""

_NOBODY: Final = msgspec.Raw(b"null")
_NO_UID: Final = msgspec.Raw(b'""')
_RESERVED_UID: Final = msgspec.Raw(codec.encode_value(NOTIFICATION_UID))

_BEGIN: Final = b'{"error":false,"requester":'
_RESULT: Final = b',"result":'
_UID: Final = b',"uid":'
_END: Final = b"}\r\n"
_NOTIFY: Final = b'{"error":false,"result":'


class IncomingRequest(msgspec.Struct, gc=False):
    """A request that a Manager has forwarded; other fields of its line are skipped."""

    attribute: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    uid: msgspec.Raw = _NO_UID
    """As it came, to be sent back like that."""

    requester: msgspec.Raw = _NOBODY
    """As it came, to be sent back like that."""

    error: bool = False
    size: int = msgspec.field(default=0, name=" ")
    """The length of its line in bytes; the name is one that no field of a line has."""

    def forget(self) -> None:
        """Forget the arguments, which may be large: the rest of it may live for long."""
        self.args = []
        self.kwargs = {}


class Refused(msgspec.Struct, gc=False):
    """A request that cannot be carried out, and the answer that says so."""

    answer: bytes


Event = Question | Connected | IncomingRequest | Refused
"""`Connected`: the Manager has accepted us."""

_decode_request: Final = msgspec.json.Decoder(IncomingRequest).decode
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Envelope(msgspec.Struct):
    """Where to send the answer to a request that cannot be decoded."""

    uid: msgspec.Raw
    requester: msgspec.Raw


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


class ServiceProtocol:
    """One Service's conversation with one Manager.

    Args:
        identity: Who we are, with ``attributes`` and ``max_clients``.
        manager: The ``host:port`` that the user gave, for messages.
        read_limit: The largest line to accept, in bytes; None: no limit.

    Attributes:
        network_name: ``"name[HOST:port]"`` as the Manager calls us; empty before it has accepted us.
        broken: Why nothing that is received can be understood any more, or why the Manager does not accept
            us; None while all is well.
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

    @property
    def is_connected(self) -> bool:
        """Whether the Manager has accepted us."""
        return bool(self.network_name)

    @property
    def manager_name(self) -> str:
        """The name that the Manager gives itself, ``"Manager[HOST:port]"``; empty before it has said so."""
        return self._handshake.manager_name

    @property
    def awaits(self) -> str:
        """See `Handshake.awaits`."""
        return self._handshake.awaits

    # ---- the handshake ----

    def answer(self, text: str) -> None:
        """Answer the Manager's question; see `Handshake.answer` for what it raises."""
        self._output.append(self._handshake.answer(text))

    def take(self) -> bytes:
        """Return what is to be written, joined; nothing if there is nothing.

        The identity and what follows it come in one: a Manager that rejects the identity has then most
        likely received both, and closes the connection properly.
        """
        data = b"".join(self._output)
        self._output.clear()
        return data

    def _identify(self) -> None:
        self._lines.limit = self._read_limit
        self._lines.skips = True
        barrier = (f"nobody is called {self._barrier_uid}",)
        self._output.append(self._handshake.identity_line)
        self._output.append(codec.encode_request(MANAGER, "unlink", barrier, {}, self._barrier_uid))

    def goodbye(self) -> bytes:
        """Return the line that ends the connection; a Manager answers by closing it."""
        return codec.encode_request(self.network_name, DISCONNECT_REQUEST, (), {}, "goodbye")

    # ---- what comes in ----

    def receive(self, data: bytes) -> list[Event]:
        """Take what was received and return what it means, in order. Afterwards look at `broken`."""
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
                request = _common(line)
                if request is None:
                    self._uncommon(line, events)
                else:
                    events.append(request)
            if self.broken is not None:
                return events
        if buffer.overflow is not None or buffer.too_long:
            self._handle_too_long(buffer, events)
        return events

    def only_request(self, data: bytes) -> IncomingRequest | None:
        """Return the request that was received, if it is one, whole, with nothing unusual about it.

        Nothing changes here: `receive` may be called with the same data instead. None: it has to be.
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
        return _common(data[:end])

    def receive_eof(self, close_reason: str = "") -> NetworkError:
        """Take the end of the stream and return what it means.

        Args:
            close_reason: What the Manager said of it, if the carrier lets it.
        """
        return self._handshake.eof(self._lines, self._rejection, close_reason)

    def _break(self, what: str, start: bytes) -> None:
        self.broken = self._handshake.no_manager(what, start)

    def _shake_hands(self, line: bytes, events: list[Event]) -> None:
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

    def _uncommon(self, line: bytes, events: list[Event]) -> None:
        """Handle what the fast path is not made for: an unusual request, or a line of the Manager's own."""
        try:
            fields = codec.decode_object(line)
        except codec.UndecodableLine as error:
            if line.strip():
                self._refuse_undecodable(line, error, events)
            return
        if "attribute" not in fields:
            self._from_manager(fields, events)
            return
        request = IncomingRequest(
            "", uid=_raw(fields.get("uid", "")), requester=_raw(fields.get("requester"))
        )
        try:
            _fill(request, fields)
        except (TypeError, ValueError) as error:
            self._refuse(request, error, events)
        else:
            if fields.get("uid") == NOTIFICATION_UID:
                self._log_reserved(request)
            else:
                request.size = len(line)
                events.append(request)

    def _refuse_undecodable(self, line: bytes, error: codec.UndecodableLine, events: list[Event]) -> None:
        try:
            envelope = _decode_envelope(line)
            for part in (envelope.uid, envelope.requester):
                bytes(part).decode("utf-8")
        except _UNDECODABLE:
            request = _addressed(error.fields)
        else:
            request = IncomingRequest("", uid=envelope.uid, requester=envelope.requester)
        if request is None:
            self._log_unreadable(line, error)
        else:
            self._refuse(request, ValueError(f"The request cannot be decoded: {error}"), events)

    def _log_reserved(self, request: IncomingRequest) -> None:
        # An answer with this uid would pass for a notification, of which a Manager demands more.
        logger.error(
            "request for %r without answer, since its uid is %r", request.attribute, NOTIFICATION_UID
        )

    def _handle_too_long(self, buffer: SkippingLineBuffer, events: list[Event]) -> None:
        if buffer.overflow is not None:  # before requests may come
            self._break(f"a line of more than {buffer.limit:,} bytes (see read_limit)", buffer.overflow)
        for fields in buffer.too_long:
            self._refuse_too_long(fields, events)
        buffer.too_long.clear()

    def _refuse_too_long(self, fields: dict[str, Any] | None, events: list[Event]) -> None:
        text = f"The request has more than {self._lines.limit:,} bytes, the read_limit of the Service"
        request = _addressed(fields)
        if request is None:
            logger.error("Manager[%s] sent a line of more than %d bytes", self.manager, self._lines.limit)
        else:
            self._refuse(request, ValueError(text), events)

    def _log_unreadable(self, line: bytes, error: Exception) -> None:
        logger.error(
            "Manager[%s] sent a line that nobody can read: %s (%s)",
            self.manager,
            quote(line),
            visible(str(error)),
        )

    def _refuse(self, request: IncomingRequest, error: Exception, events: list[Event]) -> None:
        if _is_reserved(request.uid):
            self._log_reserved(request)
            return
        logger.error("refused a request of %s: %s", requester_of(request), visible(str(error)))
        events.append(Refused(encode_error(request, error, without=(__name__,))))

    def _from_manager(self, fields: dict[str, Any], events: list[Event]) -> None:
        """Handle a line that is no request: the Manager's answer to one of ours, or its complaint."""
        if fields.get("error"):
            text = str(fields.get("message") or "The Manager refused to connect")
            if self.is_connected:
                logger.error("Manager[%s] sent an error: %s", self.manager, visible(text))
                self._rejection = visible(text)
            else:
                self.broken = AuthenticationError(visible(text))
        elif fields.get("uid") == self._barrier_uid and isinstance(fields.get("requester"), str):
            self.network_name = sendable(fields["requester"])
            events.append(Connected(self._handshake.manager_name))
        else:
            logger.warning("Manager[%s] sent something that nobody asked for, dropped", self.manager)


def _common(line: bytes) -> IncomingRequest | None:
    """Return the request of a line; None if it is something else, or there is something unusual about it."""
    try:
        request = _decode_request(line)
        if not line.isascii():
            line.decode("utf-8")  # what msgspec skips it does not check for being UTF-8
    except _UNDECODABLE:
        return None
    if request.error or request.uid == _RESERVED_UID or (b"\\" in line and b"\\" in bytes(request.uid)):
        return None
    request.size = len(line)
    return request


def _is_reserved(uid: msgspec.Raw) -> bool:
    try:
        return bool(msgspec.json.decode(uid) == NOTIFICATION_UID)
    except (msgspec.MsgspecError, RecursionError):
        return False  # NaN, for example, which is no text


def _addressed(fields: dict[str, Any] | None) -> IncomingRequest | None:
    """Return where to send the answer to a request that cannot be decoded; None if that is not known.

    Args:
        fields: What `top_level` has found in it; None if it found nothing, or has not looked.
    """
    if fields is None:
        return None
    found = [fields.get(name) for name in ("attribute", "uid", "requester")]
    if not all(isinstance(value, str) and is_unicode(value) for value in found):
        return None
    attribute, uid, requester = found
    return IncomingRequest(str(attribute), uid=_raw(uid), requester=_raw(requester))


def _raw(value: Any) -> msgspec.Raw:
    """Encode what came with a request again, as it is to be sent back."""
    try:
        return msgspec.Raw(codec.encode_value(value))
    except ValueError:
        return _NOBODY  # it contains what cannot be sent, so nobody sent it


def _fill(request: IncomingRequest, fields: dict[str, Any]) -> None:
    """Fill in what is requested.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: It is no request.
    """
    if fields.get("error"):
        raise ValueError("A request is no error")
    for name, kind in (("attribute", str), ("args", list), ("kwargs", dict)):
        value = fields.get(name, kind())
        if not isinstance(value, kind):
            raise TypeError(
                f"The {name!r} of a request must be a {kind.__name__}, not {type(value).__name__}"
            )
        setattr(request, name, value)


# ---- what goes out ----


def encode_result(request: IncomingRequest, result: Any) -> OutgoingLine:
    """Encode the answer to a request.

    Raises:
        TypeError: The result has no JSON form.
        ValueError: It cannot be sent (see `codec.encode`).
    """
    try:
        value = codec.encode_value(result)
    except (TypeError, ValueError) as error:
        codec.add_location(error, f"the result of {request.attribute!r}")
        raise
    pieces = (_BEGIN, request.requester, _RESULT, value, _UID, request.uid, _END)
    if len(value) < LARGE:
        return b"".join(pieces)
    return b"".join(pieces[:3]), value, b"".join(pieces[4:])


def encode_error(
    request: IncomingRequest, error: BaseException, *, without: tuple[str, ...] = (), advice: str = ""
) -> bytes:
    """Encode the answer to a request that failed.

    Args:
        request: The request.
        error: Why it failed.
        without: See `traceback_lines`.
        advice: See `sendable_error`.
    """
    fields = {
        "error": True,
        "message": sendable_error(error, advice),
        "requester": msgspec.Raw(request.requester),
        "result": None,
        "traceback": traceback_lines(error, without),
        "uid": msgspec.Raw(request.uid),
    }
    return msgspec.json.encode(fields) + b"\r\n"


def notification_end(service: str) -> bytes:
    """Return how the notifications of a Service end, for `encode_notification`."""
    return b',"service":%b,"uid":"notification"}\r\n' % codec.encode_value(service)


def encode_notification(args: Any, kwargs: Any, end: bytes) -> OutgoingLine:
    """Encode a notification for all clients that are linked with a Service.

    Args:
        args: The positional arguments that are emitted.
        kwargs: The keyword arguments that are emitted.
        end: What `notification_end` has returned.

    Raises:
        TypeError: An argument has no JSON form.
        ValueError: An argument cannot be sent (see `codec.encode`).
    """
    try:
        value = codec.encode_value([args, kwargs])
    except (TypeError, ValueError):
        for arguments in (args, kwargs):
            codec.encode_arguments(arguments, "emit_notification")  # which raises, and says which it is
        raise
    return _NOTIFY + value + end if len(value) < LARGE else (_NOTIFY, value, end)


def requester_of(request: IncomingRequest) -> str:
    """Return who has made a request, for the log."""
    return visible(bytes(request.requester).decode("utf-8", "replace"))


def sendable_error(error: BaseException, advice: str = "") -> str:
    """Return an exception as a client is told of it: its class and its text.

    Args:
        error: The exception.
        advice: What to do about it, which goes behind its text; empty: nothing is known.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is code of the user, and the client has to be answered
        text = "<its text cannot be made>"
    return sendable(f"{type(error).__name__}: {text}{advice and f' ({advice})'}")


def traceback_lines(error: BaseException, without: tuple[str, ...] = ()) -> list[str]:
    """Return the traceback of an exception as lines, those of its text last; none if it was not raised.

    Args:
        error: The exception.
        without: How the names of those modules begin whose frames are left out, above all others.
    """
    frames = error.__traceback__
    while frames is not None and _module(frames).startswith(without):
        frames = frames.tb_next
    if frames is None:
        return []
    text = "".join(traceback.format_exception(type(error), error, frames))
    return [sendable(line) for line in text.splitlines()]


def _module(frames: Any) -> str:
    name = frames.tb_frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""
