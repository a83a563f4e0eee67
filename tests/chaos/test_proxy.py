"""Tests of the proxy on sockets: it forwards everything, and injects each fault where it is scheduled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio

from tests.chaos.oracle import Ledger
from tests.chaos.proxy import FaultProxy
from tests.chaos.schedule import DirectionSchedule, Fault, Schedule
from tests.chaos.units import NOISE
from tests.patience import PATIENCE

LINE = b'{"attribute": "work", "args": ["t12#"]}\r\n'


class Scripted(DirectionSchedule):
    """A schedule of faults that a test gives, and then none."""

    def __init__(self, by_line: bool, faults: list[Fault]) -> None:
        self.by_line = by_line
        self._faults = faults

    def next(self) -> Fault:
        return self._faults.pop(0) if self._faults else Fault("delay", 10**9, 0)


class ScriptedSchedule(Schedule):
    """Faults of the first connection towards the Manager, and none otherwise."""

    def __init__(self, by_line: bool, faults: list[Fault]) -> None:
        self._by_line = by_line
        self._faults = faults

    def connection(self, number: int) -> tuple[DirectionSchedule, DirectionSchedule]:
        return Scripted(self._by_line, self._faults), Scripted(self._by_line, [])


@attrs.define
class Ends:
    """Both ends of a connection through the proxy."""

    proxy: FaultProxy
    peer: trio.SocketStream
    manager: trio.SocketStream

    async def at_manager(self, size: int) -> bytes:
        """Receive this many bytes at the Manager's end, or fewer if the connection ends."""
        return await receive(self.manager, size)


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    """Receive this many bytes, or fewer if the connection ends or is reset."""
    data = b""
    with suppress(trio.BrokenResourceError):
        while len(data) < size and (received := await stream.receive_some(size - len(data))):
            data += received
    return data


@asynccontextmanager
async def connected(by_line: bool, *faults: Fault, rages: bool = True) -> AsyncIterator[Ends]:
    with trio.fail_after(PATIENCE):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        proxy = FaultProxy(port, ScriptedSchedule(by_line, list(faults)), "tcp", Ledger())
        if rages:
            proxy.rage()
        async with trio.open_nursery() as nursery:
            address = await nursery.start(proxy.run)
            peer = await trio.open_tcp_stream("127.0.0.1", address)
            manager = await listener.accept()
            async with peer, manager, listener:
                yield Ends(proxy, peer, manager)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by_line", [True, False])
async def test_without_faults_everything_is_forwarded_and_so_is_the_end(by_line):
    async with connected(by_line) as ends:
        await ends.peer.send_all(LINE + b"rest")
        await ends.peer.send_eof()
        assert await ends.at_manager(1000) == LINE + b"rest"
        await ends.manager.send_all(LINE * 2)
        await ends.manager.send_eof()
        assert await receive(ends.peer, 1000) == LINE * 2
        assert not ends.proxy.counts


async def test_a_calm_proxy_injects_no_faults():
    async with connected(False, Fault("reset", 3, 0), rages=False) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(len(LINE)) == LINE


async def test_a_reset_at_a_byte():
    async with connected(False, Fault("reset", 3, 0)) as ends:
        await ends.peer.send_all(LINE)
        with pytest.raises(trio.BrokenResourceError):
            while await ends.manager.receive_some():
                pass
        with pytest.raises(trio.BrokenResourceError):
            await ends.peer.receive_some()
        assert ends.proxy.counts == {"reset to Manager": 1}


async def test_split_sends_each_byte_and_delay_changes_nothing():
    async with connected(False, Fault("split", 3, 0), Fault("delay", 10, 0.001)) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(len(LINE)) == LINE
        assert ends.proxy.counts.keys() == {"split to Manager", "delay to Manager"}


async def test_a_half_close_passes_what_was_before_it():
    async with connected(False, Fault("half close", 3, 0)) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(100) == LINE[:3]


async def test_a_half_dead_connection_is_closed_on_the_side_of_the_peer_first():
    async with connected(False, Fault("half dead", 3, 60)) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(3) == LINE[:3]
        with pytest.raises(trio.BrokenResourceError):
            await ends.peer.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        await ends.manager.send_all(LINE)  # the Manager does not notice anything
        ends.proxy.calm()
        with pytest.raises(trio.BrokenResourceError):
            await ends.manager.receive_some()


async def test_a_black_hole_forwards_nothing_until_it_ends():
    async with connected(False, Fault("black hole", 3, 60)) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(3) == LINE[:3]
        await ends.manager.send_all(LINE)
        ends.proxy.calm()
        with pytest.raises(trio.BrokenResourceError):
            await ends.peer.receive_some()


async def test_noise_at_a_byte_ends_the_line_and_the_connection():
    async with connected(False, Fault("noise", 3, 0)) as ends:
        await ends.peer.send_all(LINE)
        assert await ends.at_manager(3 + len(NOISE) + 1) == LINE[:3] + NOISE + b"\n"
        assert ends.proxy.ledger.noise == 1


async def test_a_line_is_dropped_and_another_one_duplicated():
    async with connected(True, Fault("drop", 1, 0), Fault("duplicate", 2, 0)) as ends:
        lines = [LINE.replace(b"t12#", b"t%d#" % number) for number in (1, 2, 3)]
        await ends.peer.send_all(b"".join(lines))
        await ends.peer.send_eof()
        assert await ends.at_manager(1000) == lines[1] + lines[2] * 2
        assert ends.proxy.ledger.dropped == {1}
        assert ends.proxy.ledger.duplicated == {3: 1}


async def test_a_line_is_cut():
    async with connected(True, Fault("cut line", 1, 0)) as ends:
        await ends.peer.send_all(LINE)
        received = await ends.at_manager(1000)
        assert LINE.startswith(received)
        assert received != LINE
