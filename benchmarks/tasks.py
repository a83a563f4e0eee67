"""Tasks of client processes, and the measurement of their costs."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any, Final

import psutil

from benchmarks.statistics import percentile

HOST: Final = "127.0.0.1"
SERVICE: Final = "Bench"
"""Name of the Service that clients link with."""


@dataclass(frozen=True)
class Address:
    """Address of a server."""

    port: int = 0
    certificate: str | None = None
    """File of its certificate; None: no TLS."""

    pids: tuple[int, ...] = ()
    """Ids of its processes, the one that clients connect to first."""


@dataclass(frozen=True)
class Task:
    """Task of a client."""

    load: str
    calls: int
    transport: str
    address: Address
    size: int = 0
    cpu: int | None = None
    """CPU to run on; None: any."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Task:
        """Return the task that was sent as the JSON object of `dataclasses.asdict`."""
        address = Address(**value.pop("address"))
        return cls(address=Address(address.port, address.certificate, tuple(address.pids)), **value)

    @property
    def warm_up(self) -> Run:
        """The warm-up, which is not timed."""
        return Run(self.load, max(1, self.calls // 20), self.size)

    @property
    def run(self) -> Run:
        """The timed run."""
        return Run(self.load, self.calls, self.size)


@dataclass
class Run:
    """One run of a load."""

    load: str
    calls: int
    size: int = 0
    latencies: list[float] = field(default_factory=list)
    """Seconds of single calls, if the load measures them."""

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return self.size or 100

    def bursts(self) -> Iterable[range]:
        """Return the numbers of the calls of each burst."""
        size = self.in_flight
        return (range(begin, min(begin + size, self.calls)) for begin in range(0, self.calls, size))


def sum_of(calls: int) -> int:
    """Return the expected sum of ``add(number, 1)`` for this number of calls."""
    return calls * (calls + 1) // 2


def floats() -> list[float]:
    """A list of 100,000 typical readings, each with all its digits."""
    generator = random.Random(1875)  # the year of the Metre Convention
    return [generator.random() for _ in range(100_000)]


def text(size: int) -> str:
    """A text of this number of bytes."""
    return "0123456789abcdef" * (size // 16) + "=" * (size % 16)


def payload(run: Run) -> Any:
    """Return the value that is sent and returned."""
    return floats() if run.load == "floats" else text(run.size)


PAYLOADS: Final = ("floats", "line")
"""Loads that return the value sent, not a sum."""


def check(run: Run, result: Any) -> None:
    """Check the result of a load: a fast wrong answer does not count.

    Args:
        run: The run.
        result: The last echo; for other loads the sum of all ``add(number, 1)``.

    Raises:
        RuntimeError: The result is wrong.
    """
    right = payload(run) if run.load in PAYLOADS else sum_of(run.calls)
    if result != right:
        raise RuntimeError(f"{run.load}: {run.calls} calls came to a wrong result: {result!r:.80}")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time in seconds that a process with all its threads has used so far."""
    if sys.platform == "linux":
        # The clock of another process, numbered as by clock_getcpuclockid(3); it counts nanoseconds,
        # while other information about processes has a resolution of 10 ms.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Stopwatch:
    """Measurement of time, and of CPU time of this process and of the server.

    Attributes:
        figures: Costs per call, available after the end.
    """

    def __init__(self, task: Task, run: Run) -> None:
        self._task = task
        self._run = run
        self.figures: dict[str, float] = {}

    def _server_cpu(self) -> float:
        return sum((cpu_seconds(pid) for pid in self._task.address.pids), 0.0)

    def __enter__(self) -> Stopwatch:
        self._server = self._server_cpu()
        self._cpu = process_time()
        self._began = perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        seconds = perf_counter() - self._began
        cpu = process_time() - self._cpu
        server = self._server_cpu() - self._server
        calls = self._run.calls
        self.figures = {"seconds": seconds / calls, "cpu": cpu / calls, "server_cpu": server / calls}
        if self._run.latencies:
            self.figures["median"] = percentile(self._run.latencies, 50)
            self.figures["p99"] = percentile(self._run.latencies, 99)


def measure_blocking(task: Task, load: Callable[[Run], Any]) -> dict[str, float]:
    """Warm up, run a blocking load, check its result, and return its costs."""
    check(task.warm_up, load(task.warm_up))
    run = task.run
    with Stopwatch(task, run) as watch:
        result = load(run)
    check(run, result)
    return watch.figures


async def measure(task: Task, load: Callable[[Run], Awaitable[Any]]) -> dict[str, float]:
    """Warm up, run an async load, check its result, and return its costs."""
    check(task.warm_up, await load(task.warm_up))
    run = task.run
    with Stopwatch(task, run) as watch:
        result = await load(run)
    check(run, result)
    return watch.figures
