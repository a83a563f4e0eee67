"""Other packages for calls between processes."""

from __future__ import annotations

from benchmarks.cases import Case


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return []
