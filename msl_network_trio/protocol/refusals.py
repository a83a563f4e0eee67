"""Refusals: attributes the Manager's errors without a uid to the requests that they mean.

The Manager refuses a request to a Service that is not connected with an error that names the Service but not
the request. It can only mean a request above the watermark of `Acknowledged`. If there is exactly one to that
Service, the refusal is its own. If there are several, all of them fail, and a barrier follows: a request
without effect, whose answer tells that all refusals of these requests have been received. Refusals before it
are ignored. Requests to that Service below the watermark will not be answered either: a Manager forwards the
last lines of a Service before it forgets the Service.

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.acknowledged import Acknowledged
from msl_network_trio.protocol.messages import ReceivedLine, refusal
from msl_network_trio.protocol.outbox import Outbox
from msl_network_trio.protocol.request_errors import is_refusal, refused_error, remote_error
from msl_network_trio.protocol.requests import Request, RequestFactory


class Barrier(Request):
    """A request without effect, whose answer tells that the Manager has read everything before it."""

    __slots__ = ("service_refused",)

    service_refused: str | None
    """The Service whose refusals end at this barrier; None: the barrier is a ping."""


class Refusals:
    """The attribution of errors without a uid, with the barriers that it needs.

    Args:
        outbox: The outbox, into which barriers are put.
        acknowledged: The watermark of the same connection.
        factory: Makes barriers.

    Attributes:
        barriers: The barriers without an answer, by Service.
    """

    __slots__ = ("_acknowledged", "_deferred", "_factory", "_open", "_outbox", "barriers")

    def __init__(self, outbox: Outbox, acknowledged: Acknowledged, factory: RequestFactory) -> None:
        self.barriers: dict[str | None, Barrier] = {}
        self._outbox = outbox
        self._open = outbox.open
        self._acknowledged = acknowledged
        self._factory = factory
        self._deferred: list[Barrier] = []

    def refused_service(self, text: str, manager_name: str) -> str | None:
        """Return the Service that a refusal names; None if the error refuses no request of this client."""
        if is_refusal(text):
            for service in self._candidates():
                if service is not None and text == refusal(service, manager_name):
                    return service
        return None

    def _candidates(self) -> Iterator[str | None]:
        """Iterate over the Services that may be refused, the most likely ones first.

        To collect all others takes a pass through all open requests.
        """
        yield from self.barriers
        yield from self._acknowledged.services

    def refuse(self, service: str, manager_name: str) -> list[Request]:
        """Settle and return the requests that are lost by the refusal of a Service.

        Args:
            service: The name of the Service.
            manager_name: The Manager's name for itself, for messages.
        """
        suspects = [request for request in self._acknowledged if request.service == service]
        if service in self.barriers or not suspects:
            return []  # a further refusal of requests that have failed already, or a forgery
        refused = suspects[0] if len(suspects) == 1 else None
        failed = [request for request in self._open.values() if request.service == service]
        for request in failed:
            del self._open[request.uid]
            request.fail(refused_error(request, manager_name, may_have_run=request is not refused))
        for request in suspects:
            self._acknowledged.forget(request.uid)
        if refused is not None:
            self._acknowledged.advance(refused.sequence)
        else:
            self._put_barrier(service)
        return failed

    def fail_unreadable(self, message: ReceivedLine, manager: str) -> tuple[int, list[Request]]:
        """Settle all requests that the Manager may have failed to parse.

        Args:
            message: The Manager's error, which has no uid.
            manager: The ``host:port`` of the Manager, for messages.

        Returns:
            The number of requests that the error may mean, and those among them that were open.
        """
        suspects = list(self._acknowledged)
        failed = []
        for request in suspects:
            self._acknowledged.forget(request.uid)
            if self._open.pop(request.uid, None) is not None:
                request.fail(remote_error(request, message, manager))
                failed.append(request)
        return len(suspects), failed

    # ---- barriers ----

    def ping(self) -> None:
        """Queue a request whose answer advances the watermark, unless one is open or the gate is shut."""
        if None not in self.barriers and self._outbox.gate is None:
            self._outbox.add(self._barrier(None))

    def _put_barrier(self, service: str) -> None:
        """Queue the barrier behind the refusals of a Service."""
        barrier = self._barrier(service)
        gate = self._outbox.gate
        if gate is not None and gate.sequence > 0:
            self._deferred.append(barrier)
        else:
            # Before all queued lines, since refusals of these come after the barrier.
            self._outbox.add_first(barrier)

    def _barrier(self, service: str | None) -> Barrier:
        nobody = f"nobody is called {os.urandom(8).hex()}"
        barrier = self._factory.make(Barrier, MANAGER, "unlink", (nobody,), None)
        barrier.service_refused = service
        self.barriers[service] = barrier
        return barrier

    def remove(self, barrier: Barrier) -> None:
        """Remove a barrier that was answered."""
        self.barriers.pop(barrier.service_refused, None)

    def queue_deferred(self) -> None:
        """Queue the barriers that were deferred while the gate was shut."""
        for barrier in self._deferred:
            self._outbox.add_first(barrier)
        self._deferred.clear()

    def clear(self) -> None:
        """Remove all barriers."""
        self.barriers.clear()
        self._deferred.clear()
