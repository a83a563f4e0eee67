"""How costs grow with requests in flight, connections, and the length of a message."""

from __future__ import annotations

from benchmarks.cases import Case


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return []
