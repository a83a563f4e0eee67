"""Presence of the Services with which a client is linked: notices their loss, and links again.

A Manager of this package sends a `ManagerNotice` when a Service disconnects or connects. Any Manager can be
asked for the link again, which changes nothing for a client that is linked: the answer has the address of the
Service, and another address means another instance. This is done regularly, but only for Services of which
somebody depends on notifications or on a lock, and of links that are to be restored. An unanswered request
also makes the idle probe detect a dead Manager.

All decisions are made in the reader, in the order of the wire: a notification that follows the answer to a
link request in the same data belongs behind the gap. Everything here runs in the Trio thread.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

import attrs
import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.client.link_requests import LinkProbe, is_service_identity, link_probe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.exceptions import ManagerError, NetworkError, ServiceLost
from msl_network_trio.protocol.messages import ManagerNotice
from msl_network_trio.protocol.requests import Request
from msl_network_trio.visible import visible

PROBE_INTERVAL: Final = 2.0
"""Seconds between the last sign that a link exists and the next request for it."""

PROBE_INTERVAL_WITH_NOTICES: Final = 10.0
"""The same at a Manager that sends notices."""

_FIRST_RETRY: Final = 0.1
"""Seconds before a refused link is requested again, at most; the delay doubles up to the interval."""


_FIRST_PATIENCE: Final = 5.0
"""Seconds without an answer after which a link is requested again. They double up to `_LONGEST_PATIENCE`."""

_LONGEST_PATIENCE: Final = 60.0


class WatchedLink(Protocol):
    """A link whose Service may be lost; implemented by `LinkState`.

    Attributes:
        lost: The reason why the client is not linked; None: it is, as far as known.
        sure: Time of the last sign of the link, in seconds since the epoch.
    """

    lost: NetworkError | None
    sure: float

    @property
    def service_name(self) -> str:
        """Name of the Service."""

    @property
    def service_address(self) -> str:
        """Address of the Service."""

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a notification handler or an open stream."""

    def lose(self, reason: NetworkError) -> None:
        """Note that the client is not linked any more."""

    def suspend(self, reason: ServiceLost) -> None:
        """Note that the client is not linked for a while."""

    def restore(self, identity: Mapping[str, Any]) -> None:
        """Note that the client is linked again."""


class WatchedLinks(Protocol):
    """The links of a client; implemented by `Links`."""

    def __iter__(self) -> Iterator[WatchedLink]:
        """Iterate over the links that are not broken."""

    def count(self, service: str) -> int:
        """Return the number of links with a Service, including those that are being made."""


class PresenceOwner(Protocol):
    """Owner of the links; see `Session`."""

    connection: Connection
    mailboxes: Mailboxes

    @property
    def links(self) -> WatchedLinks:
        """The links that are not broken."""

    @property
    def is_reconnecting(self) -> bool:
        """Whether lost links are restored."""

    def holds_lock(self, service: str) -> bool:
        """Return whether the client holds a lock on a Service."""

    def service_lost(self, service: str, reason: NetworkError) -> None:
        """Take the loss of a Service, before the links with it are lost."""


@attrs.define
class _Watch:
    """The schedule of the requests for one link.

    Times are those of Trio's clock.
    """

    due: float = -math.inf
    """Time of the next request."""

    delay: float = _FIRST_RETRY
    """Maximum seconds before the next retry after a refusal."""

    is_asked: bool = False
    """Whether a request is unanswered."""

    patience: float = _FIRST_PATIENCE
    """Seconds to wait for the answer to the next request."""

    overdue: float = math.inf
    """Time at which the answer is overdue; then the link is requested again."""

    sure: float = 0.0
    """The `WatchedLink.sure` that `due` takes into account."""


