"""The workloads on the client of msl-network 1.0.0, with its logging as it comes.

Its API offers Futures to have many requests on their way, and nothing else, so both workloads that
always have as many in flight are a window of Futures here.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from msl.network import connect

from benchmarks import blocking
from benchmarks.workloads import IN_FLIGHT, Task, check, floats


def _bursts(link: Any, calls: int) -> int:
    total = 0
    for begin in range(0, calls, IN_FLIGHT):
        numbers = range(begin, min(begin + IN_FLIGHT, calls))
        for future in [link.add(number, 1, asynchronous=True) for number in numbers]:
            total += future.result()
    return total


def _floats(link: Any, calls: int) -> Any:
    numbers = floats()
    result = None
    for _ in range(calls):
        result = link.echo(numbers)
    return result


_RUN: dict[str, Callable[[Any, int], Any]] = {
    "one": blocking.one,
    "flight": blocking.window,
    "handles": blocking.window,
    "bursts": _bursts,
    "floats": _floats,
    "blocking": blocking.one,
    "futures": blocking.window,
}


def measure(task: Task) -> float:
    """Carry out a task and return how many seconds its calls took."""
    run = _RUN[task.workload]
    tls = task.certificate is not None
    client = connect(
        name="reference", host="127.0.0.1", port=task.port, disable_tls=not tls, cert_file=task.certificate
    )
    try:
        link = client.link("Fake")
        check(task, task.warm_up, run(link, task.warm_up))
        started = perf_counter()
        result = run(link, task.calls)
        seconds = perf_counter() - started
    finally:
        client.disconnect()
    check(task, task.calls, result)
    return seconds
