"""Large replies, as background load while small calls are measured."""

from __future__ import annotations

from functools import cache
from typing import Final

from benchmarks.tasks import floats

BULK_SERVICE: Final = "Bulk"
"""Name of the Service that sends them, in a separate process."""

BULK_READINGS: Final = 1_000_000
"""Length of the list in a large reply, which makes it 20 MB long."""

BULK_REQUESTS: Final = 2
"""Number of requests in flight, so that one reply is transferred while the next one is encoded."""


@cache
def readings() -> list[float]:
    """Return the numbers of a large reply, each with all its digits."""
    return floats() * (BULK_READINGS // len(floats()))
