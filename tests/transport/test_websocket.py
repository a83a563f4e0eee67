"""WebSocket streams in memory: messages, backpressure, pings, closing."""

from __future__ import annotations

import contextlib
import os
import re
from functools import partial

import outcome
import pytest
import trio
import trio.testing

from msl_network_trio.exceptions import ConnectError, ConnectionLost
from msl_network_trio.transport.memory import memory_pair
from msl_network_trio.transport.websocket import input_quota
from msl_network_trio.transport.websocket_frames import SHORT, TURN
from msl_network_trio.transport.websocket_handshake import accept_websocket, open_websocket
from tests.patience import PATIENCE
from tests.transport.websockets import (
    KEY,
    accepted,
    frame,
    one_end,
    opened,
    read_head,
    receive_lines,
    websocket_pair,
)

__all__ = ["one_end", "opened", "websocket_pair"]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

MESSAGE = b"x" * SHORT
"""A message that is not a short frame."""


@pytest.fixture(params=["client", "server"])
def direction(request):
    """The index of the sending end."""
    return slice(None, None, 1 if request.param == "client" else -1)


# ---- messages ----


async def test_lines_become_messages_and_messages_lines(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    assert sender.send_nowait(b'{"a": 1}\r\n{"b": 2}\n{"c"') == 23
    assert await receiver.receive() == b'{"a": 1}\n{"b": 2}\n'
    with trio.move_on_after(0):
        await receiver.receive()
        pytest.fail("half a line is no message")
    sender.send_nowait(memoryview(b": 3}\r\n"))
    assert await receiver.receive() == b'{"c": 3}\n'


async def test_invisible_characters_arrive_unchanged(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    for line in ("", "\u2028é漢😀", "\0", " x "):
        await sender.send_all(line.encode() + b"\n")
        assert await receiver.receive() == line.encode() + b"\n"


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 3_000_000])
async def test_lines_of_any_size_arrive_whole(websocket_pair, direction, size):
    line = os.urandom(size // 2).hex().encode().ljust(size, b"x") + b"\n"
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, line)
        assert await receiver.receive() == line


async def test_a_json_text_on_several_lines_is_one_line(websocket_pair):
    _, server, carrier, _ = await websocket_pair()
    carrier.send_nowait(frame(TEXT, b'{\r\n  "a":\n1}\n'))
    assert await server.receive() == b'{\r   "a": 1} \n'


async def test_a_message_in_fragments_of_any_size_is_one_line(websocket_pair):
    _, server, carrier, _ = await websocket_pair()
    text = "{'é': '漢字😀'}".encode()
    carrier.send_nowait(frame(TEXT, text[:1], final=False))
    for byte in text[1:]:
        carrier.send_nowait(frame(0, bytes([byte]), final=False) + frame(PING, b"in between"))
    carrier.send_nowait(frame(0, b"", final=True))
    assert await server.receive() == text + b"\n"


