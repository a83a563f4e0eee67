"""The three forms of connect(), and their ends."""

from __future__ import annotations

import gc
import math
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, ServiceLost, connect
from tests.client.peer import Network, Peer, served


async def test_a_scope_disconnects_at_its_end(network: Network):
    async with served(network):
        async with connect() as client:
            link = await client.link("Echo")
            assert await link.add(1, 2) == 3
            assert client.is_connected()
        assert not client.is_connected()
        with pytest.raises(ConnectionLost, match=r"Disconnected from Manager\[localhost:1875\]"):
            await link.add(1, 2)


async def test_an_awaited_client_lives_until_it_is_disconnected(network: Network):
    async with served(network):
        client = await connect()
        link = await client.link("Echo")
        assert await link.add(1, 2) == 3
        await client.disconnect()
        assert not client.is_connected()
        await client.disconnect()
        await client.aclose()


async def test_with_a_nursery_the_connection_is_one_of_its_tasks(network: Network):
    async with served(network):
        async with trio.open_nursery() as nursery:
            client = await connect(nursery=nursery)
            assert len(nursery.child_tasks) == 1
            link = await client.link("Echo")
            assert await link.add(1, 2) == 3
            await client.disconnect()
        assert not client.is_connected()


async def test_cancelling_the_nursery_says_goodbye(network: Network):
    async with trio.open_nursery() as outer:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.expect_end()
            outer.cancel_scope.cancel()

        outer.start_soon(manager)
        async with trio.open_nursery() as nursery:
            client = await connect(nursery=nursery)
            nursery.cancel_scope.cancel()
        assert not client.is_connected()


def test_connect_is_what_trio_can_run(monkeypatch: pytest.MonkeyPatch):
    from msl_network_trio.dialing import connect as connecting

    said_goodbye: list[bool] = []

    async def dial(*_: object) -> object:
        network = Network()
        transport = await network.dial()
        trio.lowlevel.spawn_system_task(manager, await network.accept())
        return transport

    async def manager(peer: Peer) -> None:
        with trio.CancelScope(shield=True):
            await peer.shake_hands()
            await peer.expect_end()
            said_goodbye.append(True)

    monkeypatch.setattr(connecting, "_open_stream", dial)
    assert isinstance(connect_once := connect(), Coroutine)
    connect_once.close()
    client = trio.run(connect)
    assert not client.is_connected()
    assert said_goodbye == [True]  # also at the end of the run


async def test_a_nursery_can_start_connect(network: Network):
    async with served(network), trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
    for ours, _ in network.opened:
        ours.close()
    await trio.testing.wait_all_tasks_blocked()


def test_a_forgotten_await_warns():
    with pytest.warns(RuntimeWarning, match="'connect' was never awaited"):
        connect()
        gc.collect()


async def test_an_entered_opening_does_not_warn(network: Network):
    async with served(network):
        opening = connect()
        assert "await it" in repr(opening)
        async with opening:
            pass


async def test_an_opening_is_used_once(network: Network):
    async with served(network):
        opening = connect()
        client = await opening
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await opening
        await client.disconnect()


async def test_a_scope_may_run_its_task_in_a_given_nursery(network: Network):
    async with served(network), trio.open_nursery() as nursery:
        async with connect(nursery=nursery) as client:
            assert len(nursery.child_tasks) == 1
            async with client.spawn("Second") as second:
                assert len(nursery.child_tasks) == 2
                assert second.is_connected()
            assert not second.is_connected()
        assert not client.is_connected()


async def test_an_opening_is_entered_once(network: Network):
    async with served(network):
        opening = connect()
        async with opening:
            with pytest.raises(RuntimeError, match="connect was used already"):
                async with opening:
                    pass
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await opening


async def test_a_closed_nursery_leaves_nothing_open(network: Network):
    async with served(network):
        async with trio.open_nursery() as nursery:
            pass
        for _ in range(2):
            with pytest.raises(RuntimeError, match="closed"):
                await connect(nursery=nursery)
            with pytest.raises(RuntimeError, match="closed"):
                async with connect(nursery=nursery):
                    pass
        network.assert_all_closed()


def test_ctrl_c_in_the_goodbye_leaves_the_nursery_as_it_should(monkeypatch: pytest.MonkeyPatch):
    from msl_network_trio.dialing import connect as connecting

    network = None

    async def manager() -> None:
        peer = await network.accept()
        await peer.shake_hands()
        await peer.expect("__disconnect__")
        signal.raise_signal(signal.SIGINT)  # it is raised in the main task, which waits for the end

    async def main() -> None:
        nonlocal network
        network = Network()
        monkeypatch.setattr(connecting, "_open_stream", network.dial)
        trio.lowlevel.spawn_system_task(manager)
        with pytest.raises(KeyboardInterrupt):
            async with connect():
                pass
        network.assert_all_closed()
        async with trio.open_nursery():  # raises an error if a scope was left open
            pass
        assert not trio.lowlevel.current_task().child_nurseries

    # The tests may have been started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


# ---- exceptions in the body ----


async def test_an_exception_of_the_body_is_raised_unchanged(network: Network):
    async with served(network):
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            async with connect():
                raise error
        assert caught.value is error
        assert error.__cause__ is None


