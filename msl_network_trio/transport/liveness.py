"""Detection of dead TCP peers: keepalive, the limit on unacknowledged data, and what TCP has heard lately.

Keepalive notices a peer that is owed nothing. While data is not acknowledged, TCP sends it again instead, by
default for some 15 minutes, unless the socket has a limit: ``TCP_USER_TIMEOUT`` on Linux,
``TCP_RXT_CONNDROPTIME`` on macOS, ``TCP_MAXRT`` on Windows.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final

import attrs

SEND_TIMEOUT: Final = 105.0
"""Seconds after which a peer that acknowledges nothing of what it is owed is given up.

TCP looks only when it sends again, and the peer has to be gone after two minutes.
"""

_KEEPALIVE_IDLE: Final = 50
"""Seconds of silence before the first keepalive probe."""

_KEEPALIVE_INTERVAL: Final = 10
"""Seconds between keepalive probes."""

_KEEPALIVE_COUNT: Final = 6
"""Unanswered keepalive probes after which the peer is given up."""

_MILLISECONDS: Final = 1000

_UNACKNOWLEDGED: Final[dict[str, tuple[int, int]]] = {
    "linux": (getattr(socket, "TCP_USER_TIMEOUT", 18), _MILLISECONDS),
    "darwin": (0x80, 1),  # TCP_RXT_CONNDROPTIME, which Python does not name
    "win32": (5, 1),  # TCP_MAXRT, which Python does not name
}
"""The number of the option that limits unacknowledged data, and its units per second, by platform."""

HAS_SEND_TIMEOUT: Final = sys.platform in _UNACKNOWLEDGED
"""Whether the system has such an option. Else `TcpStream.wait_send` has a limit of its own."""

STALL_CHECK_INTERVAL: Final = 30.0
"""Seconds between two looks at a peer that takes nothing."""

_STALL_GRACE: Final = 60.0
"""Seconds for which a peer is spared that takes nothing and has answered TCP's last probe."""

_INFO: Final = struct.Struct("=8B24I4Q3I")
"""The first 148 bytes of Linux's ``struct tcp_info``."""


def detect_dead_peer(sock: socket.socket) -> None:
    """Set keepalive and the limit on unacknowledged data, so that a dead peer is given up in two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    # The names for the seconds of silence before the first probe differ (the second is that of macOS).
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):
        _set_keepalive(sock, name, _KEEPALIVE_IDLE)
    _set_keepalive(sock, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL)
    _set_keepalive(sock, "TCP_KEEPCNT", _KEEPALIVE_COUNT)
    _limit_unacknowledged(sock, SEND_TIMEOUT)


def _limit_unacknowledged(sock: socket.socket, seconds: float) -> None:
    if sys.platform in _UNACKNOWLEDGED:
        option, units = _UNACKNOWLEDGED[sys.platform]
        with contextlib.suppress(OSError):  # an old system, or a sandbox, that does not have it
            sock.setsockopt(socket.IPPROTO_TCP, option, round(seconds * units))


def extend_send_timeout(sock: socket.socket, now: float, since: float | None) -> float | None:
    """Extend the limit for a peer with a closed receive window whose system still answers.

    Linux gives up a peer that takes nothing for the limit of unacknowledged data, although it answers all
    probes: one that is stopped in a debugger, for example. So the limit is moved on while it does.

    Args:
        sock: The connection.
        now: The time in seconds.
        since: What this function has returned the last time; None at first.

    Returns:
        When it was first seen that the peer takes nothing; None: it takes what it is sent.
    """
    values = _tcp_info(sock)
    if values is None:
        return None
    probes, unacknowledged, unsent = values[3], values[12], values[38]
    if not unsent or unacknowledged:
        if since is not None:
            _limit_unacknowledged(sock, SEND_TIMEOUT)
        return None
    since = now if since is None else since
    if not probes:  # else it has yet to answer one, and is given up if it does not
        _limit_unacknowledged(sock, max(SEND_TIMEOUT, now - since + STALL_CHECK_INTERVAL + _STALL_GRACE))
    return since


def _set_keepalive(sock: socket.socket, name: str, value: int) -> None:
    if hasattr(socket, name):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@attrs.frozen
class PeerActivity:
    """What TCP knows about the peer at one moment."""

    silence: float
    """Seconds since the peer's TCP has sent anything: data, or just an acknowledgement."""

    is_owed: bool
    """Whether TCP has sent data or a probe that the peer has not acknowledged."""


ALWAYS_ALIVE: Final = PeerActivity(silence=0.0, is_owed=False)
"""What is known about a peer that cannot be cut off."""


def start_probe(sock: socket.socket) -> bool:
    """Make TCP send a keepalive probe as soon as the connection has been silent for a second.

    Data that is not acknowledged is sent again anyway, and is a probe as well.

    Returns:
        Whether `peer_activity` will tell what comes of it.
    """
    if sys.platform != "linux" or peer_activity(sock) is None:
        return False
    with contextlib.suppress(OSError):  # the connection has broken, which its reader will find
        _set_keepalive(sock, "TCP_KEEPINTVL", 1)
        _set_keepalive(sock, "TCP_KEEPIDLE", 1)
    return True


def end_probe(sock: socket.socket) -> None:
    """Go back to the usual keepalive probes after `start_probe`."""
    with contextlib.suppress(OSError):  # as above; or the socket has been closed
        _set_keepalive(sock, "TCP_KEEPIDLE", _KEEPALIVE_IDLE)
        _set_keepalive(sock, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL)


def peer_activity(sock: socket.socket) -> PeerActivity | None:
    """Return what TCP knows about the peer; None: this system, or this socket, does not tell."""
    values = _tcp_info(sock)
    if values is None:
        return None
    probes, unacknowledged, last_data, last_ack = values[3], values[12], values[19], values[20]
    return PeerActivity(min(last_data, last_ack) / _MILLISECONDS, bool(probes or unacknowledged))


def _tcp_info(sock: socket.socket) -> tuple[int, ...] | None:
    if sys.platform != "linux":
        return None
    try:
        return _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except (OSError, struct.error):
        return None
