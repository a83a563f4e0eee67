"""TLS streams over TCP, by a non-blocking `ssl.SSLSocket`.

The methods of `ThreadIO` run in any thread, all others in the Trio thread. OpenSSL must not be called by two
threads at once for one connection, so the stream's lock is held around each of its calls.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.tcp import CLOSED, PIECE, TcpStream, error_text, reraise_if_injected

_RECORD = 16_384
"""Maximum bytes of a TLS record; OpenSSL returns at most one record at a time."""

_RECEIVE = 16 * _RECORD
"""Maximum bytes to gather of records that have arrived together."""

_LOOKAHEAD_INTERVAL = 16
"""Number of small records after which to look for another record behind one, if the last look found none.

A look costs as much as a record; without any, each of many small records would cost a turn of the event loop.
"""


class _Readiness:
    """A wait for one event of a socket by any number of tasks, of which Trio allows only one.

    TLS may have to read in order to send, and to write in order to receive.
    """

    __slots__ = ("_descriptor", "_others", "_wait", "_waiting")

    def __init__(self, wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
        self._wait = wait
        self._descriptor = descriptor
        self._waiting = False
        self._others: trio.lowlevel.ParkingLot | None = None  # created on demand to save memory

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
            # Also when cancelled: then another task has to wait for the event.
            self._waiting = False
            if self._others:
                self._others.unpark_all()

    def close(self) -> None:
        """Forget the descriptor, whose number may soon belong to another socket."""
        self._descriptor = -1


class TlsStream(TcpStream):
    """A TLS connection.

    Args:
        sock: A non-blocking socket after its handshake.
    """

    _size = _RECORD
    """Bytes to request from OpenSSL at a time."""

    signals_lose_bytes = True  # Python checks for signals between OpenSSL's call and its result

    flush_threshold = 8192  # each send encrypts at least one record

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._tls = sock
        self._openssl: Any = getattr(sock, "_sslobj", None) or sock
        """The object in C behind the SSLSocket, whose own methods an exception can interrupt."""
        self._atomic_send = self._openssl.write if self._openssl is not sock else sock.send
        self._readable = _Readiness(trio.lowlevel.wait_readable, sock.fileno())
        self._writable = _Readiness(trio.lowlevel.wait_writable, sock.fileno())
        self._send_waits_for = self._writable
        self._arrived_together = False
        self._may_be_pending = True
        """Whether OpenSSL may hold decrypted bytes, for which the socket does not become readable."""
        self._wants_to_write = False
        """Whether OpenSSL has to write before it can receive more, and no task waits for that."""
        self._small_records = 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`.

        OpenSSL requires that a record that it could not send is offered again unchanged. Pieces begin at the
        first unsent byte, so they are the same the next time.
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
        if self._is_partial or sent < len(data):
            self._note_sent(sent, len(data))
        return sent

    async def wait_send(self) -> None:
        """See `Stream.wait_send`."""
        # For this wait only: the next send sets it again, unless it sends a part.
        waits_for, self._send_waits_for = self._send_waits_for, self._writable
        await self._wait_unless_dead(waits_for.wait)

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        if self._ended:
            return await self._receive_end()
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
        self._arrived_together = len(received) - before > 1

    def _read_in_thread(self, received: list[bytes]) -> bool:
        """Receive one TLS record and return whether there was one."""
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
            if not isinstance(error, ssl.SSLEOFError):  # treated like the end of the stream
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
        """Return whether to look for another TLS record behind this one."""
        # OpenSSL returns less than was requested only if it holds nothing else.
        self._may_be_pending = len(data) >= self._size
        if len(data) == _RECORD or self._arrived_together:
            return bool(data)
        self._small_records += 1
        return self._small_records % _LOOKAHEAD_INTERVAL == 0

    def _pending(self) -> int:
        with self.lock:
            return self._tls.pending()

    def _receive_more(self, data: bytes) -> bytes:
        """Return the data with that of the TLS records that have arrived behind it."""
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
        self._arrived_together = len(parts) > 1
        return b"".join(parts)

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        with self.lock:
            try:
                # With unread data, unwrap() would fail and OpenSSL would read no more. Without a close_notify
                # the peer still receives the end of the TCP stream.
                if not self._has_unread():
                    self._tls.unwrap()
            except (OSError, ValueError):
                pass  # the close_notify is sent; the peer's own has not arrived yet, and need not
            try:
                # Not the method of SSLSocket, which ends decryption, also of what the peer still sends.
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone

    def _has_unread(self) -> bool:
        if self._tls.pending():
            return True
        try:
            # Not the method of SSLSocket, which supports no flags.
            return bool(socket.socket.recv(self._tls, 1, socket.MSG_PEEK))
        except OSError:
            return False  # there is no data, or no peer

    def close(self) -> None:
        """See `Stream.close`."""
        self._readable.close()
        self._writable.close()
        super().close()