async def test_a_group_that_the_body_raises_stays_the_group_that_it_was(network: Network):
    async with served(network):
        group = ExceptionGroup("mine", [ValueError(1), KeyError(2)])
        with pytest.raises(ExceptionGroup) as caught:
            async with connect():
                raise group
        assert caught.value is group
        assert len(group.exceptions) == 2


async def test_a_cancelled_body_still_says_goodbye(network: Network, autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.expect_end()
            ended.set()

        nursery.start_soon(manager)
        with trio.move_on_after(5) as scope:
            async with connect():
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await ended.wait()


async def test_the_connection_is_there_for_the_cleaning_up_of_a_cancelled_body(network: Network):
    async with served(network):
        with trio.CancelScope() as scope:
            async with connect() as client:
                link = await client.link("Echo")
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        assert await link.add(1, 2) == 3
        assert scope.cancelled_caught


async def test_the_goodbye_is_bounded_when_the_manager_is_stuck(
    network: Network, autojump_clock: trio.testing.MockClock
):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()

        nursery.start_soon(manager)
        before = trio.current_time()
        async with connect():
            pass
        assert 0 < trio.current_time() - before <= 3


async def test_disconnect_waits_for_its_timeout(network: Network, autojump_clock: trio.testing.MockClock):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            await (await network.accept()).shake_hands()

        nursery.start_soon(manager)
        client = await connect()
        before = trio.current_time()
        await client.disconnect(timeout=17)
        assert trio.current_time() - before == pytest.approx(17)


async def test_a_cancelled_disconnect_has_closed_the_connection(network: Network):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            await (await network.accept()).shake_hands()

        nursery.start_soon(manager)
        client = await connect()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.disconnect(timeout=math.inf)
        assert scope.cancelled_caught
        network.assert_all_closed()


async def test_two_tasks_that_disconnect_both_wait_for_the_manager(network: Network):
    async with trio.open_nursery() as nursery:
        client = None

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.expect("__disconnect__")
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.client_end._closed
            peer.transport.close()

        nursery.start_soon(manager)
        client = await connect()
        nursery.start_soon(client.disconnect)
        nursery.start_soon(client.disconnect)


async def test_a_lost_connection_does_not_cancel_the_body(network: Network):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.link()
            await peer.expect("add")
            peer.transport.close()

        nursery.start_soon(manager)
        async with connect() as client:
            link = await client.link("Echo")
            with pytest.raises(ConnectionLost, match="closed the connection") as caught:
                await link.add(1, 2)
            assert caught.value.may_have_run
            await trio.lowlevel.checkpoint()
            assert not client.is_connected()
            assert repr(client) == "<Client disconnected>"
            with pytest.raises(ConnectionLost) as caught:
                await link.add(1, 2)
            assert not caught.value.may_have_run


async def test_a_lost_connection_ends_its_task_in_the_nursery(network: Network):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            peer.transport.reset()

        nursery.start_soon(manager)
        client = await connect(nursery=nursery)
    assert not client.is_connected()


# ---- scopes of links ----


@asynccontextmanager
async def one_served(network: Network) -> AsyncIterator[list[Peer]]:
    """Accept one connection, serve it, and return the peer, which keeps what it received."""
    async with trio.open_nursery() as nursery:
        peers: list[Peer] = []

        async def manager() -> None:
            peer = await network.accept()
            peers.append(peer)
            await peer.shake_hands()
            await peer.serve()

        nursery.start_soon(manager)
        yield peers


async def test_a_link_scope_unlinks_at_its_end_also_on_an_error(network: Network):
    async with one_served(network) as peers:
        async with connect() as client:
            with pytest.raises(KeyError):
                async with client.link("Echo") as link:
                    raise KeyError
            with pytest.raises(AttributeError, match="Cannot access 'add' since the link has been broken"):
                link.add
        assert [line.get("attribute") for line in peers[0].received] == [
            None,
            "link",
            "unlink",
            "__disconnect__",
        ]


async def test_only_the_last_scope_of_a_service_unlinks(network: Network):
    async with one_served(network) as peers:
        async with connect() as client, client.link("Echo"):
            async with client.link("Echo") as inner:
                await inner.add(1, 2)
            await client.link("Other")
        attributes = [line.get("attribute") for line in peers[0].received]
        assert attributes == [None, "link", "link", "add", "link", "unlink", "__disconnect__"]


async def test_a_link_that_was_unlinked_in_its_scope_is_not_unlinked_again(network: Network):
    async with one_served(network) as peers:
        async with connect() as client, client.link("Echo") as link:
            await link.unlink()
            await link.disconnect()
        attributes = [line.get("attribute") for line in peers[0].received]
        assert attributes == [None, "link", "unlink", "__disconnect__"]


@pytest.mark.parametrize("trouble", ["refused", "silent", "lost"])
async def test_trouble_with_unlinking_does_not_hide_what_the_body_raises(
    network: Network, autojump_clock: trio.testing.MockClock, trouble: str
):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.link()
            uid = await peer.expect("unlink")
            if trouble == "refused":
                peer.fail(uid, "KeyError: not linked")
            elif trouble == "lost":
                peer.transport.reset()

        nursery.start_soon(manager)
        with pytest.raises(ServiceLost, match="of the body"):
            async with connect() as client, client.link("Echo"):
                raise ServiceLost("of the body")
