"""``python -m benchmarks.networks``: a whole network of ours against one of msl-network 1.0.0, in the same run.

Manager, Service and client are processes of their own. The same client, ours, makes the same calls to both
networks, in turns; the ratio of the times is taken round by round. The reference logs at its default level, to a
file and to a console that nobody reads, as ``msl-network start`` does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.processes import Child
from benchmarks.workloads import Task

_NETWORKS: Final = ("reference", "plain methods", "async methods")
_WORKLOADS: Final = {"one": (400, 1.3, 1.7), "flight": (3000, 2.0, 3.0), "floats": (4, 3.0, 4.0)}
"""The number of calls of a round; the floor of the ratio, and its target."""

_SERVICE: Final = {
    "reference": "from msl.network import Service\nA = ''\n",
    "plain methods": "from msl_network_trio import Service\nA = ''\n",
    "async methods": "from msl_network_trio import Service\nA = 'async '\n",
}
_CLASS: Final = """
import json, sys
exec(f"class Fake(Service):\\n    {A}def add(self, a, b): return a + b\\n    {A}def echo(self, x): return x\\n")
Fake().start(**json.loads(sys.argv[1]))
"""
_MANAGER: Final = {
    "reference": [
        "-c",
        "import sys; from msl.network.manager import run_forever;"
        "run_forever(port=int(sys.argv[1]), host='127.0.0.1', disable_tls=sys.argv[2] == 'tcp')",
    ],
    "ours": [
        "-c",
        "import sys; from msl_network_trio.manager.running import run_forever;"
        "run_forever(port=int(sys.argv[1]), host='127.0.0.1', disable_tls=sys.argv[2] == 'tcp')",
    ],
}


@contextmanager
def _process(arguments: list[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = dict(os.environ, MSL_NETWORK_HOME=str(home), SUDO_USER="", PYTHONWARNINGS="ignore")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_linked(arguments: dict[str, Any]) -> None:
    """Wait until the Service can be linked with, however long its process takes to start."""
    import trio

    from msl_network_trio import ConnectError, LinkedClient

    async def wait() -> None:
        with trio.fail_after(60):
            while True:
                try:
                    async with LinkedClient("Fake", **arguments, timeout=30):
                        return
                except ConnectError:
                    await trio.sleep(0.05)

    trio.run(wait)


@contextmanager
def _network(name: str, transport: str, folder: Path) -> Iterator[tuple[Task, list[int]]]:
    home = folder / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    port = _free_port()
    certificate = home / "certs" / "127.0.0.1.crt"
    arguments: dict[str, Any] = {"host": "127.0.0.1", "port": port, "disable_tls": transport == "tcp"}
    with ExitStack() as stack:
        command = _MANAGER["reference" if name == "reference" else "ours"]
        manager = stack.enter_context(_process([*command, str(port), transport], home))
        import json
        import time

        if transport == "tls":
            # Both networks get the certificate of the file, when their Manager has made it.
            arguments |= {"cert_file": str(certificate), "assert_hostname": False}
            deadline = time.monotonic() + 60
            while not certificate.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        _until_listening(port)
        service = stack.enter_context(_process(["-c", _SERVICE[name] + _CLASS, json.dumps(arguments)], home))
        _until_linked(arguments)
        task = Task("", 0, port, str(certificate) if transport == "tls" else None)
        yield task, [manager.pid, service.pid]


def _until_listening(port: int) -> None:
    import socket
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def _pin(pids: list[int], cpus: set[int]) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir() if Path("/proc").exists() else ():
            os.sched_setaffinity(int(thread.name), cpus)


def measure(transport: str, rounds: int, *, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of one call in each round, by workload and network."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    seconds = {work: {name: [] for name in _NETWORKS} for work in _WORKLOADS}  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for number in range(rounds):
            with ExitStack() as stack:
                networks = {
                    name: stack.enter_context(_network(name, transport, Path(folder))) for name in _NETWORKS
                }
                worker = stack.enter_context(Child("ours", "benchmarks.worker", "ours", home=Path(folder)))
                for work, (calls, _, _) in _WORKLOADS.items():
                    for name in _NETWORKS if number % 2 else _NETWORKS[::-1]:
                        task, pids = networks[name]
                        pinned = work == "one" and bool(allowed)
                        _pin(pids, {min(allowed)} if pinned else allowed)
                        count = max(1, calls // 5) if quick else calls
                        cpu = min(allowed) if pinned else None
                        asked = Task(work, count, task.port, task.certificate, cpu)
                        answer = worker.ask(asdict(asked))
                        seconds[work][name].append(answer["seconds"] / count)
            print(f"{transport}: round {number + 1} of {rounds}", file=sys.stderr)
    return seconds


def main() -> int:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="default %(default)s")
    parser.add_argument("--quick", action="store_true", help="fewer calls: rough ratios")
    options = parser.parse_args()
    print(f"{'min / median / max of the ratio':60}  floor  target")
    for transport in ("tcp", "tls"):
        seconds = measure(transport, options.rounds, quick=options.quick)
        for work, (_, floor, target) in _WORKLOADS.items():
            for name in _NETWORKS[1:]:
                pairs = zip(seconds[work]["reference"], seconds[work][name], strict=True)
                ratios = [theirs / ours for theirs, ours in pairs]
                numbers = f"{min(ratios):.1f} / {median(ratios):.1f} / {max(ratios):.1f}"
                print(f"{work + ', ' + transport.upper() + ', ' + name:40}{numbers:20}  {floor:5} {target:5}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
