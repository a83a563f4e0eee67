"""Loads for the client of this package, with the async and the blocking API."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import trio

from benchmarks.cases import WEBSOCKET
from benchmarks.clients import asynchronous, blocking
from benchmarks.clients.idle import Footprint, opened_first
from benchmarks.tasks import (
    HOST,
    SERVICE,
    Run,
    Stopwatch,
    Task,
    measure_blocking,
    sum_of,
)
from benchmarks.tasks import measure as measure_async
from msl_network_trio import Link, NotificationStream, Reply, connect, sync

INTERVAL: Final = 0.02
"""Seconds between the starts of calls at fixed times.

Calls start even if previous ones are not answered: otherwise a slow network would
get fewer calls just when it is slow.
"""


async def together(functions: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run async functions concurrently."""
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)


async def _handles(link: Link, run: Run) -> int:
    """Keep a number of handles in flight from one task: await the oldest, then start another."""
    total = 0
    window: deque[Reply] = deque()
    for number in range(run.calls):
        if len(window) == run.in_flight:
            total += await window.popleft()
        window.append(link.add(number, 1, asynchronous=True))
    while window:
        total += await window.popleft()
    return total


async def _handle_bursts(link: Link, run: Run) -> int:
    """Repeatedly create many handles in one task, and await all of them."""
    total = 0
    for numbers in run.bursts():
        for reply in [link.add(number, 1, asynchronous=True) for number in numbers]:
            total += await reply
    return total


async def _cancelled(link: Link, run: Run) -> int:
    """Start bursts of tasks in which every other call is cancelled after it was written.

    The expected results of the cancelled calls are added, so that the sum can be checked.
    """
    total = 0

    async def ask(number: int, scope: trio.CancelScope) -> None:
        nonlocal total
        answer = number + 1
        with scope:
            answer = await link.add(number, 1)
        total += answer

    for numbers in run.bursts():
        scopes = [trio.CancelScope() for _ in numbers]
        async with trio.open_nursery() as nursery:
            for number, scope in zip(numbers, scopes, strict=True):
                nursery.start_soon(ask, number, scope)
            await trio.lowlevel.checkpoint()
            for scope in scopes[::2]:
                scope.cancel()
    return total


async def _receive(stream: NotificationStream, numbers: range) -> int:
    """Receive the notifications of these numbers, and return the sum that ``add`` would give."""
    total = 0
    expected, last = iter(numbers), numbers[-1]
    async for notification in stream:
        number = notification.args[0]
        if number != next(expected):
            raise RuntimeError(f"the notification is {notification!r:.80} and not the next of {numbers}")
        total += number + 1
        if number == last:
            break
    return total


async def _burst(link: Link, run: Run) -> int:
    """Receive many notifications at once with a handler, as the reference does."""
    total = 0
    arrived = trio.Event()
    expected: Iterator[int] = iter(())
    last = -1

    def handler(number: int) -> None:
        nonlocal total
        if number == next(expected):
            total += number + 1
        if number == last:
            arrived.set()

    link.notification_handler = handler
    for numbers in run.bursts():
        expected, last, arrived = iter(numbers), numbers[-1], trio.Event()
        if await link.emit(numbers.start, numbers.stop) != len(numbers):
            raise RuntimeError("another number of notifications was emitted")
        await arrived.wait()
    return total


async def _burst_by_stream(link: Link, run: Run) -> int:
    """Receive many notifications at once from a stream."""
    total = 0
    async with link.notifications(max_buffer_size=run.in_flight) as stream:
        for numbers in run.bursts():
            reply = link.emit(numbers.start, numbers.stop, asynchronous=True)
            total += await _receive(stream, numbers)
            if await reply != len(numbers):
                raise RuntimeError("another number of notifications was emitted")
    return total


async def _ticks(link: Link, run: Run) -> int:
    """Receive notifications one by one."""
    total = 0
    async with link.notifications() as stream:
        for number in range(run.calls):
            await link.emit(number, number + 1)
            total += await _receive(stream, range(number, number + 1))
    return total


