"""pyzmq: messages between ZeroMQ sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from benchmarks.clients import blocking
from benchmarks.peers import Announce, Files
from benchmarks.tasks import HOST, Run, Task, measure_blocking

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    assert files is None, "it has no TLS"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        announce(socket.bind_to_random_port(f"tcp://{HOST}"))
        while True:
            sender, number, request = socket.recv_multipart()
            name, *arguments = _decode(request)
            result = arguments[0] + arguments[1] if name == "add" else arguments[0]
            socket.send_multipart((sender, number, _encode(result)))


class _Caller:
    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._sent = 0

    def start(self, *request: Any) -> Callable[[], Any]:
        """Send a request, and return a function that waits for its reply; replies arrive in order."""
        self._sent += 1
        expected = b"%d" % self._sent
        self._socket.send_multipart((expected, _encode(request)))

        def wait() -> Any:
            number, result = self._socket.recv_multipart()
            if number != expected:
                raise RuntimeError("an answer is not that of the request")
            return _decode(result)

        return wait

    def start_adding(self, number: int) -> Callable[[], int]:
        return self.start("add", number, 1)

    def add(self, first: int, second: int) -> int:
        result: int = self.start("add", first, second)()
        return result

    def echo(self, value: Any) -> Any:
        return self.start("echo", value)()


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 30_000  # milliseconds
        socket.connect(f"tcp://{HOST}:{task.address.port}")
        caller = _Caller(socket)

        def load(run: Run) -> Any:
            if run.load == "one":
                return blocking.one(caller, run)
            if run.load == "flight":
                return blocking.window(caller.start_adding, run)
            return blocking.echoes(caller, run)

        return measure_blocking(task, load)
