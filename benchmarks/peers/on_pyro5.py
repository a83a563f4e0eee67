"""Pyro5: remote objects, with threads."""

from __future__ import annotations

from typing import Any

from Pyro5 import api, config

from benchmarks.clients import blocking
from benchmarks.peers import Announce, Files
from benchmarks.tasks import HOST, Run, Task, measure_blocking

config.SERIALIZER = "marshal"  # the fastest serializer of the package
config.SOCK_NODELAY = True


@api.expose  # type: ignore[untyped-decorator,unused-ignore]
@api.behavior(instance_mode="single")  # type: ignore[untyped-decorator,unused-ignore]
class Bench:
    """The served object; names of remote objects may not begin with an underscore."""

    def add(self, first: int, second: int) -> int:
        return first + second

    def echo(self, value: Any) -> Any:
        return value


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    if files:
        config.SSL = True
        config.SSL_SERVERCERT, config.SSL_SERVERKEY = str(files.certificate), str(files.key)
    with api.Daemon(host=HOST, port=0) as daemon:
        daemon.register(Bench, "bench")
        announce(int(daemon.locationStr.rpartition(":")[2]))
        daemon.requestLoop()


def _batches(proxy: Any, run: Run) -> int:
    total = 0
    for numbers in run.bursts():
        batch = api.BatchProxy(proxy)
        for number in numbers:
            batch.add(number, 1)
        total += sum(batch())
    return total


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    config.SSL = task.address.certificate is not None
    config.SSL_CACERTS = task.address.certificate or ""
    with api.Proxy(f"PYRO:bench@{HOST}:{task.address.port}") as proxy:
        if task.load == "flight":
            proxy._pyroSerializer = "json"  # noqa: SLF001  # marshal cannot carry a batch

        def load(run: Run) -> Any:
            if run.load == "one":
                return blocking.one(proxy, run)
            if run.load == "flight":
                return _batches(proxy, run)
            return blocking.echoes(proxy, run)

        return measure_blocking(task, load)
