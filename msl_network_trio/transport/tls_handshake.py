"""TLS handshakes of clients and servers: from a socket to a `TlsStream`."""

from __future__ import annotations

import math
import os
import socket
import ssl

import trio

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.transport.tcp import error_text
from msl_network_trio.transport.tcp_connect import open_socket, strip_brackets
from msl_network_trio.transport.tls import TlsStream


async def open_tls(
    host: str, port: int, context: ssl.SSLContext, *, purpose: str = ""
) -> tuple[TlsStream, bytes]:
    """Connect with TLS.

    Args:
        host: The host.
        port: The port.
        context: What to accept.
        purpose: See `open_socket`.

    Returns:
        The transport and the peer's certificate (DER).

    Raises:
        ssl.SSLCertVerificationError: The certificate is not what the context wants. It is for the caller,
            who knows where the context came from, to say what to do.
        ConnectError: There is no such host, nothing listens there, or it does not speak TLS.
    """
    plain = await open_socket(host, port, purpose=purpose)
    try:
        # Checked here, since wrap_socket() does not close the socket if it meets one of these.
        name = strip_brackets(host).encode("idna").decode("ascii")
        if number := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        sock = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        plain.close()
        raise _no_tls(error, host, port, purpose) from error
    except BaseException:
        plain.close()
        raise
    try:
        await _tls_handshake(sock)
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None  # a TLS server has one
        return TlsStream(sock), certificate
    except ssl.SSLCertVerificationError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise _no_tls(error, host, port, purpose) from error
    except BaseException:
        sock.close()
        raise


async def accept_tls(
    plain: socket.socket,
    context: ssl.SSLContext,
    turns: trio.Lock | None = None,
    limit: trio.CancelScope | None = None,
) -> TlsStream:
    """Make a connection secure that a peer has opened. The socket is closed if that fails.

    Args:
        plain: The socket.
        context: What to secure it with.
        turns: Shared by handshakes of which many may be to be done at once. Each step takes a millisecond or
            more; with this, other tasks have their turn after each of them.
        limit: What limits the time for this, without that for which it waits for its turn.

    Raises:
        ConnectionLost: The peer does not speak TLS, does not trust us, or is gone.
    """
    try:
        # See open_tls().
        if number := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        plain.close()
        raise ConnectionLost(error_text(error)) from error
    try:
        await _tls_handshake(sock, turns, limit)
    except OSError as error:
        sock.close()
        raise ConnectionLost(error_text(error)) from error
    except BaseException:
        sock.close()
        raise
    return TlsStream(sock)


async def _tls_handshake(
    sock: ssl.SSLSocket, turns: trio.Lock | None = None, limit: trio.CancelScope | None = None
) -> None:
    if turns is not None:
        await trio.lowlevel.wait_readable(sock.fileno())  # without a turn: the peer has to begin
    while True:
        try:
            if turns is None:
                sock.do_handshake()
            else:
                await _take_turn(turns, limit)
                try:
                    sock.do_handshake()
                finally:
                    turns.release()  # which the next one gets in the next turn of the loop
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock.fileno())
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock.fileno())
        else:
            return


async def _take_turn(turns: trio.Lock, limit: trio.CancelScope | None) -> None:
    """Wait for a turn, without a limit: it is not the peer that takes so long."""
    if limit is None:
        await turns.acquire()
        return
    left = limit.deadline - trio.current_time()
    limit.deadline = math.inf
    try:
        await turns.acquire()
    finally:
        limit.deadline = trio.current_time() + left


def _no_tls(error: OSError | ValueError, host: str, port: int, purpose: str) -> ConnectError:
    return ConnectError(
        f"{error_text(error)}\nCannot connect to {host}:{port}{purpose} with TLS. If the Manager was started "
        "without it:\nTry setting disable_tls=True"
    )
