"""The floors that a change must not break, and whether it does.

What is compared are ratios of CPU times taken in the same run. Times change with the machine and with what
else runs on it; instruction counts need tools and rights that are not there everywhere, and change with each
release of Python. The CPU time of the reference divided by that of ours, in turns and on one CPU, has neither
fault: a slow machine is slow for both, and a process that has to wait uses no CPU time meanwhile.

A floor that is recorded is a part of what was measured when it was recorded (`MARGIN`), so that chance does
not break it, but the loss of a good idea does.
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
"""Which part of what was measured is recorded as a floor."""

FILE: Final = Path(__file__).parent / "floors.json"
"""Where the floors are recorded."""

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
"""What is guarded: one case of each kind of work."""


@dataclass(frozen=True)
class Finding:
    """A ratio and its floor."""

    name: str
    ratio: float
    floor: float

    @property
    def holds(self) -> bool:
        """Whether the floor is not broken."""
        return self.ratio >= self.floor


def ratios(measured: Sequence[Measured]) -> dict[str, float]:
    """Return the ratios of CPU times, by case and who is compared."""
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
    """Return the floors that are recorded when these ratios are measured."""
    return {name: round(ratio * MARGIN, 2) for name, ratio in measured.items()}


def findings(measured: Mapping[str, float], recorded: Mapping[str, float]) -> list[Finding]:
    """Return what was measured beside its floor.

    Raises:
        KeyError: Nothing was recorded of something, or it was not measured.
    """
    if missing := measured.keys() ^ recorded.keys():
        raise KeyError(f"recorded or measured, but not both: {', '.join(sorted(missing))}")
    return [Finding(name, ratio, recorded[name]) for name, ratio in measured.items()]


def load() -> dict[str, float]:
    """Return the floors that are recorded."""
    recorded: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))
    return recorded


def save(recorded: Mapping[str, float]) -> None:
    """Record floors."""
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
