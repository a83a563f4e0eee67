"""What is being served just now."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import attrs
import msgspec

from msl_network_trio.protocol.service import IncomingRequest

current: ContextVar[tuple[object, IncomingRequest] | None] = ContextVar(
    "msl_network_trio_request", default=None
)
"""The Service and the request that the current task or thread serves."""


@attrs.frozen
class ServedRequest:
    """A request that a Service is serving."""

    attribute: str
    """What is requested."""

    requester: str
    """Who requests it: the network name of a client, ``"name[HOST:port]"``."""

    uid: str
    """What the client calls it; uids of different clients may be the same."""


def current_request(service: object) -> ServedRequest:
    """Return the request that the current task or thread serves for a Service.

    Raises:
        RuntimeError: It serves none.
    """
    serving = current.get()
    if serving is None or serving[0] is not service:
        raise RuntimeError(
            f"{service!r} serves no request here; there is one only in a method that was requested, "
            "and in tasks that such a method has started"
        )
    call = serving[1]
    return ServedRequest(call.attribute, _text(call.requester), _text(call.uid))


def _text(raw: msgspec.Raw) -> str:
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, str) else str(value)
