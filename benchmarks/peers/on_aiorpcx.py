"""aiorpcX: JSON-RPC in lines, on asyncio."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import Any

from aiorpcx import NewlineFramer, Request, RPCSession, connect_rs, handler_invocation, serve_rs

from benchmarks import event_loop
from benchmarks.clients import asynchronous
from benchmarks.peers import Announce, Files
from benchmarks.tasks import HOST, Task
from benchmarks.tasks import measure as measure_async

_MOST = 1000
"""Maximum concurrent requests of a session; more than are used."""


class _Session(RPCSession):  # type: ignore[misc,unused-ignore]
    cost_hard_limit = 0  # no throttling of busy clients
    initial_concurrent = _MOST

    def default_framer(self) -> Any:
        return NewlineFramer(max_size=100_000_000)


class _Server(_Session):
    async def handle_request(self, request: Any) -> Any:
        handler = {"add": self._add, "echo": self._echo}.get(request.method)
        if not isinstance(request, Request):
            return None
        return await handler_invocation(handler, request)()

    async def _add(self, first: int, second: int) -> int:
        return first + second

    async def _echo(self, value: Any) -> Any:
        return value


async def _serve(files: Files | None, announce: Announce) -> None:
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    server = await serve_rs(_Server, HOST, 0, ssl=context)
    announce(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    event_loop.fastest()[1](_serve(files, announce))


class _Caller:
    def __init__(self, session: Any) -> None:
        self._request = session.send_request

    async def add(self, first: int, second: int) -> int:
        result: int = await self._request("add", (first, second))
        return result

    async def echo(self, value: Any) -> Any:
        return await self._request("echo", (value,))


async def _measure(task: Task) -> dict[str, float]:
    certificate = task.address.certificate
    context = ssl.create_default_context(cafile=certificate) if certificate else None
    async with connect_rs(HOST, task.address.port, session_factory=_Session, ssl=context) as session:
        load = partial(asynchronous.peer_load, _Caller(session), together=event_loop.together)
        return await measure_async(task, load)


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    costs: dict[str, float] = event_loop.fastest()[1](_measure(task))
    return costs
