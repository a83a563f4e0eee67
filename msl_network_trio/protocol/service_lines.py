r"""The lines of a Service: answers, errors and notifications.

A Manager forwards the lines of a Service unchanged, and some clients read up to a carriage return and a
newline, so the lines end with both.

The functions are pure, and thread-safe.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Final

import msgspec
import orjson

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.codec import OPTIONS, replace_fast
from msl_network_trio.protocol.handshake import sendable
from msl_network_trio.protocol.incoming_requests import IncomingRequest

LARGE: Final = 131_072
"""Bytes of a result from which its line is returned in pieces, since joining them takes longer than writing
them."""

OutgoingLine = bytes | tuple[bytes, ...]
"""A line, or the pieces of a large one."""

_BEGIN: Final = b'{"error":false,"requester":'
_RESULT: Final = b',"result":'
_UID: Final = b',"uid":'
_END: Final = b"}\r\n"
_NOTIFY: Final = b'{"error":false,"result":'


def encode_result(request: IncomingRequest, result: Any) -> OutgoingLine:
    """Encode the answer to a request.

    Raises:
        TypeError: The result has no JSON form.
        ValueError: The result cannot be sent (see `codec.encode`).
    """
    value = b"null"
    if result is not None:  # what codec.encode_value() does, without the call
        try:
            value = orjson.dumps(result, replace_fast, OPTIONS)
        except TypeError:
            pass
        if value.find(b"null") >= 0:
            value = _encode_exactly(request, result)
    pieces = (_BEGIN, request.requester, _RESULT, value, _UID, request.uid, _END)
    if len(value) < LARGE:
        return b"".join(pieces)
    return b"".join(pieces[:3]), value, b"".join(pieces[4:])


def _encode_exactly(request: IncomingRequest, result: Any) -> bytes:
    """Encode a result that orjson refuses or may have changed; raises as `encode_result` does."""
    try:
        return codec.encode_value(result)
    except (TypeError, ValueError) as error:
        codec.add_location(error, f"the result of {request.attribute!r}")
        raise


def encode_error(
    request: IncomingRequest, error: BaseException, *, without: tuple[str, ...] = (), advice: str = ""
) -> bytes:
    """Encode the answer to a request that has failed.

    Args:
        request: The request.
        error: The error.
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
    """Return the end of all notifications of a Service, for `encode_notification`."""
    return b',"service":%b,"uid":"notification"}\r\n' % codec.encode_value(service)


def encode_notification(args: Any, kwargs: Any, end: bytes) -> OutgoingLine:
    """Encode a notification for all clients that are linked with a Service.

    Args:
        args: The positional arguments.
        kwargs: The keyword arguments.
        end: The value of `notification_end`.

    Raises:
        TypeError: An argument has no JSON form.
        ValueError: An argument cannot be sent (see `codec.encode`).
    """
    try:
        value = codec.encode_value([args, kwargs])
    except (TypeError, ValueError):
        for arguments in (args, kwargs):
            codec.encode_arguments(arguments, "emit_notification")  # raises an error that names the argument
        raise
    return _NOTIFY + value + end if len(value) < LARGE else (_NOTIFY, value, end)


def sendable_error(error: BaseException, advice: str = "") -> str:
    """Return the class and the text of an exception, as they are sent to a client.

    Args:
        error: The exception.
        advice: Advice to append to the text; empty: none.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is code of the user, and the request must be answered
        text = "<its text cannot be made>"
    return sendable(f"{type(error).__name__}: {text}{advice and f' ({advice})'}")


def traceback_lines(error: BaseException, without: tuple[str, ...] = ()) -> list[str]:
    """Return the traceback of an exception as lines, its text last; empty if it was not raised.

    Args:
        error: The exception.
        without: Beginnings of module names whose outermost frames are left out.
    """
    frames = error.__traceback__
    while frames is not None and _module(frames).startswith(without):
        frames = frames.tb_next
    if frames is None:
        return []
    text = "".join(traceback.format_exception(type(error), error, frames))
    return [sendable(line) for line in text.splitlines()]


def _module(frames: TracebackType) -> str:
    name = frames.tb_frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""
