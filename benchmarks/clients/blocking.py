"""Loads for both blocking APIs, which are the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import cycle
from time import perf_counter
from types import MethodType
from typing import Any, Protocol

from benchmarks.tasks import Run, payload


class Caller(Protocol):
    """A link, or its counterpart of another package."""

    def add(self, first: int, second: int, /) -> int:
        """Return the sum of two numbers."""

    def echo(self, value: Any, /) -> Any:
        """Return the value."""


def one(caller: Caller, run: Run) -> int:
    """Make one call after the other."""
    total = 0
    for number in range(run.calls):
        began = perf_counter()
        total += caller.add(number, 1)
        run.latencies.append(perf_counter() - began)
    return total


def handled(link: Any, run: Run) -> int:
    """Make one call after the other, with a notification handler that receives nothing."""
    handled: list[int] = []

    def handler(_: Any, number: int) -> None:
        handled.append(number)

    link.notification_handler = MethodType(handler, link)
    if link.emit(0, 1) != 1 or handled != [0]:
        raise RuntimeError("a notification was not handled before the call returned")
    return one(link, run)


def window(start: Callable[[int], Callable[[], int]], run: Run) -> int:
    """Keep a number of calls in flight: wait for the oldest, then start another.

    Args:
        start: Starts the call of a number, and returns a function that waits for its result.
        run: The run.
    """
    total = 0
    waiting: deque[Callable[[], int]] = deque()
    for number in range(run.calls):
        if len(waiting) == run.in_flight:
            total += waiting.popleft()()
        waiting.append(start(number))
    while waiting:
        total += waiting.popleft()()
    return total


def bursts(start: Callable[[int], Callable[[], int]], run: Run) -> int:
    """Repeatedly start many calls and wait for all of them; the arguments are those of `window`."""
    total = 0
    for numbers in run.bursts():
        for wait in [start(number) for number in numbers]:
            total += wait()
    return total


def echoes(caller: Caller, run: Run) -> Any:
    """Send the same value there and back."""
    sent = payload(run)
    result = None
    for _ in range(run.calls):
        result = caller.echo(sent)
    return result


def futures_of(*links: Any) -> Callable[[int], Callable[[], int]]:
    """Return a function that starts a call as a Future, on the links in turn."""
    in_turn = cycle(links)

    def start(number: int) -> Callable[[], int]:
        future: Future[int] = next(in_turn).add(number, 1, asynchronous=True)
        return future.result

    return start
