"""TCP without TLS, over a non-blocking socket."""

from __future__ import annotations

import math
import select
import socket
import ssl
from collections.abc import Callable

import trio

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.groups import plain
from msl_network_trio.transport.base import Transport

_RECEIVE = 65_536
"""How many bytes to ask the kernel for.

More would make large messages a little faster and small ones, in some processes, a third slower: a buffer of
over 128 KiB may have to be mapped by the kernel, and unmapped, for every reply.
"""

PIECE = 262_144
"""How many bytes to offer the kernel at a time."""

_RECEIVE_ONCE = (_RECEIVE,)

_AT_ONCE = 4 * PIECE
"""How many bytes `SocketTransport.send_nowait` sends before it lets other tasks run."""

CLOSED = "The connection has been closed"


class SocketTransport(Transport):
    """A connected TCP socket.

    Args:
        sock: A connected, non-blocking socket.
    """

    threads_may_send = True
    threads_may_receive = hasattr(select, "poll")  # else, on Windows, the task always reads

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._descriptor = sock.fileno()
        self._uncut_send: Callable[[bytes | memoryview], int] = sock.send
        """Sends, and is not written in Python."""
        self._receive_error: OSError | None = None
        self._ended = False
        self.port = int(sock.getsockname()[1])

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Transport.send_nowait`."""
        if len(data) > PIECE:
            return self._send_pieces(data)
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise_unless_of_system(error)
            raise ConnectionLost(reason(error)) from error

    def _send_pieces(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        sent = 0
        while sent < len(view) and sent < _AT_ONCE:
            count = self.send_nowait(view[sent : sent + PIECE])
            if count == 0:
                break
            sent += count
        return sent

    async def wait_send(self) -> None:
        """See `Transport.wait_send`."""
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except trio.ClosedResourceError:
            raise ConnectionLost(CLOSED) from None

    async def receive(self) -> bytes:
        """See `Transport.receive`."""
        if self._ended:
            return await self._receive_the_end()
        while True:
            self._check_open()
            try:
                await trio.lowlevel.wait_readable(self._descriptor)
                data = self._sock.recv(_RECEIVE)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                raise ConnectionLost(CLOSED) from None
            except OSError as error:
                raise_unless_of_system(error)
                raise ConnectionLost(reason(error)) from error
            self._ended = not data
            return data

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise ConnectionLost(CLOSED)

    async def _receive_the_end(self) -> bytes:
        """What `receive` does when the stream has ended, or `receive_nowait` has found that it broke."""
        await trio.lowlevel.checkpoint()
        if self._receive_error is not None:
            raise ConnectionLost(reason(self._receive_error)) from self._receive_error
        return b""

    def wait_in_thread(self, seconds: float) -> bool:
        """See `Transport.wait_in_thread`."""
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
            data = self._sock.recv(_RECEIVE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise_unless_of_system(error)
            self._break(error)
            return b""
        self._ended = not data
        return data

    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        """See `Transport.send_in_thread`."""
        send, offset = self._uncut_send, 0
        most = min(len(data), _AT_ONCE)
        while offset < most:
            piece = data if len(data) <= PIECE else memoryview(data)[offset : offset + PIECE]
            try:
                # In one step of the interpreter, which no exception can cut between the call and its result.
                sent.extend(map(send, (piece,)))
            except OSError as error:
                raise_unless_of_system(error)
                self._note_send_error(error)
                return
            offset += sent[-1]
            if sent[-1] < len(piece):
                return

    def _note_send_error(self, error: OSError) -> None:
        """Note why nothing could be sent, which here the next attempt finds out anyway."""

    def receive_in_thread(self, received: list[bytes]) -> None:
        """See `Transport.receive_in_thread`."""
        if self._ended:
            received.append(b"")
            return
        try:
            received.extend(map(self._sock.recv, _RECEIVE_ONCE))  # see send_in_thread()
        except BlockingIOError:
            return
        except OSError as error:
            raise_unless_of_system(error)
            self._break(error)
            received.append(b"")
            return
        self._ended = not received[-1]

    def _break(self, error: OSError) -> None:
        """Note for `receive` that the stream has broken: a socket tells of its end only once."""
        self._receive_error = error
        self._ended = True

    def fileno(self) -> int:
        """See `Transport.fileno`."""
        return self._descriptor

    def has_received(self) -> bool:
        """See `Transport.has_received`."""
        return self._ended

    def send_eof(self) -> None:
        """See `Transport.send_eof`."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer is gone

    def close(self) -> None:
        """See `Transport.close`: whoever waits is told that the connection is lost."""
        if self._descriptor < 0:
            return
        self._descriptor = -1  # it may soon be that of another socket
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        with self.lock:
            self._sock.close()


_CALLERS_OF_SYSTEM = frozenset({__name__, "msl_network_trio.transport.tls", "ssl"})
"""The modules in which errors of system calls are raised."""


def raise_unless_of_system(error: OSError) -> None:
    """Raise an exception again if something else than a system call has raised it.

    A signal handler may raise OSError or TimeoutError, and so may another thread in this one; it is not meant
    for us.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if (
        error.errno is None
        or traceback is None
        or traceback.tb_frame.f_globals.get("__name__") not in _CALLERS_OF_SYSTEM
    ):
        raise error


def reason(error: OSError | ValueError) -> str:
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
    except BaseExceptionGroup as group:  # of the nursery in which the addresses race
        raise plain(group) from None
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
