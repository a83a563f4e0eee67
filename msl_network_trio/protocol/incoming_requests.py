"""Incoming requests: those that a Manager forwards to a Service, and how to answer the unusual ones.

The functions are pure, and thread-safe.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from msl_network_trio.constants import NOTIFICATION_UID
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.codec import DECODING_ERRORS, UndecodableLine
from msl_network_trio.protocol.top_level import is_unicode
from msl_network_trio.visible import visible

_NULL: Final = msgspec.Raw(b"null")
_NO_UID: Final = msgspec.Raw(b'""')


class IncomingRequest(msgspec.Struct, gc=False):
    """A request that a Manager has forwarded; other fields of its line are skipped."""

    attribute: str
    """The name of the requested attribute."""

    args: list[Any] = []
    """The positional arguments."""

    kwargs: dict[str, Any] = {}
    """The keyword arguments."""

    uid: msgspec.Raw = _NO_UID
    """The encoded uid, which the answer repeats."""

    requester: msgspec.Raw = _NULL
    """The encoded name of the requester, which the answer repeats."""

    error: bool = False
    """Whether the line claims to be an error, so that it is no request."""

    size: int = msgspec.field(default=0, name=" ")
    """Bytes of its line; set after decoding. (No line has a field of this name.)"""

    def forget(self) -> None:
        """Forget the arguments, which may be large, since the rest of the request may live for long."""
        self.args = []
        self.kwargs = {}


class _Envelope(msgspec.Struct):
    """The fields by which a request is answered that cannot be decoded."""

    uid: msgspec.Raw
    requester: msgspec.Raw


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def envelope_of(fields: dict[str, Any]) -> IncomingRequest:
    """Return a request without contents from the fields of a line, by which it can be answered."""
    return IncomingRequest("", uid=_encode(fields.get("uid", "")), requester=_encode(fields.get("requester")))


def fill(request: IncomingRequest, fields: dict[str, Any], size: int) -> None:
    """Set the contents of a request.

    Args:
        request: The request.
        fields: The fields of its line.
        size: Bytes of its line.

    Raises:
        TypeError: A field has a wrong type.
        ValueError: The line is no request.
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
    request.size = size


def envelope_of_undecodable(line: bytes, error: UndecodableLine) -> IncomingRequest | None:
    """Return a request without contents from a line that cannot be decoded.

    Args:
        line: The line.
        error: The error of its decoding.

    Returns:
        The request; None if the line has no uid or no requester, or they are ambiguous.
    """
    try:
        envelope = _decode_envelope(line)
        for part in (envelope.uid, envelope.requester):
            bytes(part).decode("utf-8")
    except DECODING_ERRORS:
        return envelope_of_top_level(error.fields)
    return IncomingRequest("", uid=envelope.uid, requester=envelope.requester)


def envelope_of_top_level(fields: dict[str, Any] | None) -> IncomingRequest | None:
    """Return a request without contents from the fields that `top_level` has found.

    Returns:
        The request; None if a field is missing or no text.
    """
    if fields is None:
        return None
    found = [fields.get(name) for name in ("attribute", "uid", "requester")]
    if not all(isinstance(value, str) and is_unicode(value) for value in found):
        return None
    attribute, uid, requester = found
    return IncomingRequest(str(attribute), uid=_encode(uid), requester=_encode(requester))


def has_reserved_uid(request: IncomingRequest) -> bool:
    """Return whether the uid is that of notifications, as which a Manager would take the answer."""
    try:
        return bool(msgspec.json.decode(request.uid) == NOTIFICATION_UID)
    except (msgspec.MsgspecError, RecursionError):
        return False  # NaN, for example, which is no text


def requester_of(request: IncomingRequest) -> str:
    """Return the requester as text for the log."""
    return visible(bytes(request.requester).decode("utf-8", "replace"))


def _encode(value: Any) -> msgspec.Raw:
    """Encode the decoded uid or requester of a request for its answer."""
    try:
        return msgspec.Raw(codec.encode_value(value))
    except ValueError:
        return _NULL  # a lone surrogate, which no peer can have sent as its name
