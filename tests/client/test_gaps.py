"""Gaps in the notifications of clients that reconnect, over several connections in memory."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, Gap, Notification, connect
from msl_network_trio.dialing.reconnect import Reconnect
from tests.client.peer import Network
from tests.client.test_presence import ABSENT, OTHER, Manager, listen, notification, settle


class Managers:
    """The Managers of the connections of one client, one behind the other."""

    def __init__(self) -> None:
        self.all: list[Manager] = []
        self.identity: Any = OTHER
        self.behind: list[dict[str, Any]] = []
        """Lines behind the first answer to a link request of each further Manager, in the same data."""

        self.tells = False
        self.accepts = True

    @property
    def last(self) -> Manager:
        return self.all[-1]

    async def accept(self, network: Network, nursery: trio.Nursery) -> None:
        while True:
            manager = Manager(await network.accept())
            manager.tells = self.tells
            if not self.accepts:
                manager.peer.transport.close()
                continue
            if self.all:
                manager.identity = self.identity
                manager.behind = [*self.behind]
            self.all.append(manager)
            nursery.start_soon(manager.serve)


@pytest.fixture
async def managers(network: Network, nursery: trio.Nursery):
    managers = Managers()
    nursery.start_soon(managers.accept, network, nursery)
    return managers


async def restart(managers: Managers, seconds: float = 2.0) -> None:
    """Let the connection be lost, and wait until there is another one."""
    count = len(managers.all)
    managers.last.peer.transport.close()
    with trio.fail_after(seconds):
        while len(managers.all) == count or not managers.last.count("link"):
            await trio.sleep(0.01)
    await settle()


async def test_every_loss_is_one_gap_in_order(managers: Managers, nursery, autojump_clock):
    async with connect(reconnect=True) as client:
        link = await client.link("Echo")
        listener = await listen(nursery, link, gaps=True)
        plain = await listen(nursery, link)
        began = time.time()
        for number in range(5):
            managers.last.emit("before", number)
            await settle()
            managers.behind = [notification("behind", number)]
            await restart(managers)
        assert len(listener.got) == 15
        for number in range(5):
            before, gap, behind = listener.got[3 * number : 3 * number + 3]
            assert (before.args, behind.args) == (["before", number], ["behind", number])
            assert type(gap) is Gap
            assert began <= before.received <= gap.since <= gap.until <= time.time()
            assert gap.service == "Echo"
            assert "closed the connection" in gap.reason
            assert plain.got[2 * number + 1].gap == gap
            assert plain.got[2 * number].gap is None
        assert client.dropped("Echo") == 0
    await listener.ended.wait()
    assert isinstance(listener.error, ConnectionLost)


async def test_the_gap_lasts_until_the_link_is_made_and_has_all_reasons(
    managers: Managers, nursery, autojump_clock
):
    async with connect(reconnect=True) as client:
        link = await client.link("Echo")
        listener = await listen(nursery, link, gaps=True)
        managers.identity = ABSENT
        await restart(managers)
        await restart(managers)
        await trio.sleep(10)
        assert listener.got == []
        managers.last.identity = OTHER
        await trio.sleep(3)
        assert [type(each) for each in listener.got] == [Gap]
        await client.disconnect()


async def test_all_links_have_a_gap_of_their_own(managers: Managers, nursery, autojump_clock):
    async with connect(reconnect=True) as client:
        listeners = [
            await listen(nursery, await client.link(name), gaps=True) for name in ("Echo", "Other", "Echo")
        ]
        await restart(managers)
        assert [[gap.service for gap in listener.got] for listener in listeners] == [
            ["Echo"],
            ["Other"],
            ["Echo"],
        ]
        assert managers.last.count("link") == 2
        await client.disconnect()


async def test_a_stream_that_is_entered_while_away_begins_with_a_gap(
    managers: Managers, nursery, autojump_clock
):
    async with connect(reconnect=True) as client:
        link = await client.link("Echo")
        managers.accepts = False
        managers.last.peer.transport.close()
        await trio.sleep(5)
        entered = time.time()
        listener = await listen(nursery, link, gaps=True)
        await trio.sleep(5)
        assert not listener.got
        managers.accepts = True
        await trio.sleep(15)
        (gap,) = listener.got
        assert entered <= gap.since <= gap.until
        await client.disconnect()


async def test_a_handler_is_called_with_gaps_over_several_connections(managers: Managers, autojump_clock):
    class Recorder:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def __call__(self, number: int) -> None:
            self.got.append(number)

        async def on_gap(self, gap: Gap) -> None:
            await trio.sleep(1)
            self.got.append(gap)

    recorder = Recorder()
    async with connect(reconnect=True) as client:
        link = await client.link("Echo")
        link.notification_handler = recorder
        for number in range(3):
            managers.behind = [notification(number)]
            await restart(managers)
        await trio.sleep(5)
    assert [type(each) for each in recorder.got] == [Gap, int] * 3


@pytest.mark.parametrize("way", ["gives up", "disconnects", "leaves the scope"])
async def test_the_end_while_away_ends_streams_and_handlers(
    managers: Managers, nursery, autojump_clock, caplog, way
):
    policy = Reconnect(give_up_after=30 if way == "gives up" else None)
    with caplog.at_level(logging.WARNING, "msl_network_trio.client.notifications"):
        async with connect(reconnect=policy) as client:
            link = await client.link("Echo")
            link.notification_handler = print
            listener = await listen(nursery, link, gaps=True)
            managers.accepts = False
            managers.last.peer.transport.close()
            await trio.sleep(10)
            assert not listener.ended.is_set()
            assert "will not be called" not in caplog.text
            began = trio.current_time()
            if way == "gives up":
                await listener.ended.wait()
            elif way == "disconnects":
                await client.disconnect()
        await listener.ended.wait()
    assert trio.current_time() - began <= (30 if way == "gives up" else 0.1)
    assert isinstance(listener.error, ConnectionLost)
    assert ("will not be called" in caplog.text) == (way == "gives up")
    async with link.notifications() as stream:
        with pytest.raises(ConnectionLost):
            await anext(stream)


async def test_a_link_that_is_broken_while_away_is_not_made_again(
    managers: Managers, nursery, autojump_clock
):
    async with connect(reconnect=True) as client:
        link, other = await client.link("Echo"), await client.link("Other")
        listener = await listen(nursery, link, gaps=True)
        managers.accepts = False
        managers.last.peer.transport.close()
        await trio.sleep(5)
        await link.unlink()
        assert listener.ended.is_set() or not listener.got
        managers.accepts = True
        await trio.sleep(20)
        assert managers.last.count("link") == 1
        assert listener.error is None
        assert other.service_name == "Other"
        await client.disconnect()


@pytest.mark.parametrize("tells", [False, True])
async def test_it_counts_whether_the_manager_of_now_tells(managers: Managers, nursery, autojump_clock, tells):
    managers.tells = not tells
    async with connect(reconnect=True) as client:
        await listen(nursery, await client.link("Echo"))
        managers.tells = tells
        await restart(managers)
        await trio.sleep(100)
        assert managers.last.count("link") in ({10, 11, 12} if tells else {50, 51, 52})
        await client.disconnect()


async def test_nothing_is_requested_by_an_idle_client_that_was_reconnected(
    managers: Managers, autojump_clock
):
    async with connect(reconnect=True, probe_every=math.inf) as client:
        await client.link("Echo")
        await restart(managers)
        before = managers.last.count("link")
        tasks = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(1000)
        assert managers.last.count("link") == before == 1
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        await client.disconnect()


async def test_notifications_between_the_loss_and_the_gap_are_impossible(
    managers: Managers, nursery, autojump_clock
):
    """What is received before the answer to the link request is no notification of this link."""
    async with connect(reconnect=True) as client:
        link = await client.link("Echo")
        listener = await listen(nursery, link, gaps=True)
        managers.last.emit(1)
        managers.last.peer.transport.close()  # in the same moment
        managers.behind = [notification(2)]
        with trio.fail_after(10):
            while len(listener.got) < 3:
                await trio.sleep(0.01)
        assert [each if isinstance(each, Notification) else type(each) for each in listener.got] == [
            Notification("Echo", [1], {}),
            Gap,
            Notification("Echo", [2], {}),
        ]
        await client.disconnect()
