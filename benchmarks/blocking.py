"""The workloads that are the same on both blocking APIs, since ours is that of msl-network."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any

from benchmarks.workloads import IN_FLIGHT


def one(link: Any, calls: int) -> int:
    """Make one call after the other."""
    total = 0
    for number in range(calls):
        total += link.add(number, 1)
    return total


def window(link: Any, calls: int) -> int:
    """Always keep as many on their way: wait for the oldest, then start another."""
    total = 0
    futures: deque[Future[int]] = deque()
    for number in range(calls):
        if len(futures) == IN_FLIGHT:
            total += futures.popleft().result()
        futures.append(link.add(number, 1, asynchronous=True))
    while futures:
        total += futures.popleft().result()
    return total
