"""One connection of a Manager, and the computer at its other end: what is known about them."""

from __future__ import annotations

import ipaddress
import math
from typing import Any

import attrs

from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.manager.pending_check import AdmissionState
from msl_network_trio.visible import visible


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

    is_gateway: bool = False
    """Whether it is a gateway that is trusted to tell the address of who is behind it."""

    gateway: str = ""
    """The IP address of the gateway that the peer is behind; empty: it is behind none, or that is not known.

    If the gateway is not trusted, it is the other address, too.
    """

    def behind(self, address: Any) -> Host:
        """Return this gateway as the host of a peer that is behind it, at an address that the gateway tells.

        If that is no IP address, it is the gateway's own connection.
        """
        try:
            ip = ipaddress.ip_address(address if isinstance(address, str) else "")
        except ValueError:
            return self
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return attrs.evolve(self, address=str(ip), gateway=self.address)


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
        encoded_info: What others are told of it, encoded; empty: it was not yet.
        links: If it is a Service, the peers that are linked with it, in the order in which they linked, and
            since when.
        locks: If it is a Service, the peers that hold a lock, and since when.
        link_count: The number of Services with which it is linked.
        open: The Services that have yet to answer a request of this peer, by the uid of the request; if there
            are several of one uid, how many requests each of them has to answer.
        request_credit: How many requests of it may be open before `OpenRequests` has to allow more.
        last_service: The Service that it has sent a request to last.
        requesters: If it is a Service, the peers that have sent requests to it.
        connected_at: When it connected.
        received: How many bytes it has sent.
        lines_received: How many lines these were.
        sent: How many bytes have been sent to it.
        partial_size: How many bytes there were of a line that is not complete.
        pending_lines: Lines received and not handled yet.
        user: As whom the peer has logged in; empty: it has not.
        notifications_left: How many notifications it may emit before the time is looked at.
        notifications_renewed_at: When that was set.
        notifications_dropped: How many were too many since it was told so.
        notifications_reported_at: When it was told so.
        outgoing: What waits to be written, in order: whole lines, or the pieces of large ones.
        writing: What the I/O layer has taken out of `outgoing` and not sent yet.
        large: Whether `outgoing` has such pieces.
        backlog: How many bytes wait to be written: those in `outgoing`, and those that the I/O layer has
            taken out of it and not yet sent.
        congested_service: The Service whose backlog exceeded `BUSY` when this peer last sent to it.
        closing: Why the connection is to be closed when `outgoing` is written; empty: it is not.
        lines: What was received of a line that is not complete.
        waits_for: What the peer has yet to say in the handshake or to log in: ``"password"`` (of the
            Manager), ``"username"``, ``"login password"``, ``"identity"``; or `VERDICT`, when others have to
            decide first. Empty if it may make requests.
        admission: The state of that; None when it is over.
        has_answered: Whether it has answered the first question.
        is_admin: Whether the peer has logged in as an administrator.
        info_size: How many bytes there are to tell about it.
        request_suffix: What turns a request of this peer into that line which its Service receives.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "admission",
        "backlog",
        "closing",
        "congested_service",
        "connected_at",
        "encoded_info",
        "has_answered",
        "host",
        "info",
        "info_size",
        "is_admin",
        "kind",
        "large",
        "last_service",
        "lines",
        "lines_received",
        "link_count",
        "links",
        "locks",
        "name",
        "notifications_dropped",
        "notifications_left",
        "notifications_renewed_at",
        "notifications_reported_at",
        "open",
        "outgoing",
        "partial_size",
        "pending_lines",
        "port",
        "received",
        "request_credit",
        "request_suffix",
        "requesters",
        "sent",
        "service",
        "user",
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
        self.encoded_info = b""
        self.links: dict[Peer, float] = {}
        self.locks: dict[Peer, float] = {}
        self.link_count = 0
        self.open: dict[Any, Peer | dict[Peer, int]] = {}
        self.request_credit = 0
        self.last_service: Peer | None = None
        self.requesters: dict[Peer, None] = {}
        self.connected_at = 0.0
        self.received = 0
        self.lines_received = 0
        self.sent = 0
        self.partial_size = 0
        self.pending_lines: list[bytes] = []
        self.user = ""
        self.notifications_left = 0
        self.notifications_renewed_at = 0.0
        self.notifications_dropped = 0
        self.notifications_reported_at = -math.inf
        self.outgoing: list[bytes | memoryview] = []
        self.writing: list[bytes | memoryview] = []
        self.large = False
        self.backlog = 0
        self.congested_service: Peer | None = None
        self.closing = ""
        self.lines = LineBuffer()
        self.waits_for = "identity"
        self.admission: AdmissionState | None = None
        self.has_answered = False
        self.is_admin = False
        self.info_size = 0
        self.request_suffix = b""

    def is_called(self, name: object) -> bool:
        """Return whether that is the network name or the address, by host name or IP address, of the peer."""
        return name in {self.name, self.address, f"{self.host.address}:{self.port}"}

    def flush(self) -> None:
        """Write what is in `outgoing`, and close the connection if it is `closing`; for the I/O layer."""

    def __repr__(self) -> str:
        return f"<{self.kind or 'peer'} {visible(self.name)}, {self.backlog:,} bytes to be written>"
