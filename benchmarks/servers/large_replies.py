"""The large replies that pass while small calls are measured."""

from __future__ import annotations

from functools import cache
from typing import Final

from benchmarks.tasks import floats

BULK_SERVICE: Final = "Bulk"
"""The Service that sends them, in a process of its own."""

BULK_READINGS: Final = 1_000_000
"""How many numbers a large reply has, which make it 20 MB long."""

BULK_REQUESTS: Final = 2
"""How many of them are requested at a time, so that one passes while the next is made."""


@cache
def readings() -> list[float]:
    """The numbers of a large reply, each with all its digits."""
    return floats() * (BULK_READINGS // len(floats()))
