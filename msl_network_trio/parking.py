"""What a parked task is told that is just to go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Final, TypeVar

import outcome

R = TypeVar("R")


class _Resume(outcome.Outcome[None]):
    """The value None, as often as one likes.

    An `outcome.Value`, of which Trio makes one if it is given nothing, can be used once, and to make it and
    to note that it was used takes a tenth of a whole request.
    """

    def unwrap(self) -> None:
        """Return None."""

    def send(self, gen: Generator[R, None, object]) -> R:
        """Send None into a generator."""
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[R, None]) -> R:
        """Send None into an async generator."""
        return await agen.asend(None)


RESUME: Final = _Resume()
"""The second argument of `trio.lowlevel.reschedule`."""
