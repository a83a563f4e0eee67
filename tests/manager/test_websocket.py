"""Tests of a Manager's WebSocket port: its peers are like all others, and affect no others."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial

import pytest
import trio

from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.trust import client_context
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.tcp_connect import open_tcp
from msl_network_trio.transport.tls_handshake import open_tls
from msl_network_trio.transport.websocket_handshake import open_websocket
from tests.manager.wires import Wire
from tests.protocol.network import reply
from tests.transport.certificates import ordinary
from tests.transport.websockets import frame, read_head, upgrade_request

HALF_OPEN = int(os.environ.get("HALF_OPEN", "300"))
"""How many handshakes to leave half done; 10,000 take a while, and 10,000 files that may be open."""

LIMIT = 20.0 + HALF_OPEN / 100
"""How many seconds a step may take before the test has failed."""


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request):
    return request.param


@pytest.fixture
async def open_here(tls, tmp_path):
    """Open a Manager that is reached from this computer only, by TCP and by WebSocket."""
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    path.chmod(0o600)
    security = {"cert_file": path} if tls else {"disable_tls": True}
    yield partial(
        open_manager,
        host="127.0.0.1",
        port=0,
        websocket_port=0,
        database=tmp_path / "manager.sqlite3",
        **security,
    )
    while OPENED:
        OPENED.pop().close()


OPENED: list[Stream] = []
"""What the test has opened, to be closed in the end."""


async def carrier_to(manager, port=None) -> Stream:
    port = port or manager.websocket_port
    if manager.certificate is None:
        transport = await open_tcp("127.0.0.1", port)
    else:
        transport, _ = await open_tls("127.0.0.1", port, client_context(ordinary().pem, check_hostname=True))
    OPENED.append(transport)
    return transport


async def reach(manager, **kwargs) -> Wire:
    """Connect by WebSocket."""
    transport = await open_websocket(await carrier_to(manager), "127.0.0.1:1", **kwargs)
    OPENED.append(transport)
    return Wire(transport)


@contextlib.asynccontextmanager
async def others_are_served(manager):
    """One Service and one client, each by another way, that must not notice what happens in the block."""
    with trio.fail_after(LIMIT):
        service, client = await reach(manager), Wire(await carrier_to(manager, manager.port))
        await service.enter("Echo", "service")
        await client.enter()

        async def call():
            await client.send({"service": "Echo", "attribute": "e", "args": [1], "kwargs": {}, "uid": "x"})
            request = await service.line()
            await service.send(reply(request, request["args"]))
            assert (await client.line())["result"] == [1]

        await call()
        yield
        await call()
        service.transport.close()
        client.transport.close()


async def test_a_peer_is_one_like_all_others(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await reach(manager, path="/msl")
        await wire.enter("C")
        assert wire.name == f"C[{socket.gethostname()}:{wire.transport.port}]"
        identity = (await wire.ask(MANAGER, "identity"))["result"]
        assert set(identity["services"]) == {"Echo"}
        assert identity["port"] == manager.port
        link = await wire.ask(MANAGER, "link", "Echo")
        assert link["error"] is False


async def test_the_password_is_asked_for_here_too(open_here):
    async with open_here(auth_password="secret") as manager:
        with trio.fail_after(LIMIT):
            wire = await reach(manager)
            assert (await wire.line())["attribute"] == "password"
            await wire.send({"result": "wrong"})
            [rejection] = await wire.lines()
            assert "Wrong Manager password" in rejection["message"]
            assert wire.transport.close_reason == "the WebSocket was closed with code 1000 (normal closure)"
            wire = await reach(manager)
            await wire.line()
            await wire.send({"result": "secret"})
            await wire.enter()


async def test_goodbye_is_answered_by_the_end(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await reach(manager)
        await wire.enter()
        await wire.send({"service": "self", "attribute": "__disconnect__"})
        assert await wire.rest() == b""
        assert "code 1000" in wire.transport.close_reason


async def test_large_lines_pass_both_ways(open_here):
    async with open_here() as manager:
        with trio.fail_after(LIMIT):
            service, client = await reach(manager), await reach(manager)
            await service.enter("Echo", "service")
            await client.enter()
            text = "x" * 3_000_000 + "é漢😀"
            async with trio.open_nursery() as nursery:
                line = {"service": "Echo", "attribute": "e", "args": [text], "kwargs": {}, "uid": "1"}
                nursery.start_soon(client.send, line)
                request = await service.line()
                assert request["args"] == [text]
                nursery.start_soon(service.send, reply(request, text))
                assert (await client.line())["result"] == text


async def test_at_its_end_peers_are_told_so(open_here):
    with trio.fail_after(LIMIT):
        async with open_here() as manager:
            wire = await reach(manager)
            await wire.enter()
        (goodbye,) = await wire.lines()
        assert goodbye["result"] == [[f"{manager.name} is shutting down"], {}]
        assert wire.transport.close_reason == "the WebSocket was closed with code 1000 (normal closure)"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", manager.websocket_port))


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_peer_that_vanishes_is_forgotten(open_here, how):
    async with open_here() as manager, others_are_served(manager):
        wire = await reach(manager)
        await wire.enter("Gone", "service")
        if how == "reset":
            OPENED[-2]._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        OPENED[-2].close()
        while "Gone" in manager.identity()["services"]:
            await trio.sleep(0.01)


async def test_a_message_over_the_limit_is_refused_with_its_code(open_here):
    async with open_here(read_limit=10_000) as manager, others_are_served(manager):
        wire = await reach(manager)
        await wire.enter()
        with pytest.raises(ConnectionLost, match="code 1009"):
            await wire.send(b"x" * 10_001)
            await wire.rest()


async def send_endlessly(manager, announced: int, first: bytes) -> int:
    """Announce a frame, send as much of it as the Manager takes, and return how many bytes that was."""
    carrier = await carrier_to(manager)
    await carrier.send_all(upgrade_request())
    await read_head(carrier)
    sent = 0
    with contextlib.suppress(ConnectionLost):
        await carrier.send_all(first + announced.to_bytes(8, "big") + bytes(4))
        while sent < announced:
            await carrier.send_all(b"x" * 100_000)
            sent += 100_000
    return sent


async def test_a_gigabyte_that_is_announced_is_refused_when_it_has_come_to_the_limit(open_here):
    async with open_here(read_limit=1_000_000) as manager, others_are_served(manager):
        sent = await send_endlessly(manager, 10**9, b"\x81\xff")
        # What the kernel holds, and what is taken while it closes, is more than the limit, but no gigabyte.
        assert sent < 100_000_000


async def test_who_has_not_said_who_it_is_cannot_have_much_kept_of_what_it_sends(open_here):
    async with open_here() as manager, others_are_served(manager):
        sent = await send_endlessly(manager, 10**8, b"\x01\xff")
        assert sent < 50_000_000  # of which the kernel holds the most
        wire = await reach(manager)  # and who has may send more than that
        await wire.enter()
        answer = await wire.ask("Nope", "e", "x" * 5_000_000)
        assert "not connected" in answer["message"]


@pytest.mark.parametrize(
    "data",
    [
        frame(2, b"{}"),
        frame(1, b"{\xff"),
        frame(1, b"{}", masked=False),
        frame(1, b'{"result'),
        frame(1, b"[]") * 100,
        frame(9, b"") * 10_000,
        frame(1, b"", final=False) + frame(0, b"", final=False) * 10_000,
        bytes(range(256)) * 100,
    ],
    ids=["binary", "no UTF-8", "not masked", "half a JSON", "no objects", "pings", "fragments", "random"],
)
async def test_who_sends_rubbish_harms_nobody(open_here, data):
    async with open_here() as manager, others_are_served(manager):
        carrier = await carrier_to(manager)
        await carrier.send_all(upgrade_request())
        with contextlib.suppress(ConnectionLost):
            await carrier.send_all(data)
            carrier.send_eof()
            while await carrier.receive():
                pass


@pytest.mark.parametrize(
    "data", [b"\0" * 100_000, b'{"result": 1}\r\n', b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]
)
async def test_who_does_not_even_speak_http_harms_nobody(open_here, data):
    async with open_here() as manager, others_are_served(manager):
        stream = await trio.open_tcp_stream("127.0.0.1", manager.websocket_port)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
            while await stream.receive_some():
                pass
        await stream.aclose()


async def test_a_page_of_elsewhere_may_not_connect_unless_it_is_listed(open_here, tls):
    origin = {"Origin": "https://evil.example"}
    async with open_here() as manager:
        carrier = await carrier_to(manager)
        await carrier.send_all(upgrade_request(**origin))
        assert b" 403 " in await carrier.receive()
        carrier.close()
    async with open_here(websocket_origins=["https://evil.example"]) as manager:
        carrier = await carrier_to(manager)
        await carrier.send_all(upgrade_request(**origin))
        assert b" 101 " in await carrier.receive()


async def test_a_browser_is_shown_the_page(open_here):
    async with open_here() as manager:
        carrier = await carrier_to(manager)
        await carrier.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while data := await carrier.receive():
            received += data
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"<html" in received


async def test_many_that_do_nothing_keep_nobody_out(open_here):
    """The oldest connection is evicted; a handshake takes milliseconds."""
    async with open_here(max_unauthenticated=20) as manager, others_are_served(manager):
        idle = []
        for _ in range(HALF_OPEN):
            idle.append(socket.create_connection(("127.0.0.1", manager.websocket_port)))
            await trio.lowlevel.checkpoint()
        try:
            for sock in idle[::3]:
                with contextlib.suppress(OSError):
                    sock.sendall(b"GET / HTTP/1.1\r\nHost:")
            wire = await reach(manager)
            await wire.enter()
            assert len(manager._unauthenticated) <= 200
        finally:
            for sock in idle:
                sock.close()


def test_a_manager_in_memory_has_no_such_port():
    with pytest.raises(ValueError, match="websocket_port"):
        open_manager(in_memory=True, websocket_port=0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_must_be_one(port):
    with pytest.raises(ValueError, match="websocket_port must be a number"):
        open_manager(websocket_port=port)


def test_origins_are_a_list():
    with pytest.raises(TypeError, match="list of origins"):
        open_manager(websocket_port=0, websocket_origins="https://lab.example")


async def test_an_origin_that_is_none_is_an_error_before_anything_listens():
    with pytest.raises(ValueError, match="no origin"):
        async with open_manager(port=0, websocket_port=0, disable_tls=True, websocket_origins=["lab"]):
            pytest.fail("entered")


async def test_if_the_port_is_in_use_nothing_listens(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=f"Port {port} is in use"):
            async with open_manager(
                host="127.0.0.1", port=0, websocket_port=port, disable_tls=True, database=tmp_path / "db"
            ):
                pytest.fail("entered")


async def test_how_it_is_reached(open_here, tls):
    async with open_here() as manager:
        kwargs = manager.connect_kwargs("websocket")
        assert kwargs["port"] == manager.websocket_port
        assert kwargs["transport"] == "websocket"
        assert ("cert_file" in kwargs) == tls
    async with open_here(websocket_port=None) as manager:
        with pytest.raises(ValueError, match="no websocket_port"):
            manager.connect_kwargs("websocket")
