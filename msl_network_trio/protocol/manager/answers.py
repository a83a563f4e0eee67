r"""Lines that a Manager makes itself: questions, results and errors. Pure functions.

They end with ``\r\n`` as those of msl-network, since some clients read up to it.
"""

from __future__ import annotations

from typing import Any

import attrs

from msl_network_trio.protocol import codec


@attrs.frozen
class Encoded:
    """A result that is encoded already; a memoryview may be that of a file."""

    value: bytes | memoryview = attrs.field(repr=False)


def line(value: dict[str, Any]) -> bytes:
    """Encode a line; raises as `codec.encode`."""
    return codec.encode(value)[:-1] + b"\r\n"


def question(attribute: str, args: tuple[str, ...], manager: str) -> bytes:
    """Encode a question to a peer.

    Args:
        attribute: ``"identity"``, ``"username"`` or ``"password"``.
        args: The arguments of the question, see `handshake.question`.
        manager: The name of the Manager.
    """
    return line(
        {
            "args": args,
            "attribute": attribute,
            "error": False,
            "kwargs": {},
            "requester": manager,
            "uid": "",
        }
    )


def result(value: Any, uid: Any, requester: str) -> bytes:
    """Encode the result of a request; raises as `codec.encode`."""
    return line({"error": False, "requester": requester, "result": value, "uid": uid})


def error(message: str, uid: Any, requester: str, again: float | None = None) -> bytes:
    """Encode the error of a request, or with an empty uid the reason why a peer is disconnected.

    Args:
        message: The class of the exception and its text, ``"ValueError: bad"`` for example.
        uid: The uid of the request.
        requester: The network name of the peer.
        again: Seconds after which the peer may try again; None: that would change nothing. Peers that do not
            know this field ignore it.
    """
    fields: dict[str, Any] = {
        "error": True,
        "message": message,
        "requester": requester,
        "result": None,
        "traceback": [],
        "uid": uid,
    }
    return line(fields if again is None else {**fields, "again": again})
