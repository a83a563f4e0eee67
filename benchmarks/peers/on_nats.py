"""NATS: requests and replies by subject, through a hub, on asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import nats

from benchmarks import event_loop
from benchmarks.clients import asynchronous
from benchmarks.parent import at_end
from benchmarks.peers import Announce, Files
from benchmarks.processes import venv_program
from benchmarks.tasks import HOST, Task
from benchmarks.tasks import measure as measure_async

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

_START = 20.0
"""Maximum seconds for the start of the hub."""


async def _connect(port: int, certificate: str | None) -> Any:
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    return await nats.connect(f"nats://{HOST}:{port}", tls=context, tls_hostname=HOST if context else None)


def _start_hub(files: Files | None, folder: Path) -> tuple[int, int]:
    """Start the hub, and return its port and process."""
    settings = [
        f'host: "{HOST}"',
        "port: -1",
        "max_payload: 64MB",
        f"ports_file_dir: {json.dumps(str(folder))}",
    ]
    if files:
        certificate, key = (json.dumps(str(path)) for path in files)
        settings.append(f"tls {{ cert_file: {certificate}, key_file: {key} }}")
    configuration = folder / "nats.conf"
    configuration.write_text("\n".join(settings), encoding="utf-8")
    program = venv_program("nats-server")
    assert program is not None
    hub = subprocess.Popen([program, "-c", str(configuration)], stdout=subprocess.DEVNULL)
    at_end(hub.wait)
    at_end(hub.kill)  # the callbacks are called in reverse order
    give_up = monotonic() + _START
    while monotonic() < give_up and hub.poll() is None:
        for path in folder.glob("*.ports"):  # the file with the port
            try:
                (where, *_) = json.loads(path.read_text(encoding="utf-8"))["nats"]
            except ValueError:
                continue  # the file is incomplete
            return int(where.rpartition(":")[2]), hub.pid
        sleep(0.01)
    raise RuntimeError(f"nats-server did not start; its status is {hub.poll()}")


async def _serve(files: Files | None, announce: Announce, port: int, pid: int) -> None:
    connection = await _connect(port, str(files.certificate) if files else None)

    async def answer(message: Any) -> None:
        name, *arguments = _decode(message.data)
        result = arguments[0] + arguments[1] if name == "add" else arguments[0]
        await message.respond(_encode(result))

    await connection.subscribe("bench", cb=answer)
    await connection.flush()
    announce(port, (pid, os.getpid()))
    await asyncio.Event().wait()


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    folder = tempfile.mkdtemp(prefix="benchmarks-nats-")
    at_end(partial(shutil.rmtree, folder, ignore_errors=True))
    event_loop.fastest()[1](_serve(files, announce, *_start_hub(files, Path(folder))))


class _Caller:
    def __init__(self, connection: Any) -> None:
        self._request = connection.request

    async def _ask(self, *request: Any) -> Any:
        return _decode((await self._request("bench", _encode(request), timeout=30)).data)

    async def add(self, first: int, second: int) -> int:
        result: int = await self._ask("add", first, second)
        return result

    async def echo(self, value: Any) -> Any:
        return await self._ask("echo", value)


async def _measure(task: Task) -> dict[str, float]:
    connection = await _connect(task.address.port, task.address.certificate)
    try:
        load = partial(asynchronous.peer_load, _Caller(connection), together=event_loop.together)
        return await measure_async(task, load)
    finally:
        await connection.close()


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    costs: dict[str, float] = event_loop.fastest()[1](_measure(task))
    return costs