async def test_bytes_may_arrive_one_by_one(websocket_pair):
    _, server, carrier, _ = await websocket_pair()
    for byte in frame(TEXT, b"x" * 200):
        carrier.send_nowait(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()
    assert await server.receive() == b"x" * 200 + b"\n"


# ---- backpressure and cancellation ----


async def test_a_peer_that_does_not_read_holds_the_sender_up(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    line = b"x" * 999 + b"\n"
    sent = 1
    while sender.send_nowait(line) == len(line):
        sent += 1
        await trio.testing.wait_all_tasks_blocked()
    assert sent == 66, "more than what may be on its way, and a frame that is there in part"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.wait_send)
        assert set(await receive_lines(receiver, sent)) == {line.rstrip()}
    assert sender.send_nowait(b"\n" + line) == 1 + len(line)


async def test_the_last_byte_of_a_line_is_taken_when_its_frame_has_been_sent(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    line = b"x" * 1_000_000 + b"\n"
    assert sender.send_nowait(line) == 1_000_000
    assert sender.send_nowait(b"\n") == 0
    await trio.testing.wait_all_tasks_blocked()
    assert sender.send_nowait(b"\n") == 0
    assert await receiver.receive() == line
    await sender.wait_send()
    assert sender.send_nowait(b"\ny\n") == 3
    assert await receiver.receive() == b"y\n"


async def test_cancellation_while_sending_leaves_no_partial_message(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    lines = b"".join(b"%06d" % n * 100 + b"\n" for n in range(2000))
    with trio.move_on_after(0.01) as scope:
        await sender.send_all(lines)
    assert scope.cancelled_caught
    with pytest.raises(ConnectionLost, match="code 1006"):
        while True:
            for line in (await receiver.receive()).splitlines(keepends=True):
                assert len(line) == 601
                assert len({line[i : i + 6] for i in range(0, 600, 6)}) == 1


async def test_cancellation_while_receiving_loses_nothing(websocket_pair):
    client, server, *_ = await websocket_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.receive()
    server.send_nowait(b"1\n2\n")
    await trio.testing.wait_all_tasks_blocked()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.receive()
    assert await receive_lines(client, 2) == [b"1", b"2"]


async def test_both_ends_may_send_without_reading_first(websocket_pair):
    """Neither end waits for the other to receive its pongs or messages."""
    ends = (await websocket_pair())[:2]
    lines = b"x" * 999_999 + b"\n"

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.send_all, lines * 3)
            nursery.start_soon(receive_lines, end, 3)


# ---- the end ----


async def test_the_end_follows_the_sent_messages(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    for n in range(100):
        sender.send_nowait(b"%d\n" % n)
    sender.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.receive)  # waits for the close frame of the other end
        assert await receive_lines(receiver, 100) == [b"%d" % n for n in range(100)]
        assert await receiver.receive() == b""
        assert receiver.close_reason == "the WebSocket was closed with code 1000 (normal closure)"
        assert await receiver.receive() == b""
    assert await sender.receive() == b""
    with pytest.raises(ConnectionLost, match="closed"):
        sender.send_nowait(b"x\n")
    with pytest.raises(ConnectionLost, match="code 1000"):
        receiver.send_nowait(b"x\n")


async def test_the_reason_of_a_close_frame_is_received(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    sender.send_close(1008, "the password is wrong")
    with pytest.raises(ConnectionLost, match=r"code 1008 \(policy violation\): the password is wrong"):
        await receiver.receive()


async def test_a_reason_may_be_longer_than_a_frame_takes(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    sender, receiver = ends[direction]
    sender.send_close(1008, "é" * 200)
    with pytest.raises(ConnectionLost, match="code 1008"):
        await receiver.receive()


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1001, "restart", r"code 1001 \(going away\): restart"),
        (1000, "", r"code 1000 \(normal closure\)"),
        (None, "", r"code 1005 \(no status rcvd\)"),
    ],
)
async def test_a_usual_end_is_the_end_of_the_stream(websocket_pair, code, reason, text):
    client, _, _, theirs = await websocket_pair()
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    theirs.send_nowait(frame(CLOSE, payload, masked=False))
    assert await client.receive() == b""
    assert re.fullmatch(f"the WebSocket was closed with {text}", client.close_reason)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4321])
async def test_any_other_end_is_an_error_with_code_and_reason(websocket_pair, code):
    client, _, _, theirs = await websocket_pair()
    theirs.send_nowait(frame(CLOSE, code.to_bytes(2, "big") + b"because", masked=False))
    with pytest.raises(ConnectionLost, match=rf"code {code}.*: because$"):
        await client.receive()
    with pytest.raises(ConnectionLost, match=rf"code {code}.*: because$"):
        client.send_nowait(b"x\n")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_end_without_a_close_frame_is_an_error(websocket_pair, how, direction):
    client, server, ours, theirs = await websocket_pair()
    (end, _), (_, carrier) = (client, server)[direction], (ours, theirs)[direction]
    getattr(carrier, how)()
    with pytest.raises(ConnectionLost, match=r"code 1006 \(abnormal closure\)"):
        await end.receive()
    with pytest.raises(ConnectionLost):
        while True:
            end.send_nowait(b"x\n")
            await trio.testing.wait_all_tasks_blocked()


