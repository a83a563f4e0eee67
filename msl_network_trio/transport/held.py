"""What many connections hold together of messages that are not complete yet."""

from __future__ import annotations

import math
from typing import Protocol


class Holder(Protocol):
    """Who holds something."""

    def cut_off(self, reason: str) -> None:
        """Receive nothing more, nor send anything."""


class Held:
    """Counts what many connections hold together. If it is too much, the one that holds most is cut off.

    Args:
        most: How many bytes that may be; None: any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = math.inf if most is None else most
        self._sizes: dict[Holder, int] = {}
        self._size = 0

    def hold(self, holder: Holder, size: int) -> None:
        """Note how many bytes a connection holds; then it may be that one has to go."""
        self._size += size - self._sizes.get(holder, 0)
        self._sizes[holder] = size
        while self._size > self._most:
            largest = max(self._sizes, key=lambda each: self._sizes[each])
            self.let_go(largest)
            largest.cut_off("It has sent most, and all connections together have sent too much")

    def let_go(self, holder: Holder) -> None:
        """Note that a connection holds nothing any more."""
        self._size -= self._sizes.pop(holder, 0)
