"""TCP and TLS, over one path: a non-blocking socket, plain or an `ssl.SSLSocket`."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.transport.base import Transport

_RECEIVE = 65_536
"""How many bytes to ask the kernel for.

More would make large messages a little faster and small ones, in some processes, a third slower: a buffer of
over 128 KiB may have to be mapped by the kernel, and unmapped, for every reply.
"""

_SEND = 262_144
"""How many bytes to offer the kernel at a time."""

_SEND_AT_ONCE = 4 * _SEND
"""How many bytes `send_nowait` sends before it lets other tasks run."""

_TLS_RECORD = 16_384
"""The largest TLS record, in bytes, of which OpenSSL gives one at a time."""

_TLS_RECEIVE = 16 * _TLS_RECORD
"""How many bytes to gather of records that have come one behind the other."""

_TLS_LOOK_EVERY = 16
"""How seldom to look behind a small record for another one when there was none the last time.

To look costs as much as a record; not to look costs a turn of the event loop for each of many small ones.
"""

_CLOSED = "The connection has been closed"


class _Readiness:
    """Waits for one event of a socket, for any number of tasks: Trio allows just one at a time."""

    __slots__ = ("_descriptor", "_others", "_wait", "_waiting")

    def __init__(self, wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
        self._wait = wait
        self._descriptor = descriptor
        self._waiting = False
        self._others: trio.lowlevel.ParkingLot | None = None  # made when needed: it is large, and seldom is

    async def wait(self) -> None:
        if self._descriptor < 0:
            raise ConnectionLost(_CLOSED)
        if self._waiting:
            self._others = self._others or trio.lowlevel.ParkingLot()
            await self._others.park()
            return
        self._waiting = True
        try:
            await self._wait(self._descriptor)
        except trio.ClosedResourceError:
            raise ConnectionLost(_CLOSED) from None
        finally:
            # Also when cancelled: then another task has to become the one that waits.
            self._waiting = False
            if self._others:
                self._others.unpark_all()

    def close(self) -> None:
        """Forget the descriptor, which may soon be that of another socket."""
        self._descriptor = -1


class SocketTransport(Transport):
    """A connected TCP socket.

    Args:
        sock: A connected, non-blocking socket; an `ssl.SSLSocket` after its handshake.
    """

    threads_may_send = True
    threads_may_receive = hasattr(select, "poll")  # else, on Windows, the task always reads

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._size = _TLS_RECORD if self._tls else _RECEIVE
        self._readable = _Readiness(trio.lowlevel.wait_readable, sock.fileno())
        self._writable = _Readiness(trio.lowlevel.wait_writable, sock.fileno())
        self._send_waits_for = self._writable
        self._receive_error: OSError | None = None
        self._ended = False
        self._came_with_others = False
        self._may_be_pending = self._tls is not None
        """Whether decrypted bytes may be left in the TLS layer, of which the kernel knows nothing."""
        self._small_records = 0
        self.port = int(sock.getsockname()[1])

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Transport.send_nowait`.

        OpenSSL wants a record that it could not send offered again as it was: the pieces are counted
        from the beginning of what is not sent, so they are the same the next time.
        """
        if len(data) <= _SEND:
            return self._send(data)
        view = memoryview(data)
        sent = 0
        while sent < len(view) and sent < _SEND_AT_ONCE:
            count = self._send(view[sent : sent + _SEND])
            if count == 0:
                break
            sent += count
        return sent

    def _send(self, data: bytes | memoryview) -> int:
        try:
            with self.lock:  # OpenSSL breaks if two threads use one connection at a time
                return self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._send_waits_for = self._writable
            return 0
        except ssl.SSLWantReadError:
            self._send_waits_for = self._readable
            return 0
        except OSError as error:
            raise ConnectionLost(_reason(error)) from error

    async def wait_send(self) -> None:
        """See `Transport.wait_send`."""
        # What the next call waits for is for the next send to say, which may not do so if it sends a part.
        waits_for, self._send_waits_for = self._send_waits_for, self._writable
        await waits_for.wait()

    async def receive(self) -> bytes:
        """See `Transport.receive`."""
        if self._ended or (self._may_be_pending and self._pending()):
            await trio.lowlevel.checkpoint()
            if self._receive_error is not None:
                raise ConnectionLost(_reason(self._receive_error)) from self._receive_error
            if self._ended:
                return b""
        else:
            await self._readable.wait()
        while True:
            try:
                with self.lock:
                    data = self._sock.recv(self._size)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self._readable.wait()
            except ssl.SSLWantWriteError:
                await self._writable.wait()
            except OSError as error:
                raise ConnectionLost(_reason(error)) from error
            else:
                self._ended = not data
                return self._receive_more(data) if self._tls and self._may_be_more(data) else data

    def wait_in_thread(self, seconds: float) -> bool:
        """See `Transport.wait_in_thread`."""
        if self._may_be_pending and self._pending():
            return True
        poller = select.poll()
        try:
            poller.register(self._sock, select.POLLIN)
        except ValueError:
            return True  # it is closed, which receive_nowait() will find
        return bool(poller.poll(math.ceil(seconds * 1000)))

    def receive_nowait(self) -> bytes | None:
        """See `Transport.receive_nowait`."""
        if self._ended:
            return b""
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            self._receive_error = error
            self._ended = True
            return b""
        self._ended = not data
        return self._receive_more(data) if self._tls and self._may_be_more(data) else data

    def _may_be_more(self, data: bytes) -> bool:
        """Whether to look for another TLS record behind this one."""
        # OpenSSL gives less than it was asked for only if it has no more decrypted.
        self._may_be_pending = len(data) >= self._size
        if len(data) == _TLS_RECORD or self._came_with_others:
            return bool(data)
        self._small_records += 1
        return self._small_records % _TLS_LOOK_EVERY == 0

    def _pending(self) -> int:
        assert self._tls is not None
        with self.lock:
            return self._tls.pending()

    def _receive_more(self, data: bytes) -> bytes:
        """Add the TLS records that have come behind this one."""
        parts = [data]
        size = len(data)
        while data and size < _TLS_RECEIVE:
            try:
                with self.lock:
                    data = self._sock.recv(_TLS_RECORD)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                # For the next receive(): a socket tells of its end only once.
                self._receive_error = error
                self._ended = True
                break
            if not data:
                self._ended = True
            parts.append(data)
            size += len(data)
            self._may_be_pending = len(data) == _TLS_RECORD
        self._came_with_others = len(parts) > 1
        return b"".join(parts)

    def send_eof(self) -> None:
        """See `Transport.send_eof`."""
        with self.lock:
            try:
                # Of bytes that the peer has sent already OpenSSL would say that they come too late, and then
                # read no more. Without its goodbye, the end of the TCP stream is an end as well.
                if self._tls is not None and not self._has_unread(self._tls):
                    self._tls.unwrap()
            except (OSError, ValueError):
                pass  # it is on its way; the peer's own has not come yet, and need not
            try:
                # Not the method of SSLSocket, which would have what the peer still sends read undecrypted.
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone

    def _has_unread(self, tls: ssl.SSLSocket) -> bool:
        if tls.pending():
            return True
        try:
            # Not the method of SSLSocket, which knows no flags.
            return bool(socket.socket.recv(tls, 1, socket.MSG_PEEK))
        except OSError:
            return False  # there is nothing, or nobody

    def close(self) -> None:
        """See `Transport.close`: whoever waits is told that the connection is lost."""
        if self._sock.fileno() < 0:
            return
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        self._readable.close()
        self._writable.close()
        with self.lock:
            self._sock.close()