async def test_the_close_reason_is_received_also_after_an_error_of_sending(websocket_pair, direction):
    """The last data of the peer must not be lost."""
    client, server, ours, theirs = await websocket_pair()
    end, other = (client, server)[direction]
    carrier = (ours, theirs)[direction][0]
    other.send_nowait(b"why\n")
    await trio.testing.wait_all_tasks_blocked()

    def broken(data):
        raise ConnectionLost("Broken pipe")

    carrier.send_nowait = broken
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="Broken pipe"):
            end.send_nowait(b"x\n")
    assert await end.receive() == b"why\n"
    other.send_nowait(b"because\n")
    assert await end.receive() == b"because\n"


async def test_close_wakes_waiting_senders_and_receivers(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    end, _ = ends[direction]
    while end.send_nowait(b"x" * 999 + b"\n"):
        await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:

        async def receive():
            with pytest.raises(ConnectionLost, match="closed"):
                await end.receive()

        nursery.start_soon(receive)
        nursery.start_soon(end.wait_send)
        await trio.testing.wait_all_tasks_blocked()
        end.close()
    with pytest.raises(ConnectionLost, match="closed"):
        end.send_nowait(b"x\n")


async def test_close_without_send_eof_sends_a_close_frame(websocket_pair, direction):
    ends = (await websocket_pair())[:2]
    end, other = ends[direction]
    end.close()
    end.close()
    assert await other.receive() == b""
    assert "code 1001" in other.close_reason


async def test_receive_after_send_eof_waits_for_the_close_frame_without_a_limit(one_end):
    end, _ = await one_end()
    end.send_eof()
    with trio.move_on_after(0.05) as scope:
        await end.receive()
    assert scope.cancelled_caught


async def test_waiting_senders_are_woken_when_the_task_has_ended(autojump_clock, opened):
    _, theirs = memory_pair(1000)
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        end = await accept_websocket(theirs, KEY, None, nursery.start_soon)
        opened.append(end)
        assert end.send_nowait(b"x" * 5000 + b"\n") == 5000

        async def wait():
            with trio.CancelScope(shield=True), pytest.raises(ConnectionLost, match="has ended"):
                while True:
                    await end.wait_send()
                    end.send_nowait(b"\n")

        outer.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert 4 < trio.current_time() < 6


# ---- violations of the protocol ----


async def until_goodbye(carrier) -> tuple[int, bytes]:
    """Receive until a close frame, and return its code and reason."""
    received = b""
    while data := await carrier.receive():
        received += data
        if received[0] == 0x88 and len(received) >= 2 and len(received) >= frame_size(received):
            assert len(received) == frame_size(received), "something follows the goodbye"
            payload = unmasked(received)
            return int.from_bytes(payload[:2], "big"), payload[2:]
    pytest.fail(f"no goodbye in {received[:200]!r}")


def frame_size(data: bytes) -> int:
    return 2 + (data[1] & 0x7F) + (4 if data[1] & 0x80 else 0)


def unmasked(data: bytes) -> bytes:
    if not data[1] & 0x80:
        return data[2:]
    mask, payload = data[2:6], data[6:]
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


BAD = {
    "binary": ([(BINARY, b"{}")], 1003),
    "text that is no UTF-8": ([(TEXT, b"{\xff}")], 1007),
    "text that ends in the midst of a character": ([(TEXT, "é".encode()[:1])], 1007),
    "a surrogate": ([(TEXT, b"\xed\xa0\x80")], 1007),
    "a reserved opcode": ([(0x3, b"{}")], 1002),
    "a reserved bit": ([(0x40 | TEXT, b"x")], 1002),
    "a ping in fragments": ([(PING, b"", False)], 1002),
    "a continuation of nothing": ([(0, b"x")], 1002),
    "a text within a text": ([(TEXT, b"x", False), (TEXT, b"x")], 1002),
    "a goodbye of one byte": ([(CLOSE, b"\x03")], 1002),
    "a goodbye with a code that is none": ([(CLOSE, (999).to_bytes(2, "big"))], 1002),
    "a goodbye with a code that nobody sends": ([(CLOSE, (1006).to_bytes(2, "big"))], 1002),
    "a message that is too large": ([(TEXT, b"x" * 1001)], 1009),
    "fragments that are too large": ([(TEXT, b"x" * 600, False), (0, b"x" * 600)], 1009),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_peer_that_violates_the_protocol_receives_the_code_and_is_dropped(name, one_end):
    frames, code = BAD[name]
    end, carrier = await one_end(read_limit=1000)
    masked = not end._is_client
    bad = b"".join(
        frame(opcode, payload, final=not more or more[0], masked=masked) for opcode, payload, *more in frames
    )
    carrier.send_nowait(frame(TEXT, b"before", masked=masked) + bad)
    assert await end.receive() == b"before\n"
    with pytest.raises(ConnectionLost):
        await end.receive()
    end.send_eof()  # as the Manager does then
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.receive)
        assert (await until_goodbye(carrier))[0] == code
        carrier.send_nowait(frame(CLOSE, code.to_bytes(2, "big"), masked=masked))
        carrier.close()


async def test_frames_masked_like_those_of_the_other_end_violate_the_protocol(one_end):
    end, carrier = await one_end()
    carrier.send_nowait(frame(TEXT, b"{}", masked=end._is_client))
    with pytest.raises(ConnectionLost, match="code 1002"):
        await end.receive()
    assert (await until_goodbye(carrier))[0] == 1002


async def test_a_peer_in_the_middle_of_a_message_that_is_too_large_receives_the_code(one_end):
    end, carrier = await one_end(read_limit=1000)
    mask = b"" if end._is_client else b"mask"
    carrier.send_nowait(
        bytes((0x81, 0xFF if mask else 0x7F)) + (10**9).to_bytes(8, "big") + mask + b"x" * 30_000
    )
    with pytest.raises(ConnectionLost, match="code 1009"):
        await end.receive()
    end.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.receive)
        await carrier.send_all(b"x" * 1_000_000)  # it goes on without receiving
        assert (await until_goodbye(carrier))[0] == 1009
        carrier.close()


