"""The send queue of a WebSocket: messages, pings, pongs and the close frame. Runs in the Trio thread."""

from __future__ import annotations

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import SendQueue
from msl_network_trio.transport.websocket_frames import Frames


class FrameQueue(SendQueue):
    """The send queue of the frames of a WebSocket, over its carrier.

    Args:
        carrier: The stream that carries the frames.
        frames: Packs frames, and holds the ping that is to be answered.

    Attributes:
        error: The reason why nothing can be sent any more; None: frames can be sent.
        has_sent_close: Whether the close frame has been queued, which is the last one.
        progress: Counts the times that the peer accepted data that had to wait.
    """

    __slots__ = ("_frames", "_has_lost_frames", "_waiting", "error", "has_sent_close", "progress")

    def __init__(self, carrier: Stream, frames: Frames) -> None:
        super().__init__(carrier)
        self.error: ConnectionLost | None = None
        self.has_sent_close = False
        self.progress = 0
        self._frames = frames
        self._waiting: list[bytes | memoryview] = []
        self._has_lost_frames = False

    @property
    def has_unsent(self) -> bool:
        """Whether frames are unsent or sent in part, so that an orderly end would be misleading."""
        return self._has_lost_frames or bool(self._waiting) or self.rest_size > 0

    def put(self, frames: bytes | memoryview) -> bool:
        """Send frames as soon as possible; after an error they are dropped.

        Returns:
            Whether they have been sent completely.
        """
        if not self.failed:
            self._waiting.append(frames)
            self.flush()
        return self._batch is None

    def put_close(self, code: int, reason: str) -> None:
        """Send the close frame, unless it has been sent."""
        if not self.has_sent_close:
            self.has_sent_close = True
            self.put(self._frames.pack_close(code, reason))

    def put_ping(self) -> None:
        """Send a ping, unless other frames wait."""
        if not self.is_blocked:
            self.put(self._frames.pack_ping())

    def fail(self, error: ConnectionLost) -> None:
        """Drop all queued and all later frames."""
        self._note_error(error)
        self.discard()

    # ---- the source ----

    def take(self) -> bytes | memoryview:
        """See `SendQueue.take`. A pong is packed when it can be sent, so that it answers the last ping."""
        waiting = self._waiting
        if not waiting:
            return b"" if self._frames.ping is None else self._take_pong(self._frames.ping)
        if len(waiting) == 1:
            return waiting.pop()
        frames = b"".join(waiting)
        waiting.clear()
        return frames

    def _take_pong(self, ping: bytes) -> bytes:
        self._frames.ping = None
        return b"" if self.has_sent_close else self._frames.pack_pong(ping)  # no frame may follow a close

    def on_progress(self) -> None:
        """See `SendQueue.on_progress`."""
        self.progress += 1
        self.wake_waiting()

    def on_error(self, error: Exception) -> None:
        """See `SendQueue.on_error`."""
        assert isinstance(error, ConnectionLost)  # see SendQueue.caught
        self._note_error(error)

    def _note_error(self, error: ConnectionLost) -> None:
        self.error = self.error or error
        self._has_lost_frames = self.has_unsent
        self._waiting.clear()

    def start_task(self) -> None:
        """See `SendQueue.start_task`; `WebSocketStream.run` runs the task from the beginning."""
