"""Many minimal clients in one process, to measure the costs of the Manager for them.

They connect, send their identity and link; from then on they only count received lines.
"""

from __future__ import annotations

import selectors
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic, perf_counter
from typing import Any, Final

import trio

from benchmarks.clients.idle import Footprint, opened_first
from benchmarks.clients.ours import connect_arguments
from benchmarks.clients.raw import PATIENCE, Connection, context_of
from benchmarks.tasks import SERVICE, Run, Task, sum_of
from benchmarks.tasks import measure as measure_async
from msl_network_trio import Link, connect

_AT_A_TIME = 16
"""Number of connections that are opened concurrently."""


class _Client(Connection):
    """A connection, with the number of lines received."""

    lines = 0

    def receive_what_is_there(self) -> None:
        """Count and discard the received data."""
        try:
            while True:
                self.lines += self.receive()
                self.take()
        except (BlockingIOError, ssl.SSLWantReadError):
            return


class _Clients:
    """Clients that only receive.

    Args:
        task: The server to connect to.
        stack: Closes the connections.
    """

    def __init__(self, task: Task, stack: ExitStack) -> None:
        self._task = task
        self._context = context_of(task)
        self._stack = stack
        self._clients: list[_Client] = []
        self._selector = stack.enter_context(selectors.DefaultSelector())

    def open(self, count: int) -> None:
        """Open and link a number of further connections."""
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            opened = [threads.submit(_Client, self._task, self._context) for _ in range(count)]
        for future in opened:
            client = future.result()
            self._stack.callback(client.socket.close)
            client.socket.setblocking(False)
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            self._clients.append(client)

    def count_from_here(self) -> None:
        """Reset the numbers of received lines."""
        for client in self._clients:
            client.lines = 0

    def wait_for(self, lines: int) -> None:
        """Wait until each of them has received this number of lines."""
        give_up = monotonic() + PATIENCE
        missing = sum(client.lines < lines for client in self._clients)
        while missing:
            events = self._selector.select(PATIENCE)
            if not events and monotonic() > give_up:
                raise TimeoutError(f"{missing} clients have not been told")
            for key, _ in events:
                client = key.data
                before = client.lines
                client.receive_what_is_there()
                missing -= before < lines <= client.lines


async def _measure(task: Task) -> dict[str, float]:
    """Emit notifications one at a time, and wait until each of many clients has received it.

    The costs of the Manager, which is the first process, are measured as well.
    """
    with ExitStack() as stack:
        clients = _Clients(task, stack)
        await trio.to_thread.run_sync(clients.open, opened_first(task.size))
        before = Footprint(task.address.pids[0])
        await trio.to_thread.run_sync(clients.open, task.size)
        held = before.grown(task.size)
        async with connect(**connect_arguments(task)) as client, client.link(SERVICE) as link:
            return held | await measure_async(task, _fan_out(link, clients))


def _fan_out(link: Link, clients: _Clients) -> Callable[[Run], Any]:
    async def load(run: Run) -> int:
        clients.count_from_here()
        for number in range(run.calls):
            began = perf_counter()
            reply = link.emit(number, number + 1, asynchronous=True)
            await trio.lowlevel.checkpoint()
            clients.wait_for(number + 1)  # there is nothing else to do meanwhile
            run.latencies.append(perf_counter() - began)
            await reply
        return sum_of(run.calls)

    return load


LOADS: Final = frozenset({"fan-out"})
"""The supported loads."""


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per notification."""
    return trio.run(_measure, task)
