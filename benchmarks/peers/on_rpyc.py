"""RPyC: transparent remote objects, with threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import sleep
from types import SimpleNamespace
from typing import Any

import rpyc
from rpyc.utils.authenticators import SSLAuthenticator
from rpyc.utils.server import ThreadedServer

from benchmarks.clients import blocking
from benchmarks.peers import Announce, Files
from benchmarks.tasks import HOST, Run, Task, measure_blocking, payload


class _Bench(rpyc.Service):  # type: ignore[misc,unused-ignore]
    def exposed_add(self, first: int, second: int) -> int:
        return first + second

    def exposed_echo(self, value: Any) -> Any:
        return value


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    authenticator = SSLAuthenticator(str(files.key), str(files.certificate)) if files else None
    server = ThreadedServer(_Bench, hostname=HOST, port=0, authenticator=authenticator)
    thread = threading.Thread(target=server.start, daemon=True)
    thread.start()
    while not server.active:  # there is no event to wait for
        sleep(0.01)
    announce(server.port)
    thread.join()


def _echoes(echo: Callable[[Any], Any], run: Run) -> list[float]:
    sent = tuple(payload(run))  # a list would stay a remote object in the other process
    result: tuple[float, ...] = ()
    for _ in range(run.calls):
        result = echo(sent)
    return list(result)


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    port, certificate = task.address.port, task.address.certificate
    connection = (
        rpyc.ssl_connect(HOST, port, ca_certs=certificate) if certificate else rpyc.connect(HOST, port)
    )
    try:
        root = connection.root
        add, echo = root.add, root.echo  # each look-up would be a call
        add_soon = rpyc.async_(add)

        def start(number: int) -> Callable[[], int]:
            result = add_soon(number, 1)

            def wait() -> int:
                value: int = result.value
                return value

            return wait

        def load(run: Run) -> Any:
            if run.load == "one":
                return blocking.one(SimpleNamespace(add=add, echo=echo), run)
            if run.load == "flight":
                return blocking.window(start, run)
            return _echoes(echo, run)

        return measure_blocking(task, load)
    finally:
        connection.close()
