"""Carries out rounds with whole networks: in every round each of them does every workload.

As in `benchmarks.runner`, ratios are taken round by round, and every round has processes of its own. Who goes
first goes round, too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.fake_manager import make_certificate
from benchmarks.network.workloads import (
    BULK,
    BULK_PEER,
    BULK_SERVICE,
    KINDS,
    PEERS,
    REFERENCE,
    SERVICE,
    WORKLOADS,
    Workload,
)
from benchmarks.processes import Child
from benchmarks.runner import QUICK, pinning_cpu
from benchmarks.worker import ALLOWED
from benchmarks.workloads import TRANSPORTS, Task


@dataclass
class Measurement:
    """A workload over a transport, and what was measured of it."""

    workload: Workload
    transport: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """The time of one call in each round, by peer."""


@dataclass
class Case:
    """What is compared: our network, with methods of one kind, with that of the reference."""

    measurement: Measurement
    kind: str

    @property
    def workload(self) -> Workload:
        """What is done."""
        return self.measurement.workload

    @property
    def name(self) -> str:
        """The name of the case, as ``--only`` knows it."""
        return f"{self.workload.name}-{self.measurement.transport}-{self.kind}"

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of groups of cases to which it belongs, for ``--only``."""
        workload, transport = self.workload.name, self.measurement.transport
        return workload, transport, self.kind, f"{workload}-{transport}"

    @property
    def title(self) -> str:
        """The name of the case for people."""
        return f"{self.workload.title}, {self.measurement.transport.upper()}, {self.kind}"

    @property
    def pinned(self) -> bool:
        """Whether all processes share one CPU."""
        return self.workload.pinned

    @property
    def goals(self) -> dict[str, float | None]:
        """What the ratio is to be, by the name of the goal, from the least to the greatest."""
        return asdict(self.workload.goals)

    @property
    def peer(self) -> str:
        """Who of us is compared."""
        return f"ours-{self.kind}"

    @property
    def seconds(self) -> dict[str, list[float]]:
        """The time of one call in each round: ours and that of the reference."""
        seconds = self.measurement.seconds
        return {"ours": seconds[self.peer], "reference": seconds[REFERENCE]}

    @property
    def ratios(self) -> list[float]:
        """How many times faster than the reference we were, round by round."""
        seconds = self.seconds
        return [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["reference"], strict=True)]

    @property
    def median(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)


def all_cases() -> list[Case]:
    """Return every workload over every transport, with each kind of methods."""
    measurements = [Measurement(workload, transport) for workload in WORKLOADS for transport in TRANSPORTS]
    return [Case(measurement, kind) for measurement in measurements for kind in KINDS]