def _reason(error: OSError | ValueError) -> str:
    """The text of an error of the operating system, without its number."""
    if isinstance(error, ssl.SSLEOFError):
        return "The peer closed the connection"  # OpenSSL: "EOF occurred in violation of protocol"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def bare_host(host: str) -> str:
    """Return the host without the brackets that an IPv6 address may be written in."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


async def open_socket(host: str, port: int) -> socket.socket:
    """Resolve a host and connect, racing its addresses; the socket is non-blocking.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    try:
        if "\0" in host:
            raise ValueError("There is no such host")  # the resolver would take what is before the NUL
        stream = await trio.open_tcp_stream(bare_host(host), port)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a host
        raise ConnectError(f"{_dial_reason(error)}\n{_dial_hint(host, port)}") from error
    return take_socket(stream)


def take_socket(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of a stream, for which Trio has set TCP_NODELAY."""
    trio_socket = stream.socket
    sock = socket.socket(trio_socket.family, trio_socket.type, trio_socket.proto, fileno=trio_socket.detach())
    sock.setblocking(False)
    _keep_alive(sock)
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Have the operating system notice a peer that has lost its power or its cable, in about two minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    # The names for the seconds of silence before the first question differ (the last is that of macOS).
    for name, value in (
        ("TCP_KEEPIDLE", 60),
        ("TCP_KEEPALIVE", 60),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 6),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _dial_reason(error: OSError | ValueError) -> str:
    """What went wrong at the first address: Trio says only that all attempts failed."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return str(cause.exceptions[0])
    return str(cause or error)


_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def _dial_hint(host: str, port: int) -> str:
    hint = f"Cannot connect to {host}:{port}"
    if bare_host(host).lower() in _LOCAL or bare_host(host) == socket.gethostname():
        hint += "\nMake sure a Manager is running on this computer"
    return hint


async def open_tcp(host: str, port: int) -> SocketTransport:
    """Connect without TLS.

    Raises:
        ConnectError: There is no such host, or nothing listens there.
    """
    return SocketTransport(await open_socket(host, port))


async def open_tls(host: str, port: int, context: ssl.SSLContext) -> tuple[SocketTransport, bytes]:
    """Connect with TLS.

    Returns:
        The transport and the peer's certificate (DER).

    Raises:
        ssl.SSLCertVerificationError: The certificate is not what the context wants. It is for the caller,
            who knows where the context came from, to say what to do.
        ConnectError: There is no such host, nothing listens there, or it does not speak TLS.
    """
    plain = await open_socket(host, port)
    try:
        # Checked here, since wrap_socket() does not close the socket if it meets one of these.
        name = bare_host(host).encode("idna").decode("ascii")
        if number := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        sock = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        plain.close()
        raise _no_tls(error, host, port) from error
    except BaseException:
        plain.close()
        raise
    try:
        await _tls_handshake(sock)
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None  # a TLS server has one
        return SocketTransport(sock), certificate
    except ssl.SSLCertVerificationError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise _no_tls(error, host, port) from error
    except BaseException:
        sock.close()
        raise


async def accept_tls(plain: socket.socket, context: ssl.SSLContext) -> SocketTransport:
    """Make a connection secure that a peer has opened. The socket is closed if that fails.

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
        raise ConnectionLost(_reason(error)) from error
    try:
        await _tls_handshake(sock)
    except OSError as error:
        sock.close()
        raise ConnectionLost(_reason(error)) from error
    except BaseException:
        sock.close()
        raise
    return SocketTransport(sock)


async def _tls_handshake(sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock.fileno())
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock.fileno())
        else:
            return


def _no_tls(error: OSError | ValueError, host: str, port: int) -> ConnectError:
    return ConnectError(
        f"{_reason(error)}\nCannot connect to {host}:{port} with TLS. If the Manager was started "
        "without it:\nTry setting disable_tls=True"
    )
