"""A pair of streams connected in memory: without sockets, so that it works with a fake clock.

Both ends belong to the same Trio thread.
"""

from __future__ import annotations

import trio

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.base import Stream

_RECEIVE = 65_536


class _Pipe:
    """One direction: the bytes sent and not yet received."""

    def __init__(self, capacity: int) -> None:
        self.data = bytearray()
        self.capacity = capacity
        self.ended = False
        self.broken = False
        self.changed = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        self.changed.unpark_all()


class MemoryStream(Stream):
    """One end of a `memory_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        super().__init__()
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `Stream.send_nowait`."""
        pipe = self._outgoing
        if self._closed or pipe.ended or pipe.broken:
            raise ConnectionLost("Broken pipe")
        room = pipe.capacity - len(pipe.data)
        sent = data[:room] if room > 0 else b""
        if sent:
            pipe.data += sent
            pipe.wake()
        return len(sent)

    async def wait_send(self) -> None:
        """See `Stream.wait_send`."""
        pipe = self._outgoing
        if len(pipe.data) < pipe.capacity or pipe.ended or pipe.broken:
            await trio.lowlevel.checkpoint()
        else:
            await pipe.changed.park()

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        await trio.lowlevel.checkpoint()
        pipe = self._incoming
        while not (pipe.data or pipe.ended or pipe.broken or self._closed):
            await pipe.changed.park()
        if pipe.broken or self._closed:
            raise ConnectionLost("Connection reset by peer")
        received = bytes(pipe.data[:_RECEIVE])
        del pipe.data[:_RECEIVE]
        pipe.wake()
        return received

    def send_eof(self) -> None:
        """See `Stream.send_eof`."""
        self._outgoing.ended = True
        self._outgoing.wake()

    def close(self) -> None:
        """See `Stream.close`."""
        self._closed = True
        for pipe in (self._incoming, self._outgoing):
            pipe.ended = True
            pipe.wake()

    def abort(self) -> None:
        """See `Stream.abort`."""
        if not self._closed:
            self.reset()

    def reset(self) -> None:
        """Break the connection, as if a process or the network had failed: both ends get an error."""
        self._closed = True
        for pipe in (self._incoming, self._outgoing):
            pipe.broken = True
            pipe.wake()


def memory_pair(capacity: int = 65_536) -> tuple[MemoryStream, MemoryStream]:
    """Return two connected streams.

    Args:
        capacity: Maximum bytes in transit in each direction, like the buffers of a socket.
    """
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)
