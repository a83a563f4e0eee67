"""Loads for all async APIs, independent of the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Final, Protocol

from benchmarks.tasks import Run, payload

Together = Callable[[Sequence[Callable[[], Awaitable[None]]]], Awaitable[None]]
"""Runs async functions concurrently, each in a task, and returns when all have ended."""


class Caller(Protocol):
    """A link, or its counterpart of another package."""

    async def add(self, first: int, second: int, /) -> int:
        """Return the sum of two numbers."""

    async def echo(self, value: Any, /) -> Any:
        """Return the value."""


async def one(caller: Caller, run: Run) -> int:
    """Make one call after the other."""
    total = 0
    for number in range(run.calls):
        began = perf_counter()
        total += await caller.add(number, 1)
        run.latencies.append(perf_counter() - began)
    return total


async def flight(callers: Sequence[Caller], run: Run, tasks_each: int, together: Together) -> int:
    """Keep this number of calls in flight at each caller, until all calls of the run are made."""
    numbers = iter(range(run.calls))
    total = 0

    def worker(caller: Caller) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            nonlocal total
            for number in numbers:
                answer = await caller.add(number, 1)
                total += answer

        return ask

    await together([worker(caller) for _ in range(tasks_each) for caller in callers])
    return total


async def bursts(caller: Caller, run: Run, together: Together) -> int:
    """Repeatedly start many tasks with one call each, and wait for all of them."""
    total = 0

    def asking(number: int) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            nonlocal total
            answer = await caller.add(number, 1)
            total += answer

        return ask

    for numbers in run.bursts():
        await together([asking(number) for number in numbers])
    return total


async def echoes(caller: Caller, run: Run) -> Any:
    """Send the same value there and back."""
    sent = payload(run)
    result = None
    for _ in range(run.calls):
        result = await caller.echo(sent)
    return result


PEER_LOADS: Final = ("one", "flight", "floats")
"""The loads that the clients of all peers support."""


async def peer_load(caller: Caller, run: Run, together: Together) -> Any:
    """Run a load that the clients of all peers support."""
    if run.load == "one":
        return await one(caller, run)
    if run.load == "flight":
        return await flight([caller], run, run.in_flight, together)
    return await echoes(caller, run)
