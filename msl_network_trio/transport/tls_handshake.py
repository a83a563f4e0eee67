"""TLS handshakes of clients and servers: from a socket to a `TlsStream`. Runs in the Trio thread."""

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
        context: The trusted certificates.
        purpose: See `open_socket`.

    Returns:
        The stream and the server's certificate (DER).

    Raises:
        ssl.SSLCertVerificationError: The context does not trust the certificate. The caller knows the origin
            of the context, and explains the error.
        ConnectError: There is no such host, nothing listens there, or the server does not speak TLS.
    """
    plain = await open_socket(host, port, purpose=purpose)
    try:
        # Checked here, as wrap_socket() does not close the socket if these fail.
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
        await _do_handshake(sock)
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


class HandshakeTimeout(ConnectionLost):
    """The TLS handshake has taken too long."""


class TlsServer:
    """The TLS of a listener: its certificate, and limits for handshakes.

    Args:
        context: The certificate and its key.
        timeout: Seconds for a handshake, not counting the time that it waits for the lock.

    Attributes:
        context: For connections from now on; may be replaced.
        lock: Held for each step of a handshake, which takes a millisecond or more of CPU time: with many
            handshakes at once, other tasks run between the steps.
    """

    def __init__(self, context: ssl.SSLContext, timeout: float) -> None:
        self.context = context
        self.lock = trio.Lock()
        self._timeout = timeout

    async def accept(self, sock: socket.socket) -> TlsStream:
        """Do the handshake with a client. The socket is closed if it fails.

        Raises:
            HandshakeTimeout: It has taken too long.
            ConnectionLost: The peer does not speak TLS, does not trust the certificate, or is gone.
        """
        try:
            with trio.fail_after(self._timeout) as limit:
                return await accept_tls(sock, self.context, self.lock, limit)
        except trio.TooSlowError:
            raise HandshakeTimeout(f"the handshake took longer than {self._timeout:g} seconds") from None


async def accept_tls(
    plain: socket.socket,
    context: ssl.SSLContext,
    lock: trio.Lock | None = None,
    limit: trio.CancelScope | None = None,
) -> TlsStream:
    """Do the TLS handshake with a client. The socket is closed if it fails.

    Args:
        plain: The connected socket.
        context: The server's certificate and key.
        lock: See `TlsServer.lock`; None: none is needed.
        limit: The time limit, suspended while the handshake waits for the lock.

    Raises:
        ConnectionLost: The peer does not speak TLS, does not trust the certificate, or is gone.
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
        await _do_handshake(sock, lock, limit)
        return TlsStream(sock)
    except OSError as error:
        sock.close()
        raise ConnectionLost(error_text(error)) from error
    except BaseException:
        sock.close()
        raise


async def _do_handshake(
    sock: ssl.SSLSocket, lock: trio.Lock | None = None, limit: trio.CancelScope | None = None
) -> None:
    if lock is not None:
        await trio.lowlevel.wait_readable(sock.fileno())  # without the lock: the client speaks first
    while True:
        try:
            if lock is None:
                sock.do_handshake()
            else:
                await _acquire(lock, limit)
                try:
                    sock.do_handshake()
                finally:
                    lock.release()  # the next task acquires it in the next turn of the event loop
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock.fileno())
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock.fileno())
        else:
            return


async def _acquire(lock: trio.Lock, limit: trio.CancelScope | None) -> None:
    """Acquire the lock with the time limit suspended: the peer does not cause this delay."""
    if limit is None:
        await lock.acquire()
        return
    left = limit.deadline - trio.current_time()
    limit.deadline = math.inf
    try:
        await lock.acquire()
    finally:
        limit.deadline = trio.current_time() + left


def _no_tls(error: OSError | ValueError, host: str, port: int, purpose: str) -> ConnectError:
    return ConnectError(
        f"{error_text(error)}\nCannot connect to {host}:{port}{purpose} with TLS. If the Manager was started "
        "without it:\nTry setting disable_tls=True"
    )
