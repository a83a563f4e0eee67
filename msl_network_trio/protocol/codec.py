r"""Python objects to lines of JSON, and back, exactly and fast.

What the standard library's ``json`` makes of a value (with ``ensure_ascii=False``) is the definition of
right, since that is what msl-network uses: NaN and infinities as bare tokens, integers of any size, keys
``1``, ``True``, ``None`` turned into strings, tuples into arrays. An object with a callable ``to_json()``
is replaced by its result. In addition to msl-network, on the fast and on the slow path alike,

- an ``Enum`` member is sent as its value, a ``UUID`` as its text, also if they have a ``to_json()``;
- NumPy scalars and arrays (booleans, integers, floats of up to 64 bit, text, objects) are sent as
  numbers and nested lists, unless values are masked: there is no form for what is missing.

The fast path is orjson for encoding and msgspec for decoding. Neither is exact alone: orjson writes NaN
as ``null``, msgspec does not read NaN, both stop at some integers, depths or texts. So whatever one of
them refuses, and whatever it might have changed, goes to the standard library.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
import orjson

from msl_network_trio.protocol.messages import NO_RESULT, EmittedLine, ReceivedLine, RoutedLine
from msl_network_trio.protocol.top_level import is_unicode, top_level

# Subclasses of str, int, list, dict, ..., dates and dataclasses are left to _replace(), which refuses
# what the standard library refuses.
_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_LINE_OPTIONS: Final = _OPTIONS | orjson.OPT_APPEND_NEWLINE
_NUMPY_KINDS: Final = "biufUO"
"""NumPy's kinds that have an exact JSON form: bool, (unsigned) integer, float, text, object."""

_BUILTIN: Final = (str, int, float, list, tuple, dict)


_DTYPE: Final = "its dtype is "
"""What is in errors about values of NumPy."""


def add_location(error: TypeError | ValueError, where: str) -> None:
    """Say in an error about a value of NumPy where the value is.

    The text of others stays word for word that of msl-network, since users match it, to its very end.

    Args:
        error: The error.
        where: Where the value is.
    """
    if _DTYPE in str(error):
        error.args = (f"{error} ({where})",)


def _replace(value: Any) -> Any:
    """Return what is to be encoded in the place of an object that JSON does not know."""
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


def _replace_fast(value: Any) -> Any:
    """`_replace` for orjson, which also asks about subclasses that the standard library encodes itself."""
    if isinstance(value, _BUILTIN) and not hasattr(value, "dtype"):
        raise TypeError(type(value).__name__)
    return _replace(value)


_exact_encode: Final = json.JSONEncoder(ensure_ascii=False, default=_replace).encode


def encode(value: Any) -> bytes:
    """Encode a value as one line of JSON.

    msl-network ends its lines with a carriage return and a newline, and takes those that end with a newline
    alone. With one more byte to append the line would have to be copied, which costs more than the encoding
    if it is large.

    Raises:
        TypeError: The value contains an object that has no JSON form.
        ValueError: It contains itself, is nested too deeply, or contains text that is not Unicode
            (a lone surrogate) or an integer with more digits than Python converts.
    """
    try:
        encoded = orjson.dumps(value, default=_replace_fast, option=_LINE_OPTIONS)
    except TypeError:
        return _encode_exactly(value, "\n")
    # orjson writes NaN and infinities as null; only the standard library can tell them from None. (For bytes
    # "in" takes three times as long as find(): it tries first whether it is asked for a number.)
    return encoded if encoded.find(b"null") < 0 else _encode_exactly(value, "\n")


def encode_value(value: Any) -> bytes:
    """Encode a value as a part of a line. Raises as `encode` does."""
    if value is None:
        return b"null"  # what most methods return, and not worth a second look
    try:
        encoded = orjson.dumps(value, default=_replace_fast, option=_OPTIONS)
    except TypeError:
        encoded = b"null"  # what the exact path raises is not to have this error as its context
    return encoded if encoded.find(b"null") < 0 else _encode_exactly(value)


def _encode_exactly(value: Any, end: str = "") -> bytes:
    try:
        return (_exact_encode(value) + end).encode("utf-8")
    except RecursionError:
        raise ValueError("The value is nested too deeply to be sent as JSON") from None


