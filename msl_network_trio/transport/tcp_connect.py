"""Connecting by TCP: host names, sockets and the texts of their errors."""

from __future__ import annotations

import ipaddress
import socket

import trio

from msl_network_trio.exception_groups import plain
from msl_network_trio.exceptions import ConnectError
from msl_network_trio.transport import liveness
from msl_network_trio.transport.tcp import TcpStream


def strip_brackets(host: str) -> str:
    """Return the host without the brackets that an IPv6 address may be written in."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


async def open_socket(host: str, port: int, *, purpose: str = "") -> socket.socket:
    """Resolve a host and connect, racing its addresses; the socket is non-blocking.

    Args:
        host: The host.
        port: The port.
        purpose: What for, if it is not for the connection itself: it is told in errors.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    try:
        if "\0" in host:
            raise ValueError("There is no such host")  # the resolver would take what is before the NUL
        stream = await trio.open_tcp_stream(strip_brackets(host), port)
    except BaseExceptionGroup as group:  # of the nursery in which the addresses race
        raise plain(group) from None
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a host
        raise ConnectError(f"{_dial_reason(error)}\n{cannot_connect(host, port, purpose)}") from error
    return detach_socket(stream)


def detach_socket(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of a stream, for which Trio has set TCP_NODELAY."""
    trio_socket = stream.socket
    sock = socket.socket(trio_socket.family, trio_socket.type, trio_socket.proto, fileno=trio_socket.detach())
    sock.setblocking(False)
    liveness.detect_dead_peer(sock)
    return sock


def _dial_reason(error: OSError | ValueError) -> str:
    """What went wrong at the first address: Trio says only that all attempts failed."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return str(cause.exceptions[0])
    return str(cause or error)


_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def cannot_connect(host: str, port: int, purpose: str = "") -> str:
    """Return how an error ends that says that there is no connection: as in msl-network, which users match.

    Args:
        host: The host.
        port: The port.
        purpose: What the connection was for, if not for itself.
    """
    lines = [f"Cannot connect to {host}:{port}{purpose}"]
    if _is_here(strip_brackets(host)):
        lines.insert(1 if purpose else 0, "Make sure a Manager is running on this computer")
    return "\n".join(lines)


def _is_here(host: str) -> bool:
    """Return whether a host is this computer, as far as can be told without asking anybody."""
    if host.lower() in _LOCAL or host.lower() == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(host)
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return False
        with socket.socket(
            socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            sock.bind((host, 0))  # which is possible for an address of its own only
    except (OSError, ValueError):
        return False
    return True


async def open_tcp(host: str, port: int) -> TcpStream:
    """Connect without TLS.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    return TcpStream(await open_socket(host, port))
