"""Uids of requests, none of which can be guessed from others.

A Manager of msl-network 1.0.0 passes replies on without looking who sends them. So a Service that can guess
the uid of an open request can forge its reply.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

_DIGITS: Final = 24
"""Hexadecimal digits of a uid: 96 random bits, so that no two are the same either."""

_BLOCK: Final = 128
"""Uids made at a time, since asking the operating system for random bytes takes longer than the rest."""


class Uids:
    """Makes the uids of one connection, in blocks.

    They need no escapes in JSON. Any thread may use this at any time, without a lock. An exception that is
    injected into it costs no more than some uids.

    Attributes:
        take: Return a uid that is ready, or raise IndexError: then call `more`. (In two steps, since a call
            of a Python function would double the cost.)
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