async def test_pings_are_answered_and_unsolicited_pongs_are_not(one_end):
    end, carrier = await one_end()
    masked = not end._is_client
    carrier.send_nowait(frame(PONG, b"?", masked=masked) + frame(PING, b"!", masked=masked))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.receive)
        data = await carrier.receive()
        nursery.cancel_scope.cancel()
    assert data[0] == 0x80 | PONG
    assert unmasked(data) == b"!"


async def test_pings_of_a_peer_that_takes_no_answers_do_not_pile_up(one_end):
    """Only the last ping is answered, when that is possible."""
    end, carrier = await one_end(1000)
    masked = not end._is_client
    assert end.send_nowait(b"x" * 5000 + b"\n") == 5000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.receive)
        for n in range(1000):
            await carrier.send_all(frame(PING, b"%d" % n, masked=masked))
        await trio.testing.wait_all_tasks_blocked()
        size = 5004 + 5 + (8 if end._is_client else 0)  # two frames, of which a client masks each
        received = b""
        while len(received) < size:
            received += await carrier.receive()
        nursery.cancel_scope.cancel()
    assert len(received) == size
    assert unmasked(received[5004 + (4 if end._is_client else 0) :]) == b"999"


async def test_pings_after_a_close_frame_are_not_answered(one_end):
    """No pong may follow a close frame."""
    end, carrier = await one_end()
    masked = not end._is_client
    end.send_eof()
    assert (await until_goodbye(carrier))[0] == 1000
    carrier.send_nowait(frame(PING, b"!", masked=masked) + frame(CLOSE, masked=masked))
    carrier.close()
    assert await end.receive() == b""


async def test_a_large_message_that_the_carrier_takes_at_once_is_sent_whole(websocket_pair, direction):
    """The send queue pauses after some MB, then with nothing left to send."""
    ends = (await websocket_pair(100_000_000))[:2]
    sender, receiver = ends[direction]
    line = b"x" * 5_000_000 + b"\n"
    with trio.fail_after(PATIENCE):
        await sender.send_all(line + line)
        assert await receive_lines(receiver, 2) == [line[:-1], line[:-1]]


# ---- floods ----


