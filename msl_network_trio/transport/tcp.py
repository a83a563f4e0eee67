"""TCP streams without TLS, over a non-blocking socket.

The methods of `ThreadIO` run in any thread, with the stream's lock held; all others run in the Trio thread.
"""

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
"""Bytes to request from the kernel at a time.

More makes large messages slightly faster, but small ones up to a third slower: the allocator may map and
unmap a buffer of more than 128 KiB for every reply.
"""

PIECE = 262_144
"""Maximum bytes to offer to the kernel at a time."""

_RECEIVE_ONCE = (_RECEIVE,)

_SEND_LIMIT = 4 * PIECE
"""Maximum bytes that one `TcpStream.send_nowait` sends before other tasks run."""

_LINGER = struct.Struct("HH" if sys.platform == "win32" else "ii")
NO_RESET = _LINGER.pack(0, 0)
RESET = _LINGER.pack(1, 0)
"""SO_LINGER with a timeout of 0: closing the socket discards unsent data and resets the connection."""

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
        self._atomic_send: Callable[[bytes | memoryview], int] = sock.send
        """The method that sends, implemented in C, so that an exception cannot interrupt it."""
        self._receive_error: OSError | None = None
        self._ended = False
        self._is_partial = False
        """Whether only a part of a message has been sent; see `_mark_partial`."""
        self._in_pieces = False
        self._stalled_since: float | None = None
        """The time from which the peer has only acknowledged probes; None: it accepts data."""
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
        if self._is_partial or sent < len(data):
            self._note_sent(sent, len(data))
        return sent

    def _send_pieces(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        was_partial, sent = self._is_partial, 0
        self._mark_partial()
        self._in_pieces = True
        try:
            while sent < len(view) and sent < _SEND_LIMIT:
                count = self.send_nowait(view[sent : sent + PIECE])
                if count == 0:
                    break
                sent += count
        finally:
            self._in_pieces = False
            if sent == len(view) or not (sent or was_partial):
                self._mark_complete()
        return sent

    def _note_sent(self, sent: int, size: int) -> None:
        if sent < size:
            self._mark_partial()
        elif not self._in_pieces:
            self._mark_complete()

    def _mark_partial(self) -> None:
        """Make the kernel reset the connection if the program ends before the rest of the message is sent.

        Otherwise the peer would see the end of the stream after a part of a line, which may look complete.
        """
        if not self._is_partial:
            self._is_partial = True
            self._linger(RESET)

    def _mark_complete(self) -> None:
        """Make the kernel close the connection normally again, as the message has been sent completely."""
        if self._is_partial:
            self._is_partial = False
            self._linger(NO_RESET)

    async def wait_send(self) -> None:
        """See `Stream.wait_send`."""
        await self._wait_unless_dead(self._wait_writable)

    async def _wait_writable(self) -> None:
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except trio.ClosedResourceError:
            raise ConnectionLost(CLOSED) from None

    def _linger(self, value: bytes) -> None:
        """Set SO_LINGER, which determines how the kernel closes the connection if the program ends."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
        except OSError as error:
            reraise_if_injected(error)
            # An error of the system: the connection has ended, or has been closed here.

    async def _wait_unless_dead(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait until the peer accepts data, and raise `ConnectionLost` if it is dead, see `liveness`."""
        began = trio.current_time()
        was_partial = self._is_partial
        self._mark_partial()
        try:
            while True:
                with trio.move_on_after(liveness.STALL_CHECK_INTERVAL) as scope:
                    await wait()
                if not scope.cancelled_caught:
                    return
                self.extend_send_timeout()
                if not liveness.HAS_SEND_TIMEOUT and trio.current_time() - began >= liveness.SEND_TIMEOUT:
                    raise ConnectionLost(
                        f"The peer has accepted no data for {liveness.SEND_TIMEOUT:g} seconds"
                    )
        finally:
            if not was_partial:
                self._mark_complete()

    def extend_send_timeout(self) -> None:
        """See `Stream.extend_send_timeout`."""
        if self._descriptor >= 0:
            self._stalled_since = liveness.extend_send_timeout(
                self._sock, trio.current_time(), self._stalled_since
            )

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        if self._ended:
            return await self._receive_end()
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

    async def _receive_end(self) -> bytes:
        """Return or raise the end of the stream that an earlier call has found."""
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
            return True  # it is closed, which receiving reports
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
        send, offset = self._atomic_send, 0
        most = min(len(data), _SEND_LIMIT)
        if most > PIECE:
            self._mark_partial()
        while offset < most:
            piece = data if len(data) <= PIECE else memoryview(data)[offset : offset + PIECE]
            try:
                # One instruction of the interpreter: no exception can separate the call from its result.
                sent.extend(map(send, (piece,)))
            except OSError as error:
                reraise_if_injected(error)
                self._note_send_error(error)
                break
            offset += sent[-1]
            if sent[-1] < len(piece):
                break
        if offset and (self._is_partial or offset < len(data)):
            self._note_sent(offset, len(data))

    def _note_send_error(self, error: OSError) -> None:
        """Process an error of sending; not needed here, as the next attempt raises it again."""

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
        """Store the error for `receive`, as a socket reports it only once."""
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
        """See `Stream.close`. Tasks that wait for the socket get `ConnectionLost`."""
        if self._descriptor < 0:
            return
        self._mark_complete()
        self._descriptor = -1  # the number may soon belong to another socket
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        with self.lock:
            self._sock.close()

    def abort(self) -> None:
        """See `Stream.abort`."""
        self._is_partial = False  # else close() would undo the reset
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
"""The modules in which system calls raise their errors."""


def reraise_if_injected(error: OSError) -> None:
    """Raise an exception again that was injected into this thread instead of raised by a system call.

    A signal handler, or another thread, may raise OSError or TimeoutError here, meant for the program.
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
    """Return the text of an error of the operating system, without its number."""
    # OpenSSL says "EOF occurred in violation of protocol"; Python 3.11.2 takes that for an end of TLS.
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "The peer closed the connection"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
