"""Connecting by TCP: host names, sockets and the texts of their errors. Runs in the Trio thread."""

from __future__ import annotations

import ipaddress
import socket

import trio

from msl_network_trio.exception_groups import plain
from msl_network_trio.exceptions import ConnectError
from msl_network_trio.transport import liveness
from msl_network_trio.transport.tcp import TcpStream


def strip_brackets(host: str) -> str:
    """Return the host without the brackets around an IPv6 address."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


async def open_socket(host: str, port: int, *, purpose: str = "") -> socket.socket:
    """Resolve a host and connect to the first address that answers (happy eyeballs).

    Args:
        host: The host.
        port: The port.
        purpose: The purpose of the connection for error texts; empty for the connection itself.

    Returns:
        A non-blocking socket.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    try:
        if "\0" in host:
            raise ValueError("There is no such host")  # the resolver would use the part before the NUL
        return detach_socket(await trio.open_tcp_stream(strip_brackets(host), port))
    except BaseExceptionGroup as group:  # of Trio's nursery
        raise plain(group) from None
    except (OSError, ValueError) as error:  # ValueError: an invalid host name
        raise ConnectError(f"{_dial_reason(error)}\n{cannot_connect(host, port, purpose)}") from error


def detach_socket(stream: trio.SocketStream) -> socket.socket:
    """Return the socket of a Trio stream, non-blocking, with TCP_NODELAY (by Trio) and keepalive.

    Raises:
        OSError: The peer has reset the connection already, where options cannot be set then (macOS). The
            socket is closed.
    """
    trio_socket = stream.socket
    sock = socket.socket(trio_socket.family, trio_socket.type, trio_socket.proto, fileno=trio_socket.detach())
    try:
        sock.setblocking(False)
        liveness.detect_dead_peer(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _dial_reason(error: OSError | ValueError) -> str:
    """Return the error of the first address, as Trio's own says only that all attempts failed."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return str(cause.exceptions[0])
    return str(cause or error)


_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def cannot_connect(host: str, port: int, purpose: str = "") -> str:
    """Return the last lines of a connection error, as in msl-network, since users match them.

    Args:
        host: The host.
        port: The port.
        purpose: See `open_socket`.
    """
    lines = [f"Cannot connect to {host}:{port}{purpose}"]
    if _is_here(strip_brackets(host)):
        lines.insert(1 if purpose else 0, "Make sure a Manager is running on this computer")
    return "\n".join(lines)


def _is_here(host: str) -> bool:
    """Return whether a host is this computer, without a name lookup."""
    if host.lower() in _LOCAL or host.lower() == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(host)
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return False
        with socket.socket(
            socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
        ) as sock:
            sock.bind((host, 0))  # only possible for a local address
    except (OSError, ValueError):
        return False
    return True


async def open_tcp(host: str, port: int) -> TcpStream:
    """Connect without TLS.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    return TcpStream(await open_socket(host, port))