async def test_others_have_their_turn_while_many_frames_are_read(one_end):
    end, carrier = await one_end()
    masked = not end._is_client
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    carrier.send_nowait(
        frame(PONG, masked=masked) * (5 * TURN) + frame(TEXT, MESSAGE, masked=masked) * (2 * TURN)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        assert await end.receive() == (MESSAGE + b"\n") * TURN
        assert turns >= 5
        assert await end.receive() == (MESSAGE + b"\n") * TURN
        nursery.cancel_scope.cancel()


async def test_cancellation_between_two_turns_loses_nothing(one_end):
    end, carrier = await one_end()
    carrier.send_nowait(frame(TEXT, MESSAGE, masked=not end._is_client) * (TURN + 1))
    assert await end.receive() == (MESSAGE + b"\n") * TURN
    with trio.CancelScope() as scope:
        scope.cancel()
        await end.receive()
    assert scope.cancelled_caught
    assert await end.receive() == MESSAGE + b"\n"


async def test_a_peer_that_sends_endless_pongs_receives_the_code_and_is_dropped(one_end):
    end, carrier = await one_end()
    masked = not end._is_client
    carrier.send_nowait(frame(TEXT, b"before", masked=masked) + frame(PONG, masked=masked) * 3000)
    assert await end.receive() == b"before\n"
    with pytest.raises(ConnectionLost, match="code 1008"):
        await end.receive()
    assert (await until_goodbye(carrier))[0] == 1008


async def test_the_wait_for_a_close_frame_ends_after_a_number_of_frames(one_end):
    end, carrier = await one_end()
    masked = not end._is_client
    end.send_eof()
    carrier.send_nowait(frame(TEXT, b"x", masked=masked) * (40 * TURN))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.receive)
        await trio.testing.wait_all_tasks_blocked()
        assert end._frames.ending.reason == "it does not stop sending"
        carrier.close()


# ---- pings ----


async def test_a_connection_that_is_idle_is_asked_and_lives(websocket_pair, autojump_clock, direction):
    ends = (await websocket_pair(client={"ping_interval": 20}, server={"ping_interval": 30}))[:2]
    sender, receiver = ends[direction]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.receive)
        nursery.start_soon(receive_lines, receiver, 1)
        await trio.sleep(1000)
        sender.send_nowait(b"x\n")
        receiver.send_nowait(b"y\n")


async def test_a_peer_that_answers_no_ping_is_lost(one_end, autojump_clock):
    end, carrier = await one_end(ping_interval=20)
    masked = not end._is_client
    began = trio.current_time()

    async def be_there_for_a_while():
        await trio.sleep(15)
        carrier.send_nowait(frame(TEXT, b"x", masked=masked))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_there_for_a_while)
        assert await end.receive() == b"x\n"
    with pytest.raises(ConnectionLost, match="has not answered a ping for 20 seconds"):
        await end.receive()
    assert trio.current_time() - began == pytest.approx(40)
    with pytest.raises(ConnectionLost, match="not answered a ping"):
        end.send_nowait(b"x\n")


async def test_a_large_message_that_is_slow_is_no_missing_answer(websocket_pair, autojump_clock):
    client, server, _, theirs = await websocket_pair(1000, client={"ping_interval": 10})
    receive = theirs.receive

    async def slowly():
        await trio.sleep(3)
        return await receive()

    theirs.receive = slowly
    line = b"x" * 50_000 + b"\n"
    client.send_nowait(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)  # without a receive(), a missing pong is not noticed
        assert await server.receive() == line
        assert trio.current_time() > 100
        server.send_nowait(b"done\n")


# ---- handshakes ----


