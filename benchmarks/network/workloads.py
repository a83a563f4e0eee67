"""What is measured of whole networks: the peers, the workloads, their sizes, and the goals for their ratios.

The same client, ours, loads every network. So what it costs is in the times of all, and the ratios are
smaller than those of Manager and Service alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from benchmarks.workloads import IN_FLIGHT, floats

REFERENCE: Final = "reference"
KINDS: Final = ("plain", "async")
"""The methods of our Service: plain ones, which it calls in threads, and async ones."""

PEERS: Final = (REFERENCE, *(f"ours-{kind}" for kind in KINDS))

SERVICE: Final = "Bench"
BULK_SERVICE: Final = "Bulk"
"""Another one, in a process of its own, that sends the large replies."""

BULK_PEER: Final = "ours-plain"
"""Whose Service that is, in all networks.

That of the reference takes longer to make such a reply than its Manager takes to pass it on, so that most of
the time none would pass.
"""

CONNECTIONS: Final = 50
"""How many connections there are, where there is more than one."""

PER_CONNECTION: Final = 2
"""How many requests each of them has on its way."""

BURST: Final = 1000
"""How many notifications a burst has."""

BULK_READINGS: Final = 1_000_000
"""How many numbers a large reply has, which make it 20 MB long."""

BULK_REQUESTS: Final = 2
"""How many of them are requested at a time, so that one passes while the next is made."""

INTERVAL: Final = 0.02
"""How many seconds there are from one small call to the next while large replies pass.

They begin whether the ones before have been answered or not: otherwise the slower a network is, the fewer of
the calls would be made at the very times at which it keeps them waiting.
"""


@dataclass(frozen=True)
class Goals:
    """How many times faster than the reference we are to be, from the performance page of the design."""

    floor: float | None
    """What is required; None: nothing but the target."""

    target: float
    goal: float | None = None
    """What the prototypes came near to; None: nothing but the target."""


@dataclass(frozen=True)
class Workload:
    """One thing that a network does."""

    name: str
    title: str
    calls: dict[str, int]
    """The number of calls (or notifications) of a round, for us and for the reference.

    Only ratios of the times of one call are compared, so each is measured for a similar time.
    """

    goals: Goals
    pinned: bool = False
    """Whether Manager, Service and client share one CPU.

    The latency of a single call depends on where the scheduler puts them, more than on their code.
    """


BULK: Final = Workload(
    "bulk",
    "a call while 20 MB replies pass",
    {"ours": 250, "reference": 250},
    Goals(None, 10.0),
)

WORKLOADS: Final = (
    Workload(
        "one",
        "one call at a time",
        {"ours": 2000, "reference": 1000},
        Goals(1.3, 1.7, 2.0),
        pinned=True,
    ),
    Workload(
        "flight",
        f"{IN_FLIGHT} tasks in flight",
        {"ours": 8000, "reference": 2000},
        Goals(2.0, 3.0, 5.0),
    ),
    Workload(
        "floats",
        "100k floats, round trip",
        {"ours": 12, "reference": 3},
        Goals(3.0, 4.0, 6.0),
    ),
    Workload(
        "connections",
        f"{CONNECTIONS} connections x {PER_CONNECTION}",
        {"ours": 6000, "reference": 2000},
        Goals(None, 2.0, 3.0),
    ),
    Workload(
        "burst",
        f"notifications, {BURST} at once",
        {"ours": 20 * BURST, "reference": 2 * BURST},
        Goals(None, 8.0),
    ),
    Workload(
        "ticks",
        "notifications, one by one",
        {"ours": 2000, "reference": 1000},
        Goals(None, 3.0),
        pinned=True,
    ),
    BULK,
)


@cache
def readings() -> list[float]:
    """The numbers of a large reply, each with all its digits."""
    return floats() * (BULK_READINGS // len(floats()))
