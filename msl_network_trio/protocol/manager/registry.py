"""Registry: the admitted peers of a Manager, their links and their locks. Pure state.

The rules and the texts of errors are those of msl-network 1.0.0, which existing programs match. Links and
locks belong to a client and a Service, not to single Link objects of a program.
"""

from __future__ import annotations

import logging
import math
import time
from itertools import islice
from typing import Any

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.identity import read_identity
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.visible import visible

_MAX_IDENTITIES = 67_108_864
"""Maximum bytes of the identities of all peers together."""

_LISTED = 100
"""Maximum number of linked clients that an error lists."""


class RegistryFull(Exception):
    """There are too many peers, or their identities are too large."""


class AddressTaken(NameError):
    """A peer of this name and address is connected: hosts may share a name."""


class Registry:
    """The admitted peers of one Manager; a `Directory`.

    Args:
        event_log: The log; None: a new one.
        max_links: Maximum number of links of a peer; None: no limit.
        max_peers: Maximum number of peers; None: no limit.

    Attributes:
        peers: The peers, by network name.
        services: Those of them that are Services, by the name of the Service.
        max_links: See above.
        links_refused: Number of links refused because of `max_links`.
        peers_refused: Number of peers refused because of `max_peers`.
        most: Maximum number of peers so far.
        changes: Number of peers that were added or removed.
    """

    def __init__(
        self, event_log: EventLog | None = None, max_links: int | None = None, max_peers: int | None = None
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.services: dict[str, Peer] = {}
        self.max_links = max_links
        self.links_refused = 0
        self.peers_refused = 0
        self.most = 0
        self._max_peers = math.inf if max_peers is None else max_peers
        self.changes = 0
        self._size = 0
        self._event_log = event_log or EventLog(time.monotonic)

    def add(self, peer: Peer, said: Any) -> None:
        """Add a peer by its identity.

        Raises:
            TypeError, KeyError: See `read_identity`.
            ValueError: See there.
            RegistryFull: There are too many peers, or their identities are too large.
            NameError: A Service of this name is connected.
            AddressTaken: A peer of this name and address is connected.
        """
        if len(self.peers) >= self._max_peers:
            self.peers_refused += 1
            count = len(self.peers)
            raise RegistryFull(
                f"{count:,} peers are connected, as many as this Manager allows (max_connections)"
            )
        identity = read_identity(said, peer.address)
        is_service = identity.kind == "service"
        if is_service and (identity.name in self.services or identity.name == MANAGER):
            raise NameError(f"A {identity.name!r} service is already running on the Manager")
        if self._size + identity.size > _MAX_IDENTITIES:
            raise RegistryFull(f"The identities of all peers have more than {_MAX_IDENTITIES:,} bytes")
        if identity.network_name in self.peers:
            raise AddressTaken(f"A peer with the name {identity.network_name!r} is already connected")
        peer.name, peer.kind = identity.network_name, identity.kind
        peer.info, peer.info_size = identity.info, identity.size
        peer.follows = identity.follows
        self._size += peer.info_size
        self.peers[peer.name] = peer
        self.most = max(self.most, len(self.peers))
        self.changes += 1
        if is_service:
            peer.service = identity.name
            self.services[peer.service] = peer

    def remove(self, peer: Peer) -> None:
        """Remove a peer, its links and its locks."""
        if self.peers.get(peer.name) is not peer:
            return
        del self.peers[peer.name]
        self._size -= peer.info_size
        self.changes += 1
        if peer.kind == "service":
            del self.services[peer.service]
            for linked in list(peer.links):
                self._end_link(linked, peer)
        for service in self.services.values():
            service.requesters.pop(peer, None)
            if peer in service.links:
                self._end_link(peer, service)
        peer.last_service = None

    def link(self, peer: Peer, name: str) -> dict[str, Any]:
        """Link a peer with a Service, and return the identity of the Service.

        Raises:
            KeyError: There is no such Service.
            PermissionError: The Service is locked, or the limit of its links or of those of the peer is met.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"the {name!r} service does not exist, cannot link with {peer.name}")
        if peer not in service.links:
            if service.locks:
                raise PermissionError(f"{name!r} service is locked")
            if 0 < service.info["max_clients"] <= len(service.links):
                raise PermissionError(
                    f"The maximum number of Clients are already linked with {name!r}{_listed(service.links)}"
                )
            if self.max_links is not None and peer.link_count >= self.max_links:
                self.links_refused += 1
                raise PermissionError(
                    f"{visible(peer.name)} is linked with {peer.link_count:,} services, "
                    "as many as this Manager allows (max_links)"
                )
            service.links[peer] = self._event_log.clock()
            peer.link_count += 1
            count = len(service.links)
            text = "%s is linked with %r [%d link(s)]"
            self._event_log.write(
                peer, logging.INFO, "linked", text, peer.name, name, count, service=name, links=count
            )
        return service.info

    def unlink(self, peer: Peer, name: str) -> bool:
        """End a link, and release the lock of the peer; return True, even if there is no such Service.

        Raises:
            KeyError: The peer was not linked with the Service.
        """
        service = self.services.get(name)
        if service is not None:
            if peer not in service.links:
                raise KeyError(f"cannot unlink {visible(peer.name)}, it was not linked with {name!r}")
            self._end_link(peer, service)
        return True

    def _end_link(self, peer: Peer, service: Peer) -> None:
        self._end_lock(peer, service)
        seconds = self._event_log.clock() - service.links.pop(peer)
        peer.link_count -= 1
        count = len(service.links)
        self._event_log.write(
            peer,
            logging.INFO,
            "unlinked",
            "%s is not linked with %r any more, after %.3f s [%d link(s)]",
            peer.name,
            service.service,
            seconds,
            count,
            service=service.service,
            seconds=round(seconds, 3),
            links=count,
        )

    def _end_lock(self, peer: Peer, service: Peer) -> None:
        since = service.locks.pop(peer, None)
        if since is None:
            return
        seconds = self._event_log.clock() - since
        count = len(service.locks)
        self._event_log.write(
            peer,
            logging.INFO,
            "unlocked",
            "%s holds no lock on %r any more, after %.3f s [%d lock(s)]",
            peer.name,
            service.service,
            seconds,
            count,
            service=service.service,
            seconds=round(seconds, 3),
            locks=count,
        )

    def acquire_lock(self, peer: Peer, name: str, *, shared: bool) -> list[str]:
        """Lock a Service against new links, and return the names of the linked peers.

        Args:
            peer: The peer that acquires the lock.
            name: The name of the Service.
            shared: Whether others may be linked with it.

        Raises:
            KeyError: There is no such Service.
            PermissionError: The peer is not linked with it, or others are and the lock is not a shared one.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"{name!r} service does not exist, {visible(peer.name)} cannot acquire a lock")
        links = service.links
        if peer not in links:
            raise PermissionError(
                f"{visible(peer.name)} cannot acquire a lock because it is not linked with the "
                f"{name!r} service"
            )
        if not shared and len(links) > 1:
            raise PermissionError(
                f"{visible(peer.name)} cannot acquire an exclusive lock, "
                f"there are {len(links)} links with the {name!r} service{_listed(links)}"
            )
        if peer not in service.locks:
            service.locks[peer] = self._event_log.clock()
            count = len(service.locks)
            self._event_log.write(
                peer,
                logging.INFO,
                "locked",
                "%s holds a %s lock on %r [%d lock(s)]",
                peer.name,
                "shared" if shared else "exclusive",
                name,
                count,
                service=name,
                shared=shared,
                locks=count,
            )
        return [linked.name for linked in links]

    def release_lock(self, peer: Peer, name: str) -> list[str]:
        """Release the lock of a peer, if it holds one, and return the names of the peers that hold one.

        Raises:
            KeyError: There is no such Service.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"{name!r} service does not exist, {visible(peer.name)} cannot release the lock")
        self._end_lock(peer, service)
        return [holder.name for holder in service.locks]

    def release_locks(self, name: str, holder: str | None = None) -> list[str]:
        """Release locks of a Service, and return the names of the peers that have held them.

        Args:
            name: The name of the Service.
            holder: The network name or the address of the peer that holds the lock; None: all.

        Raises:
            KeyError: There is no such Service.
            ValueError: The holder has no lock.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"{name!r} service does not exist, cannot release its locks")
        holders = [peer for peer in service.locks if holder is None or peer.is_called(holder)]
        if holder is not None and not holders:
            raise ValueError(f"{holder} holds no lock on {name!r}")
        for peer in holders:
            self._end_lock(peer, service)
        return [peer.name for peer in holders]

    def clients(self) -> dict[str, dict[str, Any]]:
        """Return the identities of the clients, by network name."""
        return {name: peer.info for name, peer in self.peers.items() if peer.kind == "client"}


def _listed(links: dict[Peer, float]) -> str:
    names = sorted(visible(peer.name) for peer in islice(links, _LISTED))
    if len(links) > _LISTED:
        names.append(f"and {len(links) - _LISTED:,} more")
    return "\nThe linked Clients are:\n  " + "\n  ".join(names)