async def answered(answer: bytes, *, then_close: bool = True, **kwargs):
    """Open a WebSocket at a server with a given answer, and return the result."""
    ours, theirs = memory_pair()

    async def serve():
        await read_head(theirs)
        theirs.send_nowait(answer)
        if then_close:
            theirs.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        result = await outcome.acapture(partial(open_websocket, ours, "vm:1", **kwargs))
    assert ours._closed, "the carrier was left open"
    return result.unwrap()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nnot for us", "HTTP status 403: 'not for us'"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP status 404"),
        (
            b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n\r\n",
            "status 502: 'down'",
        ),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\nelsewhere", "HTTP/1.1 301 Moved"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 200 OK"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "101 Switching"),
        (b"", "closed the connection before it answered"),
        (b'{"args": [], "attribute": "identity"}\r\n', "port of a Manager for TCP"),
        (b"\x15\x03\x03\x00\x02\x02F", "speaks TLS"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"\0" * 100_000, "does not speak HTTP"),
    ],
)
async def test_a_server_that_does_not_open_one_is_quoted(answer, text):
    with pytest.raises(ConnectError, match=text) as caught:
        await answered(answer[:60_000])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"Retry-After: 7\r\n", 7.0),
        (b"retry-after: 7\r\nRetry-After: 8\r\n", 7.0),
        (b"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", None),
        (b"Retry-After: -1\r\n", None),
        (b"", None),
    ],
)
async def test_a_refusal_contains_the_status_and_when_to_try_again(header, seconds):
    with pytest.raises(ConnectError) as caught:
        await answered(b"HTTP/1.1 503 Full\r\n" + header + b"Content-Length: 0\r\n\r\n")
    assert (caught.value.http_status, caught.value.retry_after) == (503, seconds)


async def test_opening_at_a_silent_server_can_be_cancelled():
    before = trio.lowlevel.current_statistics().tasks_living
    ours, _ = memory_pair()
    with trio.move_on_after(0.05) as scope:
        await open_websocket(ours, "vm:1")
    assert scope.cancelled_caught
    assert ours._closed
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_the_request_of_the_opening_handshake():
    ours, theirs = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(open_websocket, ours, "lab.example:8875", path="/msl?x=1", headers={"X-Token": "ä"})
        )
        first, headers, rest = await read_head(theirs)
        nursery.cancel_scope.cancel()
    assert first == "GET /msl?x=1 HTTP/1.1"
    assert headers["host"] == "lab.example:8875"
    assert headers["x-token"] == "ä"
    assert headers["sec-websocket-protocol"] == "msl-network.v1"
    assert rest == b""


