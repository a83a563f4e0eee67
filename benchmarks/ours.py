"""The workloads on our client: on the async API, and on the blocking one what its name begins with."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import trio

from benchmarks import blocking
from benchmarks.workloads import IN_FLIGHT, Task, check, floats
from msl_network_trio import Link, Reply, connect, sync
from msl_network_trio.sync import Link as BlockingLink


async def _one(link: Link, calls: int) -> int:
    total = 0
    for number in range(calls):
        total += await link.add(number, 1)
    return total


async def _flight(link: Link, calls: int) -> int:
    numbers = iter(range(calls))
    total = 0

    async def ask() -> None:
        nonlocal total
        for number in numbers:
            answer = await link.add(number, 1)
            total += answer

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(ask)
    return total


async def _handles(link: Link, calls: int) -> int:
    """Always keep as many on their way: await the oldest, then start another."""
    total = 0
    window: deque[Reply] = deque()
    for number in range(calls):
        if len(window) == IN_FLIGHT:
            total += await window.popleft()
        window.append(link.add(number, 1, asynchronous=True))
    while window:
        total += await window.popleft()
    return total


async def _bursts(link: Link, calls: int) -> int:
    """Start many, await them all, and so on."""
    total = 0
    for begin in range(0, calls, IN_FLIGHT):
        numbers = range(begin, min(begin + IN_FLIGHT, calls))
        for reply in [link.add(number, 1, asynchronous=True) for number in numbers]:
            total += await reply
    return total


async def _floats(link: Link, calls: int) -> Any:
    numbers = floats()
    result = None
    for _ in range(calls):
        result = await link.echo(numbers)
    return result


_RUN_BLOCKING: dict[str, Callable[[BlockingLink, int], Any]] = {
    "blocking": blocking.one,
    "futures": blocking.window,
}

_RUN: dict[str, Callable[[Link, int], Awaitable[Any]]] = {
    "one": _one,
    "flight": _flight,
    "handles": _handles,
    "bursts": _bursts,
    "floats": _floats,
}


async def _measure(task: Task) -> float:
    run = _RUN[task.workload]
    tls = task.certificate is not None
    async with (
        connect(
            name="ours", host="127.0.0.1", port=task.port, disable_tls=not tls, cert_file=task.certificate
        ) as client,
        client.link("Fake") as link,
    ):
        check(task, task.warm_up, await run(link, task.warm_up))
        started = perf_counter()
        result = await run(link, task.calls)
        seconds = perf_counter() - started
    check(task, task.calls, result)
    return seconds


def _measure_blocking(task: Task) -> float:
    run = _RUN_BLOCKING[task.workload]
    tls = task.certificate is not None
    with (
        sync.connect(
            name="ours", host="127.0.0.1", port=task.port, disable_tls=not tls, cert_file=task.certificate
        ) as client,
        client.link("Fake") as link,
    ):
        check(task, task.warm_up, run(link, task.warm_up))
        started = perf_counter()
        result = run(link, task.calls)
        seconds = perf_counter() - started
    check(task, task.calls, result)
    return seconds


def measure(task: Task) -> float:
    """Carry out a task and return how many seconds its calls took."""
    if task.workload in _RUN_BLOCKING:
        return _measure_blocking(task)
    return trio.run(_measure, task)
