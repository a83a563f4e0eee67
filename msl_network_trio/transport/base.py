"""The interface of all transports: a stream of bytes to and from one peer.

It has three parts, so that a new transport implements only what it supports:

- `Stream`: required. All its methods are called in the Trio thread.
- `ThreadIO`: sending and receiving in other threads, with the stream's lock held. Without it, threads leave
  all I/O to the Trio thread.
- `Pollable`: a socket that the Manager polls together with those of other idle peers. Without it, each peer
  has a task that waits in `Stream.receive`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.liveness import ALWAYS_ALIVE, PeerActivity


class Stream(ABC):
    """A stream of bytes to and from one peer.

    At most one task receives and at most one waits to send, possibly at the same time. Errors of the
    underlying connection are raised as `~msl_network_trio.exceptions.ConnectionLost`.

    Attributes:
        port: The local port number; 0 if the transport has none.
        flush_threshold: Bytes from which queued data is sent at once instead of with later data. The peer can
            begin with it meanwhile, but each send costs as much as several requests.
        close_reason: The reason that the peer gave for closing, known at the end of the stream; empty if the
            transport has no such message, as TCP.
        lock: Serialises the Trio thread and other threads that use the stream. Threads hold it while they
            call `ThreadIO`, and the Trio thread while it changes state that is shared with them. Never held
            while waiting.
    """

    flush_threshold: ClassVar[int] = 4096
    port: int = 0
    close_reason: str = ""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    @property
    def thread_io(self) -> ThreadIO | None:
        """The methods for other threads; None if the transport only works in the Trio thread."""
        return None

    @property
    def pollable(self) -> Pollable | None:
        """The socket to poll while the peer is idle; None if only `receive` can wait for data."""
        return None

    @abstractmethod
    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send as much as possible without waiting.

        Data that was not sent must be offered again before any other data.

        Returns:
            The number of bytes sent.

        Raises:
            ConnectionLost: The connection is broken or closed.
        """

    @abstractmethod
    async def wait_send(self) -> None:
        """Wait until `send_nowait` may make progress; always a checkpoint."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for data and return it, at most some hundred KiB; empty at the end of the stream.

        Always a checkpoint. A cancelled call has received nothing.

        Raises:
            ConnectionLost: The connection is broken.
        """

    def limit_buffer(self, size: int | None) -> None:  # noqa: B027 - most transports buffer nothing
        """Limit the bytes of incomplete messages that are buffered; the connection is dropped beyond it.

        Most transports buffer nothing: each byte can be received when it arrives.

        Args:
            size: Maximum bytes; None: the limit of a message.
        """

    @abstractmethod
    def send_eof(self) -> None:
        """Close the sending direction: the peer receives the end of the stream after what was sent.

        Data from the peer can still be received. Never fails: a broken connection has ended already.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection at once; idempotent.

        The peer still receives what was sent, and then the end of the stream, which means that the data is
        complete. Otherwise use `abort`.
        """

    def abort(self) -> None:
        """Close the connection such that the peer sees an error instead of the end of the stream.

        Data in transit may be lost. Has no effect after `close`.
        """
        self.close()

    def end(self, *, cut_off: bool) -> None:
        """Call `close`, or `abort` in the middle of a line, which must not look complete to the peer.

        Args:
            cut_off: Whether a part of a line has been sent and the rest will not be.
        """
        if cut_off:
            self.abort()
        else:
            self.close()

    async def send_all(self, data: bytes) -> None:
        """Send all data. If it is cancelled while waiting, it calls `abort`.

        Raises:
            ConnectionLost: The connection is broken or closed.
        """
        rest = memoryview(data)
        try:
            while rest := rest[self.send_nowait(rest) :]:
                await self.wait_send()
        except ConnectionLost:
            raise
        except BaseException:
            self.abort()  # even if no byte was accepted, TLS may have sent a part of the record
            raise

    # ---- liveness of the peer ----

    def start_probe(self) -> bool:
        """Request an acknowledgement from the peer's operating system, invisible to its program.

        Call `end_probe` afterwards.

        Returns:
            Whether `peer_activity` shows the result.
        """
        return True

    def peer_activity(self) -> PeerActivity | None:
        """Return the last activity of the peer; None if the transport does not know.

        By default the peer is in this process, and always alive.
        """
        return ALWAYS_ALIVE

    def end_probe(self) -> None:  # noqa: B027 - most transports have no probe
        """Undo `start_probe`."""

    def extend_send_timeout(self) -> None:  # noqa: B027 - most transports have no such timeout
        """Keep a stalled peer whose system still answers; to be called every `STALL_CHECK_INTERVAL` seconds.

        `wait_send` does so itself. Needed for data that the kernel has accepted and the peer has not.
        """


Transport = Stream
"""The name of `Stream` in earlier versions, for transports written by users."""


class ThreadIO(ABC):
    """Sending and receiving of a stream in other threads than Trio's, with `Stream.lock` held.

    An exception may interrupt a thread between any two instructions. Results are therefore appended to a list
    of the caller, which shows after an exception what was sent or received.

    Attributes:
        threads_may_receive: Whether `receive_in_thread` and `wait_in_thread` are available.
        signals_lose_bytes: Whether an exception raised by a signal handler in the main thread can lose bytes
            in `send_in_thread` and `receive_in_thread`.
    """

    threads_may_receive: ClassVar[bool] = False
    signals_lose_bytes: ClassVar[bool] = False

    @abstractmethod
    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        """Send as much as possible without waiting.

        Args:
            data: The data.
            sent: Receives the numbers of bytes sent, one for each piece of the data. Nothing is appended if
                nothing can be sent or the connection is broken; `Stream.send_nowait` then tells which.
        """

    def receive_in_thread(self, received: list[bytes]) -> None:
        """Receive what is available without waiting.

        Args:
            received: Receives the data; empty bytes at the end of the stream, of which `Stream.receive` tells
                whether it is an error.
        """
        raise NotImplementedError

    def wait_in_thread(self, seconds: float) -> bool:
        """Block until data may be available; to be called without the lock and while no task receives.

        Args:
            seconds: The timeout.

        Returns:
            Whether data may be available.
        """
        raise NotImplementedError


class Pollable(ABC):
    """The receiving end of a stream that is one socket, which can be polled among others."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 after closing."""

    @abstractmethod
    def receive_nowait(self) -> bytes | None:
        """Return the available data; None if there is none; empty at the end of the stream or after an error.

        To be called with `Stream.lock` held. `Stream.receive` tells the end of the stream and an error apart.
        """

    @abstractmethod
    def has_received(self) -> bool:
        """Return True if `Stream.receive` would not wait although the socket need not become readable.

        To be called before polling. TLS may have decrypted more data than it has returned.
        """
