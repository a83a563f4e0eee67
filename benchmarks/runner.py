"""Carries out rounds: in every round each peer does every workload, one right after the other.

Times of different minutes, let alone machines, cannot be compared. So the two peers are measured side by side
and the ratio is taken round by round; who goes first alternates.

Every round has processes of its own: how memory happens to be laid out in a process can make it slower by a
third for all its life, which would pass for a property of the peer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.processes import Child
from benchmarks.worker import ALLOWED
from benchmarks.workloads import PEERS, TRANSPORTS, WORKLOADS, Task, Workload

QUICK = 5
"""How many times fewer calls a quick run makes."""


@dataclass
class Case:
    """A workload over a transport, and what was measured of it."""

    workload: Workload
    transport: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {peer: [] for peer in PEERS})
    """The time of one call in each round, by peer."""

    @property
    def name(self) -> str:
        """The name of the case, as ``--only`` knows it."""
        return f"{self.workload.name}-{self.transport}"

    @property
    def title(self) -> str:
        """The name of the case for people."""
        return f"{self.workload.title}, {self.transport.upper()}"

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of groups of cases to which it belongs, for ``--only``."""
        return self.workload.name, self.transport

    @property
    def pinned(self) -> bool:
        """Whether client and Manager share one CPU."""
        return self.workload.pinned

    @property
    def goals(self) -> dict[str, float | None]:
        """What the ratio is to be, by the name of the goal, from the least to the greatest."""
        return asdict(self.workload.goals[self.transport])

    @property
    def ratios(self) -> list[float]:
        """How many times faster than the reference we were, round by round."""
        return [
            theirs / ours
            for ours, theirs in zip(self.seconds["ours"], self.seconds["reference"], strict=True)
        ]

    @property
    def median(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)


def all_cases() -> list[Case]:
    """Return every workload over every transport."""
    return [Case(workload, transport) for workload in WORKLOADS for transport in TRANSPORTS]


def pinning_cpu() -> int | None:
    """Return the CPU that pinned workloads run on; None if processes cannot be pinned here."""
    return min(ALLOWED, default=None)


def run(
    cases: Sequence[Case], rounds: int, progress: Callable[[str], None], *, quick: bool = False
) -> dict[str, str]:
    """Measure the cases, and return what else the ratios depend on.

    Args:
        cases: What to measure; the times are added to them.
        rounds: How many rounds to make.
        progress: Is told what is being done.
        quick: Whether to make fewer calls.

    Raises:
        ChildFailed: A peer or the fake Manager failed.
    """
    # The folder is left last, when no process uses it any more.
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder, ExitStack() as stack:
        home = Path(folder)
        progress("starting")
        manager = stack.enter_context(
            Child("manager", "benchmarks.fake_manager", "--until-eof", "--home", folder, home=home)
        )
        for number in range(rounds):
            order = PEERS if number % 2 == 0 else PEERS[::-1]
            with ExitStack() as in_round:
                workers = {
                    peer: in_round.enter_context(Child(peer, "benchmarks.worker", peer, home=home))
                    for peer in PEERS
                }
                for case in cases:
                    progress(f"round {number + 1} of {rounds}: {case.title}")
                    _pin(manager, case)
                    for peer in order:
                        task = _task(case, peer, manager, quick=quick)
                        answer = workers[peer].ask(asdict(task))
                        case.seconds[peer].append(answer["seconds"] / task.calls)
        cpu = pinning_cpu()
        return {
            "manager": f"fake, on {manager.ready['loop']}",
            "pinned": "not possible here" if cpu is None else f"client and Manager on CPU {cpu}",
        }


def _pin(manager: Child, case: Case) -> None:
    if hasattr(os, "sched_setaffinity"):
        # Of the Manager's threads this concerns the first one, which is the one that works.
        os.sched_setaffinity(manager.pid, {min(ALLOWED)} if case.workload.pinned else ALLOWED)


def _task(case: Case, peer: str, manager: Child, *, quick: bool) -> Task:
    calls = case.workload.calls[peer]
    return Task(
        workload=case.workload.name,
        calls=max(1, calls // QUICK) if quick else calls,
        port=manager.ready[case.transport],
        certificate=manager.ready["certificate"] if case.transport == "tls" else None,
        cpu=pinning_cpu() if case.workload.pinned else None,
    )
