"""Framing: splits received bytes into lines, in time linear in their length.

A buffer belongs to one connection, and is used by one thread at a time.
"""

from __future__ import annotations

from typing import Any

from msl_network_trio.protocol.top_level import TopLevel

_QUOTED = 200
"""Maximum bytes of a line that messages quote."""

_SMALL = 1024
"""Bytes below which pieces of a line are copied into one buffer: an object for each costs dozens of bytes."""

_GATHERED = 65_536
"""Bytes from which such a buffer is full."""

_MOST_FIELDS = 65_536
"""Maximum bytes kept of a line that exceeds the limit."""


class LineBuffer:
    r"""A buffer that collects received bytes and returns complete lines.

    A line ends with ``\n``; a ``\r`` before it remains, since it is white space in JSON. Only new bytes are
    searched for the end of a line, so the cost of a line is linear in its length and independent of the
    number of pieces.

    Args:
        limit: Maximum bytes of a line without its ``\n``; None: no limit.

    Attributes:
        overflow: The beginning of the first line that exceeds the limit; None: there was none. No lines are
            returned behind it.
        size: Bytes of the incomplete line.
    """

    __slots__ = ("_chunks", "limit", "overflow", "size")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.overflow: bytes | None = None
        self._chunks: list[bytes | bytearray] = []
        self.size = 0

    def __len__(self) -> int:
        """Return `size`."""
        return self.size

    @property
    def start(self) -> bytes:
        """The beginning of the incomplete line, for messages; at most 200 bytes."""
        return b"".join(chunk[:_QUOTED] for chunk in self._chunks[:_QUOTED])[:_QUOTED]

    def clear(self) -> None:
        """Discard the incomplete line."""
        self._chunks.clear()
        self.size = 0

    def feed(self, data: bytes) -> list[bytes]:
        r"""Add bytes and return the lines that are now complete, without their ``\n``."""
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return []
        lines = data[:end].split(b"\n")
        if self._chunks:
            self._chunks.append(lines[0])
            lines[0] = b"".join(self._chunks)
            self._chunks.clear()
            self.size = 0
        if self.overflow is not None or (
            self.limit is not None and (end > self.limit or len(lines[0]) > self.limit)
        ):
            lines = self._within_limit(lines)
        if end + 1 < len(data):
            self._keep(data[end + 1 :])
        return lines

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines before the first one that exceeds the limit."""
        if self.overflow is not None:
            return []
        assert self.limit is not None
        for number, line in enumerate(lines):
            if len(line) > self.limit:
                self.overflow = line[:_QUOTED]
                return lines[:number]
        return lines

    def _keep(self, data: bytes) -> None:
        """Append bytes to the incomplete line."""
        if self.overflow is not None:
            return
        size = len(data)
        if size >= _SMALL:
            self._chunks.append(data)
        else:
            last = self._chunks[-1] if self._chunks else None
            if isinstance(last, bytearray) and len(last) < _GATHERED:
                last += data
            else:
                self._chunks.append(bytearray(data))
        self.size += size
        if self.limit is not None and self.size > self.limit:
            self.overflow = self.start
            self._chunks.clear()
            self.size = 0


class SkippingLineBuffer(LineBuffer):
    """A `LineBuffer` that skips lines that exceed the limit, and keeps their fields.

    Attributes:
        skips: Whether it skips such lines; if not, it behaves as a `LineBuffer`.
        unfinished: The incomplete line that exceeds the limit; None: there is none. If there is one, received
            bytes must be passed to `skip`, and its result to `feed`.
        too_long: The fields of each skipped line, see `TopLevel.fields`; to be cleared by the caller.
    """

    __slots__ = ("skips", "too_long", "unfinished")

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self.skips = False
        self.unfinished: TopLevel | None = None
        self.too_long: list[dict[str, Any] | None] = []

    def skip(self, data: bytes) -> bytes:
        """Consume the bytes of the incomplete line that exceeds the limit, and return those behind it."""
        assert self.unfinished is not None
        end = data.find(b"\n")
        self.unfinished.feed(data if end < 0 else data[:end])
        if end < 0:
            return b""
        self.too_long.append(self.unfinished.fields())
        self.unfinished = None
        return data[end + 1 :]

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        if not self.skips:
            return super()._within_limit(lines)
        assert self.limit is not None
        for line in lines:
            if len(line) > self.limit:
                fields = TopLevel(_MOST_FIELDS)
                fields.feed(line)
                self.too_long.append(fields.fields())
        return [line for line in lines if len(line) <= self.limit]

    def _keep(self, data: bytes) -> None:
        if not self.skips or self.limit is None or self.size + len(data) <= self.limit:
            super()._keep(data)
            return
        self.unfinished = TopLevel(_MOST_FIELDS)
        for chunk in (*self._chunks, data):
            self.unfinished.feed(chunk)
        self.clear()
