r"""Python objects to lines of JSON, and back, exactly and fast.

The standard library's ``json`` (with ``ensure_ascii=False``) defines the format, since msl-network uses it:
NaN and infinities are bare tokens, integers have any size, the keys ``1``, ``True`` and ``None`` become
strings, tuples become arrays. An object with a callable ``to_json()`` is replaced by its result. In addition
to msl-network, on the fast and on the slow path alike,

- an ``Enum`` member is sent as its value and a ``UUID`` as its text, even if it has a ``to_json()``;
- NumPy scalars and arrays (booleans, integers, floats of up to 64 bit, text, objects) are sent as numbers
  and nested lists, unless values are masked: JSON has no form for a missing value.

The fast path is orjson for encoding and msgspec for decoding. Neither is exact: orjson writes NaN as
``null``, msgspec refuses NaN, and both refuse some integers, depths or texts. So the standard library
processes whatever one of them refuses or may have changed.

The functions are pure, and thread-safe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec
import orjson

from msl_network_trio.protocol.messages import ReceivedLine
from msl_network_trio.protocol.top_level import is_unicode, top_level

# orjson passes subclasses of str, int, list, dict, ..., dates and dataclasses to _replace(), which refuses
# those that the standard library refuses.
OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
"""The options of orjson, to be used with `replace_fast`."""

_LINE_OPTIONS: Final = OPTIONS | orjson.OPT_APPEND_NEWLINE
_NUMPY_KINDS: Final = "biufUO"
"""NumPy's kinds that have an exact JSON form: bool, (unsigned) integer, float, text, object."""

_BUILTIN: Final = (str, int, float, list, tuple, dict)

_DTYPE: Final = "its dtype is "
"""A part of the text of errors about NumPy values, and of no others."""

DECODING_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of msgspec's decoders, and of decoding UTF-8."""


def add_location(error: TypeError | ValueError, where: str) -> None:
    """Append the location of a value to the text of an error, if the value is one of NumPy.

    The text of other errors stays that of msl-network, since users match it up to its end.

    Args:
        error: The error.
        where: The location, such as ``"argument 2 of 'add'"``.
    """
    if _DTYPE in str(error):
        error.args = (f"{error} ({where})",)


