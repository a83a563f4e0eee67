"""Bytes to lines."""

from __future__ import annotations

from typing import Any

from msl_network_trio.protocol.top_level import TopLevel

_QUOTED = 200

_SMALL = 1024
"""Below how many bytes what arrives is put together with what has: a piece costs some dozen bytes itself."""

_GATHERED = 65_536
"""Up to how many bytes small pieces are put together."""


_MOST_FIELDS = 65_536
"""Maximum bytes to keep of a line that is too long."""


class LineBuffer:
    r"""Collects what arrives and gives it back as lines.

    A line ends with ``\n``; a ``\r`` before it is left where it is, since it is white space to a JSON
    parser. Only new bytes are searched for the end of a line, so the cost of a line is linear in its
    length, in however many pieces it arrives.

    Args:
        limit: The largest length of a line in bytes, without its ``\n``; None: no limit.

    Attributes:
        overflow: How the first line that is longer than the limit begins; None if there was none.
            Behind such a line nothing more is given back.
        size: How many bytes wait for the end of their line.
    """

    __slots__ = ("_chunks", "limit", "overflow", "size")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.overflow: bytes | None = None
        self._chunks: list[bytes | bytearray] = []
        self.size = 0

    def __len__(self) -> int:
        """The same as `size`."""
        return self.size

    @property
    def start(self) -> bytes:
        """How the unfinished line begins, for messages; a few hundred bytes at the most."""
        return b"".join(chunk[:_QUOTED] for chunk in self._chunks[:_QUOTED])[:_QUOTED]

    def clear(self) -> None:
        """Forget what was received of a line that is not complete."""
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
        if self.overflow is not None:
            return []
        assert self.limit is not None
        for number, line in enumerate(lines):
            if len(line) > self.limit:
                self.overflow = line[:_QUOTED]
                return lines[:number]
        return lines

    def _keep(self, data: bytes) -> None:
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
    """A `LineBuffer` that goes on behind a line that is too long, of which only the fields are kept.

    Attributes:
        skips: Whether it does so; if not, it is just a `LineBuffer`.
        unfinished: The beginning of a line that is too long; if there is one, what is received is for `skip`
            first, whose result is for `feed`.
        too_long: The fields of each line that was too long, see `TopLevel.fields`; to be cleared by who takes
            them.
    """

    __slots__ = ("skips", "too_long", "unfinished")

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self.skips = False
        self.unfinished: TopLevel | None = None
        self.too_long: list[dict[str, Any] | None] = []

    def skip(self, data: bytes) -> bytes:
        """Take what belongs to the unfinished line that is too long, and return what is behind it."""
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