async def _fixed_times(link: Link, run: Run) -> int:
    """Make calls at fixed times, whether or not previous ones have been answered."""
    total = 0

    async def ask(number: int, time: float) -> None:
        nonlocal total
        answer = await link.add(number, 1)
        run.latencies.append(trio.current_time() - time)
        total += answer

    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(run.calls):
            time = begin + number * INTERVAL
            await trio.sleep_until(time)
            nursery.start_soon(ask, number, time)
    return total


async def _flight(link: Link, run: Run) -> int:
    return await asynchronous.flight([link], run, run.in_flight, together)


async def _task_bursts(link: Link, run: Run) -> int:
    return await asynchronous.bursts(link, run, together)


_ON_LINK: dict[str, Callable[[Link, Run], Awaitable[Any]]] = {
    "one": asynchronous.one,
    "flight": _flight,
    "bursts": _task_bursts,
    "handles": _handles,
    "handle-bursts": _handle_bursts,
    "floats": asynchronous.echoes,
    "line": asynchronous.echoes,
    "cancelled": _cancelled,
    "burst": _burst,
    "burst-stream": _burst_by_stream,
    "ticks": _ticks,
    "fixed-times": _fixed_times,
}


def _blocking_futures(link: Any, run: Run) -> int:
    return blocking.window(blocking.futures_of(link), run)


_ON_BLOCKING_LINK: dict[str, Callable[[Any, Run], Any]] = {
    "blocking": blocking.one,
    "blocking-handler": blocking.handled,
    "futures": _blocking_futures,
}


def connect_arguments(task: Task) -> dict[str, Any]:
    """Return the arguments of `connect` for the server of a task."""
    arguments: dict[str, Any] = {
        "name": "ours",
        "host": HOST,
        "port": task.address.port,
        "disable_tls": task.address.certificate is None,
        "cert_file": task.address.certificate,
        "timeout": 30,
    }
    if task.transport in WEBSOCKET:
        arguments["transport"] = "websocket"
    return arguments


async def _measure_on_link(task: Task) -> dict[str, float]:
    async with connect(**connect_arguments(task)) as client, client.link(SERVICE) as link:
        return await measure_async(task, partial(_ON_LINK[task.load], link))


def _measure_on_blocking_link(task: Task) -> dict[str, float]:
    with sync.connect(**connect_arguments(task)) as client, client.link(SERVICE) as link:
        return measure_blocking(task, partial(_ON_BLOCKING_LINK[task.load], link))


async def _measure_connections(task: Task) -> dict[str, float]:
    """Keep two calls in flight on each of many connections."""
    async with AsyncExitStack() as stack:
        links = []
        for _ in range(task.size):
            client = await stack.enter_async_context(connect(**connect_arguments(task)))
            links.append(await stack.enter_async_context(client.link(SERVICE)))

        async def load(run: Run) -> int:
            return await asynchronous.flight(links, run, 2, together)

        return await measure_async(task, load)


async def _measure_connecting(task: Task) -> dict[str, float]:
    """Repeatedly connect and disconnect."""

    async def load(run: Run) -> int:
        connected = 0
        for _ in range(run.calls):
            async with connect(**connect_arguments(task)) as client:
                connected += client.is_connected()
        return sum_of(connected)

    return await measure_async(task, load)


async def _measure_idle(task: Task) -> dict[str, float]:
    """Open connections without using them."""
    async with AsyncExitStack() as stack:
        for _ in range(opened_first(task.calls)):
            await stack.enter_async_context(connect(**connect_arguments(task)))
        before = Footprint()
        with Stopwatch(task, task.run) as watch:
            for _ in range(task.calls):
                await stack.enter_async_context(connect(**connect_arguments(task)))
        return watch.figures | before.grown(task.calls)


_ALONE: dict[str, Callable[[Task], Awaitable[dict[str, float]]]] = {
    "connections": _measure_connections,
    "connect": _measure_connecting,
    "idle": _measure_idle,
}


LOADS: Final = frozenset({*_ON_LINK, *_ON_BLOCKING_LINK, *_ALONE})
"""The supported loads."""


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    if task.load in _ON_BLOCKING_LINK:
        return _measure_on_blocking_link(task)
    return trio.run(_ALONE.get(task.load, _measure_on_link), task)
