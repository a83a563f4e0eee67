"""Who is connected to a Manager, who is linked with whom, and who holds which lock.

The rules and the texts of the errors are those of msl-network 1.0.0: existing programs look at them. Links
and locks belong to a client and a Service, not to single Link objects of a program.
"""

from __future__ import annotations

import logging
import math
import time
from itertools import islice
from typing import Any

import attrs

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.records import Records
from msl_network_trio.protocol.verdicts import Waiting

_MARGIN = 100
"""How many levels deeper than an identity the answers that contain it may be nested."""

_LONGEST_NAME = 1000
"""How many characters a name may have, which is a part of every request that its peer makes."""

_LARGEST_CLIENT = 65_536
"""How many bytes there may be to tell about a client, which everybody is told who asks who is there."""

_LARGEST_SERVICE = 1_000_000
"""The same for a Service, which has attributes to tell of."""

_LARGEST_IDENTITIES = 67_108_864
"""The same for all peers together."""

_LISTED = 100
"""How many linked clients an error lists at the most."""


@attrs.frozen
class Host:
    """The computer at the other end of a connection."""

    name: str
    """What it is called in the names of its peers."""

    address: str
    """Its IP address."""

    domain: str
    """Its full name; the address if it has none."""

    hostname: str
    """The name by which it is trusted, or not: the first part of the full one, or the address."""


