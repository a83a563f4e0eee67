"""Requests of threads by a client that reconnects: they wait while it is away, and may be repeated.

The first try of a request is that of the thread itself. The rest, which takes its time anyway, happens in the
Trio thread by the rules of `PersistentRequests`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Protocol

from msl_network_trio.client.connection import Connection
from msl_network_trio.client.persistent_requests import FirstTry, PersistentRequests
from msl_network_trio.client.request_route import RequestRoute
from msl_network_trio.exceptions import ConnectionLost, ServiceLost
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.sync.calls import BlockingRequest, Calls
from msl_network_trio.sync.futures import Future


class HasCalls(Protocol):
    """A session; see `Session`."""

    @property
    def calls(self) -> Any:
        """The `Calls` over the current connection."""


class PersistentCalls:
    """The requests of threads over the current connection, or over the next one while there is none.

    It is for threads what `PersistentRequests` is for tasks, and may be used from any of them.

    Args:
        persistent: The requests of tasks to the same Service.
        session: The session, which has the requests of threads over the current connection.
    """

    __slots__ = ("_persistent", "_session")

    def __init__(self, persistent: PersistentRequests, session: HasCalls) -> None:
        self._persistent = persistent
        self._session = session

    def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request and wait for its reply; see `PersistentRequests.request` and `Calls.request`."""
        persistent, calls = self._persistent, self._session.calls
        began = monotonic()
        request = persistent.make(BlockingRequest, service, attribute, args, kwargs)
        line = request.data
        may_have_run = False
        # In this order: if a lock is lost in between, `calls` are those over the lost connection.
        if persistent.live is calls.requests and persistent.lock_error is None:
            try:
                return calls.request(service, attribute, args, kwargs, timeout, request=request)
            except (ConnectionLost, ServiceLost) as error:
                if not persistent.may_repeat(error, attribute):
                    raise
                may_have_run = error.may_have_run
                if isinstance(error, ServiceLost):
                    calls.connection.portal.do(partial(persistent.note_refusal, error))
        check_may_wait(f"Link.{attribute}")
        seconds = calls.requests.seconds(timeout)
        return calls.request_in_trio(
            persistent.request,
            service,
            attribute,
            args,
            kwargs,
            timeout,
            first_try=FirstTry(request, line, monotonic() - began, may_have_run),
            deadline=began + seconds,
        )

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future:
        """Make a request without waiting for anything; it is never repeated. See `PersistentRequests.start`.

        Raises:
            ConnectionLost: There is no connection.
            ServiceLost: The Service is not connected.
            LockLost: A lock on the Service was lost, and was not let go.
        """
        persistent = self._persistent
        calls: Calls = self._session.calls
        if persistent.live is not calls.requests:
            raise persistent.away_error(service, attribute)
        if persistent.lock_error is not None:
            raise persistent.lock_error()
        return calls.start(service, attribute, args, kwargs, timeout)


class BlockingRequests:
    """Maker of the requests of threads for a session.

    Args:
        session: The session.
    """

    def __init__(self, session: HasCalls) -> None:
        self._session = session

    def over(self, connection: Connection, before: RequestRoute | None) -> Calls:
        """Return the requests over a connection; in the Trio thread.

        Args:
            connection: The connection.
            before: The requests over the connection that it replaces; None: it is the first one.
        """
        return Calls(connection, before if isinstance(before, Calls) else None)

    def persistent(self, persistent: PersistentRequests) -> PersistentCalls:
        """Return the requests that outlive connections, for those of tasks."""
        return PersistentCalls(persistent, self._session)
