r"""Blocks: whole lines that arrive together and are decoded at once.

A client decodes what it has received block by block, since one call for many lines costs a fraction of a call
for each. Lines that are unusual in any way make a block undecodable here; `codec.decode` decodes them one by
one.

A `BlockBuffer` belongs to one connection, and is used with the connection's lock held or, as long as threads
do not use the connection, in the Trio thread. The functions are pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from msl_network_trio.protocol.codec import DECODING_ERRORS
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.messages import EmittedLine, ReceivedLine

_END_OF_NOTIFICATION: Final = b'"notification"}'
"""The end of a notification, without white space, as msl-network and this package encode it."""

_TAIL: Final = 512
"""Bytes at the end of a block in which the last notification is searched for."""

_decode_lines: Final = msgspec.json.Decoder(ReceivedLine).decode_lines
_decode_notifications: Final = msgspec.json.Decoder(EmittedLine).decode_lines


class BlockBuffer(LineBuffer):
    """A `LineBuffer` that returns complete lines as one block, without splitting it."""

    __slots__ = ()

    def feed_block(self, data: bytes) -> bytes:
        r"""Add bytes and return the lines that are now complete, each with its ``\n``, joined."""
        if not self._chunks and self.limit is None and data.endswith(b"\n"):
            return data  # the usual case
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._keep(data)
            return b""
        block = data if end == len(data) else data[:end]
        if self._chunks:
            self._chunks.append(block)
            block = b"".join(self._chunks)
            self._chunks.clear()
            self.size = 0
        if self.overflow is not None or (self.limit is not None and len(block) > self.limit):
            block = b"".join(line + b"\n" for line in self._within_limit(block[:-1].split(b"\n")))
        if end < len(data):
            self._keep(data[end:])
        return block


def decode_lines(block: bytes) -> list[ReceivedLine] | None:
    r"""Decode the lines of a block.

    Args:
        block: The lines, each with its ``\n``.

    Returns:
        One message for each line; None if a line is unusual.
    """
    try:
        messages = _decode_lines(block)
    except DECODING_ERRORS:
        return None
    # msgspec skips empty lines, and accepts an object that continues on the next line. It also accepts two
    # objects on one line: no Manager sends that, and there is no cheap test for it.
    return messages if len(messages) == block.count(b"\n") else None


def split_notifications(block: bytes) -> tuple[list[EmittedLine], bytes]:
    r"""Decode the notifications at the start of a block, and return them and the lines behind them.

    Notifications may arrive by the thousand, and decoding them by their exact type is faster than checking
    the type of each in Python. Notifications among other lines, and those with more than `_TAIL` bytes of
    other lines behind them, are not split off; `decode_lines` decodes them.

    Args:
        block: The lines, each with its ``\n``.
    """
    last = block.rfind(_END_OF_NOTIFICATION, -_TAIL)
    if last < 0:
        return [], block
    end = block.find(b"\n", last) + 1
    try:
        notifications = _decode_notifications(block[:end])
    except DECODING_ERRORS:
        return [], block
    if len(notifications) != block.count(b"\n", 0, end):  # see decode_lines()
        return [], block
    return notifications, block[end:]
