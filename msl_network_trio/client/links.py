"""Links of one client: how they are made and broken. Runs in the Trio thread.

A Manager keeps one link for a client and a Service, so that the first request to unlink would end it for all
links of the client with the Service. Hence the links are counted here, and only the last one sends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import trio

from msl_network_trio.client.link_requests import link_request
from msl_network_trio.client.link_state import LinkOwner, LinkState
from msl_network_trio.client.persistent_requests import PersistentRequests
from msl_network_trio.client.task_requests import TaskRequests
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ConnectionLost, ManagerError, ProtocolError, ReplyTimeout


class LinksOwner(LinkOwner, Protocol):
    """Owner of links, which makes requests to the Manager; see `Session`."""

    requests: PersistentRequests | TaskRequests


S = TypeVar("S", bound=LinksOwner)


class Links(Generic[S]):
    """The links of a client that are not broken.

    Args:
        owner: The session of the client.
    """

    __slots__ = ("_counts", "_links", "_owner", "_unlinking")

    def __init__(self, owner: S) -> None:
        self._owner = owner
        self._links: list[LinkState[S]] = []
        self._counts: Counter[str] = Counter()
        """Number of links with each Service, including those that are being made."""
        self._unlinking: Counter[LinkState[S]] = Counter()
        """Number of tasks that are unlinking each link."""

    def __iter__(self) -> Iterator[LinkState[S]]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def count(self, service: str) -> int:
        """Return the number of links with a Service, including those that are being made."""
        return self._counts[service]

    @property
    def services(self) -> set[str]:
        """Names of the Services with which there are links, including those that are being made."""
        return set(self._counts)

    @trio.lowlevel.enable_ki_protection
    async def make(
        self, service: str, timeout: float | None, idempotent: Collection[str] = ()
    ) -> LinkState[S]:
        """Link with a Service; see `Client.link`."""
        owner = self._owner
        made: list[LinkState[S]] = []

        def take(identity: Mapping[str, Any]) -> None:
            link = LinkState(owner, service, identity, idempotent)
            if link.persistent is not None:
                link.persistent.resume(owner.connection.requests)
            self._links.append(link)
            made.append(link)

        self._counts[service] += 1
        try:
            answer = await owner.requests.request(
                MANAGER,
                "link",
                (service,),
                timeout=timeout,
                linking=service,
                kind=link_request(service, owner.presence, take),
            )
            if not made:
                text = f"The Manager sent no identity of the {service!r} Service: {answer!r:.80}"
                raise ProtocolError(text)
        except BaseException as error:
            # The Manager may have made the link all the same, and would keep the place occupied.
            is_used = self.forget(made[0]) if made else self._release(service)
            if not is_used and not isinstance(error, ManagerError):
                owner.connection.requests.post("unlink", service)
            raise
        return made[0]

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, link: LinkState[S], timeout: float | None) -> None:
        """Unlink from a Service; see `Client.unlink`."""
        if link.persistent is not None and link.persistent.is_away:
            self.forget(link)  # it is not made again
            return
        connection = self._owner.connection
        self._unlinking[link] += 1
        try:
            await connection.requests.request(MANAGER, "unlink", (link.service_name,), timeout=timeout)
        except ManagerError:
            is_restored = link.persistent is not None and link.lost is not None
            if self._unlinking[link] == 1 and link in self._links and not is_restored:
                raise  # else another task is unlinking it, or has done so
        except ConnectionLost:
            if link.persistent is None:
                raise  # else the link has ended with the connection, and is not made again
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            # The Manager may have unlinked, so the link is broken. In case it has not, ask it again.
            if getattr(error, "may_have_run", True) and not self.forget(link):
                self._owner.connection.requests.post("unlink", link.service_name)
            raise
        finally:
            self._unlinking -= Counter([link])
        if not self.forget(link) and self._owner.connection is not connection:
            self._owner.connection.requests.post("unlink", link.service_name)  # it may have been made again

    @trio.lowlevel.enable_ki_protection
    def forget(self, link: LinkState[S]) -> bool:
        """Break a link without a request, and return whether the client has others with the Service."""
        link.break_link()
        if link not in self._links:
            return True
        self._links.remove(link)
        return self._release(link.service_name)

    @trio.lowlevel.enable_ki_protection
    async def leave(self, link: LinkState[S]) -> None:
        """End the scope of a link; the last scope unlinks. Shielded from cancellation, and raises nothing."""
        if not self.forget(link):
            await self._owner.connection.requests.post_and_wait("unlink", link.service_name)

    @trio.lowlevel.enable_ki_protection
    def _release(self, service: str) -> bool:
        """Decrement the number of links with a Service, and return whether others remain."""
        self._counts[service] -= 1
        if self._counts[service] > 0:
            return True
        del self._counts[service]
        self._owner.locks.forget(service)  # the Manager releases it together with the link
        return False
