"""Load generator with minimal costs of its own, to measure networks instead of clients.

It implements only the part of the protocol that calls need. Requests are encoded before the clock starts,
and replies are decoded after it has stopped; meanwhile it counts lines and sends one new request per reply.
"""

from __future__ import annotations

import json
import selectors
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Final

from benchmarks.clients.raw import PATIENCE, Connection, context_of, request
from benchmarks.tasks import SERVICE, Run, Stopwatch, Task, check, sum_of

_PER_CONNECTION = 2
"""Number of requests in flight on each of many connections."""


class _Requests:
    """Encoded requests to send."""

    def __init__(self, run: Run) -> None:
        if run.load in _EMISSIONS:
            calls = [("emit", [numbers.start, numbers.stop]) for numbers in _emitted(run)]
        else:
            calls = [("add", [number, 1]) for number in range(run.calls)]
        self._lines = [
            json.dumps(request(SERVICE, name, args, str(uid))).encode() + b"\r\n"
            for uid, (name, args) in enumerate(calls)
        ]
        self._sent = 0

    def take(self, count: int) -> bytes:
        """Return the next requests, joined; empty if there are no more."""
        begin = self._sent
        self._sent += count
        return b"".join(self._lines[begin : self._sent])


def _one(connections: Sequence[Connection], run: Run, requests: _Requests) -> None:
    (connection,) = connections
    for _ in range(run.calls):
        began = perf_counter()
        connection.send(requests.take(1))
        while not connection.receive():
            pass
        run.latencies.append(perf_counter() - began)


def _flight(connections: Sequence[Connection], run: Run, requests: _Requests) -> None:
    (connection,) = connections
    missing = run.calls
    connection.send(requests.take(run.in_flight))
    while missing:
        lines = connection.receive()
        missing -= lines
        if more := requests.take(lines):
            connection.send(more)


def _connections(connections: Sequence[Connection], run: Run, requests: _Requests) -> None:
    missing = run.calls
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(requests.take(_PER_CONNECTION))
        while missing:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{missing} calls have not been answered")
            for key, _ in ready:
                lines = key.data.receive()
                missing -= lines
                if more := requests.take(lines):
                    key.data.send(more)


def _emissions(connections: Sequence[Connection], run: Run, requests: _Requests) -> None:
    (connection,) = connections
    for numbers in _emitted(run):
        connection.send(requests.take(1))
        missing = len(numbers) + 1  # the notifications and the reply
        while missing > 0:
            missing -= connection.receive()


def _emitted(run: Run) -> Sequence[range]:
    """Return the numbers of the notifications emitted for each request."""
    size = 1 if run.load == "ticks" else run.in_flight
    return [range(begin, min(begin + size, run.calls)) for begin in range(0, run.calls, size)]


_RUN: Final[dict[str, Callable[[Sequence[Connection], Run, _Requests], None]]] = {
    "one": _one,
    "flight": _flight,
    "connections": _connections,
    "burst": _emissions,
    "ticks": _emissions,
}

_EMISSIONS: Final = ("burst", "ticks")
"""Loads whose calls are notifications."""

LOADS: Final = frozenset(_RUN)
"""The supported loads."""


def _sum(connections: Sequence[Connection], run: Run) -> int:
    """Return the sum of the results of all calls.

    Raises:
        RuntimeError: A call did not get exactly one reply, its own, or notifications are missing, unexpected
            or out of order.
    """
    lines = [json.loads(line) for connection in connections for line in connection.take()]
    replies = [line for line in lines if line["uid"] != "notification"]
    answered = {reply["uid"]: reply["result"] for reply in replies}
    expected = {str(number): number + 1 for number in range(run.calls)}
    if run.load in _EMISSIONS:
        notified = [line["result"] for line in lines if line["uid"] == "notification"]
        if notified != [[[number], {}] for number in range(run.calls)]:
            raise RuntimeError(f"{len(notified)} notifications came that are not the {run.calls} emitted")
        expected = {str(uid): len(numbers) for uid, numbers in enumerate(_emitted(run))}
    if len(replies) != len(expected) or answered != expected:
        raise RuntimeError(f"{len(expected)} calls had {len(replies)} answers, not each its own")
    return sum_of(run.calls)


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    context = context_of(task)
    go = _RUN[task.load]
    with ExitStack() as stack:
        connections = []
        for _ in range(task.size if task.load == "connections" else 1):
            connections.append(Connection(task, context))
            stack.callback(connections[-1].socket.close)
        go(connections, task.warm_up, _Requests(task.warm_up))
        check(task.warm_up, _sum(connections, task.warm_up))
        run, requests = task.run, _Requests(task.run)
        with Stopwatch(task, run) as watch:
            go(connections, run, requests)
        check(run, _sum(connections, run))
        return watch.figures
