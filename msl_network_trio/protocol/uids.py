"""Uids of requests, which cannot be guessed from other uids.

The Manager of msl-network 1.0.0 forwards replies without checking their sender. So a Service that can guess
the uid of an open request can forge its reply.

Any thread may use `Uids` at any time, without a lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

_DIGITS: Final = 24
"""Hexadecimal digits of a uid: 96 random bits, which also make it unique."""

_BLOCK: Final = 128
"""Uids made at a time, since the call of the operating system takes longer than all the rest."""


class Uids:
    """The uids of one connection, which are made in blocks.

    They need no escapes in JSON. An exception that interrupts a thread here loses a block of uids at most.

    Attributes:
        take: Return a uid, or raise IndexError if `more` must be called. (It is a built-in method, since a
            Python function would double the cost.)
    """

    __slots__ = ("_ready", "take")

    take: Callable[[], str]

    def __init__(self) -> None:
        self._ready: list[str] = []
        self.take = self._ready.pop

    def more(self) -> str:
        """Make a block of uids, and return one of them."""
        digits = os.urandom(_BLOCK * _DIGITS // 2).hex()
        made = [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]
        uid = made.pop()
        self._ready += made
        return uid
