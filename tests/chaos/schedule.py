"""Seeded schedule of faults: for each direction of each connection, and for processes.

Pure. The same seed gives the same faults at the same byte, unit or second; what the peers are doing then
depends on their timing.
"""

from __future__ import annotations

import random
from typing import Final, Literal

import attrs

Kind = Literal[
    "delay",
    "stall",
    "split",
    "reset",
    "half close",
    "half dead",
    "black hole",
    "noise",
    "drop",
    "duplicate",
    "cut line",
]

BYTE_FAULTS: Final[dict[Kind, int]] = {
    "delay": 6,
    "stall": 2,
    "split": 4,
    "reset": 6,
    "half close": 2,
    "half dead": 2,
    "black hole": 1,
    "noise": 2,
}
"""Weights of the faults at a byte."""

LINE_FAULTS: Final[dict[Kind, int]] = {
    "delay": 4,
    "drop": 5,
    "duplicate": 5,
    "noise": 2,
    "cut line": 2,
    "reset": 2,
}
"""Weights of the faults at a line or message."""

CONTENT: Final = {"noise", "drop", "duplicate"}
"""Faults that TCP does not have: they change what is received."""

HANDSHAKE_BYTES: Final = 3000
HANDSHAKE_UNITS: Final = 2
"""Beginning of a connection without faults of its content: a Manager rejects an invalid identity for good."""


LONGEST_HOLD = 8.0
"""Maximum seconds for which a fault holds or swallows what is sent in one direction."""


@attrs.frozen
class Fault:
    """A fault in one direction of a connection."""

    kind: Kind
    after: int
    """Bytes or units from the previous fault to this one."""

    seconds: float
    """The duration of a delay or stall, and of a half-dead connection."""


@attrs.define
class DirectionSchedule:
    """The faults of one direction of a connection.

    Args:
        draw: The source of random numbers, from the seed.
        by_line: Whether faults are at lines, and not at bytes.
        spacing: Mean number of bytes or units between two faults.
    """

    draw: random.Random
    by_line: bool
    spacing: float
    _passed: int = 0

    def next(self) -> Fault:
        """Return the next fault."""
        weights = LINE_FAULTS if self.by_line else BYTE_FAULTS
        [kind] = self.draw.choices(list(weights), list(weights.values()))
        after = 1 + int(self.draw.expovariate(1 / self.spacing))
        start = HANDSHAKE_UNITS if self.by_line else HANDSHAKE_BYTES
        if kind in CONTENT and self._passed + after <= start:
            after = start - self._passed + 1
        self._passed += after
        return Fault(kind, after, self._seconds(kind))

    def _seconds(self, kind: Kind) -> float:
        match kind:
            case "delay":
                return self.draw.uniform(0.001, 0.05)
            case "stall":
                return self.draw.uniform(0.2, 2.0)
            case "half dead":
                return self.draw.uniform(0.1, 3.0)
            case "black hole":
                return self.draw.uniform(2.0, LONGEST_HOLD)
        return 0.0


class Schedule:
    """The faults of all connections and processes of one run.

    Args:
        seed: The seed.
        spacing: Mean number of bytes between two faults of one direction; lines count 200 bytes.
    """

    def __init__(self, seed: int, spacing: float = 8000) -> None:
        self.seed = seed
        self.processes = random.Random(f"{seed}/processes")
        """Source of random numbers for faults of processes; each storm goes on where the last one ended."""
        self._spacing = spacing

    def connection(self, number: int) -> tuple[DirectionSchedule, DirectionSchedule]:
        """Return the faults towards the Manager and from it, of a connection by its number."""
        draw = random.Random(f"{self.seed}/connection/{number}")
        by_line = draw.random() < 0.5
        spacing = self._spacing / 200 if by_line else self._spacing
        return (
            DirectionSchedule(random.Random(draw.random()), by_line, spacing),
            DirectionSchedule(random.Random(draw.random()), by_line, spacing),
        )
