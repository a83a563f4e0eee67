"""Streams in memory, which replace a network in other tests."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.memory import MemoryStream, memory_pair


async def receive_all(transport: MemoryStream) -> bytes:
    parts = []
    while part := await transport.receive():
        parts.append(part)
    return b"".join(parts)


async def test_bytes_arrive_in_both_directions_and_do_not_mix(autojump_clock):
    near, far = memory_pair()
    assert near.send_nowait(b"there") == 5
    assert far.send_nowait(memoryview(b"back")) == 4
    assert near.send_nowait(b", too") == 5
    assert await far.receive() == b"there, too"
    assert await near.receive() == b"back"


async def test_no_more_than_the_capacity_is_on_its_way(autojump_clock):
    near, far = memory_pair(capacity=10)
    assert near.send_nowait(b"0123456") == 7
    assert near.send_nowait(memoryview(b"789abc")) == 3
    assert near.send_nowait(b"abc") == 0
    assert far.send_nowait(b"0123456789+") == 10  # each direction has its own capacity
    assert await far.receive() == b"0123456789"
    assert near.send_nowait(b"abc") == 3


async def test_a_sender_waits_until_something_was_received(autojump_clock, nursery):
    near, far = memory_pair(capacity=4)
    near.send_nowait(b"full")
    waited = trio.Event()

    async def wait():
        await near.wait_send()
        waited.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not waited.is_set()
    await far.receive()
    with trio.fail_after(1):
        await waited.wait()


async def test_a_long_message_passes_a_small_capacity_while_the_other_side_does_the_same(autojump_clock):
    near, far = memory_pair(capacity=1000)
    there, back = bytes(range(256)) * 1000, bytes(reversed(range(256))) * 900
    received = {}

    async def send(transport, data):
        await transport.send_all(data)

    async def receive(transport, size):
        data = b""
        while len(data) < size:
            data += await transport.receive()
        received[transport] = data

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, there)
            nursery.start_soon(send, far, back)
            nursery.start_soon(receive, near, len(back))
            nursery.start_soon(receive, far, len(there))
    assert received == {far: there, near: back}


async def test_a_time_limit_ends_the_wait_for_a_full_pipe(autojump_clock):
    near, _ = memory_pair(capacity=3)
    with pytest.raises(trio.TooSlowError), trio.fail_after(5):
        await near.send_all(b"four")


async def test_wait_send_is_a_checkpoint_even_if_there_is_room(autojump_clock):
    near, _ = memory_pair()
    with trio.testing.assert_checkpoints():
        await near.wait_send()


async def test_receive_is_a_checkpoint_even_if_bytes_are_there(autojump_clock):
    near, far = memory_pair()
    near.send_nowait(b"x")
    with trio.testing.assert_checkpoints():
        assert await far.receive() == b"x"


async def test_a_cancelled_receive_loses_nothing(autojump_clock, nursery):
    near, far = memory_pair()
    near.send_nowait(b"first")
    with trio.CancelScope() as scope:
        scope.cancel()
        await far.receive()
    assert scope.cancelled_caught
    assert await far.receive() == b"first"
    with trio.move_on_after(1) as scope:
        await far.receive()
    assert scope.cancelled_caught
    near.send_nowait(b"second")
    assert await far.receive() == b"second"


async def test_a_cancelled_wait_send_leaves_the_transport_usable(autojump_clock):
    near, far = memory_pair(capacity=2)
    near.send_nowait(b"ab")
    with trio.move_on_after(1) as scope:
        await near.wait_send()
    assert scope.cancelled_caught
    assert await far.receive() == b"ab"
    with trio.fail_after(1):
        await near.wait_send()
    assert near.send_nowait(b"cd") == 2


async def test_after_close_the_peer_receives_what_was_sent_then_the_end(autojump_clock):
    near, far = memory_pair()
    near.send_nowait(b"last words")
    near.close()
    assert await far.receive() == b"last words"
    assert await far.receive() == b""
    assert await far.receive() == b""


async def test_a_large_rest_is_received_piece_by_piece_before_the_end(autojump_clock):
    near, far = memory_pair(capacity=200_000)
    data = bytes(i % 251 for i in range(200_000))
    near.send_nowait(data)
    near.close()
    assert len(await far.receive()) < len(data)
    near, far = memory_pair(capacity=200_000)
    near.send_nowait(data)
    near.close()
    assert await receive_all(far) == data


async def test_close_wakes_a_peer_that_is_receiving_with_the_end(autojump_clock, nursery):
    near, far = memory_pair()
    received = []

    async def receive():
        received.append(await far.receive())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    near.close()
    await wait_all_tasks_blocked()
    assert received == [b""]


async def test_close_wakes_a_peer_that_waits_to_send_and_its_next_send_fails(autojump_clock, nursery):
    near, far = memory_pair(capacity=1)
    woken = trio.Event()

    async def send():
        with pytest.raises(ConnectionLost, match="Broken pipe"):
            await far.send_all(b"too much")
        woken.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    near.close()
    with trio.fail_after(1):
        await woken.wait()


async def test_a_closed_transport_neither_sends_nor_receives_nor_waits(autojump_clock):
    near, far = memory_pair(capacity=1)
    near.send_nowait(b"x")
    far.send_nowait(b"y")
    near.close()
    near.close()
    with pytest.raises(ConnectionLost):
        near.send_nowait(b"x")
    with pytest.raises(ConnectionLost):
        await near.receive()
    with trio.fail_after(1):
        await near.wait_send()


async def test_close_wakes_our_own_receiver_with_an_error(autojump_clock, nursery):
    near, _ = memory_pair()
    woken = trio.Event()

    async def receive():
        with pytest.raises(ConnectionLost):
            await near.receive()
        woken.set()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    near.close()
    with trio.fail_after(1):
        await woken.wait()


async def test_after_send_eof_the_peer_receives_what_was_sent_then_the_end_and_can_still_send(autojump_clock):
    near, far = memory_pair()
    near.send_nowait(b"last words")
    near.send_eof()
    near.send_eof()
    assert await far.receive() == b"last words"
    assert await far.receive() == b""
    assert await far.receive() == b""
    for answer in (b"an answer", b"another"):
        far.send_nowait(answer)
        assert await near.receive() == answer
    far.close()
    assert await near.receive() == b""


async def test_after_send_eof_nothing_can_be_sent(autojump_clock):
    near, _ = memory_pair()
    near.send_eof()
    with pytest.raises(ConnectionLost, match="Broken pipe"):
        near.send_nowait(b"x")
    with trio.fail_after(1):
        await near.wait_send()


async def test_send_eof_wakes_a_receiving_peer_and_waiting_senders(autojump_clock, nursery):
    near, far = memory_pair(capacity=1)
    received, woken = [], trio.Event()

    async def receive():
        while data := await far.receive():
            received.append(data)
        received.append(b"")

    async def send():
        with pytest.raises(ConnectionLost):
            await near.send_all(b"xy")
        woken.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    near.send_eof()
    with trio.fail_after(1):
        await woken.wait()
    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert received == [b"x", b""]


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_send_eof_to_a_peer_that_is_gone_or_after_close_is_harmless(autojump_clock, end):
    near, far = memory_pair()
    getattr(far, end)()
    near.send_eof()
    near.close()
    near.send_eof()


@pytest.mark.parametrize("who", [0, 1])
async def test_reset_is_an_error_at_both_ends_and_loses_data_in_transit(who, autojump_clock):
    pair = memory_pair(capacity=4)
    for transport in pair:
        transport.send_nowait(b"lost")
    pair[who].reset()
    for transport in pair:
        with pytest.raises(ConnectionLost, match="Connection reset by peer"):
            await transport.receive()
        with pytest.raises(ConnectionLost, match="Broken pipe"):
            transport.send_nowait(b"x")
        with trio.fail_after(1):
            await transport.wait_send()


@pytest.mark.parametrize("who", [0, 1])
async def test_reset_wakes_waiting_tasks_with_an_error(who, autojump_clock):
    pair = memory_pair(capacity=1)
    near, _ = pair
    near.send_nowait(b"x")
    lost = []

    async def send():
        with pytest.raises(ConnectionLost):
            await near.send_all(b"x")
        lost.append("send")

    async def receive():
        with pytest.raises(ConnectionLost):
            await near.receive()
        lost.append("receive")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            assert lost == []
            pair[who].reset()
    assert sorted(lost) == ["receive", "send"]


async def test_it_has_no_port(autojump_clock):
    assert [transport.port for transport in memory_pair()] == [0, 0]


async def test_abort_is_an_error_at_both_ends_but_not_after_close(autojump_clock):
    near, far = memory_pair()
    near.send_nowait(b"half a li")
    near.abort()
    for transport in (near, far):
        with pytest.raises(ConnectionLost, match="Connection reset by peer"):
            await transport.receive()
    near, far = memory_pair()
    near.send_nowait(b"line\n")
    near.end(cut_off=False)
    near.abort()
    assert [await far.receive(), await far.receive()] == [b"line\n", b""]


async def test_a_send_that_is_cancelled_half_way_breaks_the_connection(autojump_clock):
    near, far = memory_pair(capacity=5)
    with trio.move_on_after(1) as scope:
        await near.send_all(b"half a line\n")
    assert scope.cancelled_caught
    with pytest.raises(ConnectionLost, match="Connection reset by peer"):
        await far.receive()
