"""Service addresses: where Services were last seen, from which their departure is detected.

A Manager sends no notice when a Service disconnects. But its identity lists all Services with their
addresses, and the answer to a link request has the address of one. If a Service is missing there, or has
another address than before, the requests that were written before will not be answered: they were meant for
the previous instance. (The present one may have received them; then their outcome is unknown too, since it
has another state.)

Used with the connection's lock held or, as long as threads do not use the connection, in the Trio thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.request_errors import departed_error
from msl_network_trio.protocol.requests import Request


class ServiceAddresses:
    """The last known address of each Service.

    Args:
        open_requests: The written requests without a reply, by uid.

    Attributes:
        linking: The Services that open link requests name, by uid of the request.
    """

    __slots__ = ("_addresses", "_open", "linking")

    def __init__(self, open_requests: dict[str | None, Request]) -> None:
        self.linking: dict[str, str] = {}
        self._open = open_requests
        self._addresses: dict[str, str | None] = {}

    def fail_requests(self, answered: Request, manager_name: str) -> list[Request]:
        """Settle and return the open requests to Services that have departed according to an answer.

        Args:
            answered: A request to the Manager that is settled.
            manager_name: The Manager's name for itself, for messages.
        """
        linked = self.linking.pop(answered.uid, "")
        if answered.error is not None:
            return []
        earlier = [
            request
            for request in self._open.values()
            if request.service != MANAGER and request.sequence < answered.sequence
        ]
        if linked:
            address = answered.result.get("address") if isinstance(answered.result, dict) else None
            departed = {linked} if self.observe(linked, address) else set()
        elif answered.attribute == "identity":
            departed = set(self.observe_all(answered.result, {request.service for request in earlier}))
        else:
            return []
        lost = [request for request in earlier if request.service in departed]
        for request in lost:
            del self._open[request.uid]
            request.fail(departed_error(request, manager_name))
        return lost

    def observe(self, service: str, address: str | None) -> bool:
        """Record the address of a Service; return whether its previous instance has departed.

        Args:
            service: The name of the Service.
            address: Its address; None: it is not connected.
        """
        before = self._addresses.get(service, "")
        self._addresses[service] = address
        return address is None or before not in {"", address}

    def observe_all(self, identity: Any, requested: set[str]) -> Iterator[str]:
        """Record the addresses in the identity of a Manager.

        Args:
            identity: The value received as the identity.
            requested: The Services of open requests.

        Yields:
            Those of `requested` whose previous instances have departed.
        """
        services = identity.get("services") if isinstance(identity, dict) else None
        if not isinstance(services, dict):
            return
        for service in requested | self._addresses.keys() | services.keys():
            seen = services.get(service)
            address = seen.get("address") if isinstance(seen, dict) else None
            departed = self.observe(service, address if isinstance(address, str) else None)
            if departed and service in requested:
                yield service
