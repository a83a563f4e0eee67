"""Execution of rounds, in each of which all contestants of a case do their load one after the other.

Times of different minutes or machines cannot be compared. So contestants are measured side by side,
ratios are taken within a round, and the first contestant rotates from round to round.

Every round has new processes: the memory layout of a process can slow it down by a
third for its whole life, which would be mistaken for a property of the contestant.
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
"""Divisor of the number of calls in a quick run."""

Progress = Callable[[str, int], None]
"""Called with the current work, and the number of contestants that have finished since the last call."""


@dataclass(frozen=True)
class Plan:
    """Options of a measurement."""

    rounds: int
    """Number of rounds; best a multiple of the number of contestants, so that each is first equally often."""

    quick: bool = False
    """Whether to make fewer calls."""

    pin: str = "latency"
    """Cases that share one CPU: those that measure the ``latency`` of one call, ``all``, or ``none``."""

    def calls(self, contestant: Contestant) -> int:
        """Return the number of calls of a contestant in a round."""
        return max(1, contestant.calls // QUICK) if self.quick else contestant.calls

    def turns(self, case: Case) -> int:
        """Return the number of times that each contestant of a case does its load in a round."""
        return 1 if self.quick else case.turns

    def measures(self, case: Case, number: int) -> bool:
        """Return whether a case is measured in the round with this number, counted from 0."""
        if self.quick:
            return case.quick and not case.heavy
        return not case.heavy or number % 3 == 0

    def pins(self, case: Case) -> bool:
        """Return whether the processes of a case share one CPU."""
        return bool(ALLOWED) and (self.pin == "all" or (self.pin == "latency" and case.pinned))


@dataclass
class _Stage:
    """Servers and clients of one round of the cases of one suite and transport."""

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
        """Let a contestant do its load, and return the costs per call."""
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
        """Transfer large replies during the block, if the case requires it."""
        if case.background != "bulk":
            yield
            return
        where = [str(address.port), address.certificate] if address.certificate else [str(address.port)]
        with Child("bulk", "benchmarks.clients.bulk", *where, home=self.files.home) as bulk:
            yield
            bulk.ask({})  # this fails if the replies have stopped


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
    """Return groups of cases that share processes, by suite and transport, in their order.

    Memory is measured in processes of its own: memory that was used before and
    freed would be reused, or grow by accident.
    """
    found: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        alone = any(comparison.figure == "bytes" for comparison in case.comparisons)
        found.setdefault((case.suite, case.transport, case.key if alone else ""), []).append(case)
    return list(found.values())


def steps(cases: Sequence[Case], plan: Plan) -> int:
    """Return the total number of loads of a plan."""
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
    # The folder is removed last, when no process uses it.
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
    """Execute one round of cases that share processes, which are ended afterwards."""
    with ExitStack() as stack:
        stage = _Stage(files, stack, bulk=any(case.background == "bulk" for case in group))
        stage.prepare(group, progress)
        for case in group:
            first = number % len(case.contestants)
            order = case.contestants[first:] + case.contestants[:first]
            found: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in order}
            for turn in range(plan.turns(case)):
                # In both orders: a machine that becomes slower all the time affects each of them equally.
                for contestant in reversed(order) if turn % 2 else order:
                    progress(f"round {number + 1}: {case.full_title}, {contestant.name}", 0)
                    found[contestant.name].append(stage.measure(case, contestant, plan))
                    progress("", 1)
            for name, turns in found.items():
                measured[case.key].add(name, average(turns))