def encode_request(service: str, attribute: str, args: Any, kwargs: Any, uid: str) -> bytes:
    """Encode a request as a line.

    Args:
        service: The name of the Service.
        attribute: What is requested.
        args: The positional arguments.
        kwargs: The keyword arguments; None: there are none.
        uid: Letters and digits, which need no escapes.

    Raises:
        TypeError: As in `encode`; or a name is not text.
        ValueError: As in `encode`.
    """
    try:
        before, after, before_none = _around_kwargs(service, attribute)
    except TypeError:  # also of the cache, if a name cannot even be hashed
        raise TypeError(f"Names must be text: {service!r}, {attribute!r}") from None
    try:  # what encode_value() does, without the call: this is the hot path
        encoded = orjson.dumps(args, _replace_fast, _OPTIONS)
    except TypeError:
        encoded = b"null"
    if encoded.find(b"null") >= 0:
        encoded = encode_arguments(args, attribute)
    if kwargs:
        try:
            named = encode_value(kwargs)
        except (TypeError, ValueError):
            named = encode_arguments(kwargs, attribute)  # which raises, and says which it is
        return b"".join((b'{"args":', encoded, before, named, after, uid.encode(), b'"}\n'))
    return b"".join((b'{"args":', encoded, before_none, uid.encode(), b'"}\n'))


def encode_arguments(arguments: Any, attribute: str) -> bytes:
    """Encode the positional or the keyword arguments for an attribute. Raises as `encode` does."""
    try:
        return encode_value(arguments)
    except (TypeError, ValueError) as error:
        add_location(error, f"{_which(arguments)} of {attribute!r}")
        raise


def _which(arguments: Any) -> str:
    """Return which of the arguments cannot be encoded."""
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


@lru_cache(maxsize=1024)
def _around_kwargs(service: Any, attribute: Any) -> tuple[bytes, bytes, bytes]:
    """What is before and behind the keyword arguments, the same in all requests for an attribute.

    And, as most have none, what it comes to then.
    """
    if not isinstance(service, str) or not isinstance(attribute, str):
        raise TypeError
    before = b',"attribute":%b,"error":false,"kwargs":' % encode_value(attribute)
    after = b',"service":%b,"uid":"' % encode_value(service)
    return before, after, before + b"{}" + after


def encode_reply(result: Any, requester: str | None) -> bytes:
    """Encode the answer to a question of the Manager as a line. Raises as `encode` does."""
    return encode({"error": False, "requester": requester, "result": result, "uid": ""})


_fast_decode: Final = msgspec.json.Decoder(ReceivedLine).decode


class _Envelope(msgspec.Struct):
    """Just the uid of a line whose contents cannot be decoded."""

    uid: str | None = None


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


class UndecodableLine(ValueError):
    """The line is not a JSON object that can be decoded.

    Attributes:
        uid: The uid of the line, if that much could be read.
        fields: What `top_level` has found in a line that only it can read; None if it has not looked.
    """

    uid: str | None = None
    fields: dict[str, Any] | None = None


_route: Final = msgspec.json.Decoder(RoutedLine).decode

_LARGE: Final = 131_072
"""From how many bytes on a line that is just to be passed on is not decoded exactly any more. The standard
library takes forty milliseconds for a megabyte, in which nothing else can be done, not even by a thread."""

_LONGEST_SEARCHED: Final = 16_777_216
_MOST_STEPS: Final = 100_000
"""Maximum bytes, and steps of `top_level`, when a line is searched that is just to be passed on: nothing else
can be done meanwhile, for a tenth of a second with the worst of lines, and some milliseconds with most."""

_STAND_INS: Final = ((b"-Infinity", b"[       ]"), (b"Infinity", b"[      ]"), (b"NaN", b"[ ]"))
"""What msgspec does not read, and what to put there, such that a line is JSON with it if, and only if, it is
a line without it: nothing but a comma or a bracket can be next to it, and in texts it does no harm."""


class _RawFields(msgspec.Struct):
    """The fields of `RoutedLine`, as they are in the line."""

    uid: msgspec.Raw = NO_RESULT
    service: msgspec.Raw = NO_RESULT
    attribute: msgspec.Raw = NO_RESULT
    requester: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    result: msgspec.Raw = NO_RESULT


_raw_fields: Final = msgspec.json.Decoder(_RawFields).decode


def decode_routed(line: bytes) -> RoutedLine:
    """Decode just as much of a line as a Manager has to know to pass it on, and check the rest.

    Raises:
        UndecodableLine: The line is no JSON object, or one that its receiver could not decode.
    """
    try:
        routed = _route(line)
        if not line.isascii():
            line.decode("utf-8")  # what msgspec skips it does not check for being UTF-8
        return routed
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if not line or line.isspace():
            raise UndecodableLine("an empty line") from None  # of which many cost little
        return _route_exactly(line) if len(line) < _LARGE else _route_large(line)


