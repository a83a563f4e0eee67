"""TLS over TCP, by a non-blocking `ssl.SSLSocket`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.tcp import CLOSED, PIECE, TcpStream, error_text, reraise_if_injected

_RECORD = 16_384
"""The largest TLS record, in bytes, of which OpenSSL gives one at a time."""

_RECEIVE = 16 * _RECORD
"""How many bytes to gather of records that have come one behind the other."""

_LOOK_EVERY = 16
"""How seldom to look behind a small record for another one when there was none the last time.

To look costs as much as a record; not to look costs a turn of the event loop for each of many small ones.
"""


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
            raise ConnectionLost(CLOSED)
        if self._waiting:
            self._others = self._others or trio.lowlevel.ParkingLot()
            await self._others.park()
            return
        self._waiting = True
        try:
            await self._wait(self._descriptor)
        except trio.ClosedResourceError:
            raise ConnectionLost(CLOSED) from None
        finally:
            # Also when cancelled: then another task has to become the one that waits.
            self._waiting = False
            if self._others:
                self._others.unpark_all()

    def close(self) -> None:
        """Forget the descriptor, which may soon be that of another socket."""
        self._descriptor = -1


class TlsStream(TcpStream):
    """A connected TCP socket with TLS.

    OpenSSL breaks if two threads use one connection at a time, so whatever calls it holds the `lock`.

    Args:
        sock: A non-blocking socket after its handshake.
    """

    _size = _RECORD
    """How many bytes to ask OpenSSL for."""

    signals_lose_bytes = True  # OpenSSL's callers look for signals after it has read or written

    flush_threshold = 8192  # what is sent is a record, and to seal one takes its time

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._tls = sock
        self._openssl: Any = getattr(sock, "_sslobj", None) or sock
        """What an SSLSocket calls; its own methods are written in Python, and can be cut by an exception."""
        self._uncut_send = self._openssl.write if self._openssl is not sock else sock.send
        self._readable = _Readiness(trio.lowlevel.wait_readable, sock.fileno())
        self._writable = _Readiness(trio.lowlevel.wait_writable, sock.fileno())
        self._send_waits_for = self._writable
        self._came_with_others = False
        self._may_be_pending = True
        """Whether decrypted bytes may be left in the TLS layer, of which the kernel knows nothing."""
        self._wants_to_write = False
        """Whether OpenSSL has to send something before it can receive more, and nobody waits for that."""
        self._small_records = 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`.

        OpenSSL wants a record that it could not send offered again as it was: the pieces are counted
        from the beginning of what is not sent, so they are the same the next time.
        """
        if len(data) > PIECE:
            return self._send_pieces(data)
        try:
            with self.lock:
                sent = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._send_waits_for = self._writable
            return 0
        except ssl.SSLWantReadError:
            self._send_waits_for = self._readable
            return 0
        except OSError as error:
            reraise_if_injected(error)
            raise ConnectionLost(error_text(error)) from error
        if self._is_cut or sent < len(data):
            self._note_sent(sent, len(data))
        return sent

    async def wait_send(self) -> None:
        """See `Stream.wait_send`."""
        # What the next call waits for is for the next send to say, which may not do so if it sends a part.
        waits_for, self._send_waits_for = self._send_waits_for, self._writable
        await self._wait_while_it_acknowledges(waits_for.wait)

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        if self._ended:
            return await self._receive_the_end()
        if self._wants_to_write or (self._may_be_pending and self._pending()):
            self._wants_to_write = False
            await trio.lowlevel.checkpoint()
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
                reraise_if_injected(error)
                raise ConnectionLost(error_text(error)) from error
            else:
                self._ended = not data
                return self._receive_more(data) if self._may_be_more(data) else data

    def wait_in_thread(self, seconds: float) -> bool:
        """See `ThreadIO.wait_in_thread`."""
        return bool(self._may_be_pending and self._pending()) or super().wait_in_thread(seconds)

    def receive_nowait(self) -> bytes | None:
        """See `Pollable.receive_nowait`."""
        if self._ended:
            return b""
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self._wants_to_write = True
            return None
        except OSError as error:
            reraise_if_injected(error)
            self._break(error)
            return b""
        self._ended = not data
        return self._receive_more(data) if self._may_be_more(data) else data

    def _note_send_error(self, error: OSError) -> None:
        wants_to_read = isinstance(error, ssl.SSLWantReadError)
        self._send_waits_for = self._readable if wants_to_read else self._writable

    def receive_in_thread(self, received: list[bytes]) -> None:
        """See `ThreadIO.receive_in_thread`."""
        before = len(received)
        if not self._read_in_thread(received) or not self._may_be_more(received[-1]):
            return
        size = len(received[-1])
        while size < _RECEIVE and self._read_in_thread(received):
            size += len(received[-1])
            self._may_be_pending = len(received[-1]) == _RECORD
        self._came_with_others = len(received) - before > 1

    def _read_in_thread(self, received: list[bytes]) -> bool:
        """Receive one TLS record, and return whether there was one."""
        if self._ended:
            received.append(b"")
            return False
        try:
            received.extend(map(self._openssl.read, (self._size,)))  # see send_in_thread()
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self._wants_to_write = True
            return False
        except OSError as error:
            reraise_if_injected(error)
            if not isinstance(error, ssl.SSLEOFError):  # which is an end like any other
                self._break(error)
            self._ended = True
            received.append(b"")
            return False
        self._ended = not received[-1]
        return not self._ended

    def has_received(self) -> bool:
        """See `Pollable.has_received`."""
        return self._ended or self._wants_to_write or bool(self._may_be_pending and self._pending())

    def _may_be_more(self, data: bytes) -> bool:
        """Whether to look for another TLS record behind this one."""
        # OpenSSL gives less than it was asked for only if it has no more decrypted.
        self._may_be_pending = len(data) >= self._size
        if len(data) == _RECORD or self._came_with_others:
            return bool(data)
        self._small_records += 1
        return self._small_records % _LOOK_EVERY == 0

    def _pending(self) -> int:
        with self.lock:
            return self._tls.pending()

    def _receive_more(self, data: bytes) -> bytes:
        """Add the TLS records that have come behind this one."""
        parts = [data]
        size = len(data)
        while data and size < _RECEIVE:
            try:
                with self.lock:
                    data = self._sock.recv(_RECORD)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                reraise_if_injected(error)
                self._break(error)
                break
            if not data:
                self._ended = True
            parts.append(data)
            size += len(data)
            self._may_be_pending = len(data) == _RECORD
        self._came_with_others = len(parts) > 1
        return b"".join(parts)

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        with self.lock:
            try:
                # Of bytes that the peer has sent already OpenSSL would say that they come too late, and then
                # read no more. Without its goodbye, the end of the TCP stream is an end as well.
                if not self._has_unread():
                    self._tls.unwrap()
            except (OSError, ValueError):
                pass  # it is on its way; the peer's own has not come yet, and need not
            try:
                # Not the method of SSLSocket, which would have what the peer still sends read undecrypted.
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone

    def _has_unread(self) -> bool:
        if self._tls.pending():
            return True
        try:
            # Not the method of SSLSocket, which knows no flags.
            return bool(socket.socket.recv(self._tls, 1, socket.MSG_PEEK))
        except OSError:
            return False  # there is nothing, or nobody

    def close(self) -> None:
        """See `Stream.close`."""
        self._readable.close()
        self._writable.close()
        super().close()
