"""Loads for the client of msl-network 1.0.0, with its default logging.

Its API has only Futures for concurrent requests, so all loads with many calls in flight use Futures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MethodType
from typing import Any, Final

from msl.network import connect

from benchmarks.clients import blocking
from benchmarks.clients.idle import Footprint, opened_first
from benchmarks.tasks import HOST, SERVICE, Run, Stopwatch, Task, measure_blocking, sum_of


def _window(link: Any, run: Run) -> int:
    return blocking.window(blocking.futures_of(link), run)


def _bursts(link: Any, run: Run) -> int:
    return blocking.bursts(blocking.futures_of(link), run)


def _burst(link: Any, run: Run) -> int:
    """Receive many notifications at once with a handler."""
    total = 0
    arrived = threading.Event()
    expected: Iterator[int] = iter(())
    last = -1

    def handler(link: Any, number: int) -> None:
        nonlocal total
        if number == next(expected):
            total += number + 1
        if number == last:
            arrived.set()

    link.notification_handler = MethodType(handler, link)
    for numbers in run.bursts():
        expected, last = iter(numbers), numbers[-1]
        arrived.clear()
        if link.emit(numbers.start, numbers.stop) != len(numbers):
            raise RuntimeError("another number of notifications was emitted")
        if not arrived.wait(30):
            raise RuntimeError("a notification did not come")
    return total


_ON_LINK: dict[str, Callable[[Any, Run], Any]] = {
    "one": blocking.one,
    "blocking": blocking.one,
    "blocking-handler": blocking.handled,
    "flight": _window,
    "handles": _window,
    "futures": _window,
    "bursts": _bursts,
    "handle-bursts": _bursts,
    "floats": blocking.echoes,
    "line": blocking.echoes,
    "burst": _burst,
    "burst-stream": _burst,
}


@contextmanager
def _connected(task: Task) -> Iterator[Any]:
    address = task.address
    client = connect(
        name="reference",
        host=HOST,
        port=address.port,
        disable_tls=address.certificate is None,
        cert_file=address.certificate,
        timeout=30,
    )
    try:
        yield client
    finally:
        client.disconnect()


def _measure_on_link(task: Task) -> dict[str, float]:
    with _connected(task) as client:
        return measure_blocking(task, partial(_ON_LINK[task.load], client.link(SERVICE)))


def _measure_connections(task: Task) -> dict[str, float]:
    """Keep two calls in flight on each of many connections."""
    with ExitStack() as stack:
        links = [stack.enter_context(_connected(task)).link(SERVICE) for _ in range(task.size)]

        def load(run: Run) -> int:
            return blocking.window(blocking.futures_of(*links), Run(run.load, run.calls, size=2 * len(links)))

        return measure_blocking(task, load)


def _measure_connecting(task: Task) -> dict[str, float]:
    """Repeatedly connect and disconnect."""

    def load(run: Run) -> int:
        connected = 0
        for _ in range(run.calls):
            with _connected(task) as client:
                connected += client.is_connected()
        return sum_of(connected)

    return measure_blocking(task, load)


def _measure_idle(task: Task) -> dict[str, float]:
    """Open connections without using them."""
    with ExitStack() as stack:
        for _ in range(opened_first(task.calls)):
            stack.enter_context(_connected(task))
        before = Footprint()
        with Stopwatch(task, task.run) as watch:
            for _ in range(task.calls):
                stack.enter_context(_connected(task))
        return watch.figures | before.grown(task.calls)


_ALONE: dict[str, Callable[[Task], dict[str, float]]] = {
    "connections": _measure_connections,
    "connect": _measure_connecting,
    "idle": _measure_idle,
}


LOADS: Final = frozenset({*_ON_LINK, *_ALONE})
"""The supported loads."""


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    return _ALONE.get(task.load, _measure_on_link)(task)
