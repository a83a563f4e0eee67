"""The request that the current task or thread serves.

The worker tasks and threads set a context variable, which the tasks and threads inherit that a method starts
with Trio.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import attrs
import msgspec

from msl_network_trio.protocol.incoming_requests import IncomingRequest

current: ContextVar[tuple[object, IncomingRequest] | None] = ContextVar(
    "msl_network_trio_request", default=None
)
"""The Service and the request that the current task or thread serves."""


@attrs.frozen
class ServedRequest:
    """A request that a Service is serving."""

    attribute: str
    """The name of the requested attribute."""

    requester: str
    """The network name of the client, ``"name[HOST:port]"``."""

    uid: str
    """The identifier of the request at its client; those of different clients may be equal."""


def current_request(service: object) -> ServedRequest:
    """Return the request that the current task or thread serves for a Service.

    Raises:
        RuntimeError: There is none.
    """
    served = current.get()
    if served is None or served[0] is not service:
        raise RuntimeError(
            f"{service!r} serves no request here; there is one only in a method that was requested, "
            "and in tasks that such a method has started"
        )
    request = served[1]
    return ServedRequest(request.attribute, _text(request.requester), _text(request.uid))


def _text(raw: msgspec.Raw) -> str:
    value: Any = msgspec.json.decode(raw)
    return value if isinstance(value, str) else str(value)
