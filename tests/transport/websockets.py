"""Pairs of WebSockets in memory, and frames of other peers."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.memory import MemoryStream, memory_pair
from msl_network_trio.transport.websocket import WebSocketStream
from msl_network_trio.transport.websocket_handshake import accept_websocket, open_websocket


async def read_head(carrier: Stream) -> tuple[str, dict[str, str], bytes]:
    """Receive the head of a request; return its first line, its headers and the data after it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await carrier.receive()
        assert data, received
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in headers.items()}, rest


async def receive_lines(end: Stream, count: int) -> list[bytes]:
    """Receive exactly this number of lines, and return them without their ends."""
    received = b""
    while received.count(b"\n") < count:
        data = await end.receive()
        assert data, f"the stream has ended behind {received[-200:]!r}"
        assert data.endswith(b"\n"), "half a message"
        received += data
    lines = received.splitlines()
    assert len(lines) == count
    return lines


Pair = tuple[WebSocketStream, WebSocketStream, MemoryStream, MemoryStream]


@pytest.fixture
async def opened() -> AsyncIterator[list[Stream]]:
    """A list of streams that are closed after the test; no task may be left then."""
    before = trio.lowlevel.current_statistics().tasks_living
    transports: list[Stream] = []
    yield transports
    for transport in transports:
        transport.close()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= before, "a task was left running"


@pytest.fixture
def websocket_pair(opened: list[Stream]) -> Callable[..., Awaitable[Pair]]:
    """Open a `Pair`; see `open_websocket_pair`."""

    async def open_pair(*args: Any, **kwargs: Any) -> Pair:
        pair = await open_websocket_pair(*args, **kwargs)
        opened.extend(pair)
        return pair

    return open_pair


@pytest.fixture(params=["client", "server"])
def one_end(
    request: pytest.FixtureRequest, opened: list[Stream]
) -> Callable[..., Awaitable[tuple[WebSocketStream, MemoryStream]]]:
    """Open one end, client or server, with the bare carrier at the other end."""

    async def open_end(capacity: int = 65_536, **kwargs: Any) -> tuple[WebSocketStream, MemoryStream]:
        ours, theirs = memory_pair(capacity)
        if request.param == "server":
            server = await accept_websocket(theirs, KEY, None, trio.lowlevel.spawn_system_task, **kwargs)
            await read_head(ours)
            opened.append(server)
            return server, ours

        async def answer() -> None:
            _, headers, _ = await read_head(theirs)
            theirs.send_nowait(accepted(headers["sec-websocket-key"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            client = await open_websocket(ours, "vm:1", **kwargs)
        opened.append(client)
        return client, theirs

    return open_end


KEY = base64.b64encode(bytes(16)).decode()


def accepted(key: str) -> bytes:
    """Return the answer that opens a WebSocket (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def open_websocket_pair(
    capacity: int = 65_536, *, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Pair:
    """Return the ends of a client and a server, and their carriers.

    Args:
        capacity: See `memory_pair`.
        client: Arguments of `open_websocket`.
        server: Arguments of `accept_websocket`.
    """
    ours, theirs = memory_pair(capacity)
    ends: dict[str, WebSocketStream] = {}

    async def accept() -> None:
        _, headers, _ = await read_head(theirs)
        ends["server"] = await accept_websocket(
            theirs,
            headers["sec-websocket-key"],
            headers["sec-websocket-protocol"],
            trio.lowlevel.spawn_system_task,
            **(server or {}),
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        ends["client"] = await open_websocket(ours, "vm:1", **(client or {}))
    return ends["client"], ends["server"], ours, theirs


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True) -> bytes:
    """Return a frame, made without the package."""
    first = opcode | (0x80 if final else 0)
    size = len(payload)
    if size < 126:
        head = bytes((first, size | (0x80 if masked else 0)))
    elif size < 65536:
        head = bytes((first, 126 | (0x80 if masked else 0))) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 127 | (0x80 if masked else 0))) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = mask * (size // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, repeated, strict=False))


def upgrade_request(path: str = "/", **headers: str | None) -> bytes:
    """Return the head of a request for a WebSocket, without the headers that are None."""
    fields: dict[str, str | None] = {
        "Host": "localhost:8875",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")