def _replace(value: Any) -> Any:
    """Return the replacement of an object that has no JSON form of its own."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        dtype = value.dtype
        is_masked = False
        if dtype.kind in _NUMPY_KINDS and not (dtype.kind == "f" and dtype.itemsize > 8):
            mask = getattr(value, "mask", None)
            is_masked = mask is not None and bool(numpy.any(mask))
            if not is_masked:
                return value.tolist()
        text = f"Object of type {type(value).__name__} is not JSON serializable: {_DTYPE}{dtype}"
        raise TypeError(f"{text}, and values of it are masked" if is_masked else text)
    to_json = getattr(value, "to_json", None)
    if callable(to_json) and not isinstance(value, type):
        return to_json()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def replace_fast(value: Any) -> Any:
    """Return the replacement of an object for orjson, which also passes subclasses of built-in types."""
    if isinstance(value, _BUILTIN) and not hasattr(value, "dtype"):
        raise TypeError(type(value).__name__)
    return _replace(value)


_exact_encode: Final = json.JSONEncoder(ensure_ascii=False, default=_replace).encode


def encode(value: Any) -> bytes:
    """Encode a value as one line of JSON.

    It ends with a newline; msl-network accepts that, though its own lines end with a carriage return and a
    newline. orjson appends no more than a newline, and to copy a large line costs more than to encode it.

    Raises:
        TypeError: The value contains an object that has no JSON form.
        ValueError: The value contains itself, is nested too deeply, or contains text that is not Unicode (a
            lone surrogate) or an integer with more digits than Python converts.
    """
    try:
        encoded = orjson.dumps(value, replace_fast, _LINE_OPTIONS)
    except TypeError:
        return _encode_exactly(value, "\n")
    # orjson writes NaN and infinities as null, so any null may be one of them. (find() takes a third of the
    # time of "in", which first tries to convert its operand to an integer.)
    return encoded if encoded.find(b"null") < 0 else _encode_exactly(value, "\n")


def encode_value(value: Any) -> bytes:
    """Encode a value as a part of a line; raises as `encode` does."""
    if value is None:
        return b"null"  # the most frequent result
    try:
        encoded = orjson.dumps(value, replace_fast, OPTIONS)
    except TypeError:
        encoded = b"null"  # the exact path runs outside, so that its errors do not have this one as context
    return encoded if encoded.find(b"null") < 0 else _encode_exactly(value)


def _encode_exactly(value: Any, end: str = "") -> bytes:
    """Encode a value with the standard library; raises as `encode` does."""
    try:
        return (_exact_encode(value) + end).encode("utf-8")
    except RecursionError:
        raise ValueError("The value is nested too deeply to be sent as JSON") from None


def encode_arguments(arguments: Any, attribute: str) -> bytes:
    """Encode the positional or the keyword arguments for an attribute; raises as `encode` does."""
    try:
        return encode_value(arguments)
    except (TypeError, ValueError) as error:
        add_location(error, f"{_which(arguments)} of {attribute!r}")
        raise


def _which(arguments: Any) -> str:
    """Return the name or number of the argument that cannot be encoded."""
    if isinstance(arguments, dict):
        named = ((f"keyword argument {name!r}", value) for name, value in arguments.items())
    else:
        named = ((f"argument {number}", value) for number, value in enumerate(arguments, 1))
    for name, value in named:
        try:
            encode_value(value)
        except (TypeError, ValueError):
            return name
    return "an argument"


def encode_reply(result: Any, requester: str | None) -> bytes:
    """Encode the answer to a question of the Manager as a line; raises as `encode` does."""
    return encode({"error": False, "requester": requester, "result": result, "uid": ""})


_fast_decode: Final = msgspec.json.Decoder(ReceivedLine).decode


class _Envelope(msgspec.Struct):
    """The uid of a line whose other fields cannot be decoded."""

    uid: str | None = None


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


class UndecodableLine(ValueError):
    """A line is no JSON object, or one that cannot be decoded.

    Attributes:
        uid: The uid of the line; None if there is none, or it is ambiguous.
        fields: The fields that `top_level` found; None if there are none, or it was not called.
    """

    uid: str | None = None
    fields: dict[str, Any] | None = None


def decode(line: bytes) -> ReceivedLine:
    """Decode a line from the Manager. Fields of a wrong type count as missing.

    Raises:
        UndecodableLine: The line is no JSON object, or one that Python cannot hold.
    """
    try:
        return _fast_decode(line)
    except DECODING_ERRORS:
        return _decode_exactly(line)


def decode_object(line: bytes) -> dict[str, Any]:
    """Decode all fields of a line exactly.

    Raises:
        UndecodableLine: The line is no JSON object, or one that Python cannot hold.
    """
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise undecodable(cause, line) from None
    if not isinstance(fields, dict):
        raise UndecodableLine(f"a JSON object was expected, not {type(fields).__name__}")
    return fields


def undecodable(
    cause: Exception, line: bytes, find_fields: Callable[[bytes], dict[str, Any] | None] = top_level
) -> UndecodableLine:
    """Return the error of a line, with its uid if that is unambiguous.

    Args:
        cause: The error of the decoder.
        line: The line.
        find_fields: Finds the fields of a line that is JSON, if msgspec cannot.
    """
    error = UndecodableLine(f"{type(cause).__name__}: {cause}")
    try:
        uid = _decode_envelope(line).uid
    except DECODING_ERRORS:
        if isinstance(cause, json.JSONDecodeError | msgspec.MsgspecError):
            return error  # what is no JSON has no fields
        error.fields = find_fields(line)
        uid = (error.fields or {}).get("uid")
    if isinstance(uid, str) and is_unicode(uid):
        error.uid = uid
    return error


def _decode_exactly(line: bytes) -> ReceivedLine:
    """Decode a line with the standard library; raises as `decode` does."""
    fields = decode_object(line)

    def text(name: str) -> str | None:
        value = fields.get(name)
        return value if isinstance(value, str) else None

    return ReceivedLine(
        uid=text("uid"),
        error=bool(fields.get("error", False)),
        result=fields.get("result", msgspec.UNSET),
        requester=text("requester"),
        message=text("message") or "",
        traceback=fields.get("traceback"),
        attribute=text("attribute"),
        args=fields.get("args"),
        service=text("service"),
        again=fields.get("again"),
    )
