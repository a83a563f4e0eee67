"""Interface of a route: what the requests of a link go to at the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class RequestRoute(Protocol):
    """The requests of tasks or of threads to a Service.

    For tasks it is `TaskRequests`, over one connection; `PersistentRequests`, over all connections of a
    client that reconnects; or `WithoutLock`, after the loss of a lock. There `request` returns a coroutine.
    The blocking API has the same three for threads.
    """

    def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request and wait for its reply; see `TaskRequests.request`."""

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request without waiting for its reply; see `TaskRequests.start`."""
