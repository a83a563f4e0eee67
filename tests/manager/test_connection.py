"""Tests of one connection of a Manager: queued output blocks nothing, and every wait for the peer is bounded."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.manager import connection as module
from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.protocol.manager.event_log import EventLog
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import BacklogLimit
from msl_network_trio.protocol.manager.route import CONGESTED
from msl_network_trio.transport.memory import MemoryStream, memory_pair

STALLED_AFTER = 60.0


@pytest.fixture
def connect(nursery):
    def connect(capacity=1000):
        near, far = memory_pair(capacity)
        connection = new_connection(near, nursery)
        connection.scope = trio.CancelScope()
        return connection, far

    return connect


def new_connection(stream, nursery):
    limit = BacklogLimit("Manager[vm:1]", 10**9, EventLog(trio.current_time), Counter())
    return PeerConnection(Peer("vm", 7), stream, limit, nursery.start_soon, STALLED_AFTER)


def put(connection, *pieces, large=False):
    """Queue pieces of output, as the protocol does."""
    connection.pieces += pieces
    connection.backlog += sum(map(len, pieces))
    connection.has_large = connection.has_large or large
    connection.flush()


async def receive(transport: MemoryStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await transport.receive()
    return data


async def rest(transport: MemoryStream) -> bytes:
    data = b""
    while more := await transport.receive():
        data += more
    return data


# ---- writing ----


async def test_what_the_peer_takes_is_sent_at_once_and_together(connect, autojump_clock):
    connection, far = connect()
    put(connection, b"one\n", b"two\n")
    assert (connection.backlog, connection.pieces) == (0, [])
    assert await far.receive() == b"one\ntwo\n"


async def test_to_flush_nothing_does_nothing(connect, autojump_clock):
    connection, far = connect()
    connection.flush()
    put(connection, b"x")
    assert await far.receive() == b"x"


async def test_what_the_peer_does_not_take_is_written_when_it_reads_and_what_comes_later_behind_it(
    connect, autojump_clock
):
    connection, far = connect(10)
    lines = [b"%03d\n" % number for number in range(100)]
    for line in lines:
        put(connection, line)
    assert connection.backlog == 390
    with trio.fail_after(1):
        assert await receive(far, 400) == b"".join(lines)
        await wait_all_tasks_blocked()
        assert connection.backlog == 0
        put(connection, b"at once again\n")
        assert await receive(far, 14) == b"at once again\n"


async def test_pieces_of_large_lines_are_written_without_anything_between_them(connect, autojump_clock):
    connection, far = connect(1000)
    large = memoryview(b"x" * 300_000)
    put(connection, b"first\n", large, b"}\n", large=True)
    put(connection, b"second\n")
    await wait_all_tasks_blocked()
    assert connection.writing == [b"}\n", large]
    put(connection, b"third\n", large, b"}\n", large=True)
    put(connection, b"fourth\n")
    expected = b"first\n" + b"x" * 300_000 + b"}\nsecond\nthird\n" + b"x" * 300_000 + b"}\nfourth\n"
    with trio.fail_after(1):
        assert await receive(far, len(expected)) == expected
    await wait_all_tasks_blocked()
    assert connection.backlog == 0
    assert not connection.has_large
    assert connection.writing is None


async def test_what_has_been_written_is_not_kept_until_all_is(connect, autojump_clock):
    connection, far = connect(1000)
    put(connection, *[memoryview(b"x" * 300_000) for _ in range(3)], large=True)
    with trio.fail_after(1):
        await receive(far, 600_000)
        await wait_all_tasks_blocked()
        assert list(map(len, connection.writing)) == [300_000]
        await receive(far, 300_000)
    await wait_all_tasks_blocked()
    assert connection.writing is None


class Counting(MemoryStream):
    """Counts how often it is to send."""

    calls = 0

    def send_nowait(self, data):
        self.calls += 1
        return super().send_nowait(data)


async def test_small_lines_that_wait_are_sent_together(connect, nursery, autojump_clock):
    connection, far = connect(65_536)
    connection.stream.__class__ = Counting
    put(connection, b"x" * 70_000)
    lines = [b"%07d\n" % number for number in range(100_000)]
    put(connection, *lines)
    with trio.fail_after(10):
        assert await receive(far, 870_000) == b"x" * 70_000 + b"".join(lines)
    assert connection.stream.calls < 100


# ---- peers that do not read ----


async def test_a_peer_that_takes_nothing_for_too_long_is_given_up(connect, caplog, autojump_clock):
    connection, _ = connect(10)
    put(connection, b"x" * 100)
    with connection.scope, trio.fail_after(STALLED_AFTER + 1):
        began = trio.current_time()
        await trio.sleep_forever()
    assert connection.scope.cancelled_caught
    assert trio.current_time() - began == pytest.approx(STALLED_AFTER)
    assert connection.peer.close_reason == "it does not read"
    assert (connection.backlog, connection.pieces) == (0, [])
    assert "has read nothing for 60 seconds and is dropped" in caplog.text


async def test_a_peer_that_takes_a_little_now_and_then_is_not_given_up(connect, autojump_clock):
    connection, far = connect(10)
    put(connection, b"x" * 100)
    for _ in range(10):
        await trio.sleep(STALLED_AFTER - 1)
        await far.receive()
    await wait_all_tasks_blocked()
    assert not connection.peer.close_reason
    assert connection.backlog == 0


async def test_who_waits_for_a_peer_goes_on_when_half_of_it_is_written(connect, nursery, autojump_clock):
    connection, far = connect(1000)
    put(connection, b"x" * (2 * CONGESTED))
    going_on = trio.Event()

    async def wait():
        await connection.wait_drained()
        going_on.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not going_on.is_set()
    await receive(far, CONGESTED + 2000)
    await wait_all_tasks_blocked()
    assert not going_on.is_set()  # not yet, so that it will not have to wait again at once
    await receive(far, CONGESTED // 2)
    with trio.fail_after(1):
        await going_on.wait()


async def test_nobody_waits_for_a_peer_that_has_little_to_read_or_has_gone(connect, autojump_clock):
    connection, _ = connect(1000)
    put(connection, b"x" * CONGESTED)
    with trio.fail_after(1):
        await connection.wait_drained()
    put(connection, b"x" * CONGESTED)
    connection.peer.close("it has gone")
    with trio.fail_after(1):
        await connection.wait_drained()


@pytest.mark.parametrize("how", ["stalled", "reset", "closed", "overflow"])
async def test_who_waits_for_a_peer_goes_on_when_it_is_dropped(connect, nursery, how, autojump_clock):
    connection, far = connect(1000)
    put(connection, b"x" * (3 * CONGESTED))
    going_on = trio.Event()

    async def wait():
        await connection.wait_drained()
        going_on.set()

    for _ in range(3):
        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    if how == "reset":
        far.reset()
    elif how == "closed":
        connection.close()
    elif how == "overflow":  # see BacklogLimit._drop()
        connection.peer.close("it does not read")
        connection.flush()
    with trio.fail_after(STALLED_AFTER + 1 if how == "stalled" else 1):
        await going_on.wait()


@pytest.mark.parametrize("how", ["stalled", "reset", "overflow"])
async def test_the_task_of_a_peer_that_is_dropped_does_nothing_more(connect, how, autojump_clock):
    connection, far = connect(1000)
    put(connection, b"x" * (3 * CONGESTED))

    async def drop():
        if how == "reset":
            far.reset()
        elif how == "overflow":
            connection.peer.close("it does not read")
            connection.flush()

    with trio.fail_after(STALLED_AFTER + 1):
        async with trio.open_nursery() as nursery:
            with connection.scope:
                nursery.start_soon(drop)
                await connection.wait_drained()
                pytest.fail("the task goes on")


# ---- peers that are gone ----


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "while it is waited for"])
async def test_a_peer_that_is_gone_is_not_read_any_more_and_has_nothing_to_be_written(
    connect, waiting, autojump_clock
):
    connection, far = connect(10)
    if waiting:
        put(connection, b"x" * 100)
        await wait_all_tasks_blocked()
    far.reset()
    put(connection, b"x")
    with connection.scope, trio.fail_after(1):
        await trio.sleep_forever()
    assert connection.scope.cancelled_caught
    assert (connection.peer.close_reason, connection.backlog, connection.pieces) == ("Broken pipe", 0, [])


async def test_why_a_peer_is_closed_is_not_forgotten_when_it_is_gone_as_well(connect, autojump_clock):
    connection, far = connect(10)
    far.reset()
    connection.peer.close("ValueError: rubbish")
    put(connection, b"told")
    assert connection.peer.close_reason == "ValueError: rubbish"


class Faulty(MemoryStream):
    """Has a mistake in it."""

    def send_nowait(self, data):
        raise RuntimeError("a mistake")


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "while it is waited for"])
async def test_a_mistake_of_ours_costs_only_the_peer_in_whose_connection_it_is(
    connect, caplog, waiting, autojump_clock
):
    connection, _ = connect(10)
    if waiting:
        put(connection, b"x" * 100)
        await wait_all_tasks_blocked()
        connection.stream.__class__ = Faulty
        connection.stream._outgoing.wake()
        connection.stream._outgoing.data.clear()
    else:
        connection.stream.__class__ = Faulty
        put(connection, b"x")  # raises nothing, since who calls it serves another peer
    with connection.scope, trio.fail_after(1):
        await trio.sleep_forever()
    assert connection.peer.close_reason == "RuntimeError('a mistake')"
    assert (connection.backlog, connection.pieces) == (0, [])
    assert "Traceback" in caplog.text


async def test_a_peer_that_is_to_be_closed_is_not_read_any_more(connect, autojump_clock):
    connection, far = connect()
    connection.peer.close("ValueError: rubbish")
    put(connection, b"told")
    with connection.scope, trio.fail_after(1):
        await trio.sleep_forever()
    assert connection.scope.cancelled_caught
    assert await far.receive() == b"told"


# ---- endings ----


async def test_a_peer_reads_what_it_is_told_last_and_then_the_end(connect, nursery, autojump_clock):
    connection, far = connect(10)
    put(connection, b"last words, which take a while")
    nursery.start_soon(connection.finish)
    with trio.fail_after(0.1):
        assert await rest(far) == b"last words, which take a while"


async def test_a_peer_that_closes_its_end_is_not_waited_for(connect, autojump_clock):
    connection, far = connect()
    far.send_nowait(b"what nobody wants to know")
    far.close()
    with trio.fail_after(0.1):
        await connection.finish()


async def test_a_peer_that_resets_the_connection_instead_is_not_waited_for_either(connect, autojump_clock):
    connection, far = connect()
    far.reset()
    with trio.fail_after(0.1):
        await connection.finish()


async def test_what_a_peer_still_sends_is_taken_so_that_it_can_read_what_it_is_told(
    connect, nursery, autojump_clock
):
    connection, far = connect(10)
    put(connection, b"why")
    nursery.start_soon(connection.finish)
    with trio.fail_after(0.1):
        await far.send_all(b"x" * 10_000)
        assert await rest(far) == b"why"


async def test_a_peer_that_does_not_read_is_not_waited_for_long(connect, autojump_clock):
    connection, _ = connect(10)
    put(connection, b"x" * 100)
    began = trio.current_time()
    await connection.finish()
    assert trio.current_time() - began == pytest.approx(module._FLUSH_TIMEOUT)
    connection.close()


async def test_a_peer_that_neither_sends_nor_closes_is_not_waited_for_long(connect, autojump_clock):
    connection, _ = connect()
    began = trio.current_time()
    await connection.finish()
    assert trio.current_time() - began == pytest.approx(module._LINGER)


async def test_to_wait_for_the_end_can_be_cancelled(connect, autojump_clock):
    for data in (b"", b"x" * 100):
        connection, _ = connect(10)
        if data:
            put(connection, data)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.finish()
        assert scope.cancelled_caught
        connection.close()


@pytest.mark.parametrize("large", [False, True])
async def test_close_ends_at_once_whatever_is_being_written(connect, large, autojump_clock):
    connection, far = connect(10)
    put(connection, b"x" * 200_000, b"}\n", large=large)
    await wait_all_tasks_blocked()
    put(connection, b"more")
    connection.close()
    assert connection.backlog == 0
    await wait_all_tasks_blocked()  # the task that was writing ends, and without an error
    assert not connection._sender._has_task
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()
    with pytest.raises(ConnectionLost):
        connection.stream.send_nowait(b"x")
    connection.close()
    assert connection.peer.close_reason


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", ["close", "finish", "stalled", "to write is cancelled"])
async def test_a_connection_is_reset_in_the_middle_of_a_line(how, large, autojump_clock):
    near, far = memory_pair(10)
    async with trio.open_nursery() as nursery:
        connection = new_connection(near, nursery)
        put(connection, b"x" * 200_000, b"\n", large=large)
        await wait_all_tasks_blocked()
        if how == "finish":
            await connection.finish()
        elif how == "stalled":
            await trio.sleep(STALLED_AFTER + 1)
            assert connection.has_stalled
            await connection.finish()  # which says no goodbye behind half a line
        elif how == "to write is cancelled":
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
        connection.close()
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()


async def test_a_connection_is_reset_when_nobody_knows_how_much_was_written(connect, caplog, autojump_clock):
    connection, far = connect()
    connection.stream.__class__ = Faulty
    put(connection, b"line\n")
    await connection.finish()
    connection.close()
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()


async def test_a_connection_is_closed_in_order_behind_whole_lines(connect, nursery, autojump_clock):
    connection, far = connect(10)
    put(connection, b"x" * 200 + b"\n")
    assert len(await receive(far, 201)) == 201
    await wait_all_tasks_blocked()
    connection.close()
    assert await far.receive() == b""


async def test_to_write_can_be_cancelled(autojump_clock):
    near, _ = memory_pair(10)
    async with trio.open_nursery() as nursery:
        connection = new_connection(near, nursery)
        put(connection, b"x" * 100)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not connection._sender._has_task