def _route_large(line: bytes) -> RoutedLine:
    """Decode the fields that count of a line with NaN, in not much more time than of one without."""
    known = line
    for token, stand_in in _STAND_INS:
        known = known.replace(token, stand_in)
    try:
        if not line.isascii():
            line.decode("utf-8")
        fields = _raw_fields(known)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
        raise _not_a_line(cause, line, known) from None
    found = {name: bytes(getattr(fields, name)) for name in fields.__struct_fields__}
    if found["result"]:
        found["result"] = b"null"
    if sum(map(len, found.values())) >= _LARGE:
        raise UndecodableLine("a line of this length has short names, and a short uid")
    if any(stand_in in value for value in found.values() for _, stand_in in _STAND_INS):
        raise UndecodableLine("a line of this length has no NaN and no Infinity in its names or its uid")
    return _route_exactly(b"{%b}" % b",".join(b'"%b":%b' % (n.encode(), v) for n, v in found.items() if v))


def _route_exactly(line: bytes) -> RoutedLine:
    fields = decode_object(line)
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


def decode(line: bytes) -> ReceivedLine:
    """Decode a line that came from the Manager.

    Fields of another type than the protocol gives them are as if the line did not have them.

    Raises:
        UndecodableLine: The line is no JSON object, or one that Python cannot hold.
    """
    try:
        return _fast_decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_exactly(line)


_fast_decode_lines: Final = msgspec.json.Decoder(ReceivedLine).decode_lines


def decode_lines(block: bytes) -> list[ReceivedLine] | None:
    r"""Decode lines that came from the Manager together, if they are what most lines are.

    Args:
        block: The lines, each with its ``\n``.

    Returns:
        One message a line; None if that is not what they are, and `decode` has to look at each of them.
    """
    try:
        messages = _fast_decode_lines(block)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec skips empty lines, and takes an object that goes on in the next line. (It takes two objects in
    # one line as well, which no Manager sends, and which there is no cheap way to find here.)
    return messages if len(messages) == block.count(b"\n") else None


_fast_decode_notifications: Final = msgspec.json.Decoder(EmittedLine).decode_lines

_END_OF_NOTIFICATION: Final = b'"notification"}'
"""How a line ends, but for its white space, if those sent it that send notifications."""

_FROM_THE_END: Final = 512
"""How many bytes in front of the end to look for the last notification."""


def notifications_first(block: bytes) -> tuple[list[EmittedLine], bytes]:
    r"""Decode the notifications with which lines begin that came from the Manager, and return the rest.

    They may come by the thousand, and to check what each of them holds takes longer in Python. It is all
    or nothing: those that have something else between them are left to `decode_lines`, as are those that
    are followed by more than a few lines of something else, so that nobody has to look for them.

    Args:
        block: The lines, each with its ``\n``.

    Returns:
        One notification a line, and the lines behind them.
    """
    last = block.rfind(_END_OF_NOTIFICATION, -_FROM_THE_END)
    if last < 0:
        return [], block
    end = block.find(b"\n", last) + 1
    try:
        notifications = _fast_decode_notifications(block[:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [], block
    if len(notifications) != block.count(b"\n", 0, end):  # see decode_lines()
        return [], block
    return notifications, block[end:]


def decode_object(line: bytes) -> dict[str, Any]:
    """Decode a whole line exactly.

    Raises:
        UndecodableLine: The line is no JSON object, or one that Python cannot hold.
    """
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise _not_a_line(cause, line) from None
    if not isinstance(fields, dict):
        raise UndecodableLine(f"a JSON object was expected, not {type(fields).__name__}")
    return fields


def search(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, as `top_level` does, unless that would block the event loop."""
    return top_level(line, _MOST_STEPS) if len(line) <= _LONGEST_SEARCHED else None


def _not_a_line(cause: Exception, line: bytes, known: bytes | None = None) -> UndecodableLine:
    """Return the error of a line, with its uid if there is one without doubt.

    Args:
        cause: Why it cannot be decoded.
        line: The line.
        known: The line with stand-ins, if it is just to be passed on.
    """
    error = UndecodableLine(f"{type(cause).__name__}: {cause}")
    try:
        uid = _decode_envelope(known or line).uid
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if isinstance(cause, json.JSONDecodeError | msgspec.MsgspecError):
            return error  # it is no JSON, so it has no meaning
        error.fields = top_level(line) if known is None else search(line)
        uid = (error.fields or {}).get("uid")
    else:
        if known is not None and uid is not None and any(each.decode() in uid for _, each in _STAND_INS):
            return error  # perhaps it is another one in the line itself
    if isinstance(uid, str) and is_unicode(uid):
        error.uid = uid
    return error


def _decode_exactly(line: bytes) -> ReceivedLine:
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
    )
