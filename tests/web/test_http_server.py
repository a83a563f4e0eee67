"""Tests of the HTTP server, in memory: upgrades, origins, pages and timeouts."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from msl_network_trio.transport.memory import memory_pair
from msl_network_trio.transport.websocket import WebSocketStream
from msl_network_trio.web.http_server import HttpServer
from tests.transport.websockets import frame, opened, upgrade_request

__all__ = ["opened"]

SERVER = HttpServer(ping_interval=None)


async def open_websocket(server: HttpServer, carrier) -> WebSocketStream | None:
    upgrade = await server.read_upgrade(carrier)
    if upgrade is None:
        return None
    return await server.open_websocket(carrier, "10.0.0.1", upgrade, trio.lowlevel.spawn_system_task)


async def exchange(
    request: bytes, server: HttpServer = SERVER, *, end: bool = True
) -> tuple[int, dict[str, str], bytes]:
    """Send a request, check that the connection is closed, and return status, headers and body of the response."""
    ours, theirs = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, request)
        if end:
            nursery.start_soon(close_after, ours)
        transport = await open_websocket(server, theirs)
        nursery.cancel_scope.cancel()
    answer = await until_end(ours) if transport is None else await ours.receive()
    if transport is not None:
        transport.close()
        await trio.testing.wait_all_tasks_blocked()
    assert theirs._closed
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split(" ")[1]), headers, body


async def until_end(carrier) -> bytes:
    received = b""
    while data := await carrier.receive():
        received += data
    return received


async def close_after(carrier) -> None:
    """Close the sending side after the first bytes of the response."""
    while not carrier._incoming.data:
        await carrier._incoming.changed.park()
    carrier.send_eof()


# ---- WebSockets ----


@pytest.mark.parametrize("path", ["/", "/msl", "/?token=1", "/msl?x"])
async def test_a_websocket_is_opened_at_each_endpoint(path, opened):
    ours, theirs = memory_pair()
    await ours.send_all(upgrade_request(path))
    transport = await open_websocket(SERVER, theirs)
    assert isinstance(transport, WebSocketStream)
    opened.append(transport)
    answer = await ours.receive()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-protocol" not in answer.lower()
    ours.send_nowait(frame(1, b"{}"))
    assert await transport.receive() == b"{}\n"


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, ""),
        ({"X_Forwarded_For": "10.0.0.9"}, "10.0.0.9"),
        ({"X_Forwarded_For": "10.0.0.7, 10.0.0.8 ,10.0.0.9"}, "10.0.0.9"),
        ({"X_Forwarded_For": "fd00::9"}, "fd00::9"),
        ({"X_Forwarded_For": ","}, ""),
    ],
)
async def test_what_the_last_proxy_says_of_the_address_is_known(headers, address):
    ours, theirs = memory_pair()
    await ours.send_all(upgrade_request(**headers))
    upgrade = await SERVER.read_upgrade(theirs)
    assert upgrade.forwarded_for == address
    theirs.close()


async def test_the_key_is_answered_as_in_the_rfc():
    """RFC 6455, 1.3."""
    request = upgrade_request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    status, headers, _ = await exchange(request, end=False)
    assert status == 101
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_a_request_may_come_byte_by_byte(opened):
    ours, theirs = memory_pair()

    async def send():
        for byte in upgrade_request("/msl"):
            ours.send_nowait(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        opened.append(await open_websocket(SERVER, theirs))
    assert (await ours.receive()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("proposed", "status", "agreed"),
    [
        ("msl-network.v1", 101, "msl-network.v1"),
        ("chat, msl-network.v1", 101, "msl-network.v1"),
        (None, 101, None),
        ("chat", 400, None),
        ("msl-network.v2,msl-network", 400, None),
    ],
)
async def test_the_subprotocol_is_ours_or_none(proposed, status, agreed):
    answered, headers, _ = await exchange(upgrade_request(Sec_WebSocket_Protocol=proposed), end=status != 101)
    assert answered == status
    assert headers.get("sec-websocket-protocol") == agreed


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Sec_WebSocket_Version": "12"}, 426, "version"),
        ({"Sec_WebSocket_Version": None}, 426, "version"),
        ({"Sec_WebSocket_Key": None}, 400, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "short"}, 400, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "=" * 24}, 400, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "\xe9" * 24}, 400, "Sec-WebSocket-Key"),
        ({"Connection": "close"}, 400, "Connection"),
        ({"Connection": None}, 400, "Connection"),
        ({"Host": None}, 400, "Host"),
    ],
)
async def test_what_is_wrong_with_a_request_for_a_websocket_is_said(headers, status, text):
    answered, answer_headers, body = await exchange(upgrade_request(**headers))
    assert answered == status
    assert text.encode() in body
    if status == 426:
        assert answer_headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (upgrade_request("/elsewhere"), 404),
        (upgrade_request().replace(b"GET", b"POST"), 400),
        (upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (upgrade_request() + frame(1, b"{}"), 400),
        (upgrade_request("/" + "x" * 20_000), 404),
    ],
    ids=range(5),
)
async def test_no_websocket_is_opened_for_other_requests(request_, status):
    assert (await exchange(request_))[0] == status


# ---- origins ----


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "lab:8875", True),
        ("http://lab:8875", "lab:8875", True),
        ("HTTP://LAB:8875", "Lab:8875", True),
        ("https://lab.example", "lab.example", True),  # behind a proxy that terminates TLS
        ("https://lab.example", "lab.example:443", True),
        ("https://lab.example:443", "lab.example", True),
        ("http://[::1]:8875", "[::1]:8875", True),
        ("http://lab:8000", "lab:8875", False),
        ("http://lab", "lab:8875", False),
        ("https://lab.example", "lab.example:80", False),
        ("http://evil.example", "lab:8875", False),
        ("http://lab.evil.example:8875", "lab:8875", False),
        ("http://lab:8875@evil.example", "lab:8875", False),
        ("null", "lab:8875", False),
        ("", "lab:8875", False),
        ("nonsense", "lab:8875", False),
        ("http://[", "lab:8875", False),
        ("http://lab:x", "lab:8875", False),
        ("http://lab:8875", "lab:x", False),
        ("file://", "", False),
    ],
)
async def test_pages_of_the_same_host_may_connect(origin, host, is_allowed):
    status, _, body = await exchange(upgrade_request(Origin=origin, Host=host), end=not is_allowed)
    assert status == (101 if is_allowed else 403), body
    if not is_allowed:
        assert b"--websocket-origin" in body


@pytest.mark.parametrize(
    ("listed", "origin", "is_allowed"),
    [
        (["https://lab.example"], "https://lab.example", True),
        (["https://lab.example/"], "https://lab.example:443", True),
        (["https://LAB.example:443"], "https://lab.example", True),
        (["https://lab.example"], "http://lab.example", False),
        (["https://lab.example"], "https://evil.example", False),
        (["https://a", "http://b:8000"], "http://b:8000", True),
        (["null"], "null", True),
        (["*"], "https://evil.example", True),
        (["*"], "null", True),
        (["https://lab.example"], "http://localhost:8875", True),
    ],
)
async def test_pages_of_origins_that_are_listed_may_connect(listed, origin, is_allowed):
    server = HttpServer(origins=listed, ping_interval=None)
    status, _, _ = await exchange(upgrade_request(Origin=origin), server, end=not is_allowed)
    assert status == (101 if is_allowed else 403)


async def test_control_characters_of_an_origin_are_escaped():
    _, _, body = await exchange(upgrade_request(Origin="http://x\x1b[2J"))
    assert b"Pages of http://x\\x1b[2J may not connect" in body


async def test_two_origins_are_none():
    request = upgrade_request(Origin="http://localhost:8875").replace(
        b"Origin: ", b"Origin: http://evil.example\r\nOrigin: "
    )
    assert (await exchange(request))[0] == 403


@pytest.mark.parametrize(
    "text", ["lab.example", "lab.example:8875", "https://", "https://lab/path", "", "http://a:b"]
)
def test_what_is_no_origin_cannot_be_listed(text):
    with pytest.raises(ValueError, match="origin|[Pp]ort"):
        HttpServer(origins=[text])


# ---- pages ----


async def test_a_browser_gets_the_page():
    status, headers, body = await exchange(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body) > 100
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"MSL-Network" in body


async def test_without_its_body_if_it_wants():
    status, headers, body = await exchange(b"HEAD / HTTP/1.1\r\nHost: lab\r\n\r\n")
    assert status == 200
    assert int(headers["content-length"]) > 100
    assert body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /msl HTTP/1.1\r\nHost: lab\r\n\r\n", 426),
        (b"GET /nothing HTTP/1.1\r\nHost: lab\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: lab\r\n\r\n", 404),
        (b"GET /pages.py HTTP/1.1\r\nHost: lab\r\n\r\n", 404),
        (b"GET http://lab/ HTTP/1.1\r\nHost: lab\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: lab\r\n\r\n", 405),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
        (b'{"result": {"type": "client", "name": "C"}}\r\n\r\n', 400),
        (b"GET / HTTP/1.1\r\nHost: lab\r\nX: " + b"x" * 60_000, 431),
        (b"GET / HTTP/1.1\r\nHost: lab\r\n" + b"X: x\r\n" * 8_000, 431),
        (b"\r\n\r\n", 400),
    ],
    ids=range(16),
)
async def test_every_other_request_is_answered(request_, status):
    answered, headers, body = await exchange(request_)
    assert answered == status
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"


async def test_an_answer_quotes_nothing_as_markup():
    _, headers, body = await exchange(upgrade_request(Origin="http://<script>"))
    assert b"<script>" in body
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"


# ---- who takes their time ----


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_who_does_not_ask_within_some_seconds_is_sent_away(beginning, autojump_clock):
    ours, theirs = memory_pair()
    ours.send_nowait(beginning)
    began = trio.current_time()
    assert await SERVER.read_upgrade(theirs) is None
    assert trio.current_time() - began == pytest.approx(10)
    assert theirs._closed


async def test_who_asks_slowly_for_ever_is_sent_away(autojump_clock):
    ours, theirs = memory_pair()

    async def drip():
        ours.send_nowait(b"GET / HTTP/1.1\r\n")
        while True:
            ours.send_nowait(b"X: x\r\n")
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert await SERVER.read_upgrade(theirs) is None
        nursery.cancel_scope.cancel()
    assert theirs._closed


async def test_who_does_not_read_the_answer_is_given_up(autojump_clock):
    ours, theirs = memory_pair(capacity=100)
    request = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, request)
        assert await SERVER.read_upgrade(theirs) is None
    assert theirs._closed


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", upgrade_request()[:-2]])
@pytest.mark.parametrize("how", ["send_eof", "close", "reset"])
async def test_who_is_gone_again_harms_nobody(beginning, how):
    ours, theirs = memory_pair()
    ours.send_nowait(beginning)
    getattr(ours, how)()
    assert await SERVER.read_upgrade(theirs) is None
    assert theirs._closed


@pytest.mark.parametrize("beginning", [b"GET / HT", upgrade_request()[:-2]])
async def test_a_request_that_was_cut_in_the_network_is_not_answered(beginning):
    ours, theirs = memory_pair()
    ours.send_nowait(beginning)
    ours.send_eof()
    assert await SERVER.read_upgrade(theirs) is None
    assert await until_end(ours) == b""


async def test_to_be_cancelled_closes_the_connection():
    _, theirs = memory_pair()
    with trio.move_on_after(0.01):
        await SERVER.read_upgrade(theirs)
    assert theirs._closed


@pytest.mark.parametrize(
    ("retry_after", "head"), [((), rb"HTTP/1.1 502 "), ((7,), rb"HTTP/1.1 503 .*\r\nRetry-After: 7\r\n")]
)
async def test_a_refusal_of_the_owner_is_an_answer(retry_after, head):
    ours, theirs = memory_pair()
    ours.send_nowait(upgrade_request())
    upgrade = await SERVER.read_upgrade(theirs)
    assert upgrade is not None
    ours.send_eof()
    await SERVER.refuse(theirs, "There is no Manager", *retry_after)
    assert re.match(head + rb".*\r\n\r\nThere is no Manager\n", await until_end(ours), re.DOTALL)
    assert theirs._closed
