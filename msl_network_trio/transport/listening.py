"""Listening for connections: the interface of all listeners, and that of TCP.

Everything here runs in the Trio thread and needs no lock.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import attrs
import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.logger import get_logger
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp import TcpStream, error_text
from msl_network_trio.transport.tcp_connect import detach_socket
from msl_network_trio.transport.tls_handshake import TlsServer

logger = get_logger(__name__)

_ANY_PORT_ATTEMPTS = 10


@attrs.frozen
class IncomingConnection:
    """An accepted connection before its TLS handshake."""

    address: str
    """The IP address of the peer."""

    port: int
    """The port number of the peer."""

    own_address: str
    """The local IP address of the connection."""

    open: Callable[[TlsServer | None], Awaitable[Stream]]
    """Returns the stream, after a TLS handshake if a `TlsServer` is given.

    A transport that is secure by itself ignores it. Exceptions are those of `TlsServer.accept`.
    """


ConnectionHandler = Callable[[IncomingConnection], Awaitable[object]]


class Listener(Protocol):
    """A source of incoming connections."""

    @property
    def port(self) -> int:
        """The port number; 0 if the transport has none."""

    async def serve(self, handle: ConnectionHandler, nursery: trio.Nursery) -> None:
        """Accept connections until cancelled, and then close the listener.

        Args:
            handle: Handles a connection, in a task of its own. It must call `IncomingConnection.open`, which
                closes the connection if it fails, and raise no `Exception`.
            nursery: The nursery of these tasks, which may outlive the listener.
        """

    def close(self) -> None:
        """Close the listener at once; needed only if `serve` was not called."""


class TcpListener:
    """A `Listener` at all TCP addresses of a host.

    Args:
        listeners: One for each address, all with the same port number.
    """

    def __init__(self, listeners: list[trio.SocketListener]) -> None:
        self._listeners = listeners
        self.port = int(listeners[0].socket.getsockname()[1])

    async def serve(self, handle: ConnectionHandler, nursery: trio.Nursery) -> None:
        """See `Listener.serve`."""
        await trio.serve_listeners(partial(_accept, handle), self._listeners, handler_nursery=nursery)

    def close(self) -> None:
        """See `Listener.close`."""
        for listener in self._listeners:
            listener.socket.close()


@trio.lowlevel.enable_ki_protection
async def _accept(handle: ConnectionHandler, stream: trio.SocketStream) -> None:
    try:
        address, port = stream.socket.getpeername()[:2]
        own_address = stream.socket.getsockname()[0]
        sock = detach_socket(stream)
    except OSError as error:  # the peer has closed it already
        logger.debug("a connection was closed before it was accepted: %s", error)
        await stream.aclose()
        return
    await handle(IncomingConnection(address, port, own_address, partial(_open, sock)))


async def _open(sock: socket.socket, tls: TlsServer | None) -> TcpStream:
    if tls is not None:
        return await tls.accept(sock)
    try:
        return TcpStream(sock)
    except OSError as error:  # as in _accept()
        sock.close()
        raise ConnectionLost(error_text(error)) from error


async def listen_tcp(host: str | None, port: int) -> TcpListener:
    """Listen at all addresses of a host, at the same port number.

    Args:
        host: The host name or address; None: all addresses of this computer.
        port: The port; 0: any free one.

    Raises:
        OSError: The port is in use, or the host is not this computer; the text states the remedy.
    """
    for _ in range(_ANY_PORT_ATTEMPTS):
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise _explain(error, host, port) from error
        chosen = {listener.socket.getsockname()[1] for listener in listeners}
        if len(chosen) == 1:
            return TcpListener(listeners)
        # Port 0 has given each address family its own number: try one of them for all families.
        for listener in listeners:
            listener.socket.close()  # no checkpoint here: a cancellation would leave the others open
        try:
            return TcpListener(await trio.open_tcp_listeners(chosen.pop(), host=host))
        except OSError:
            continue
    raise OSError(f"no port is free at all addresses of {host or 'this computer'}")


def _explain(error: OSError, host: str | None, port: int) -> OSError:
    """Return an error of the same class whose text states the remedy."""
    if error.errno == errno.EADDRINUSE:
        text = f"Port {port} is in use, perhaps by another Manager. End that one, or choose another port."
    elif error.errno == errno.EACCES:
        text = f"Listening on port {port} is not allowed. Choose a port from 1024 on."
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{host} is no address of this computer. Without a host the Manager listens on all addresses."
    elif isinstance(error, socket.gaierror):
        text = (
            f"There is no host {host!r} ({error.strerror}). Without one the Manager listens on all addresses."
        )
    else:
        text = f"Cannot listen on {host or 'all addresses'}, port {port}: {error.strerror or error}"
    return type(error)(error.errno, text)
