"""A generator of load that costs next to nothing, so that what a network costs shows, and not its client.

It knows just as much of the protocol as it takes to make calls. Requests are encoded before the clock starts,
and replies are read after it has stopped; meanwhile it counts lines and sends as many new requests as
replies came.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any, Final

from benchmarks.tasks import HOST, SERVICE, Run, Stopwatch, Task, check

_RECEIVE = 65_536
_PATIENCE = 30.0
"""For how many seconds nothing may come."""

_PER_CONNECTION = 2
"""How many requests are on their way at a time on each of many connections."""

_IDENTITY: Final = {"type": "client", "name": "lean", "language": "none", "os": "none"}


class _Connection:
    """A client that is linked."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(address, _PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=HOST) if context else plain
        self.send = self.socket.sendall
        self.received: list[bytes] = []
        self._line()
        self._tell({"error": False, "requester": None, "result": _IDENTITY, "uid": ""})
        self._tell(_request("Manager", "link", [SERVICE], "link"))
        if (answer := json.loads(self._line()))["error"]:
            raise RuntimeError(f"not linked: {answer['message']}")

    def receive(self) -> int:
        """Wait for bytes, and return how many lines they end."""
        data = self.socket.recv(_RECEIVE)
        if not data:
            raise ConnectionError("the Manager has closed a connection")
        self.received.append(data)
        return data.count(b"\n")

    def take(self) -> list[bytes]:
        """Return the lines that have come."""
        *lines, rest = b"".join(self.received).split(b"\n")
        self.received = [rest] if rest else []
        return lines

    def _tell(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message).encode() + b"\r\n")

    def _line(self) -> bytes:
        while not self.receive():
            pass
        (line,) = self.take()
        return line


def _request(service: str, attribute: str, args: Sequence[Any], uid: str) -> dict[str, Any]:
    return {
        "args": args,
        "attribute": attribute,
        "error": False,
        "kwargs": {},
        "service": service,
        "uid": uid,
    }


class _Requests:
    """What is to be sent."""

    def __init__(self, calls: int) -> None:
        self._lines = [
            json.dumps(_request(SERVICE, "add", [number, 1], str(number))).encode() + b"\r\n"
            for number in range(calls)
        ]
        self._sent = 0

    def take(self, count: int) -> bytes:
        """Return the next ones, joined; nothing if there are no more."""
        begin = self._sent
        self._sent += count
        return b"".join(self._lines[begin : self._sent])


def _one(connections: Sequence[_Connection], run: Run, requests: _Requests) -> None:
    (connection,) = connections
    for _ in range(run.calls):
        began = perf_counter()
        connection.send(requests.take(1))
        while not connection.receive():
            pass
        run.latencies.append(perf_counter() - began)


def _flight(connections: Sequence[_Connection], run: Run, requests: _Requests) -> None:
    (connection,) = connections
    missing = run.calls
    connection.send(requests.take(run.in_flight))
    while missing:
        lines = connection.receive()
        missing -= lines
        if more := requests.take(lines):
            connection.send(more)


def _connections(connections: Sequence[_Connection], run: Run, requests: _Requests) -> None:
    missing = run.calls
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(requests.take(_PER_CONNECTION))
        while missing:
            ready = selector.select(_PATIENCE)
            if not ready:
                raise TimeoutError(f"{missing} calls have not been answered")
            for key, _ in ready:
                lines = key.data.receive()
                missing -= lines
                if more := requests.take(lines):
                    key.data.send(more)


_RUN: Final[dict[str, Callable[[Sequence[_Connection], Run, _Requests], None]]] = {
    "one": _one,
    "flight": _flight,
    "connections": _connections,
}

LOADS: Final = frozenset(_RUN)
"""What it can do."""


def _sum(connections: Sequence[_Connection], calls: int) -> int:
    """Return what all calls came to, each of which must have been answered once, with its own answer."""
    replies = [json.loads(line) for connection in connections for line in connection.take()]
    answered = {reply["uid"]: reply["result"] for reply in replies}
    if len(replies) != calls or answered != {str(number): number + 1 for number in range(calls)}:
        raise RuntimeError(f"{calls} calls had {len(replies)} answers, not each its own")
    return sum(answered.values())


def measure(task: Task) -> dict[str, float]:
    """Carry out a task and return the costs of one of its calls."""
    certificate = task.address.certificate
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    go = _RUN[task.load]
    with ExitStack() as stack:
        connections = []
        for _ in range(task.size if task.load == "connections" else 1):
            connections.append(_Connection((HOST, task.address.port), context))
            stack.callback(connections[-1].socket.close)
        go(connections, task.warm_up, _Requests(task.warm_up.calls))
        check(task.warm_up, _sum(connections, task.warm_up.calls))
        run, requests = task.run, _Requests(task.calls)
        with Stopwatch(task, run) as watch:
            go(connections, run, requests)
        check(run, _sum(connections, run.calls))
        return watch.figures
