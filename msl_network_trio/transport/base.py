"""What a connection needs from whatever carries its bytes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import ClassVar

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.liveness import ALWAYS_ALIVE, PeerActivity


class Stream(ABC):
    """A stream of bytes to and from one peer.

    One task at a time may receive, and one may wait to send; both may do so at the same time. Errors of
    the carrier are raised as `~msl_network_trio.exceptions.ConnectionLost`.

    Attributes:
        port: The number of our own port, 0 if the carrier has none.
        threads_may_send: Whether `send_nowait` may be called outside the Trio thread.
        flush_threshold: Bytes from which queued data is sent at once instead of with later data. The
            peer can begin with it meanwhile, but each send costs as much as several requests.
        threads_may_receive: Whether `wait_in_thread` and `receive_in_thread` may be called there, too.
        signals_lose_bytes: Whether an exception that a signal handler raises in the main thread can lose
            bytes in `send_in_thread` and `receive_in_thread`.
        close_reason: What the peer said of the end, when `receive` has met it; empty if nothing, as in TCP.
        lock: Held around everything that is done to the carrier. Who calls `send_nowait` in another thread,
            or changes what the Trio thread changes too, holds it meanwhile; it is never held for long.
    """

    threads_may_send: ClassVar[bool] = False
    threads_may_receive: ClassVar[bool] = False
    signals_lose_bytes: ClassVar[bool] = False
    flush_threshold: ClassVar[int] = 4096
    port: int = 0
    close_reason: str = ""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    @abstractmethod
    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send as much as can be sent without waiting, and return how many bytes that was.

        What was not sent must be offered again before anything else is.

        Raises:
            ConnectionLost: The peer is gone.
        """

    @abstractmethod
    async def wait_send(self) -> None:
        """Wait until it makes sense to call `send_nowait` again; always a checkpoint."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for bytes and return them, some hundred KiB at most; nothing at the end of the stream.

        Always a checkpoint. A cancelled call has received nothing.

        Raises:
            ConnectionLost: The connection broke.
        """

    def limit_buffer(self, size: int | None) -> None:  # noqa: B027 - most keep nothing
        """Bound what is kept of what the peer has sent and nobody can receive yet; if it is more, it is lost.

        Most carriers keep nothing: each byte can be received as it comes.

        Args:
            size: How many bytes may be kept; None: as many as a message may have.
        """

    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        """Send as `send_nowait` does, in another thread than that of Trio, with the `lock` held.

        An exception may interrupt a thread at any moment. This leaves in `sent` what was sent by then.

        Args:
            data: The bytes to send.
            sent: Is extended by the number of bytes sent, in one piece or several. If the carrier takes no
                more, or is broken, it is not extended; `send_nowait` will tell which.
        """
        raise NotImplementedError

    def receive_in_thread(self, received: list[bytes]) -> None:
        """Receive what can be received now, in another thread than that of Trio, with the `lock` held.

        An exception may interrupt a thread at any moment. This leaves in `received` what was received by
        then.

        Args:
            received: Is extended by what can be received; by nothing (of type bytes) when the stream has
                ended or broken, and `receive` will tell which.
        """
        raise NotImplementedError

    def wait_in_thread(self, seconds: float) -> bool:
        """Block until there may be something to receive, and return whether it came in time.

        To be called while nobody waits in `receive`.
        """
        raise NotImplementedError

    def receive_nowait(self) -> bytes | None:
        """Return what can be received now, or None, with the `lock` held.

        Nothing (of type bytes) is returned when the stream has ended or broken; `receive` will tell which.
        """
        raise NotImplementedError

    def fileno(self) -> int:
        """Return the descriptor of a socket that becomes readable when something comes.

        -1 if there is none, or none that may be waited for: then only `receive` can tell. Who has received
        with `receive_nowait` has to ask `has_received` before that socket is waited for.
        """
        return -1

    def has_received(self) -> bool:
        """Whether `receive` would not have to wait, although the socket need not become readable any more."""
        return False

    @abstractmethod
    def send_eof(self) -> None:
        """Say that nothing more will be sent: the peer receives the end of the stream behind what was sent.

        What the peer still sends can be received. Never fails: a peer that is gone need not be told.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the carrier back, at once; calling it again does no harm.

        What was sent still arrives, and the end of the stream behind it: the peer takes it that all was said
        that there was to say. Otherwise `abort`.
        """

    def abort(self) -> None:
        """`close` so that the peer can tell that not all was said: its end of the connection breaks.

        What was sent need not arrive. Calling it after `close` does no harm, and has no effect.
        """
        self.close()

    def end(self, *, cut_off: bool) -> None:
        """`close`, but `abort` in the middle of a line: a part of one shall not look like the end of it all.

        Args:
            cut_off: Whether something has been sent in part, and the rest will not be.
        """
        if cut_off:
            self.abort()
        else:
            self.close()

    # ---- is the peer still there ----

    def start_probe(self) -> bool:
        """Request an acknowledgement from the peer's operating system, invisible to its program.

        Returns:
            Whether `peer_activity` tells what comes of it. Call `end_probe` when that matters no more.
        """
        return True

    def peer_activity(self) -> PeerActivity | None:
        """Return what the carrier knows about the peer; None: it cannot tell.

        Most carriers are in this process, or have a peer that is.
        """
        return ALWAYS_ALIVE

    def end_probe(self) -> None:  # noqa: B027 - most have done nothing
        """End what `start_probe` has begun."""

    def extend_send_timeout(self) -> None:  # noqa: B027 - most have nothing to do
        """Extend the send timeout of a stalled peer that is alive; call every `STALL_CHECK_INTERVAL`.

        `wait_send` does so itself. It matters for what the carrier has taken and the peer has not.
        """

    async def send_all(self, data: bytes) -> None:
        """Send all of it. Cancelled while it has to wait, it breaks the connection off with `abort`.

        Raises:
            ConnectionLost: The peer is gone.
        """
        rest = memoryview(data)
        try:
            while rest := rest[self.send_nowait(rest) :]:
                await self.wait_send()
        except ConnectionLost:
            raise
        except BaseException:
            self.abort()  # if nothing was taken, TLS may have sent a part nevertheless
            raise
