"""Acknowledged lines: the watermark up to which the Manager has read, and the abandoned requests above it.

The Manager reads the lines of one client in order, so each answer acknowledges its own request and all lines
written before it.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.requests import Request

_MANY = 1000
"""Abandoned requests from which `Acknowledged.needs_ping` is true."""


class Acknowledged:
    """The lines of a client that the Manager is known to have read.

    Args:
        open_requests: The written requests without a reply, by uid.

    Attributes:
        abandoned: The abandoned requests that may not have been read, by uid, in the order of abandoning.
            None before the first one, since an empty dictionary takes 8 % of the memory of the protocol.
        watermark: The `Line.sequence` up to which all lines are known to have been read.
    """

    __slots__ = ("_open", "abandoned", "watermark")

    def __init__(self, open_requests: Mapping[str | None, Request]) -> None:
        self.watermark = 0
        self._open = open_requests
        self.abandoned: OrderedDict[str, Request] | None = None

    def __iter__(self) -> Iterator[Request]:
        """Iterate over the requests to Services above the watermark, open or abandoned."""
        return (
            request
            for request in self._unanswered()
            if request.sequence > self.watermark and request.service != MANAGER
        )

    @property
    def services(self) -> set[str]:
        """The Services of all requests that are open, or abandoned above the watermark."""
        return {request.service for request in self._unanswered()}

    def _unanswered(self) -> Iterator[Request]:
        """Iterate over the open requests, and then over the abandoned ones."""
        return chain(self._open.values(), self.abandoned.values() if self.abandoned else ())

    @property
    def needs_ping(self) -> bool:
        """Whether a request should advance the watermark, since `abandoned` holds many requests."""
        return self.abandoned is not None and len(self.abandoned) >= _MANY

    def advance(self, sequence: int) -> None:
        """Raise the watermark to the `Line.sequence` of a request that was read."""
        self.watermark = max(self.watermark, sequence)

    def abandon(self, request: Request) -> None:
        """Keep a request that is no longer open, if it is above the watermark."""
        if request.sequence > self.watermark:
            if self.abandoned is None:
                self.abandoned = OrderedDict()
            self.abandoned[request.uid] = request

    def forget(self, uid: str) -> Request | None:
        """Remove and return an abandoned request; None if there is none of that uid."""
        return self.abandoned.pop(uid, None) if self.abandoned else None

    def prune(self) -> None:
        """Remove the abandoned requests up to the watermark, since no line can refer to them any more."""
        while self.abandoned:
            uid, request = next(iter(self.abandoned.items()))
            if request.sequence > self.watermark:
                break
            del self.abandoned[uid]

    def clear(self) -> None:
        """Remove all abandoned requests."""
        self.abandoned = None
