"""The process of the client, which is the same for all networks: ``python -m benchmarks.network.client``.

It reads tasks from standard input, one JSON object a line, and answers each with one: how many seconds one
call took. It ends when standard input does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from statistics import median
from time import perf_counter
from typing import Any

import trio

from benchmarks.network.workloads import BULK, BURST, CONNECTIONS, INTERVAL, PER_CONNECTION, SERVICE
from benchmarks.worker import pin
from benchmarks.workloads import IN_FLIGHT, Task, check, floats
from msl_network_trio import Link, NotificationStream, connect


async def _one(links: Sequence[Link], calls: int) -> int:
    (link,) = links
    total = 0
    for number in range(calls):
        total += await link.add(number, 1)
    return total


async def _tasks(links: Sequence[Link], calls: int, tasks_per_link: int) -> int:
    """Always keep as many on their way on each link, all together making these calls."""
    numbers: Iterator[int] = iter(range(calls))
    total = 0

    async def ask(link: Link) -> None:
        nonlocal total
        for number in numbers:
            answer = await link.add(number, 1)
            total += answer

    async with trio.open_nursery() as nursery:
        for link in links:
            for _ in range(tasks_per_link):
                nursery.start_soon(ask, link)
    return total


async def _flight(links: Sequence[Link], calls: int) -> int:
    return await _tasks(links, calls, IN_FLIGHT)


async def _connections(links: Sequence[Link], calls: int) -> int:
    return await _tasks(links, calls, PER_CONNECTION)


async def _floats(links: Sequence[Link], calls: int) -> Any:
    (link,) = links
    numbers = floats()
    result = None
    for _ in range(calls):
        result = await link.echo(numbers)
    return result


async def _receive(stream: NotificationStream, begin: int, end: int) -> int:
    """Receive the notifications of these numbers, and return what the same number of ``add`` come to."""
    total = 0
    for expected in range(begin, end):
        notification = await anext(stream)
        if notification.args != [expected]:
            raise RuntimeError(f"the notification is {notification!r:.80} and not {expected}")
        total += expected + 1
    return total


async def _burst(links: Sequence[Link], calls: int) -> int:
    (link,) = links
    total = 0
    async with link.notifications(max_buffer_size=BURST) as stream:
        for begin in range(0, calls, BURST):
            end = min(begin + BURST, calls)
            reply = link.emit(begin, end, asynchronous=True)
            total += await _receive(stream, begin, end)
            if await reply != end - begin:
                raise RuntimeError("another number of notifications was emitted")
    return total


async def _ticks(links: Sequence[Link], calls: int) -> int:
    (link,) = links
    total = 0
    async with link.notifications() as stream:
        for number in range(calls):
            await link.emit(number, number + 1)
            total += await _receive(stream, number, number + 1)
    return total


_RUN: dict[str, Callable[[Sequence[Link], int], Awaitable[Any]]] = {
    "one": _one,
    "flight": _flight,
    "floats": _floats,
    "connections": _connections,
    "burst": _burst,
    "ticks": _ticks,
}


async def _time_of_one(task: Task, links: Sequence[Link]) -> float:
    run = _RUN[task.workload]
    check(task, task.warm_up, await run(links, task.warm_up))
    started = perf_counter()
    result = await run(links, task.calls)
    seconds = perf_counter() - started
    check(task, task.calls, result)
    return seconds / task.calls


async def _median_latency(task: Task, link: Link) -> float:
    """Make calls at fixed times, and return how long after its time the median one had its answer."""
    latencies: list[float] = []
    total = 0

    async def ask(number: int, time: float) -> None:
        nonlocal total
        answer = await link.add(number, 1)
        latencies.append(trio.current_time() - time)
        total += answer

    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(task.calls):
            time = begin + number * INTERVAL
            await trio.sleep_until(time)
            nursery.start_soon(ask, number, time)
    check(task, task.calls, total)
    return median(latencies)


async def _measure(task: Task) -> float:
    tls = task.certificate is not None
    links = []
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS if task.workload == "connections" else 1):
            client = await stack.enter_async_context(
                connect(
                    name="client",
                    host="127.0.0.1",
                    port=task.port,
                    disable_tls=not tls,
                    cert_file=task.certificate,
                )
            )
            links.append(await stack.enter_async_context(client.link(SERVICE)))
        if task.workload == BULK.name:
            return await _median_latency(task, links[0])
        return await _time_of_one(task, links)


def main() -> None:
    """Serve tasks until the end of standard input."""
    # Nothing that a client prints may get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready {}", file=answers, flush=True)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        pin(task.cpu)
        seconds = trio.run(_measure, task)
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