class Presence:
    """Watches the Services with which a client is linked, over all of its connections.

    Args:
        owner: Owner of the links.
    """

    __slots__ = ("_changed", "_has_notices", "_owner", "_suspended", "_watched_connection", "_watches")

    def __init__(self, owner: PresenceOwner) -> None:
        self._owner = owner
        self._has_notices = False
        """Whether the Manager of the current connection sends notices."""
        self._suspended: set[str] = set()
        """Services with which the client is not linked for a while; see `suspend`."""
        self._watches: dict[str, _Watch] = {}
        self._watched_connection: Connection | None = None
        """The connection in whose nursery the task runs; None: it does not run."""
        self._changed: trio.Event | None = None
        """Set when the schedule has changed while the task sleeps."""

    # ---- the life of the connection, for the session ----

    @trio.lowlevel.enable_ki_protection
    def connection_lost(self, reason: NetworkError) -> None:
        """Note that all links are lost, until `connection_restored`; in the reader."""
        self._has_notices = False
        for service in self._services():
            self._lose(service, reason)

    @trio.lowlevel.enable_ki_protection
    def connection_restored(self) -> None:
        """Request all links again over a new connection of the session, whose notices may precede this."""
        self._watches.clear()
        for service in self._services():
            if service not in self._suspended:
                self._ask(service)
        self.look_after()

    # ---- for those who depend on a link ----

    @trio.lowlevel.enable_ki_protection
    def look_after(self) -> None:
        """Watch all links that somebody depends on.

        To be called when a stream is entered, a handler is set or a lock is acquired. A link is requested at
        once if the last sign of it is older than the interval.
        """
        connection = self._owner.connection
        if self._changed is not None:
            self._changed.set()
        if self._watched_connection is not connection and self._watched():
            self._watched_connection = connection
            connection.start_task(self._run)

    @trio.lowlevel.enable_ki_protection
    def ask_soon(self, service: str) -> None:
        """Request a link at once, since something indicates that it has changed."""
        watch = self._watches.setdefault(service, _Watch())
        watch.due = -math.inf
        watch.delay = _FIRST_RETRY
        self.look_after()

    @trio.lowlevel.enable_ki_protection
    def suspend(self, service: str) -> None:
        """Let the links with a Service wait, since the client unlinks from it until `resume`.

        The answer to any link request restores them, with a gap in the notifications.
        """
        self._suspended.add(service)
        text = f"The link with the {visible(service)!r} Service was given up while locks were acquired"
        for link in self._links_with(service):
            if link.lost is None:
                link.suspend(_service_lost(service, text))

    @trio.lowlevel.enable_ki_protection
    def resume(self, service: str) -> None:
        """Restore the links with a Service that still wait, or lose them if the client does not reconnect."""
        self._suspended.discard(service)
        waiting = [link for link in self._links_with(service) if link.lost is not None]
        if waiting and self._owner.is_reconnecting:
            self.ask_soon(service)
            return
        for link in waiting:
            assert link.lost is not None
            link.lose(link.lost)

    # ---- for the reader ----

    @trio.lowlevel.enable_ki_protection
    def take_notice(self, notice: ManagerNotice) -> None:
        """Take a notice of the Manager."""
        if notice.kind == "tells":
            self._has_notices = True
        elif not self._links_with(notice.name):
            return
        elif notice.kind == "gone":
            text = f"The {visible(notice.name)!r} Service has disconnected from the Manager"
            self._lose(notice.name, _service_lost(notice.name, text))
            watch = self._watches.setdefault(notice.name, _Watch())
            watch.delay = PROBE_INTERVAL_WITH_NOTICES  # another notice tells when it is connected again
            watch.due = self._next_retry(watch)
            self.look_after()
        else:
            self.ask_soon(notice.name)

    @trio.lowlevel.enable_ki_protection
    def take_answer(self, service: str, answered: Request) -> None:
        """Take the answer to a link request of any kind.

        Args:
            service: Name of the Service.
            answered: The request, which is settled.
        """
        watch = self._watches.get(service)
        if watch is not None and isinstance(answered, LinkProbe):
            watch.is_asked = False
            watch.patience = _FIRST_PATIENCE
        if answered.error is None:
            if is_service_identity(answered.result):
                self._linked(service, answered.result)
            if watch is not None:
                watch.delay = _FIRST_RETRY
                watch.due = trio.current_time() + self._interval
        elif isinstance(answered.error, ManagerError):
            self._refused(service, answered.error)
            if watch is not None:
                watch.due = self._next_retry(watch)
                is_absent = answered.error.type_name == "KeyError"
                # No Manager tells when a lock or a place becomes free.
                longest = PROBE_INTERVAL_WITH_NOTICES if self._has_notices and is_absent else PROBE_INTERVAL
                watch.delay = min(2 * watch.delay, longest)
        if self._changed is not None:
            self._changed.set()

    def _linked(self, service: str, identity: Mapping[str, Any]) -> None:
        """Take the identity of a Service with which the client is linked now."""
        links = self._links_with(service)
        if any(link.lost is None and link.service_address != identity["address"] for link in links):
            self._lose(service, _service_lost(service, f"The {visible(service)!r} Service was restarted"))
        is_reconnecting = self._owner.is_reconnecting or service in self._suspended
        is_gap = False
        for link in links:
            if link.lost is None:
                link.sure = time.time()
            elif is_reconnecting:
                is_gap = is_gap or link.has_subscribers
                link.restore(identity)
        if is_gap:
            gaps = self._owner.mailboxes.gaps
            gaps[service] = gaps.get(service, 0) + 1
        is_used = any(link.lost is None for link in links) or self._owner.links.count(service) > len(links)
        if not is_used:  # only this request has made the link, which would occupy a place
            self._owner.connection.requests.post("unlink", service)

    def _refused(self, service: str, error: ManagerError) -> None:
        """Take the refusal of a link, which means that the client is not linked any more."""
        if any(link.lost is None for link in self._links_with(service)):
            text = f"The link with the {visible(service)!r} Service is lost: {visible(error.message)}"
            self._lose(service, _service_lost(service, text))

    def _lose(self, service: str, reason: NetworkError) -> None:
        """Note that a Service is gone, or replaced by another instance."""
        links = [link for link in self._links_with(service) if link.lost is None]
        if links:
            self._owner.service_lost(service, reason)
        for link in links:
            link.lose(reason)

    # ---- the schedule ----

    @property
    def _interval(self) -> float:
        return PROBE_INTERVAL_WITH_NOTICES if self._has_notices else PROBE_INTERVAL

    def _next_retry(self, watch: _Watch) -> float:
        return trio.current_time() + random.uniform(watch.delay / 2, watch.delay)

    def _services(self) -> Iterable[str]:
        return dict.fromkeys(link.service_name for link in self._owner.links)

    def _links_with(self, service: str) -> list[WatchedLink]:
        return [link for link in self._owner.links if link.service_name == service]

    def _watched(self) -> list[str]:
        """Return the Services of links that somebody depends on, or that are to be restored."""
        owner = self._owner
        services = {
            link.service_name: None
            for link in owner.links
            if (owner.is_reconnecting if link.lost is not None else link.has_subscribers)
        }
        return [
            service
            for service in self._services()
            if service not in self._suspended and (service in services or owner.holds_lock(service))
        ]

    def _ask(self, service: str) -> None:
        """Request a link, unless a request for it is unanswered and not overdue."""
        watch = self._watches.setdefault(service, _Watch())
        now = trio.current_time()
        if not watch.is_asked or now >= watch.overdue:
            watch.is_asked = True
            watch.overdue = now + watch.patience
            watch.patience = min(2 * watch.patience, _LONGEST_PATIENCE)
            kind = link_probe(service, self)
            self._owner.connection.requests.post("link", service, kind=kind, linking=service)

    def _due(self, service: str) -> float:
        """Return the time at which a link is to be requested."""
        watch = self._watches.setdefault(service, _Watch())
        sure = [link.sure for link in self._links_with(service) if link.lost is None]
        if sure and max(sure) != watch.sure:
            # Its age is by the clock of the computer, which may be set; so it counts once.
            watch.sure = max(sure)
            age = min(max(time.time() - watch.sure, 0.0), self._interval)
            watch.due = max(watch.due, trio.current_time() + self._interval - age)
        return watch.overdue if watch.is_asked else watch.due

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        """Request links when they are due, until nobody depends on them."""
        connection = self._watched_connection
        while self._owner.connection is connection and (services := self._watched()):
            for service in [each for each in services if self._due(each) <= trio.current_time()]:
                self._ask(service)
            self._changed = trio.Event()
            with trio.move_on_at(min(map(self._due, services))):
                await self._changed.wait()
            self._changed = None
        if self._watched_connection is connection:
            self._watched_connection = None
            self._watches.clear()


def _service_lost(service: str, text: str) -> ServiceLost:
    return ServiceLost(text, service=service, may_have_run=False)
