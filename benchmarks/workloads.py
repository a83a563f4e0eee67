"""What is measured: the workloads, their sizes, and the goals for their ratios.

A workload is named and sized here and carried out in `benchmarks.ours` and in `benchmarks.reference`, in the
way that each API offers. Only ratios are meaningful, so the two may make different numbers of calls, so that
both are measured for a similar time; what is compared is the time of one call.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

IN_FLIGHT: Final = 100
"""How many requests are on their way at a time, where more than one is."""

TRANSPORTS: Final = ("tcp", "tls")
PEERS: Final = ("ours", "reference")


@dataclass(frozen=True)
class Goal:
    """How many times faster than the reference we are to be."""

    floor: float
    """Less is a defect."""

    target: float


@dataclass(frozen=True)
class Workload:
    """One thing that clients do."""

    name: str
    title: str
    calls: dict[str, int]
    """The number of calls of a round, by peer."""

    goals: dict[str, Goal]
    """By transport; from the performance page of the design."""

    pinned: bool = False
    """Whether the client and the Manager share one CPU.

    The latency of a single call depends on where the scheduler puts the two, more than on their code.
    """


WORKLOADS: Final = (
    Workload(
        "one",
        "one call at a time",
        {"ours": 4000, "reference": 2000},
        {"tcp": Goal(2.0, 2.5), "tls": Goal(1.5, 2.0)},
        pinned=True,
    ),
    Workload(
        "flight",
        f"{IN_FLIGHT} tasks in flight",
        {"ours": 12_000, "reference": 3000},
        {"tcp": Goal(4.0, 6.0), "tls": Goal(4.0, 6.0)},
    ),
    Workload(
        "handles",
        f"handles, {IN_FLIGHT} in flight",
        {"ours": 12_000, "reference": 3000},
        {"tcp": Goal(6.0, 9.0), "tls": Goal(6.0, 9.0)},
    ),
    Workload(
        "bursts",
        f"handles, bursts of {IN_FLIGHT}",
        {"ours": 12_000, "reference": 3000},
        {"tcp": Goal(6.0, 9.0), "tls": Goal(6.0, 9.0)},
    ),
    Workload(
        "floats",
        "100k floats, round trip",
        {"ours": 12, "reference": 3},
        {"tcp": Goal(4.0, 5.0), "tls": Goal(4.0, 5.0)},
    ),
    Workload(
        "blocking",
        "one blocking call at a time",
        {"ours": 4000, "reference": 2000},
        {"tcp": Goal(1.5, 2.0), "tls": Goal(1.5, 2.0)},
        pinned=True,
    ),
    Workload(
        "futures",
        f"Futures, {IN_FLIGHT} in flight",
        {"ours": 12_000, "reference": 3000},
        {"tcp": Goal(3.0, 4.0), "tls": Goal(3.0, 4.0)},
    ),
)


@dataclass(frozen=True)
class Task:
    """What a worker is told to do."""

    workload: str
    calls: int
    port: int
    certificate: str | None = None
    """The file of the Manager's certificate; None: without TLS."""

    cpu: int | None = None
    """The CPU to run on; None: any."""

    @property
    def warm_up(self) -> int:
        """How many calls to make before those that are timed."""
        return max(1, self.calls // 20)


def floats() -> list[float]:
    """The 100,000 numbers of a list of typical readings, each with all its digits."""
    generator = random.Random(1875)  # the year of the metre convention
    return [generator.random() for _ in range(100_000)]


def check(task: Task, calls: int, result: Any) -> None:
    """Check what a workload returned, since a fast wrong answer is no answer.

    Args:
        task: What was done.
        calls: How many calls were made.
        result: The last echo; for other workloads the sum of all ``add(number, 1)``.

    Raises:
        RuntimeError: It is wrong.
    """
    right = floats() if task.workload == "floats" else calls * (calls + 1) // 2
    if result != right:
        raise RuntimeError(f"{task.workload}: {calls} calls came to a wrong result: {result!r:.80}")
