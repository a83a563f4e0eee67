"""Carries out rounds: in every round each contestant of a case does its load, one right after the other.

Times of different minutes, let alone machines, cannot be compared. So contestants are measured side by side
and the ratios are taken round by round; who goes first goes round.

Every round has processes of its own: how memory happens to be laid out in a process can make it slower by a
third for all its life, which would pass for a property of the contestant.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.cases import Case, Contestant, Measured
from benchmarks.placement import ALLOWED, one_cpu, pin
from benchmarks.processes import ANSWER, LONG, Child
from benchmarks.servers import network
from benchmarks.servers.fake_manager import make_certificate
from benchmarks.statistics import average
from benchmarks.tasks import Address, Task

QUICK: Final = 5
"""How many times fewer calls a quick run makes."""

Progress = Callable[[str, int], None]
"""Is told what is being done, and how many contestants have done theirs since the last time."""


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    rounds: int
    """Best a multiple of the number of contestants, so that each goes first as often as any other."""

    quick: bool = False
    """Whether to make fewer calls."""

    pin: str = "latency"
    """Which cases share one CPU: those that measure the ``latency`` of one call, ``all``, or ``none``."""

    def calls(self, contestant: Contestant) -> int:
        """Return how many calls a contestant makes in a round."""
        return max(1, contestant.calls // QUICK) if self.quick else contestant.calls

    def turns(self, case: Case) -> int:
        """Return how many times each contestant of a case does its load in a round."""
        return 1 if self.quick else case.turns

    def measures(self, case: Case, number: int) -> bool:
        """Tell whether a case is measured in the round of this number, from 0."""
        if self.quick:
            return case.quick and not case.heavy
        return not case.heavy or number % 3 == 0

    def pins(self, case: Case) -> bool:
        """Tell whether the processes of a case share one CPU."""
        return bool(ALLOWED) and (self.pin == "all" or (self.pin == "latency" and case.pinned))


@dataclass
class _Stage:
    """What runs in one round of the cases of one suite and transport: servers and clients."""

    files: network.Files
    stack: ExitStack
    bulk: bool
    servers: dict[tuple[str, str], Address] = field(default_factory=dict)
    clients: dict[str, Child] = field(default_factory=dict)

    def prepare(self, cases: Sequence[Case], progress: Progress) -> None:
        """Start everything, the clients last, so that they are ended first."""
        contestants = [contestant for case in cases for contestant in case.contestants]
        for each in contestants:
            key = (each.server, each.transport)
            if each.server and key not in self.servers:
                progress(f"starting {each.server}, {each.transport}", 0)
                self.servers[key] = network.start(*key, self.files, self.stack, bulk=self.bulk)
        for each in contestants:
            if each.client not in self.clients:
                progress(f"starting {each.client}", 0)
                name = each.client.rpartition(".")[2]
                client = Child(f"client-{name}", "benchmarks.worker", each.client, home=self.files.home)
                self.clients[each.client] = self.stack.enter_context(client)

    def measure(self, case: Case, contestant: Contestant, plan: Plan) -> dict[str, float]:
        """Have a contestant do its load, and return the costs of one call."""
        address = self.servers.get((contestant.server, contestant.transport), Address())
        cpu = one_cpu() if plan.pins(case) else None
        task = Task(
            load=contestant.load,
            calls=plan.calls(contestant),
            transport=contestant.transport,
            address=address,
            size=contestant.size,
            cpu=cpu,
        )
        with self._background(case, address), _pinned(address.pids, cpu):
            return self.clients[contestant.client].ask(asdict(task), LONG if case.heavy else ANSWER)

    @contextmanager
    def _background(self, case: Case, address: Address) -> Iterator[None]:
        """Have large replies pass meanwhile, if the case wants it."""
        if case.background != "bulk":
            yield
            return
        where = [str(address.port), address.certificate] if address.certificate else [str(address.port)]
        with Child("bulk", "benchmarks.clients.bulk", *where, home=self.files.home) as bulk:
            yield
            bulk.ask({})  # which fails if the replies have come to a stop


@contextmanager
def _pinned(pids: Sequence[int], cpu: int | None) -> Iterator[None]:
    if cpu is None:
        yield
        return
    for pid in pids:
        pin(pid, cpu)
    yield
    for pid in pids:
        pin(pid, None)


def groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Return the cases of each suite and transport, which share processes, in their order.

    But memory is measured in processes that have done nothing else: what they had used before, and given
    back, would be used again or grow by accident.
    """
    found: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        alone = any(comparison.figure == "bytes" for comparison in case.comparisons)
        found.setdefault((case.suite, case.transport, case.key if alone else ""), []).append(case)
    return list(found.values())


def steps(cases: Sequence[Case], plan: Plan) -> int:
    """Return how many times a contestant does its load."""
    return sum(
        len(case.contestants) * plan.turns(case)
        for number in range(plan.rounds)
        for case in cases
        if plan.measures(case, number)
    )


def run(cases: Sequence[Case], plan: Plan, progress: Progress) -> list[Measured]:
    """Measure the cases.

    Raises:
        ChildFailed: A process failed.
    """
    measured = {case.key: Measured(case) for case in cases}
    # The folder is left last, when no process uses it any more.
    with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
        progress("making a certificate", 0)
        home = Path(folder)
        files = network.Files(home, *make_certificate(home))
        for number in range(plan.rounds):
            for group in groups([case for case in cases if plan.measures(case, number)]):
                _round(number, group, plan, files, measured, progress)
    return list(measured.values())


def _round(
    number: int,
    group: Sequence[Case],
    plan: Plan,
    files: network.Files,
    measured: dict[str, Measured],
    progress: Progress,
) -> None:
    """Make one round of cases that share processes; nothing of it is left afterwards."""
    with ExitStack() as stack:
        stage = _Stage(files, stack, bulk=any(case.background == "bulk" for case in group))
        stage.prepare(group, progress)
        for case in group:
            first = number % len(case.contestants)
            order = case.contestants[first:] + case.contestants[:first]
            found: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in order}
            for turn in range(plan.turns(case)):
                # There and back: a machine that becomes slower all the time is as bad for each of them.
                for contestant in reversed(order) if turn % 2 else order:
                    progress(f"round {number + 1}: {case.full_title}, {contestant.name}", 0)
                    found[contestant.name].append(stage.measure(case, contestant, plan))
                    progress("", 1)
            for name, turns in found.items():
                measured[case.key].add(name, average(turns))
