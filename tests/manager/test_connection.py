"""One connection of a Manager: nobody waits for what is to be written, and no peer can make it wait for ever."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.manager import connection as module
from msl_network_trio.manager.connection import PeerConnection
from msl_network_trio.protocol.manager.delivery import BUSY
from msl_network_trio.transport.memory import MemoryStream, memory_pair

STALLED_AFTER = 60.0


@pytest.fixture
def connect(nursery):
    def connect(capacity=1000):
        near, far = memory_pair(capacity)
        peer = PeerConnection(near, "vm", 7, nursery.start_soon, STALLED_AFTER)
        peer.reading = trio.CancelScope()
        return peer, far

    return connect


def put(peer, *pieces, large=False):
    """Have pieces written, as the protocol does."""
    peer.outgoing += pieces
    peer.backlog += sum(map(len, pieces))
    peer.large = peer.large or large
    peer.flush()


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
    peer, far = connect()
    put(peer, b"one\n", b"two\n")
    assert (peer.backlog, peer.outgoing) == (0, [])
    assert await far.receive() == b"one\ntwo\n"


async def test_to_flush_nothing_does_nothing(connect, autojump_clock):
    peer, far = connect()
    peer.flush()
    put(peer, b"x")
    assert await far.receive() == b"x"


async def test_what_the_peer_does_not_take_is_written_when_it_reads_and_what_comes_later_behind_it(
    connect, autojump_clock
):
    peer, far = connect(10)
    lines = [b"%03d\n" % number for number in range(100)]
    for line in lines:
        put(peer, line)
    assert peer.backlog == 390
    with trio.fail_after(1):
        assert await receive(far, 400) == b"".join(lines)
        await wait_all_tasks_blocked()
        assert peer.backlog == 0
        put(peer, b"at once again\n")
        assert await receive(far, 14) == b"at once again\n"


async def test_pieces_of_large_lines_are_written_without_anything_between_them(connect, autojump_clock):
    peer, far = connect(1000)
    large = memoryview(b"x" * 300_000)
    put(peer, b"first\n", large, b"}\n", large=True)
    put(peer, b"second\n")
    await wait_all_tasks_blocked()
    assert peer.writing == [b"", large, b"}\n"]
    put(peer, b"third\n", large, b"}\n", large=True)
    put(peer, b"fourth\n")
    expected = b"first\n" + b"x" * 300_000 + b"}\nsecond\nthird\n" + b"x" * 300_000 + b"}\nfourth\n"
    with trio.fail_after(1):
        assert await receive(far, len(expected)) == expected
    await wait_all_tasks_blocked()
    assert peer.backlog == 0
    assert not peer.large
    assert peer.writing == []


async def test_what_has_been_written_is_not_kept_until_all_is(connect, autojump_clock):
    peer, far = connect(1000)
    put(peer, *[memoryview(b"x" * 300_000) for _ in range(3)], large=True)
    with trio.fail_after(1):
        await receive(far, 600_000)
        await wait_all_tasks_blocked()
        assert list(map(len, peer.writing)) == [0, 0, 300_000]
        await receive(far, 300_000)
    await wait_all_tasks_blocked()
    assert peer.writing == []


class Counting(MemoryStream):
    """Counts how often it is to send."""

    calls = 0

    def send_nowait(self, data):
        self.calls += 1
        return super().send_nowait(data)


async def test_small_lines_that_wait_are_sent_together(connect, nursery, autojump_clock):
    peer, far = connect(65_536)
    peer.transport.__class__ = Counting
    put(peer, b"x" * 70_000)
    lines = [b"%07d\n" % number for number in range(100_000)]
    put(peer, *lines)
    with trio.fail_after(10):
        assert await receive(far, 870_000) == b"x" * 70_000 + b"".join(lines)
    assert peer.transport.calls < 100


# ---- peers that do not read ----


async def test_a_peer_that_takes_nothing_for_too_long_is_given_up(connect, caplog, autojump_clock):
    peer, _ = connect(10)
    put(peer, b"x" * 100)
    with peer.reading, trio.fail_after(STALLED_AFTER + 1):
        began = trio.current_time()
        await trio.sleep_forever()
    assert peer.reading.cancelled_caught
    assert trio.current_time() - began == pytest.approx(STALLED_AFTER)
    assert peer.closing == "it does not read"
    assert (peer.backlog, peer.outgoing) == (0, [])
    assert "has read nothing for 60 seconds and is dropped" in caplog.text


async def test_a_peer_that_takes_a_little_now_and_then_is_not_given_up(connect, autojump_clock):
    peer, far = connect(10)
    put(peer, b"x" * 100)
    for _ in range(10):
        await trio.sleep(STALLED_AFTER - 1)
        await far.receive()
    await wait_all_tasks_blocked()
    assert not peer.closing
    assert peer.backlog == 0


async def test_who_waits_for_a_peer_goes_on_when_half_of_it_is_written(connect, nursery, autojump_clock):
    peer, far = connect(1000)
    put(peer, b"x" * (2 * BUSY))
    going_on = trio.Event()

    async def wait():
        await peer.wait_drained()
        going_on.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not going_on.is_set()
    await receive(far, BUSY + 2000)
    await wait_all_tasks_blocked()
    assert not going_on.is_set()  # not yet, so that it will not have to wait again at once
    await receive(far, BUSY // 2)
    with trio.fail_after(1):
        await going_on.wait()


async def test_nobody_waits_for_a_peer_that_has_little_to_read_or_has_gone(connect, autojump_clock):
    peer, _ = connect(1000)
    put(peer, b"x" * BUSY)
    with trio.fail_after(1):
        await peer.wait_drained()
    put(peer, b"x" * BUSY)
    peer.closing = "it has gone"
    with trio.fail_after(1):
        await peer.wait_drained()


@pytest.mark.parametrize("how", ["stalled", "reset", "closed", "overflow"])
async def test_who_waits_for_a_peer_goes_on_when_it_is_dropped(connect, nursery, how, autojump_clock):
    peer, far = connect(1000)
    put(peer, b"x" * (3 * BUSY))
    going_on = trio.Event()

    async def wait():
        await peer.wait_drained()
        going_on.set()

    for _ in range(3):
        nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    if how == "reset":
        far.reset()
    elif how == "closed":
        peer.close()
    elif how == "overflow":  # see ManagerProtocol._overflow()
        peer.closing = "it does not read"
        peer.flush()
    with trio.fail_after(STALLED_AFTER + 1 if how == "stalled" else 1):
        await going_on.wait()


# ---- peers that are gone ----


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "while it is waited for"])
async def test_a_peer_that_is_gone_is_not_read_any_more_and_has_nothing_to_be_written(
    connect, waiting, autojump_clock
):
    peer, far = connect(10)
    if waiting:
        put(peer, b"x" * 100)
        await wait_all_tasks_blocked()
    far.reset()
    put(peer, b"x")
    with peer.reading, trio.fail_after(1):
        await trio.sleep_forever()
    assert peer.reading.cancelled_caught
    assert (peer.closing, peer.backlog, peer.outgoing) == ("Broken pipe", 0, [])


async def test_why_a_peer_is_closed_is_not_forgotten_when_it_is_gone_as_well(connect, autojump_clock):
    peer, far = connect(10)
    far.reset()
    peer.closing = "ValueError: rubbish"
    put(peer, b"told")
    assert peer.closing == "ValueError: rubbish"


class Faulty(MemoryStream):
    """Has a mistake in it."""

    def send_nowait(self, data):
        raise RuntimeError("a mistake")


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "while it is waited for"])
async def test_a_mistake_of_ours_costs_only_the_peer_in_whose_connection_it_is(
    connect, caplog, waiting, autojump_clock
):
    peer, _ = connect(10)
    if waiting:
        put(peer, b"x" * 100)
        await wait_all_tasks_blocked()
        peer.transport.__class__ = Faulty
        peer.transport._outgoing.wake()
        peer.transport._outgoing.data.clear()
    else:
        peer.transport.__class__ = Faulty
        put(peer, b"x")  # raises nothing, since who calls it serves another peer
    with peer.reading, trio.fail_after(1):
        await trio.sleep_forever()
    assert peer.closing == "RuntimeError('a mistake')"
    assert (peer.backlog, peer.outgoing) == (0, [])
    assert "Traceback" in caplog.text


async def test_a_peer_that_is_to_be_closed_is_not_read_any_more(connect, autojump_clock):
    peer, far = connect()
    peer.closing = "ValueError: rubbish"
    put(peer, b"told")
    with peer.reading, trio.fail_after(1):
        await trio.sleep_forever()
    assert peer.reading.cancelled_caught
    assert await far.receive() == b"told"


# ---- endings ----


async def test_a_peer_reads_what_it_is_told_last_and_then_the_end(connect, nursery, autojump_clock):
    peer, far = connect(10)
    put(peer, b"last words, which take a while")
    nursery.start_soon(peer.finish)
    with trio.fail_after(0.1):
        assert await rest(far) == b"last words, which take a while"


async def test_a_peer_that_closes_its_end_is_not_waited_for(connect, autojump_clock):
    peer, far = connect()
    far.send_nowait(b"what nobody wants to know")
    far.close()
    with trio.fail_after(0.1):
        await peer.finish()


async def test_a_peer_that_resets_the_connection_instead_is_not_waited_for_either(connect, autojump_clock):
    peer, far = connect()
    far.reset()
    with trio.fail_after(0.1):
        await peer.finish()


async def test_what_a_peer_still_sends_is_taken_so_that_it_can_read_what_it_is_told(
    connect, nursery, autojump_clock
):
    peer, far = connect(10)
    put(peer, b"why")
    nursery.start_soon(peer.finish)
    with trio.fail_after(0.1):
        await far.send_all(b"x" * 10_000)
        assert await rest(far) == b"why"


async def test_a_peer_that_does_not_read_is_not_waited_for_long(connect, autojump_clock):
    peer, _ = connect(10)
    put(peer, b"x" * 100)
    began = trio.current_time()
    await peer.finish()
    assert trio.current_time() - began == pytest.approx(module._GRACE)
    peer.close()


async def test_a_peer_that_neither_sends_nor_closes_is_not_waited_for_long(connect, autojump_clock):
    peer, _ = connect()
    began = trio.current_time()
    await peer.finish()
    assert trio.current_time() - began == pytest.approx(module._LINGER)


async def test_to_wait_for_the_end_can_be_cancelled(connect, autojump_clock):
    for data in (b"", b"x" * 100):
        peer, _ = connect(10)
        if data:
            put(peer, data)
        with trio.CancelScope() as scope:
            scope.cancel()
            await peer.finish()
        assert scope.cancelled_caught
        peer.close()


@pytest.mark.parametrize("large", [False, True])
async def test_close_ends_at_once_whatever_is_being_written(connect, large, autojump_clock):
    peer, far = connect(10)
    put(peer, b"x" * 200_000, b"}\n", large=large)
    await wait_all_tasks_blocked()
    put(peer, b"more")
    peer.close()
    assert peer.backlog == 0
    await wait_all_tasks_blocked()  # the task that was writing ends, and without an error
    assert not peer._writing
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()
    with pytest.raises(ConnectionLost):
        peer.transport.send_nowait(b"x")
    peer.close()
    assert peer.closing


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", ["close", "finish", "stalled", "to write is cancelled"])
async def test_a_connection_is_reset_in_the_middle_of_a_line(how, large, autojump_clock):
    near, far = memory_pair(10)
    async with trio.open_nursery() as nursery:
        peer = PeerConnection(near, "vm", 7, nursery.start_soon, STALLED_AFTER)
        put(peer, b"x" * 200_000, b"\n", large=large)
        await wait_all_tasks_blocked()
        if how == "finish":
            await peer.finish()
        elif how == "stalled":
            await trio.sleep(STALLED_AFTER + 1)
            assert peer.has_stalled
            await peer.finish()  # which says no goodbye behind half a line
        elif how == "to write is cancelled":
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
        peer.close()
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()


async def test_a_connection_is_reset_when_nobody_knows_how_much_was_written(connect, caplog, autojump_clock):
    peer, far = connect()
    peer.transport.__class__ = Faulty
    put(peer, b"line\n")
    await peer.finish()
    peer.close()
    with pytest.raises(ConnectionLost, match="reset"):
        await far.receive()


async def test_a_connection_is_closed_in_order_behind_whole_lines(connect, nursery, autojump_clock):
    peer, far = connect(10)
    put(peer, b"x" * 200 + b"\n")
    assert len(await receive(far, 201)) == 201
    await wait_all_tasks_blocked()
    peer.close()
    assert await far.receive() == b""


async def test_to_write_can_be_cancelled(autojump_clock):
    near, _ = memory_pair(10)
    async with trio.open_nursery() as nursery:
        peer = PeerConnection(near, "vm", 7, nursery.start_soon, STALLED_AFTER)
        put(peer, b"x" * 100)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not peer._writing
