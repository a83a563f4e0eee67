"""Detection of dead TCP peers: keepalive, the timeout for unacknowledged data, and probes.

Everything here runs in the Trio thread. Keepalive detects a dead peer while no data is in transit. While data
is not acknowledged, TCP retransmits it instead, by default for some 15 minutes, unless the socket has a
timeout: ``TCP_USER_TIMEOUT`` on Linux, ``TCP_RXT_CONNDROPTIME`` on macOS, ``TCP_MAXRT`` on Windows.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final

import attrs

SEND_TIMEOUT: Final = 105.0
"""Seconds without an acknowledgement of data after which the connection is dropped.

TCP checks it only when it retransmits, and a dead peer has to be detected within two minutes.
"""

_KEEPALIVE_IDLE: Final = 50
"""Seconds of silence before the first keepalive probe."""

_KEEPALIVE_INTERVAL: Final = 10
"""Seconds between keepalive probes."""

_KEEPALIVE_COUNT: Final = 6
"""Unanswered keepalive probes after which the connection is dropped."""

_MILLISECONDS: Final = 1000

_UNACKNOWLEDGED: Final[dict[str, tuple[int, int]]] = {
    "linux": (getattr(socket, "TCP_USER_TIMEOUT", 18), _MILLISECONDS),
    "darwin": (0x80, 1),  # TCP_RXT_CONNDROPTIME, which Python does not name
    "win32": (5, 1),  # TCP_MAXRT, which Python does not name
}
"""The socket option for the timeout of unacknowledged data and its units per second, by platform."""

HAS_SEND_TIMEOUT: Final = sys.platform in _UNACKNOWLEDGED
"""Whether the system has such an option. Otherwise `TcpStream.wait_send` has a timeout of its own."""

STALL_CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks of a peer that accepts no data."""

_STALL_GRACE: Final = 60.0
"""Seconds for which a stalled peer is kept after it has acknowledged TCP's last probe."""

_INFO: Final = struct.Struct("=8B24I4Q3I")
"""The first 148 bytes of Linux's ``struct tcp_info``."""


def detect_dead_peer(sock: socket.socket) -> None:
    """Set keepalive and the send timeout of a socket, such that a dead peer is detected in two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    # Two names of the same option; the second is that of macOS.
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):
        _set_keepalive(sock, name, _KEEPALIVE_IDLE)
    _set_keepalive(sock, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL)
    _set_keepalive(sock, "TCP_KEEPCNT", _KEEPALIVE_COUNT)
    _limit_unacknowledged(sock, SEND_TIMEOUT)


def _limit_unacknowledged(sock: socket.socket, seconds: float) -> None:
    if sys.platform in _UNACKNOWLEDGED:
        option, units = _UNACKNOWLEDGED[sys.platform]
        with contextlib.suppress(OSError):  # an old system or a sandbox without the option
            sock.setsockopt(socket.IPPROTO_TCP, option, round(seconds * units))


def extend_send_timeout(sock: socket.socket, now: float, since: float | None) -> float | None:
    """Extend the send timeout of a peer with a closed receive window whose system still answers.

    Linux applies the timeout to such a peer as well, for example a program that is stopped in a debugger,
    although it acknowledges all window probes.

    Args:
        sock: The connection.
        now: The time in seconds.
        since: The result of the last call; None at first.

    Returns:
        The time of the first call that found the peer stalled; None: it accepts data.
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
    if not probes:  # else a probe is unanswered, and the timeout applies
        _limit_unacknowledged(sock, max(SEND_TIMEOUT, now - since + STALL_CHECK_INTERVAL + _STALL_GRACE))
    return since


def _set_keepalive(sock: socket.socket, name: str, value: int) -> None:
    if hasattr(socket, name):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@attrs.frozen
class PeerActivity:
    """The information of TCP about a peer at one moment."""

    silence: float
    """Seconds since TCP last received data or an acknowledgement from the peer."""

    is_owed: bool
    """Whether the peer has yet to acknowledge data or a probe."""


ALWAYS_ALIVE: Final = PeerActivity(silence=0.0, is_owed=False)
"""The activity of a peer in this process, which no network failure can cut off."""


def start_probe(sock: socket.socket) -> bool:
    """Make TCP send a keepalive probe after one second of silence.

    Unacknowledged data is retransmitted anyway, and is a probe as well.

    Returns:
        Whether `peer_activity` shows the result.
    """
    if sys.platform != "linux" or peer_activity(sock) is None:
        return False
    with contextlib.suppress(OSError):  # the connection is broken, which receiving reports
        _set_keepalive(sock, "TCP_KEEPINTVL", 1)
        _set_keepalive(sock, "TCP_KEEPIDLE", 1)
    return True


def end_probe(sock: socket.socket) -> None:
    """Restore the usual keepalive probes after `start_probe`."""
    with contextlib.suppress(OSError):  # as above, or the socket is closed
        _set_keepalive(sock, "TCP_KEEPIDLE", _KEEPALIVE_IDLE)
        _set_keepalive(sock, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL)


def peer_activity(sock: socket.socket) -> PeerActivity | None:
    """Return what TCP knows about the peer; None if the system or the socket does not support it."""
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
