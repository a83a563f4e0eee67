"""How far the Manager has read, and the requests that it may not have read yet.

It reads the lines of one client one after the other, so each answer tells that everything before its request
has been read as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.requests import Request

_MANY = 1000
"""After how many abandoned requests of unknown fate to ask the Manager how far it has read."""


class Acknowledged:
    """Knows which requests the Manager may not have read yet, also of those that were abandoned.

    Args:
        open_requests: Those that were given out to be written and are not yet answered, by uid.

    Attributes:
        abandoned: Those that were abandoned, by uid; to be looked at only.
        mark: The `Request.sequence` up to which all are known to have been read.
    """

    __slots__ = ("_open", "abandoned", "watermark")

    def __init__(self, open_requests: Mapping[str | None, Request]) -> None:
        self.watermark = 0
        self._open = open_requests
        self.abandoned: OrderedDict[str, Request] = OrderedDict()

    def __iter__(self) -> Iterator[Request]:
        """The requests to Services that may not have been read."""
        return (
            request
            for request in chain(self._open.values(), self.abandoned.values())
            if request.sequence > self.watermark and request.service != MANAGER
        )

    @property
    def services(self) -> set[str]:
        """Those that requests are for which were not answered, read or not."""
        return {request.service for request in chain(self._open.values(), self.abandoned.values())}

    @property
    def needs_ping(self) -> bool:
        """Whether to ask the Manager how far it has read, so that they can be forgotten."""
        return len(self.abandoned) >= _MANY

    def advance(self, sequence: int) -> None:
        """Move the mark: the Manager has read this request, and all before it."""
        self.watermark = max(self.watermark, sequence)

    def abandon(self, request: Request) -> None:
        """Keep a request in mind that is not open any more, if it may not have been read."""
        if request.sequence > self.watermark:
            self.abandoned[request.uid] = request

    def forget(self, uid: str) -> Request | None:
        """Forget an abandoned request, and return it if it was there."""
        return self.abandoned.pop(uid, None)

    def prune(self) -> None:
        """Forget the abandoned requests up to the mark, which nothing can be about any more."""
        while self.abandoned:
            uid, request = next(iter(self.abandoned.items()))
            if request.sequence > self.watermark:
                break
            del self.abandoned[uid]

    def clear(self) -> None:
        """Forget all abandoned requests."""
        self.abandoned.clear()
