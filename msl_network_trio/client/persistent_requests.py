"""Requests of a client that reconnects: they wait while it is away, and are repeated if that is safe.

`PersistentRequests` is for tasks what `TaskRequests` is, for as long as the client exists; the latter exist
for one connection. All of it runs in the Trio thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import trio

from msl_network_trio import arguments
from msl_network_trio.client.reply import ParkedRequest, Reply, timed_out
from msl_network_trio.client.statistics import ErrorCounts
from msl_network_trio.client.task_requests import TaskRequests
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ConnectionLost, LockLost, ReplyTimeout, ServiceLost, Unanswered
from msl_network_trio.protocol.late_replies import RecordingFactory
from msl_network_trio.protocol.requests import Request, RequestFactory


class Owner(Protocol):
    """Owner of persistent requests: a link, or a session for the requests to the Manager."""

    def service_refused(self, error: ServiceLost) -> None:
        """Take note that the Manager has refused a request, since the Service is not connected."""


class FirstTry(NamedTuple):
    """The first try of a request, by a thread."""

    request: Request
    """The request; `PersistentRequests.make` has made it."""

    line: bytes
    """Its line. Repetitions send it, since meanwhile another thread may have changed the arguments."""

    elapsed: float
    """Seconds since the call of the thread."""

    may_have_run: bool
    """Whether it may have been executed."""


class PersistentRequests:
    """The requests over the current connection, or over the next one while there is none.

    A request that certainly was not executed is sent again: it was not written before the connection was
    lost, or the Manager refused it since the Service was not connected. A request that may have been executed
    is sent again only if its name is in `idempotent`.

    Args:
        owner: The owner.
        timeout: Default for the seconds to wait for a reply; infinity: no limit.
        errors: Counts the errors that callers get.
        idempotent: Names of attributes whose requests may be executed several times.
        waits: Whether requests wait while there is no connection; otherwise they raise.
        keep_calls: See `ClientOutput`.

    Attributes:
        idempotent: See above.
        lock_error: Makes the error of requests to the Service, since a lock on it was lost; None: it was not.
        make: Makes a request, see `RequestFactory.make`. In any thread.
    """

    __slots__ = (
        "_changes",
        "_ended",
        "_errors",
        "_factory",
        "_live",
        "_owner",
        "_reason",
        "_timeout",
        "_waits",
        "idempotent",
        "lock_error",
        "make",
    )

    def __init__(
        self,
        owner: Owner,
        timeout: float,
        errors: ErrorCounts,
        *,
        idempotent: Collection[str] = (),
        waits: bool,
        keep_calls: bool = False,
    ) -> None:
        self.idempotent = idempotent
        self.lock_error: Callable[[], LockLost] | None = None
        self._errors = errors
        self._owner = owner
        self._timeout = timeout
        self._waits = waits
        self._live: TaskRequests | None = None
        self._reason: Unanswered = ConnectionLost("There was no connection yet")
        self._ended = False
        self._changes = trio.lowlevel.ParkingLot()
        self._factory = RecordingFactory() if keep_calls else RequestFactory()
        self.make = self._factory.make

    # ---- for the session, in the reader and in the order of the wire ----

    @property
    def live(self) -> TaskRequests | None:
        """The requests over the current connection; None while there is none. In any thread."""
        return self._live

    def may_repeat(self, error: Unanswered, attribute: str) -> bool:
        """Return whether a request that failed with this error is made again. In any thread."""
        if not self._waits or self._ended:
            return False
        if self.lock_error is not None and error.may_have_run:
            return False  # LockLost would not tell that
        return not error.may_have_run or attribute in self.idempotent

    def note_refusal(self, error: ServiceLost) -> None:
        """Take note that the Manager has refused a request; in the Trio thread."""
        self._owner.service_refused(error)

    @property
    def is_away(self) -> bool:
        """Whether requests wait."""
        return self._live is None and not self._ended

    def resume(self, requests: TaskRequests) -> None:
        """Make requests over a connection from now on."""
        self._live = requests
        self._changes.unpark_all()

    def pause(self, reason: Unanswered) -> None:
        """Let requests wait, or raise, because of the loss of the connection or of the Service."""
        self._live, self._reason = None, reason
        self._changes.unpark_all()

    def end(self, reason: Unanswered) -> None:
        """Let requests raise from now on."""
        self._ended = True
        self.pause(reason)

    def away_error(self, service: str, attribute: str, *, may_have_run: bool = False) -> Unanswered:
        """Return the error of a request that cannot be sent, since there is no connection or no Service.

        Args:
            service: Name of the Service.
            attribute: Name of the attribute.
            may_have_run: Whether it was sent before, over another connection.
        """
        return self._errors.count(_not_sent(self._reason, service, attribute, may_have_run))

    # ---- for callers ----

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        linking: str = "",
        kind: Callable[[str, str, str], ParkedRequest] = ParkedRequest,
        first_try: FirstTry | None = None,
    ) -> Any:
        """Make a request and wait for its reply; see `TaskRequests.request`.

        The timeout includes the time without a connection, repetitions, and the first try of a thread.

        Raises:
            ReplyTimeout: Also if there was no connection in time; then ``may_have_run`` is False.
            ConnectionLost: The connection was lost, and the request may have been executed. Or the client
                does not reconnect any more, or its policy is to raise while it reconnects.
            LockLost: A lock on the Service was lost before the request was sent, and was not let go.
        """
        seconds = self._timeout if timeout is None else arguments.seconds("timeout", timeout)
        elapsed, may_have_run = 0.0, False
        if first_try is None:
            request = self.make(kind, service, attribute, args, kwargs)
            # Kept, since later the arguments may have other values.
            line = request.data
        else:
            line, elapsed, may_have_run = first_try.line, first_try.elapsed, first_try.may_have_run
            request = self._factory.renewed(kind, first_try.request, line)
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = math.inf if seconds == math.inf else trio.current_time() + seconds - elapsed
        while True:
            if self.lock_error is not None and service != MANAGER:
                await trio.lowlevel.checkpoint()  # a loop that retries must not starve other tasks
                raise self._errors.count(self.lock_error())
            live = self._live
            if live is None:
                with trio.move_on_at(deadline):
                    live = await self._wait(request, may_have_run)
                if live is None:
                    raise self._errors.count(_timed_out(request, seconds, may_have_run)) from self._reason
            try:
                return await live.send(request, deadline, seconds, linking=linking)
            except ReplyTimeout as error:
                error.may_have_run |= may_have_run
                raise
            except (ConnectionLost, ServiceLost) as error:
                may_have_run |= error.may_have_run
                error.may_have_run = may_have_run
                if not self.may_repeat(error, attribute):
                    raise
                if isinstance(error, ServiceLost):
                    self._owner.service_refused(error)
            with trio.move_on_at(deadline):
                while self._live is live:  # it has ended, which the reader has yet to find out
                    await self._changes.park()
            request = self._factory.renewed(kind, request, line)

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Make a request without waiting for anything; see `TaskRequests.start`.

        It is never repeated.

        Raises:
            ConnectionLost: There is no connection.
            ServiceLost: The Service is not connected.
        """
        if self._live is None:
            raise self.away_error(service, attribute)
        return self._live.start(service, attribute, args, kwargs, timeout)

    async def wait(self, service: str, attribute: str, deadline: float, seconds: float) -> TaskRequests:
        """Wait for a connection, as `request` does, and return its requests.

        Args:
            service: Name of the Service, for errors.
            attribute: Name of the attribute, for errors.
            deadline: Deadline by Trio's clock.
            seconds: The timeout in seconds, for errors.

        Raises:
            ReplyTimeout: There was none before the deadline.
            ConnectionLost: As `request`.
        """
        if self._live is not None:
            return self._live
        request = ParkedRequest(service, attribute, "")
        with trio.move_on_at(deadline):
            return await self._wait(request, may_have_run=False)
        raise self._errors.count(timed_out(request, seconds)) from self._reason

    async def _wait(self, request: ParkedRequest, may_have_run: bool) -> TaskRequests:
        while self._live is None:
            if self._ended or not self._waits:
                await trio.lowlevel.checkpoint()  # a loop that retries must not starve other tasks
                raise self.away_error(request.service, request.attribute, may_have_run=may_have_run)
            await self._changes.park()
        return self._live


def _timed_out(request: ParkedRequest, seconds: float, may_have_run: bool) -> ReplyTimeout:
    error = timed_out(request, seconds)
    error.may_have_run |= may_have_run
    return error


def _not_sent(reason: Unanswered, service: str, attribute: str, may_have_run: bool) -> Unanswered:
    """Return the error of a request that was not sent because of the loss of the connection or Service."""
    error: Unanswered
    if isinstance(reason, ServiceLost):
        error = ServiceLost(str(reason), service=service, attribute=attribute, may_have_run=may_have_run)
    else:
        fate = "may have been executed" if may_have_run else "was not sent"
        error = ConnectionLost(f"{reason}; {service}.{attribute} {fate}", may_have_run=may_have_run)
    error.__cause__ = reason.__cause__
    return error
