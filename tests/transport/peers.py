"""Servers on real sockets, plain or with TLS, with a handler of the test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import attrs
import trio

from msl_network_trio.dialing.trust import client_context
from msl_network_trio.transport.tcp import TcpStream
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import open_tls
from tests.patience import PATIENCE
from tests.transport.certificates import ordinary

LIMIT = PATIENCE
"""Seconds after which a step has failed."""

PLAIN = "plain"
WIRES = {PLAIN: None, "TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}

PeerStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Handler = Callable[[PeerStream], Awaitable[object]]


@attrs.define
class Server:
    """A running server."""

    port: int
    context: ssl.SSLContext | None
    """The TLS context, which may be replaced between connections; None: plain TCP."""

    accepted: int = 0
    """The number of connections so far."""


async def stay(stream: PeerStream) -> None:
    """Keep a connection open without sending."""
    await trio.sleep_forever()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler = stay, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Server]:
    """Run a server that calls a handler for each connection, after its TLS handshake."""
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    server = Server(listener.socket.getsockname()[1], context)

    async def handle(connection: trio.SocketStream) -> None:
        server.accepted += 1
        stream: PeerStream = connection
        if server.context is not None:
            stream = trio.SSLStream(connection, server.context, server_side=True, https_compatible=True)
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                return  # the client has rejected the certificate
        await handler(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def connected(wire: str, *, buffers: int | None = None) -> AsyncGenerator[tuple[TcpStream, PeerStream]]:
    """Yield a `TcpStream` and the stream of its peer.

    Args:
        wire: One of `WIRES`.
        buffers: Size of the socket buffers in bytes; None: the default of the system.
    """
    put, take = trio.open_memory_channel[PeerStream](1)

    async def hand_over(stream: PeerStream) -> None:
        await put.send(stream)
        await trio.sleep_forever()

    version = WIRES[wire]
    context = None if version is None else ordinary().server_context(version)
    async with serving(hand_over, context=context) as server:
        if version is None:
            transport = await open_tcp("127.0.0.1", server.port)
        else:
            trust = client_context(ordinary().pem, check_hostname=True)
            transport, _ = await open_tls("127.0.0.1", server.port, trust)
            assert transport._sock.version() == wire.replace(" ", "v")
        stream = await take.receive()
        if buffers is not None:
            for sock in (transport._sock, socket_of(stream)):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        try:
            yield transport, stream
        finally:
            transport.close()


def socket_of(stream: PeerStream) -> trio.socket.SocketType:
    """Return the socket below a stream."""
    carrier = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    return carrier.socket


def reset(stream: PeerStream) -> None:
    """Reset a connection, as the end of a process with unread data does."""
    sock = socket_of(stream)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
