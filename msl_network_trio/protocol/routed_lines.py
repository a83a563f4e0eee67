r"""Routed lines: the fields by which a Manager forwards a line, without decoding the rest of it.

A line is checked in full nevertheless: it is forwarded only if its receiver can decode it. msgspec reads the
fields and skips the rest. Lines that it refuses, with NaN for example, are decoded by the standard library,
or, if they are large, by msgspec after the tokens that it refuses have been replaced.

The functions are pure.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.codec import DECODING_ERRORS, UndecodableLine
from msl_network_trio.protocol.messages import NO_RESULT, RoutedLine
from msl_network_trio.protocol.top_level import is_unicode, top_level

_LARGE: Final = 131_072
"""Bytes from which a line is not decoded by the standard library, which takes 40 ms per megabyte and blocks
all threads."""

_LONGEST_SEARCHED: Final = 16_777_216
"""Maximum bytes of a line that `search` scans."""

_MOST_STEPS: Final = 100_000
"""Maximum steps of `top_level` for one line, which block the event loop for at most a tenth of a second."""

_STAND_INS: Final = ((b"-Infinity", b"[       ]"), (b"Infinity", b"[      ]"), (b"NaN", b"[ ]"))
"""The tokens that msgspec refuses, and their replacements.

A line with replacements is JSON if, and only if, the standard library can decode the line without them: only
a comma or a bracket can be adjacent to such a token, and within texts the replacement is harmless.
"""

decode_fast: Final = msgspec.json.Decoder(RoutedLine).decode
"""Decode a line as `decode_routed` does, unless it raises one of `DECODING_ERRORS`.

It does not check the encoding of what it skips: a line that is not ASCII has to be decoded as UTF-8, too.
"""


class _RawFields(msgspec.Struct):
    """The encoded fields of a `RoutedLine`."""

    uid: msgspec.Raw = NO_RESULT
    service: msgspec.Raw = NO_RESULT
    attribute: msgspec.Raw = NO_RESULT
    requester: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    result: msgspec.Raw = NO_RESULT


_raw_fields: Final = msgspec.json.Decoder(_RawFields).decode


def decode_routed(line: bytes) -> RoutedLine:
    """Decode the fields of a line that a Manager needs to forward it, and check the rest.

    Raises:
        UndecodableLine: The line is no JSON object, or one that its receiver could not decode.
    """
    try:
        routed = decode_fast(line)
        if not line.isascii():
            line.decode("utf-8")  # msgspec does not check the encoding of what it skips
        return routed
    except DECODING_ERRORS:
        return decode_exactly(line)


def decode_exactly(line: bytes) -> RoutedLine:
    """Decode a line that `decode_fast` cannot decode; raises as `decode_routed`."""
    if not line or line.isspace():
        raise UndecodableLine("an empty line") from None  # cheaply, since a peer may send many
    return _route_exactly(line) if len(line) < _LARGE else _route_large(line)


def search(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, as `top_level` does; None also if that would block the event loop."""
    return top_level(line, _MOST_STEPS) if len(line) <= _LONGEST_SEARCHED else None


def _route_exactly(line: bytes) -> RoutedLine:
    """Decode a line with the standard library; raises as `decode_routed` does."""
    fields = codec.decode_object(line)
    uid = fields.get("uid", "")
    if isinstance(uid, list | dict) or (isinstance(uid, str) and not is_unicode(uid)):
        raise UndecodableLine("a uid is text")
    names = {name: fields.get(name, "") for name in ("service", "attribute")}
    for name, value in names.items():
        if not isinstance(value, str):
            error = UndecodableLine(f'the "{name}" of a line is text, not {type(value).__name__}')
            error.uid = uid
            raise error
    return RoutedLine(
        uid=uid,
        service=names["service"],
        attribute=names["attribute"],
        requester=fields.get("requester", msgspec.UNSET),
        error=bool(fields.get("error", False)),
        result=msgspec.Raw(b"exact") if "result" in fields else NO_RESULT,
    )


def _route_large(line: bytes) -> RoutedLine:
    """Decode a large line after replacing NaN and infinities; raises as `decode_routed` does.

    It takes little more time than a line without them.
    """
    replaced = line
    for token, stand_in in _STAND_INS:
        replaced = replaced.replace(token, stand_in)
    try:
        if not line.isascii():
            line.decode("utf-8")
        fields = _raw_fields(replaced)
    except DECODING_ERRORS as cause:
        raise _undecodable(cause, line, replaced) from None
    found = {name: bytes(getattr(fields, name)) for name in fields.__struct_fields__}
    if found["result"]:
        found["result"] = b"null"
    if sum(map(len, found.values())) >= _LARGE:
        raise UndecodableLine("a line of this length has short names, and a short uid")
    if any(stand_in in value for value in found.values() for _, stand_in in _STAND_INS):
        raise UndecodableLine("a line of this length has no NaN and no Infinity in its names or its uid")
    return _route_exactly(b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), v) for n, v in found.items() if v))


def _undecodable(cause: Exception, line: bytes, replaced: bytes) -> UndecodableLine:
    """Return the error of a large line; its uid is left out if a replacement may have changed it."""
    error = codec.undecodable(cause, replaced, lambda _: search(line))
    uid = error.uid
    if error.fields is None and uid is not None and any(each.decode() in uid for _, each in _STAND_INS):
        error.uid = None
    return error