class _Network:
    """A Manager and its Services, each in a process of its own.

    Args:
        peer: Whose.
        files: Certificate and key; None: no TLS.
        home: The home folder of MSL-Network for all of them.
        stack: Ends them.
        bulk: Whether there is to be a Service for large replies.
    """

    def __init__(
        self, peer: str, files: tuple[Path, Path] | None, home: Path, stack: ExitStack, *, bulk: bool
    ) -> None:
        self._home = home
        self._certificate = None if files is None else str(files[0])
        whose = "reference" if peer == REFERENCE else "ours"
        secure = [] if files is None else ["--certificate", str(files[0]), "--key", str(files[1])]
        # A name of which those that are shown when something fails are not: it has a line for each call.
        log = home / f"{peer}-manager.everything"
        manager = stack.enter_context(
            Child(
                f"{peer}-manager",
                "benchmarks.network.manager",
                whose,
                "--log-file",
                str(log),
                *secure,
                home=home,
            )
        )
        self._port: int = manager.ready["port"]
        self._processes = [manager]
        services = {SERVICE: peer} | ({BULK_SERVICE: BULK_PEER} if bulk else {})
        for name, whose in services.items():
            arguments = [whose, name, *self._address()]
            self._processes.append(
                stack.enter_context(
                    Child(f"{peer}-{name}", "benchmarks.network.service", *arguments, home=home)
                )
            )

    def _address(self) -> list[str]:
        return [str(self._port)] if self._certificate is None else [str(self._port), self._certificate]

    def measure(self, workload: Workload, calls: int, client: Child) -> float:
        """Have the client carry out a workload, and return how many seconds one call took."""
        with self._conditions(workload):
            task = Task(
                workload=workload.name,
                calls=calls,
                port=self._port,
                certificate=self._certificate,
                cpu=pinning_cpu() if workload.pinned else None,
            )
            seconds: float = client.ask(asdict(task))["seconds"]
        return seconds

    @contextmanager
    def _conditions(self, workload: Workload) -> Iterator[None]:
        """Create the conditions under which a workload is carried out."""
        cpu = pinning_cpu()
        if workload.pinned and cpu is not None:
            self._pin({cpu})
            yield
            self._pin(ALLOWED)
        elif workload is BULK:
            with Child("bulk", "benchmarks.network.bulk", *self._address(), home=self._home) as bulk:
                yield
                bulk.ask({})  # which fails if the replies have come to a stop
        else:
            yield

    def _pin(self, cpus: set[int]) -> None:
        for process in self._processes:
            # Each thread has CPUs of its own; those that are started later inherit them.
            threads = Path(f"/proc/{process.pid}/task")
            for thread in threads.iterdir() if threads.exists() else (Path(str(process.pid)),):
                os.sched_setaffinity(int(thread.name), cpus)


def run(
    cases: Sequence[Case], rounds: int, progress: Callable[[str], None], *, quick: bool = False
) -> dict[str, str]:
    """Measure the cases, and return what else the ratios depend on.

    Args:
        cases: What to measure; the times are added to their measurements.
        rounds: How many rounds to make.
        progress: Is told what is being done.
        quick: Whether to make fewer calls.

    Raises:
        ChildFailed: A process failed.
    """
    peers = [peer for peer in PEERS if peer == REFERENCE or any(case.peer == peer for case in cases)]
    # Each just once, in their order.
    measurements = list({id(case.measurement): case.measurement for case in cases}.values())
    for measurement in measurements:
        measurement.seconds = {peer: [] for peer in peers}
    # The folder is left last, when no process uses it any more.
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        home = Path(folder)
        progress("starting")
        files = make_certificate(home)
        for number in range(rounds):
            first = number % len(peers)
            order = peers[first:] + peers[:first]
            for transport in TRANSPORTS:
                chosen = [each for each in measurements if each.transport == transport]
                if chosen:
                    _round(
                        chosen,
                        order,
                        files if transport == "tls" else None,
                        home,
                        partial(_show, progress, f"round {number + 1} of {rounds}"),
                        quick=quick,
                    )
    cpu = pinning_cpu()
    return {
        "managers": "log level INFO, to a file and to a console that is os.devnull",
        "client": "ours, for all",
        "pinned": "not possible here" if cpu is None else f"Manager, Service and client on CPU {cpu}",
    }


def _show(progress: Callable[[str], None], where: str, what: str) -> None:
    progress(f"{where}: {what}")


def _round(
    measurements: Sequence[Measurement],
    order: Sequence[str],
    files: tuple[Path, Path] | None,
    home: Path,
    progress: Callable[[str], None],
    *,
    quick: bool,
) -> None:
    """Make one round over one transport; nothing of it is left afterwards."""
    bulk = any(measurement.workload is BULK for measurement in measurements)
    with ExitStack() as stack:
        progress("starting")
        networks = {peer: _Network(peer, files, home, stack, bulk=bulk) for peer in order}
        # Last, so that it is ended first.
        client = stack.enter_context(Child("client", "benchmarks.network.client", home=home))
        for measurement in measurements:
            workload = measurement.workload
            for peer in order:
                progress(f"{workload.title}, {measurement.transport.upper()}, {peer}")
                calls = workload.calls["reference" if peer == REFERENCE else "ours"]
                calls = max(1, calls // QUICK) if quick else calls
                measurement.seconds[peer].append(networks[peer].measure(workload, calls, client))
