r"""The lines that a Manager makes itself: what it asks, what it answers, and what it says of errors.

They end as those of msl-network do, since some clients read up to ``\r\n``.
"""

from __future__ import annotations

from typing import Any

import attrs

from msl_network_trio.protocol import codec


@attrs.frozen
class Encoded:
    """A result that is encoded already, since that took long; a memoryview may be of a file."""

    value: bytes | memoryview = attrs.field(repr=False)


def line(value: dict[str, Any]) -> bytes:
    """Encode a line. Raises as `codec.encode` does."""
    return codec.encode(value)[:-1] + b"\r\n"


def question(attribute: str, args: tuple[str, ...], manager: str) -> bytes:
    """Ask a peer for something.

    Args:
        attribute: ``"identity"``, ``"username"`` or ``"password"``.
        args: For whom, see `handshake.question`.
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
    """Answer a request. Raises as `codec.encode` does."""
    return line({"error": False, "requester": requester, "result": value, "uid": uid})


def error(message: str, uid: Any, requester: str, again: float | None = None) -> bytes:
    """Answer a request that failed, or with an empty uid say why a peer is not served.

    Args:
        message: The class of the exception and its text, ``"ValueError: bad"`` for example.
        uid: The uid of the request.
        requester: The network name of the peer.
        again: If the reason is no verdict on the peer: seconds after which it may connect again. Peers that
            do not know this field ignore it.
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
