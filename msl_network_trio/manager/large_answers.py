"""Encoding of large answers in pieces, so that memory is bounded and other peers are served meanwhile.

Runs in worker threads, but for `is_small`. A million rows, encoded at once, would block the interpreter for
seconds in whichever thread.
"""

from __future__ import annotations

import mmap
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, Final

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.answers import Encoded

_ITEMS: Final = 200
"""Items of a list or an object per piece, which takes about a millisecond."""

_REST: Final = 0.0005
"""Seconds that a worker thread sleeps after each piece, for other threads to use the interpreter."""

_IN_MEMORY: Final = 1_048_576
"""Bytes from which on an answer is kept in a temporary file."""

_SMALL: Final = 1000
"""Maximum values, of 16 characters of text each, to encode in the Trio thread, in less than a millisecond."""


class Spool:
    """Buffer for an encoded value: in memory, or in a temporary file if it is large.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None

    def write(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            OSError: The disk is full, for example.
        """
        self._size += len(piece)
        if self._file is None and self._size > _IN_MEMORY:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed by take() or close()
            self._file.writelines(self._pieces)
            self._pieces.clear()
        if self._file is None:
            self._pieces.append(piece)
        else:
            self._file.write(piece)

    def take(self) -> Encoded:
        """Return the value; the file is deleted with the last reference to it.

        Raises:
            OSError: The disk is full, for example.
        """
        if self._file is None:
            return Encoded(b"".join(self._pieces))
        self._file.flush()
        with self._file:
            return Encoded(memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)))

    def close(self) -> None:
        """Drop the value, if it was not taken."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()


class ListOfPages:
    """Writes a JSON array to a `Spool`, page by page.

    Args:
        spool: The spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._separator = b"["

    def add(self, items: list[Any]) -> None:
        """Encode and add items; raises as `codec.encode_value` and `Spool.write`."""
        if items:
            self._spool.write(self._separator + codec.encode_value(items)[1:-1])
            self._separator = b", "

    def end(self) -> None:
        """End the array; raises as `Spool.write`."""
        self._spool.write(b"[]" if self._separator == b"[" else b"]")


def is_small(value: Any) -> bool:
    """Return whether a value can be encoded at once; this takes no longer than the encoding."""
    left = _SMALL
    values = [value]
    while values:
        value = values.pop()
        left -= 1
        if isinstance(value, str):
            left -= len(value) // 16
        elif isinstance(value, dict | list | tuple):
            if len(value) > left:
                return False
            values.extend(value)
            if isinstance(value, dict):
                values.extend(value.values())
        if left < 0:
            return False
    return True


def encode_large(value: Any) -> Encoded:
    """Encode a value in a worker thread.

    Raises:
        TypeError, ValueError: See `codec.encode_value`.
        OSError: The temporary file cannot be written.
    """
    spool = Spool()
    try:
        for piece in _pieces(value):
            spool.write(piece)
            time.sleep(_REST)
        return spool.take()
    except BaseException:
        spool.close()
        raise


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        names = list(value)
        parts: Iterator[Any] = (
            {name: value[name] for name in names[start : start + _ITEMS]}
            for start in range(0, len(names), _ITEMS)
        )
    elif isinstance(value, list | tuple):
        parts = (value[start : start + _ITEMS] for start in range(0, len(value), _ITEMS))
    else:
        yield codec.encode_value(value)
        return
    begin, end = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
    separator = begin
    for part in parts:
        yield separator + codec.encode_value(part)[1:-1]
        separator = b", "
    yield end if separator == b", " else begin + end