async def test_frames_that_arrive_with_the_answer_are_received():
    ours, theirs = memory_pair()

    async def accept():
        _, headers, _ = await read_head(theirs)
        theirs.send_nowait(accepted(headers["sec-websocket-key"]) + frame(TEXT, b"early", masked=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        client = await open_websocket(ours, "vm:1")
    assert await client.receive() == b"early\n"
    client.close()


async def test_a_client_that_is_gone_before_the_answer_is_lost():
    ours, theirs = memory_pair()
    ours.reset()
    with pytest.raises(ConnectionLost):
        await accept_websocket(theirs, "AAAAAAAAAAAAAAAAAAAAAA==", None, trio.lowlevel.spawn_system_task)
    assert theirs._closed


# ---- in the middle of a line ----


@pytest.mark.parametrize("size", [8, 300_000])
async def test_abort_sends_no_close_frame_and_breaks_the_connection(one_end, size):
    end, carrier = await one_end()
    end.send_nowait(b"x" * size)  # a part of a line, not packed into a frame yet
    end.end(cut_off=True)
    with pytest.raises(ConnectionLost, match="Connection reset by peer"):
        await carrier.receive()
    with pytest.raises(ConnectionLost):
        await end.receive()


async def test_a_missing_pong_in_the_middle_of_a_frame_resets_the_connection(
    one_end, nursery, autojump_clock
):
    end, carrier = await one_end(capacity=1000, ping_interval=20)
    end.send_nowait(b"x" * 5000 + b"\n")
    with pytest.raises(ConnectionLost, match="has not answered a ping"):
        await end.receive()
    with pytest.raises(ConnectionLost, match="Connection reset by peer"):
        await carrier.receive()
    end.close()


async def test_close_in_the_middle_of_a_frame_breaks_the_connection(one_end):
    end, carrier = await one_end(capacity=1000)
    end.send_nowait(b"x" * 5000 + b"\n")
    end.close()
    with pytest.raises(ConnectionLost, match="Connection reset by peer"):
        await carrier.receive()


async def test_a_close_frame_in_the_middle_of_a_message_is_an_error(one_end):
    end, carrier = await one_end()
    masked = not end._is_client
    carrier.send_nowait(frame(TEXT, b"one", masked=masked) + frame(TEXT, b"half", final=False, masked=masked))
    carrier.send_nowait(frame(CLOSE, (1000).to_bytes(2, "big"), masked=masked))
    assert await end.receive() == b"one\n"
    with pytest.raises(ConnectionLost, match="closed in the middle of a message with code 1000"):
        await end.receive()


async def test_the_peer_receives_an_abnormal_closure_after_abort(websocket_pair):
    client, server, *_ = await websocket_pair()
    client.send_nowait(b"half a li")
    client.abort()
    with pytest.raises(ConnectionLost, match=r"code 1006 \(abnormal closure\)"):
        await server.receive()


# ---- the quota ----


async def test_the_quota_drops_the_largest_sender(websocket_pair, nursery):
    quota = input_quota(3_000_000)
    pairs = [await websocket_pair(server={"quota": quota}) for _ in range(3)]
    carriers = [pair[2] for pair in pairs]
    results = {}

    async def receive(number):
        results[number] = await outcome.acapture(pairs[number][1].receive)

    async def announce(number, size, opcode=TEXT, *, final=False):
        await carriers[number].send_all(frame(opcode, b"x" * size, final=final))
        await trio.testing.wait_all_tasks_blocked()

    for number, size in enumerate((1_000_000, 1_500_000, 400_000)):
        nursery.start_soon(receive, number)
        await announce(number, size)
    await announce(2, 400_000, 0)
    with pytest.raises(ConnectionLost, match="The quota for incomplete messages is exceeded"):
        results.pop(1).unwrap()
    # The others go on, and received messages no longer count.
    for number, size in ((0, 1_000_002), (2, 800_002)):
        await announce(number, 1, 0, final=True)
        assert len(results.pop(number).unwrap()) == size
        nursery.start_soon(receive, number)
    await announce(0, 2_900_000)
    pairs[0][1].close()
    await announce(2, 2_900_000)
    await announce(2, 1, 0, final=True)
    assert len(results.pop(2).unwrap()) == 2_900_002


async def test_the_quota_drops_the_largest_sender_of_the_busiest_host(websocket_pair, nursery):
    quota = input_quota(3_000_000)
    addresses = ("10.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db8::3")
    pairs = [await websocket_pair(server={"quota": quota, "address": address}) for address in addresses]
    ended = []

    async def receive(number):
        with pytest.raises(ConnectionLost):
            await pairs[number][1].receive()
        ended.append(number)

    for number, size in enumerate((1_300_000, 600_000, 700_000, 500_000)):
        nursery.start_soon(receive, number)
        await pairs[number][2].send_all(frame(TEXT, b"x" * size, final=False))
        await trio.testing.wait_all_tasks_blocked()
    assert ended == [2]
    nursery.cancel_scope.cancel()


async def test_a_quota_without_a_limit_drops_no_connection(websocket_pair):
    client, server, *_ = await websocket_pair(server={"quota": input_quota(None)})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x" * 1_000_000 + b"\n")
        assert len(await server.receive()) == 1_000_001


async def test_limit_buffer_drops_a_connection_with_a_larger_incomplete_message(websocket_pair, nursery):
    _, server, carrier, _ = await websocket_pair()

    async def sent(size):
        nursery.start_soon(carrier.send_all, frame(TEXT, b"x" * size))
        return len(await server.receive())

    server.limit_buffer(1_000_000)
    assert await sent(900_000) == 900_001
    assert await sent(900_000) == 900_001
    server.limit_buffer(None)
    assert await sent(1_200_000) == 1_200_001
    server.limit_buffer(1_000_000)

    async def send_too_much():
        with contextlib.suppress(ConnectionLost):
            await carrier.send_all(frame(TEXT, b"x" * 1_200_000))

    nursery.start_soon(send_too_much)
    with (
        trio.fail_after(PATIENCE),
        pytest.raises(ConnectionLost, match="more than 1,000,000 bytes without an end"),
    ):
        await server.receive()


async def test_pings_do_not_count_as_parts_of_a_message(websocket_pair, nursery):
    _, server, carrier, _ = await websocket_pair()
    server.limit_buffer(1000)
    nursery.start_soon(server.receive)
    for _ in range(100):
        await carrier.send_all(frame(PING, b"x" * 100))
        await carrier.receive()
    await carrier.send_all(frame(TEXT, b"x"))
