"""gRPC: remote procedures over HTTP/2, on asyncio."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec

from benchmarks import event_loop
from benchmarks.clients import asynchronous
from benchmarks.peers import Announce, Files
from benchmarks.tasks import HOST, Task
from benchmarks.tasks import measure as measure_async

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_NO_LIMITS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def _add(request: Any, context: Any) -> Any:
    first, second = request
    return first + second


async def _echo(request: Any, context: Any) -> Any:
    (value,) = request
    return value


async def _serve(files: Files | None, announce: Announce) -> None:
    server = grpc.aio.server(options=_NO_LIMITS)
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=_decode, response_serializer=_encode
        )
        for name, method in (("add", _add), ("echo", _echo))
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bench", methods),))
    if files:
        pair = (files.key.read_bytes(), files.certificate.read_bytes())
        port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    announce(port)
    await server.wait_for_termination()


def serve(files: Files | None, announce: Announce) -> None:
    """Serve until the process is killed."""
    asyncio.run(_serve(files, announce))


class _Caller:
    def __init__(self, channel: Any) -> None:
        self._add, self._echo = (
            channel.unary_unary(f"/Bench/{name}", request_serializer=_encode, response_deserializer=_decode)
            for name in ("add", "echo")
        )

    async def add(self, first: int, second: int) -> int:
        result: int = await self._add((first, second))
        return result

    async def echo(self, value: Any) -> Any:
        return await self._echo((value,))


async def _measure(task: Task, credentials: Any) -> dict[str, float]:
    where = f"{HOST}:{task.address.port}"
    async with (
        grpc.aio.secure_channel(where, credentials, options=_NO_LIMITS)
        if credentials
        else grpc.aio.insecure_channel(where, options=_NO_LIMITS)
    ) as channel:
        load = partial(asynchronous.peer_load, _Caller(channel), together=event_loop.together)
        return await measure_async(task, load)


def measure(task: Task) -> dict[str, float]:
    """Execute a task and return the costs per call."""
    certificate = task.address.certificate
    credentials = grpc.ssl_channel_credentials(Path(certificate).read_bytes()) if certificate else None
    return asyncio.run(_measure(task, credentials))
