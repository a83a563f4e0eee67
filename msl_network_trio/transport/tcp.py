"""TCP without TLS, over a non-blocking socket."""

from __future__ import annotations

import math
import select
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport import liveness
from msl_network_trio.transport.base import Pollable, Stream, ThreadIO

_RECEIVE = 65_536
"""How many bytes to ask the kernel for.

More would make large messages a little faster and small ones, in some processes, a third slower: a buffer of
over 128 KiB may have to be mapped by the kernel, and unmapped, for every reply.
"""

PIECE = 262_144
"""How many bytes to offer the kernel at a time."""

_RECEIVE_ONCE = (_RECEIVE,)

_AT_ONCE = 4 * PIECE
"""How many bytes `TcpStream.send_nowait` sends before it lets other tasks run."""

_LINGER = struct.Struct("HH" if sys.platform == "win32" else "ii")
NO_RESET = _LINGER.pack(0, 0)
RESET = _LINGER.pack(1, 0)
"""No time to linger: closing a socket discards what is not sent, and resets the connection."""

CLOSED = "The connection has been closed"


class TcpStream(Stream, ThreadIO, Pollable):
    """A connected TCP socket.

    Args:
        sock: A connected, non-blocking socket.
    """

    threads_may_receive = hasattr(select, "poll")  # Windows has none: there, only the task receives

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._descriptor = sock.fileno()
        self._uncut_send: Callable[[bytes | memoryview], int] = sock.send
        """Sends, and is not written in Python."""
        self._receive_error: OSError | None = None
        self._ended = False
        self._is_cut = False
        """Whether the kernel has taken a part only of what it was offered; see `_cut`."""
        self._in_pieces = False
        self._stalled_since: float | None = None
        """Since when the peer takes nothing but acknowledges, so that it is spared."""
        self.port = int(sock.getsockname()[1])

    @property
    def thread_io(self) -> ThreadIO:
        """See `Stream.thread_io`."""
        return self

    @property
    def pollable(self) -> Pollable:
        """See `Stream.pollable`."""
        return self

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`."""
        if len(data) > PIECE:
            return self._send_pieces(data)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            reraise_if_injected(error)
            raise ConnectionLost(error_text(error)) from error
        if self._is_cut or sent < len(data):
            self._note_sent(sent, len(data))
        return sent

    def _send_pieces(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        was_cut, sent = self._is_cut, 0
        self._cut()
        self._in_pieces = True
        try:
            while sent < len(view) and sent < _AT_ONCE:
                count = self.send_nowait(view[sent : sent + PIECE])
                if count == 0:
                    break
                sent += count
        finally:
            self._in_pieces = False
            if sent == len(view) or not (sent or was_cut):
                self._join()
        return sent

    def _note_sent(self, sent: int, size: int) -> None:
        if sent < size:
            self._cut()
        elif not self._in_pieces:
            self._join()

    def _cut(self) -> None:
        """Make the kernel reset the connection if the program ends now, since a part of a message is sent.

        This lasts until the rest is sent, and not only during a wait: the thread that could send a part hands
        over to the task, which may be busy.
        """
        if not self._is_cut:
            self._is_cut = True
            self._linger(RESET)

    def _join(self) -> None:
        """Make the kernel close the connection in order again: the rest of the message is sent."""
        if self._is_cut:
            self._is_cut = False
            self._linger(NO_RESET)

    async def wait_send(self) -> None:
        """See `Stream.wait_send`."""
        await self._wait_while_it_acknowledges(self._wait_writable)

    async def _wait_writable(self) -> None:
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except trio.ClosedResourceError:
            raise ConnectionLost(CLOSED) from None

    def _linger(self, value: bytes) -> None:
        """Set SO_LINGER: how the kernel closes the connection if the program ends.

        In the middle of a message by a reset, so that the peer does not take a part for the whole.
        """
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
        except OSError as error:
            reraise_if_injected(error)
            # Else the connection has ended already, or we have closed it.

    async def _wait_while_it_acknowledges(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait until the peer takes something, but not for a peer that is gone, see `liveness`."""
        began = trio.current_time()
        was_cut = self._is_cut
        self._cut()
        try:
            while True:
                with trio.move_on_after(liveness.STALL_CHECK_INTERVAL) as scope:
                    await wait()
                if not scope.cancelled_caught:
                    return
                self.extend_send_timeout()
                if not liveness.HAS_SEND_TIMEOUT and trio.current_time() - began >= liveness.SEND_TIMEOUT:
                    raise ConnectionLost(f"The peer has taken nothing for {liveness.SEND_TIMEOUT:g} seconds")
        finally:
            if not was_cut:
                self._join()

    def extend_send_timeout(self) -> None:
        """See `Stream.extend_send_timeout`."""
        if self._descriptor >= 0:
            self._stalled_since = liveness.extend_send_timeout(
                self._sock, trio.current_time(), self._stalled_since
            )

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
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
                reraise_if_injected(error)
                raise ConnectionLost(error_text(error)) from error
            self._ended = not data
            return data

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise ConnectionLost(CLOSED)

    async def _receive_the_end(self) -> bytes:
        """What `receive` does when the stream has ended, or `receive_nowait` has found that it broke."""
        await trio.lowlevel.checkpoint()
        if self._receive_error is not None:
            raise ConnectionLost(error_text(self._receive_error)) from self._receive_error
        return b""

    def wait_in_thread(self, seconds: float) -> bool:
        """See `ThreadIO.wait_in_thread`."""
        poller = select.poll()
        try:
            poller.register(self._sock, select.POLLIN)
        except ValueError:
            return True  # it is closed, which receive_nowait() will find
        return bool(poller.poll(math.ceil(seconds * 1000)))

    def receive_nowait(self) -> bytes | None:
        """See `Pollable.receive_nowait`."""
        if self._ended:
            return b""
        try:
            data = self._sock.recv(_RECEIVE)
        except BlockingIOError:
            return None
        except OSError as error:
            reraise_if_injected(error)
            self._break(error)
            return b""
        self._ended = not data
        return data

    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        """See `ThreadIO.send_in_thread`."""
        send, offset = self._uncut_send, 0
        most = min(len(data), _AT_ONCE)
        if most > PIECE:
            self._cut()
        while offset < most:
            piece = data if len(data) <= PIECE else memoryview(data)[offset : offset + PIECE]
            try:
                # In one step of the interpreter, which no exception can cut between the call and its result.
                sent.extend(map(send, (piece,)))
            except OSError as error:
                reraise_if_injected(error)
                self._note_send_error(error)
                break
            offset += sent[-1]
            if sent[-1] < len(piece):
                break
        if offset and (self._is_cut or offset < len(data)):
            self._note_sent(offset, len(data))

    def _note_send_error(self, error: OSError) -> None:
        """Note why nothing could be sent, which here the next attempt finds out anyway."""

    def receive_in_thread(self, received: list[bytes]) -> None:
        """See `ThreadIO.receive_in_thread`."""
        if self._ended:
            received.append(b"")
            return
        try:
            received.extend(map(self._sock.recv, _RECEIVE_ONCE))  # see send_in_thread()
        except BlockingIOError:
            return
        except OSError as error:
            reraise_if_injected(error)
            self._break(error)
            received.append(b"")
            return
        self._ended = not received[-1]

    def _break(self, error: OSError) -> None:
        """Note for `receive` that the stream has broken: a socket tells of its end only once."""
        self._receive_error = error
        self._ended = True

    def fileno(self) -> int:
        """See `Pollable.fileno`."""
        return self._descriptor

    def has_received(self) -> bool:
        """See `Pollable.has_received`."""
        return self._ended

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer is gone

    def close(self) -> None:
        """See `Stream.close`: whoever waits is told that the connection is lost."""
        if self._descriptor < 0:
            return
        self._join()
        self._descriptor = -1  # it may soon be that of another socket
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        with self.lock:
            self._sock.close()

    def abort(self) -> None:
        """See `Stream.abort`."""
        self._is_cut = False  # for close(), which else would take it back
        self._linger(RESET)
        self.close()

    def start_probe(self) -> bool:
        """See `Stream.start_probe`."""
        return liveness.start_probe(self._sock)

    def peer_activity(self) -> liveness.PeerActivity | None:
        """See `Stream.peer_activity`."""
        return liveness.peer_activity(self._sock)

    def end_probe(self) -> None:
        """See `Stream.end_probe`."""
        liveness.end_probe(self._sock)


_CALLERS_OF_SYSTEM = frozenset({__name__, "msl_network_trio.transport.tls", "ssl"})
"""The modules in which errors of system calls are raised."""


def reraise_if_injected(error: OSError) -> None:
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


def error_text(error: OSError | ValueError) -> str:
    """The text of an error of the operating system, without its number."""
    if isinstance(error, ssl.SSLEOFError):
        return "The peer closed the connection"  # OpenSSL: "EOF occurred in violation of protocol"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