class Peer:
    """What a Manager knows about one connection; the I/O layer's class derives from it.

    Args:
        host: The computer at the other end, or just its name.
        port: The number of its port.

    Attributes:
        host: The computer at the other end.
        port: The number of its port.
        address: ``"HOST:port"`` of the peer.
        name: The network name, ``"name[HOST:port]"``; ``"<Unknown>[HOST:port]"`` before it has said it.
        kind: ``"client"``, ``"service"``, or empty before it has said.
        service: The name of the Service, if the peer is one.
        info: What the Manager's identity says about it.
        told: What others are told of it if it is a Service, encoded; empty: it was not yet.
        links: If it is a Service, the peers that are linked with it, in the order in which they linked, and
            since when.
        locks: If it is a Service, the peers that hold a lock, and since when.
        linked_with: The number of Services with which it is linked.
        open: The Services that have yet to answer a request of this peer, by the uid of the request; if there
            are several of one uid, how many requests each of them has to answer.
        may_ask: How many requests of it may be open before somebody has to see whether there may be more.
        asked: The Service that it has sent a request to last.
        askers: If it is a Service, the peers that have sent requests to it.
        since: When it connected.
        received: How many bytes it has sent.
        lines_received: How many lines these were.
        sent: How many bytes have been sent to it.
        unfinished: How many bytes there were of a line that is not complete.
        unread: Lines that were received and not looked at yet, since there were too many at once, or since
            the peer waits for a verdict.
        user: As whom the peer has logged in; empty: it has not.
        notifications_left: How many notifications it may emit before the time is looked at.
        notifications_when: When that was set.
        notifications_dropped: How many were too many since it was told so.
        notifications_told: When it was told so.
        outgoing: What waits to be written, in order: whole lines, or the pieces of large ones.
        writing: What the I/O layer has taken out of `outgoing` and not sent yet.
        large: Whether `outgoing` has such pieces.
        backlog: How many bytes wait to be written: those in `outgoing`, and those that the I/O layer has
            taken out of it and not yet sent.
        busy: A peer to which this one has sent a request although a lot waits to be written to it.
        closing: Why the connection is to be closed when `outgoing` is written; empty: it is not.
        lines: What was received of a line that is not complete.
        waits_for: What the peer has yet to say in the handshake or to log in: ``"password"`` (of the
            Manager), ``"username"``, ``"login password"``, ``"identity"``; or `VERDICT`, when others have to
            decide first. Empty if it may make requests.
        waiting: The state of that; None when it is over.
        is_admin: Whether the peer has logged in as an administrator.
        size: How many bytes there are to tell about it.
        tail: What turns a request of this peer into that line which its Service receives.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "asked",
        "askers",
        "backlog",
        "busy",
        "closing",
        "host",
        "info",
        "is_admin",
        "kind",
        "large",
        "lines",
        "lines_received",
        "linked_with",
        "links",
        "locks",
        "may_ask",
        "name",
        "notifications_dropped",
        "notifications_left",
        "notifications_told",
        "notifications_when",
        "open",
        "outgoing",
        "port",
        "received",
        "sent",
        "service",
        "since",
        "size",
        "tail",
        "told",
        "unfinished",
        "unread",
        "user",
        "waiting",
        "waits_for",
        "writing",
    )

    def __init__(self, host: Host | str, port: int) -> None:
        self.host = host if isinstance(host, Host) else Host(host, host, host, host)
        self.port = port
        self.address = f"{self.host.name}:{port}"
        self.name = f"<Unknown>[{self.address}]"
        self.kind = ""
        self.service = ""
        self.info: dict[str, Any] = {}
        self.told = b""
        self.links: dict[Peer, float] = {}
        self.locks: dict[Peer, float] = {}
        self.linked_with = 0
        self.open: dict[Any, Peer | dict[Peer, int]] = {}
        self.may_ask = 0
        self.asked: Peer | None = None
        self.askers: dict[Peer, None] = {}
        self.since = 0.0
        self.received = 0
        self.lines_received = 0
        self.sent = 0
        self.unfinished = 0
        self.unread: list[bytes] = []
        self.user = ""
        self.notifications_left = 0
        self.notifications_when = 0.0
        self.notifications_dropped = 0
        self.notifications_told = -math.inf
        self.outgoing: list[bytes | memoryview] = []
        self.writing: list[bytes | memoryview] = []
        self.large = False
        self.backlog = 0
        self.busy: Peer | None = None
        self.closing = ""
        self.lines = LineBuffer()
        self.waits_for = "identity"
        self.waiting: Waiting | None = None
        self.is_admin = False
        self.size = 0
        self.tail = b""

    def flush(self) -> None:
        """Write what is in `outgoing`, and close the connection if it is `closing`; for the I/O layer."""

    def __repr__(self) -> str:
        return f"<{self.kind or 'peer'} {self.name}, {self.backlog:,} bytes to be written>"


class Registry:
    """The peers of one Manager.

    Args:
        records: Where to write what happens; None: nobody wants to know.
        max_links: With how many Services a peer may be linked; None: any number.
        max_peers: How many peers there may be; None: any number.

    Attributes:
        peers: All that have said who they are, by network name.
        services: Those of them that are Services, by the name of the Service.
        max_links: See above.
        links_refused: How often a peer was linked with too many already.
        peers_refused: How often there were too many peers already.
        most: How many peers there were at the same time.
        changes: How often somebody has come or gone.
    """

    def __init__(
        self, records: Records | None = None, max_links: int | None = None, max_peers: int | None = None
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
        self._records = records or Records(time.monotonic)

    def add(self, peer: Peer, identity: Any) -> None:
        """Enter a peer by what it says about itself.

        Raises:
            TypeError: The identity is not an object with the fields that it must have.
            KeyError: A field is missing.
            NameError: A Service of this name, or a peer of this name and address, is there already.
            ValueError: A name is empty, or what the peer says cannot be told to others, or there are too many
                peers already.
        """
        if len(self.peers) >= self._max_peers:
            self.peers_refused += 1
            count = len(self.peers)
            raise ValueError(
                f"{count:,} peers are connected, as many as this Manager allows (max_connections)"
            )
        if not isinstance(identity, dict):
            raise TypeError(f"An identity is a JSON object, not {type(identity).__name__}")
        name, kind = identity["name"], identity["type"]
        if not isinstance(name, str) or not isinstance(kind, str):
            raise TypeError('The "name" and the "type" of an identity are text')
        kind = kind.lower()
        if kind not in {"client", "service"}:
            raise TypeError(f'Unknown connection type {identity["type"]!r}. Must be "client" or "service"')
        if not name:
            raise ValueError('The "name" of an identity is empty')
        if len(name) > _LONGEST_NAME:
            raise ValueError(f'The "name" of an identity has more than {_LONGEST_NAME:,} characters')
        info = {
            "name": name,
            "address": peer.address,
            "language": identity.get("language", "unknown"),
            "os": identity.get("os", "unknown"),
        }
        if kind == "service":
            info = _service_info(identity, info)
            if name in self.services or name == MANAGER:
                raise NameError(f"A {name!r} service is already running on the Manager")
        network_name = f"{name}[{peer.address}]"
        size = _check_can_be_told({network_name: info})
        largest = _LARGEST_CLIENT if kind == "client" else _LARGEST_SERVICE
        if size > largest:
            raise ValueError(f"The identity of a {kind} has more than {largest:,} bytes")
        if self._size + size > _LARGEST_IDENTITIES:
            raise ValueError(f"The identities of all peers have more than {_LARGEST_IDENTITIES:,} bytes")
        if network_name in self.peers:
            raise NameError(f"A peer with the name {network_name!r} is already connected")
        peer.name, peer.kind, peer.info, peer.size = network_name, kind, info, size
        self._size += size
        self.peers[network_name] = peer
        self.most = max(self.most, len(self.peers))
        self.changes += 1
        if kind == "service":
            peer.service = name
            self.services[name] = peer

    def remove(self, peer: Peer) -> None:
        """Forget a peer, its links and its locks."""
        if self.peers.get(peer.name) is not peer:
            return
        del self.peers[peer.name]
        self._size -= peer.size
        self.changes += 1
        if peer.kind == "service":
            del self.services[peer.service]
            for linked in list(peer.links):
                self._end_link(linked, peer)
        for service in self.services.values():
            service.askers.pop(peer, None)
            if peer in service.links:
                self._end_link(peer, service)
        peer.asked = None

    def link(self, peer: Peer, name: str) -> dict[str, Any]:
        """Link a peer with a Service, and return what is known about the Service.

        Raises:
            KeyError: There is no such Service.
            PermissionError: The Service is locked, or has as many links as it wants, or the peer has as many
                as it may have.
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
            if self.max_links is not None and peer.linked_with >= self.max_links:
                self.links_refused += 1
                raise PermissionError(
                    f"{peer.name} is linked with {peer.linked_with:,} services, "
                    "as many as this Manager allows (max_links)"
                )
            service.links[peer] = self._records.clock()
            peer.linked_with += 1
            count = len(service.links)
            text = "%s is linked with %r [%d link(s)]"
            self._records.write(
                peer, logging.INFO, "linked", text, peer.name, name, count, service=name, links=count
            )
        return service.info

    def unlink(self, peer: Peer, name: str) -> bool:
        """End a link, and release the lock of the peer. True, also if there is no such Service.

        Raises:
            KeyError: The peer was not linked with the Service.
        """
        service = self.services.get(name)
        if service is not None:
            if peer not in service.links:
                raise KeyError(f"cannot unlink {peer.name}, it was not linked with {name!r}")
            self._end_link(peer, service)
        return True

    def _end_link(self, peer: Peer, service: Peer) -> None:
        self._end_lock(peer, service)
        seconds = self._records.clock() - service.links.pop(peer)
        peer.linked_with -= 1
        count = len(service.links)
        self._records.write(
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
        seconds = self._records.clock() - since
        count = len(service.locks)
        self._records.write(
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
        """Lock a Service against new links, and return the names of those that are linked with it.

        Args:
            peer: Who wants the lock.
            name: The name of the Service.
            shared: Whether others may be linked with it.

        Raises:
            KeyError: There is no such Service.
            PermissionError: The peer is not linked with it, or others are and the lock is not a shared one.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"{name!r} service does not exist, {peer.name} cannot acquire a lock")
        links = service.links
        if peer not in links:
            raise PermissionError(
                f"{peer.name} cannot acquire a lock because it is not linked with the {name!r} service"
            )
        if not shared and len(links) > 1:
            raise PermissionError(
                f"{peer.name} cannot acquire an exclusive lock, "
                f"there are {len(links)} links with the {name!r} service{_listed(links)}"
            )
        if peer not in service.locks:
            service.locks[peer] = self._records.clock()
            count = len(service.locks)
            self._records.write(
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
        """Release the lock of a peer, if it holds one, and return the names of those that still hold one.

        Raises:
            KeyError: There is no such Service.
        """
        service = self.services.get(name)
        if service is None:
            raise KeyError(f"{name!r} service does not exist, {peer.name} cannot release the lock")
        self._end_lock(peer, service)
        return [holder.name for holder in service.locks]

    def clients(self) -> dict[str, dict[str, Any]]:
        """What is known about the clients, by network name."""
        return {name: peer.info for name, peer in self.peers.items() if peer.kind == "client"}


def _check_can_be_told(told: Any) -> int:
    """Encode what a peer says about itself: what fails later would cost others their answers.

    Returns:
        How many bytes it has.

    Raises:
        ValueError: It is nested too deeply, or contains text that is not Unicode.
    """
    for _ in range(_MARGIN):
        told = [told]
    return len(codec.encode(told))


def _service_info(identity: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """What the Manager's identity says about a Service, its name being the key under which it does."""
    attributes, max_clients = identity["attributes"], identity.get("max_clients", -1)
    if not isinstance(attributes, dict):
        raise TypeError('The "attributes" of a Service are a JSON object')
    if not isinstance(max_clients, int | float):
        raise TypeError('The "max_clients" of a Service is a number')
    return {
        "attributes": attributes,
        "address": info["address"],
        "language": info["language"],
        "os": info["os"],
        "max_clients": max_clients,
    }


def _listed(links: dict[Peer, float]) -> str:
    names = sorted(peer.name for peer in islice(links, _LISTED))
    if len(links) > _LISTED:
        names.append(f"and {len(links) - _LISTED:,} more")
    return "\nThe linked Clients are:\n  " + "\n  ".join(names)
