"""The peers of one Manager: their state and their hosts.

Pure state, used in the Trio thread.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any

import attrs

from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.route import NO_ROUTE, Route
from msl_network_trio.visible import visible


@attrs.frozen
class Host:
    """The host at the other end of a connection."""

    name: str
    """Its name in the network names of its peers."""

    address: str
    """Its IP address."""

    domain: str
    """Its fully qualified domain name; the address if it has none."""

    hostname: str
    """The name looked up in the table of trusted hosts: the first part of `domain`, or the address."""

    is_gateway: bool = False
    """Whether it is a gateway that is trusted to state the address of the peers behind it."""

    gateway: str = ""
    """The IP address of the gateway in front of the peer; empty: there is none, or it is not known.

    If the gateway is not trusted, `address` is that of the gateway, too.
    """

    def behind(self, address: Any) -> Host:
        """Return the host of a peer behind this gateway.

        Args:
            address: The address that the gateway states. If it is no IP address, the peer is the gateway.
        """
        try:
            ip = ipaddress.ip_address(address if isinstance(address, str) else "")
        except ValueError:
            return self
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return attrs.evolve(self, address=str(ip), gateway=self.address)


class Peer:
    """The state of one client or Service in the Manager's protocol.

    Args:
        host: The host at the other end, or just its name.
        port: The number of its port.

    Attributes:
        host: The host at the other end.
        port: The number of its port.
        address: ``"HOST:port"`` of the peer.
        name: The network name, ``"name[HOST:port]"``; ``"<Unknown>[HOST:port]"`` until it is admitted.
        kind: ``"client"`` or ``"service"``; empty until it is admitted.
        service: The name of the Service; empty if the peer is none.
        info: Its entry in the Manager's identity.
        info_size: Bytes of `info`, encoded.
        encoded_info: `info`, encoded; empty until it is needed.
        phase: The phase of the connection; see `Phase`.
        close_reason: The reason for closing the connection; empty until it is closing.
        route: The way to the peer, for lines to send.
        lines: The bytes received of a line that is not complete.
        partial_size: Bytes in `lines` that count towards the quota for incomplete lines.
        pending_lines: Lines received and not handled yet.
        has_answered: Whether it has answered the first question.
        user: The name of the user that has logged in; empty: none has.
        is_admin: Whether that user is an administrator.
        follows: Whether it is a client that receives notices about Services.
        links: If it is a Service, the peers linked with it, in the order of linking, and when they linked.
        locks: If it is a Service, the peers that hold a lock, and since when.
        link_count: Number of Services with which it is linked.
        open: The Services that have yet to answer a request of this peer, by the uid of the request; if there
            are several requests of one uid, a dictionary with the number of open requests of each Service.
        request_credit: Maximum number of open requests until `OpenRequests.allow_more` is called.
        last_service: The Service to which the peer has sent its latest request.
        requesters: If it is a Service, the peers that have sent requests to it.
        congested_service: The Service that was congested when the peer last sent a request to it.
        request_suffix: The bytes that replace the closing brace of a request of this peer.
        notifications_left: Notifications that it may emit until `NotificationRate.renew` is called.
        notifications_renewed_at: Time of the last renewal.
        notifications_dropped: Notifications dropped since the last report to the peer.
        notifications_reported_at: Time of that report.
        connected_at: Time of the connection.
        received: Bytes received.
        lines_received: Lines received.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "close_reason",
        "congested_service",
        "connected_at",
        "encoded_info",
        "follows",
        "has_answered",
        "host",
        "info",
        "info_size",
        "is_admin",
        "kind",
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
        "partial_size",
        "pending_lines",
        "phase",
        "port",
        "received",
        "request_credit",
        "request_suffix",
        "requesters",
        "route",
        "service",
        "user",
    )

    def __init__(self, host: Host | str, port: int) -> None:
        self.host = host if isinstance(host, Host) else Host(host, host, host, host)
        self.port = port
        self.address = f"{self.host.name}:{port}"
        self.name = f"<Unknown>[{self.address}]"
        self.kind = ""
        self.service = ""
        self.info: dict[str, Any] = {}
        self.info_size = 0
        self.encoded_info = b""
        self.phase = Phase.GREETING
        self.close_reason = ""
        self.route: Route = NO_ROUTE
        self.lines = LineBuffer()
        self.partial_size = 0
        self.pending_lines: list[bytes] = []
        self.has_answered = False
        self.user = ""
        self.is_admin = False
        self.follows = False
        self.links: dict[Peer, float] = {}
        self.locks: dict[Peer, float] = {}
        self.link_count = 0
        self.open: dict[Any, Peer | dict[Peer, int]] = {}
        self.request_credit = 0
        self.last_service: Peer | None = None
        self.requesters: dict[Peer, None] = {}
        self.congested_service: Peer | None = None
        self.request_suffix = b""
        self.notifications_left = 0
        self.notifications_renewed_at = 0.0
        self.notifications_dropped = 0
        self.notifications_reported_at = -math.inf
        self.connected_at = 0.0
        self.received = 0
        self.lines_received = 0

    def is_called(self, name: object) -> bool:
        """Return whether a name is the network name of the peer, or its address by host name or IP."""
        return name in {self.name, self.address, f"{self.host.address}:{self.port}"}

    def enter(self, phase: Phase) -> None:
        """Enter a phase, unless the peer is closing."""
        if self.phase is not Phase.CLOSING:
            self.phase = phase

    def close(self, reason: str) -> None:
        """Accept no more lines for the peer, and close its connection when all that is queued is sent.

        Args:
            reason: The reason; the first one counts.
        """
        if self.phase is not Phase.CLOSING:
            self.phase = Phase.CLOSING
            self.close_reason = reason
            self.route.on_close()

    def __repr__(self) -> str:
        return f"<{self.kind or 'peer'} {visible(self.name)}, {self.route.backlog:,} bytes to be written>"
