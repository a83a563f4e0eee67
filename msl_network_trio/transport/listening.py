"""Listening at a port of this computer."""

from __future__ import annotations

import errno
import socket

import trio

_ANY_PORT_TRIES = 10


async def open_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listen at every address of a host, all with the same number of the port.

    Args:
        host: The host name or address; None: all addresses of this computer.
        port: The port; 0: any free one.

    Raises:
        OSError: The port is in use, or the host is none of this computer; the text says what to do.
    """
    for _ in range(_ANY_PORT_TRIES):
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise _explain(error, host, port) from error
        chosen = {listener.socket.getsockname()[1] for listener in listeners}
        if len(chosen) == 1:
            return listeners
        # Port 0 gave each address family a number of its own: try to have one of them for all.
        for listener in listeners:
            listener.socket.close()  # without a checkpoint, at which those that follow could be forgotten
        try:
            return await trio.open_tcp_listeners(chosen.pop(), host=host)
        except OSError:
            continue
    raise OSError(f"no port is free at all addresses of {host or 'this computer'}")


def _explain(error: OSError, host: str | None, port: int) -> OSError:
    """Return an error of the same class that says what to do."""
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
