"""Where Services have been seen, from which follows which requests can still be answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class ServiceAddresses:
    """Remembers where each Service was last seen.

    A Manager tells nobody that a Service has gone. But its identity lists all Services with their addresses,
    and the answer to a link request has the address of one. A Service that is not listed any more, or has
    another address than before, does not answer what was written before that was seen: it was meant for
    the one that has gone. (It may have been meant for its successor; then the outcome is unknown too, since
    that is a Service with another memory.)
    """

    def __init__(self) -> None:
        self._addresses: dict[str, str | None] = {}

    def observe(self, service: str, address: str | None) -> bool:
        """Note where a Service is, None: nowhere, and return whether it is not the one seen before."""
        before = self._addresses.get(service, "")
        self._addresses[service] = address
        return address is None or before not in {"", address}

    def observe_all(self, identity: Any, asked: set[str]) -> Iterator[str]:
        """Note what the identity of a Manager tells.

        Args:
            identity: What was received as that.
            asked: The Services that requests are open to.

        Yields:
            Those of `asked` that are not the ones seen before.
        """
        services = identity.get("services") if isinstance(identity, dict) else None
        if not isinstance(services, dict):
            return
        for service in asked | self._addresses.keys() | services.keys():
            seen = services.get(service)
            address = seen.get("address") if isinstance(seen, dict) else None
            changed = self.observe(service, address if isinstance(address, str) else None)
            if changed and service in asked:
                yield service
