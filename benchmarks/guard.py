"""Recorded floors of CPU time ratios, and the check that a change keeps them.

Ratios of CPU times of the same run are compared. Times depend on the machine and its load; instruction counts
need tools and permissions that are not available everywhere, and depend on the release of Python. The CPU
time of the reference divided by that of this package, measured alternately on one CPU, has neither problem: a
slow machine is slow for both, and a process that waits uses no CPU time.

A floor is a fraction of the ratio measured when it was recorded (`MARGIN`), so that random variation does not
break it, but the loss of an optimization does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import Measured
from benchmarks.statistics import rows
from benchmarks.table import cpu_ratio

MARGIN: Final = 0.7
"""Fraction of a measured ratio that is recorded as its floor."""

FILE: Final = Path(__file__).parent / "floors.json"
"""File of the recorded floors."""

CASES: Final = (
    "client-one-tcp",
    "client-one-tls",
    "client-flight-tcp",
    "client-flight-tls",
    "client-handles-tcp",
    "client-blocking-tcp",
    "client-blocking-handler-tcp",
    "client-futures-tcp",
    "client-floats-tcp",
    "client-notifications-tcp",
    "network-one-tcp",
    "network-flight-tcp",
    "network-floats-tcp",
    "network-burst-tcp",
)
"""The guarded cases: one for each kind of work."""


@dataclass(frozen=True)
class Finding:
    """A ratio and its floor."""

    name: str
    ratio: float
    floor: float

    @property
    def holds(self) -> bool:
        """Whether the ratio reaches its floor."""
        return self.ratio >= self.floor


def ratios(measured: Sequence[Measured]) -> dict[str, float]:
    """Return the ratios of CPU times by case and contestants."""
    found = {}
    for each in measured:
        for row in rows(each):
            if row.comparison.figure == "p99":
                continue
            ratio = cpu_ratio(each, row.comparison)
            if ratio is not None:
                found[f"{each.case.key} {row.comparison.one}"] = ratio
    return found


def floors(measured: Mapping[str, float]) -> dict[str, float]:
    """Return the floors to record for these ratios."""
    return {name: round(ratio * MARGIN, 2) for name, ratio in measured.items()}


def findings(measured: Mapping[str, float], recorded: Mapping[str, float]) -> list[Finding]:
    """Return the measured ratios with their floors.

    Raises:
        KeyError: A case has no floor, or a floor was not measured.
    """
    if missing := measured.keys() ^ recorded.keys():
        raise KeyError(f"recorded or measured, but not both: {', '.join(sorted(missing))}")
    return [Finding(name, ratio, recorded[name]) for name, ratio in measured.items()]


def load() -> dict[str, float]:
    """Return the recorded floors."""
    recorded: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))
    return recorded


def save(recorded: Mapping[str, float]) -> None:
    """Record floors."""
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
