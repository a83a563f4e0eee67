"""The loads that are the same on every async API, whatever the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Final, Protocol

from benchmarks.tasks import Run, payload

Together = Callable[[Sequence[Callable[[], Awaitable[None]]]], Awaitable[None]]
"""Runs async functions at the same time, each in a task of its own, and returns when all have ended."""


class Caller(Protocol):
    """What makes calls: a link, or what a peer has in its place."""

    async def add(self, first: int, second: int, /) -> int:
        """Have two numbers added."""

    async def echo(self, value: Any, /) -> Any:
        """Have a value sent back."""


async def one(caller: Caller, run: Run) -> int:
    """Make one call after the other."""
    total = 0
    for number in range(run.calls):
        began = perf_counter()
        total += await caller.add(number, 1)
        run.latencies.append(perf_counter() - began)
    return total


async def flight(callers: Sequence[Caller], run: Run, tasks_each: int, together: Together) -> int:
    """Always keep as many calls on their way at each caller, all together making those of the run."""
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
    """Start many tasks with one call each, wait for them all, and so on."""
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
    """Send the same there and back."""
    sent = payload(run)
    result = None
    for _ in range(run.calls):
        result = await caller.echo(sent)
    return result


PEER_LOADS: Final = ("one", "flight", "floats")
"""What the client of every peer can do."""


async def peer_load(caller: Caller, run: Run, together: Together) -> Any:
    """Do what every peer can do."""
    if run.load == "one":
        return await one(caller, run)
    if run.load == "flight":
        return await flight([caller], run, run.in_flight, together)
    return await echoes(caller, run)
