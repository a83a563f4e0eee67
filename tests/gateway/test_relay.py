"""Tests of the relay, in memory: lines, backpressure, and how the end of one side closes the other."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.gateway.relay import relay
from msl_network_trio.transport.memory import memory_pair
from tests.transport.websockets import opened, websocket_pair

__all__ = ["opened", "websocket_pair"]


@pytest.fixture
async def ends(websocket_pair, nursery):
    """The peer, its Manager, and the result of `relay`."""
    peer, websocket, carrier, _ = await websocket_pair()
    upstream, manager = memory_pair()
    result = []

    async def run():
        result.append(await relay(websocket, upstream, 60))

    nursery.start_soon(run)
    yield peer, manager, result, carrier
    manager.close()
    peer.close()


async def test_lines_pass_as_they_are(ends):
    peer, manager, _, _ = ends
    for line in (b'{"a": NaN, "b": 12345678901234567890123}', b"nonsense", "\u2028é".encode(), b""):
        manager.send_nowait(line + b"\r\n")
        assert await peer.receive() == line + b"\n"
        peer.send_nowait(line + b"\r\n")
        assert await manager.receive() == line + b"\n"


async def test_lines_that_come_in_pieces_or_together_are_messages(ends):
    peer, manager, _, _ = ends
    manager.send_nowait(b'{"a":')
    await trio.testing.wait_all_tasks_blocked()
    manager.send_nowait(b'1}\r\n{"b":2}\n{"c"')
    assert await peer.receive() == b'{"a":1}\n{"b":2}\n'
    manager.send_nowait(b":3}\n")
    assert await peer.receive() == b'{"c":3}\n'


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_large_lines_pass(ends, size):
    peer, manager, _, _ = ends
    line = b"x" * size + b"\n"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.send_all, line)
        nursery.start_soon(peer.send_all, line)
        assert await peer.receive() == line
        received = 0
        while received < len(line):
            received += len(await manager.receive())


async def test_who_does_not_read_holds_the_other_one_up(ends):
    peer, manager, result, _ = ends
    line = b"x" * 9_999 + b"\n"
    for sender, receiver in ((manager, peer), (peer, manager)):
        sent = 0
        while (count := sender.send_nowait(line)) == len(line) and sent < 10_000_000:
            sent += count
            await trio.testing.wait_all_tasks_blocked()
        assert sent < 3_000_000
        received = 0
        while received < sent:
            received += len(await receiver.receive())
    assert not result


async def test_who_reads_nothing_for_too_long_is_given_up(ends, autojump_clock):
    """A Manager of msl-network would block all clients of the Service meanwhile."""
    _, manager, result, _ = ends
    carrier = ends[3]
    carrier.receive = trio.sleep_forever
    line = b"x" * 9_999 + b"\n"
    while manager.send_nowait(line) == len(line):
        await trio.testing.wait_all_tasks_blocked()
    while not result:
        await trio.sleep(1)
    assert "has read nothing for 60 seconds" in result[0].reason


async def test_the_end_of_the_manager_is_told(ends):
    peer, manager, result, _ = ends
    manager.send_nowait(b"last\n")
    manager.close()
    assert await peer.receive() == b"last\n"
    assert await peer.receive() == b""
    assert peer.close_reason == (
        "the WebSocket was closed with code 1001 (going away): the Manager closed the connection"
    )
    await trio.testing.wait_all_tasks_blocked()
    assert result[0].of_manager


async def test_that_the_manager_is_lost_is_told(ends):
    peer, manager, result, _ = ends
    manager.reset()
    with pytest.raises(
        ConnectionLost, match=r"code 1011 \(internal error\): the connection to the Manager was lost"
    ):
        await peer.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert result[0].of_manager
    assert result[0].is_lost


@pytest.mark.parametrize("how", ["send_eof", "close"])
async def test_the_end_of_the_peer_is_the_end_of_the_stream(ends, how):
    peer, manager, result, _ = ends
    peer.send_nowait(b"last\n")
    await trio.testing.wait_all_tasks_blocked()
    getattr(peer, how)()
    assert await manager.receive() == b"last\n"
    assert await manager.receive() == b""
    manager.close()
    await trio.testing.wait_all_tasks_blocked()
    assert not result[0].of_manager
    assert "the peer closed the connection" in result[0].reason


async def test_that_the_peer_is_lost_is_the_end_of_the_stream(ends):
    _, manager, result, carrier = ends
    carrier.reset()
    assert await manager.receive() == b""
    manager.close()
    await trio.testing.wait_all_tasks_blocked()
    assert "lost" in result[0].reason


async def test_a_manager_that_ends_in_the_middle_of_a_line_is_lost(ends):
    peer, manager, result, _ = ends
    manager.send_nowait(b"line\nhalf a li")
    manager.close()
    assert await peer.receive() == b"line\n"
    with pytest.raises(
        ConnectionLost, match=r"code 1011 .*: the Manager closed the connection in the middle"
    ):
        await peer.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert result[0].is_lost


async def test_a_manager_that_does_not_take_the_rest_of_a_line_is_told_by_a_reset(ends, autojump_clock):
    peer, manager, result, _ = ends
    await peer.send_all(b"x" * 300_000 + b"\n")
    with pytest.raises(ConnectionLost, match=r"code 1011 .*has read nothing for 60 seconds"):
        await peer.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert result[0].of_manager
    with pytest.raises(ConnectionLost, match="reset"):
        await manager.receive()


async def test_a_peer_that_goes_while_the_manager_does_not_take_its_line_is_a_reset_as_well(ends):
    peer, manager, result, carrier = ends
    await peer.send_all(b"x" * 300_000 + b"\n")
    await trio.testing.wait_all_tasks_blocked()
    manager.send_nowait(b"x" * 60_000)
    carrier.reset()
    await trio.testing.wait_all_tasks_blocked()
    manager.send_nowait(b"\n")  # the WebSocket is closed
    await trio.testing.wait_all_tasks_blocked()
    assert "the connection to the peer was lost" in result[0].reason
    with pytest.raises(ConnectionLost, match="reset"):
        await manager.receive()


async def test_a_gateway_that_ends_in_the_middle_of_lines_resets_both_connections(websocket_pair):
    peer, websocket, *_ = await websocket_pair()
    upstream, manager = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, websocket, upstream, 60)
        await peer.send_all(b"x" * 300_000 + b"\n")
        manager.send_nowait(b"half a li")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for end in (peer, manager):
        with pytest.raises(ConnectionLost):
            await end.receive()


async def test_a_peer_that_says_goodbye_in_the_middle_of_a_line_of_the_manager_is_answered(ends):
    peer, manager, result, carrier = ends
    manager.send_nowait(b"half a li")
    await trio.testing.wait_all_tasks_blocked()
    peer.send_eof()
    assert await manager.receive() == b""
    manager.close()
    await trio.testing.wait_all_tasks_blocked()
    assert not result[0].of_manager
    answer = await carrier.receive()
    assert answer[0] & 0xF == 0x8, "a frame that closes it"
    assert await carrier.receive() == b""


async def test_a_manager_that_does_not_close_is_left_after_some_seconds(ends, autojump_clock):
    peer, manager, result, _ = ends
    peer.close()
    assert await manager.receive() == b""
    while not result:
        await trio.sleep(0.5)
    assert trio.current_time() < 60


async def test_a_line_that_is_no_text_ends_it(ends):
    """A WebSocket cannot carry such a line, and no Manager sends one."""
    peer, manager, _, _ = ends
    manager.send_nowait(b"\xff\n")
    with pytest.raises(ConnectionLost, match=r"code 1011.*UTF-8"):
        while await peer.receive():
            pass
