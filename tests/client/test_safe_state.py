"""Safe states: when the actions run, over which connection, how often, and what is reported."""

from __future__ import annotations

import math
import signal

import pytest
import trio
import trio.testing

from msl_network_trio import (
    ConnectionLost,
    LinkBroken,
    LockLost,
    PrivateAttribute,
    connect,
    safe_state,
)
from msl_network_trio.client.safe_actions import ACTIONS_TIMEOUT
from msl_network_trio.dialing import connect as connecting
from tests.client.peer import MANAGER, Network, Peer
from tests.client.test_locks import grant
from tests.client.test_requests import Session, open_session, start


@pytest.fixture
async def session(network: Network, nursery: trio.Nursery):
    async for session in open_session(network, nursery):
        yield session


GONE = f"KeyError: \"the 'Echo' Service is not connected to {MANAGER}\""


class Broken(Exception):
    """What the bodies of these tests raise."""


async def fail_in(state) -> None:
    async with state:
        raise Broken


async def expect_action(peer: Peer, attribute: str, *args: object) -> str:
    line = await peer.line()
    assert (line["service"], line["attribute"], line["args"]) == ("Echo", attribute, list(args))
    return line["uid"]


async def accept(network: Network) -> Peer:
    """Accept a spare connection of the client."""
    peer = await network.accept()
    await peer.shake_hands()
    return peer


# ---- when ----


async def test_a_body_that_ends_normally_needs_no_safe_state(session: Session):
    async with safe_state(session.link, "output_off", lambda: pytest.fail("called")):
        pass
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


async def test_after_an_exception_the_actions_are_executed_in_order(session: Session):
    called = []

    async def close() -> None:
        await trio.lowlevel.checkpoint()
        called.append("close")

    async with trio.open_nursery() as nursery:
        actions = "off", ("set_voltage", 0, [1]), close, lambda: called.append("plain")
        call = await start(nursery, fail_in, safe_state(session.link, *actions))
        session.peer.reply(await expect_action(session.peer, "off"), None)
        assert called == []
        session.peer.reply(await expect_action(session.peer, "set_voltage", 0, [1]), None)
    assert type(call.error) is Broken
    assert not hasattr(call.error, "__notes__")
    assert called == ["close", "plain"]


async def test_after_a_cancellation_the_actions_are_executed(session: Session):
    async def body() -> None:
        async with safe_state(session.link, "off"):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        call = await start(nursery, body)
        call.scope.cancel()
        session.peer.reply(await expect_action(session.peer, "off"), None)
    assert call.scope.cancelled_caught


async def test_ctrl_c_in_the_body_is_raised_after_the_actions(session: Session):
    done = trio.Event()

    async def body() -> None:
        with pytest.raises(KeyboardInterrupt):
            async with safe_state(session.link, "off"):
                raise KeyboardInterrupt
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(body)
        session.peer.reply(await expect_action(session.peer, "off"), None)
        await done.wait()


async def test_a_second_ctrl_c_stops_waiting_and_sends_the_rest(session: Session):
    raised = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def body() -> None:
        with pytest.raises(KeyboardInterrupt):
            async with safe_state(session.link, "off", interrupt, ("set_voltage", 0)):
                raise Broken
        raised.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(body)
        session.peer.reply(await expect_action(session.peer, "off"), None)
        await expect_action(session.peer, "set_voltage", 0)
    assert raised == [True]


def test_ctrl_c_in_the_main_task_executes_the_actions_and_another_one_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
):
    executed = []

    async def manager() -> None:
        peer = await network.accept()
        await peer.shake_hands()
        await peer.link()
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)
        await expect_action(peer, "off")
        signal.raise_signal(signal.SIGINT)
        await expect_action(peer, "set_voltage", 0)
        executed.append(True)
        peer.reply(await peer.expect("unlink"), True)
        await peer.expect_end()

    async def main() -> None:
        nonlocal network
        network = Network()
        monkeypatch.setattr(connecting, "_open_stream", network.dial)
        trio.lowlevel.spawn_system_task(manager)
        async with (
            connect() as client,
            client.link("Echo") as link,
            safe_state(link, "off", ("set_voltage", 0)),
        ):
            await trio.sleep_forever()

    network = None
    # The tests may have been started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert executed == [True]


# ---- locks ----


async def hold(session: Session, *, inside: bool, on_lock_lost: bool) -> None:
    state = safe_state(session.link, "off", on_lock_lost=on_lock_lost)
    lock = session.link.acquire_lock()
    if inside:
        async with state, lock:
            await trio.sleep_forever()
    else:
        async with lock, state:
            await trio.sleep_forever()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("on_lock_lost", [True, False])
async def test_after_a_lost_lock_the_actions_are_executed_if_they_are_to_be(
    network, nursery, inside, on_lock_lost, caplog
):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            coroutine = hold(session, inside=inside, on_lock_lost=on_lock_lost)

            async def body(coroutine=coroutine) -> None:
                await coroutine

            call = await start(inner, body)
            await grant(session)
            await trio.testing.wait_all_tasks_blocked()
            session.peer.transport.close()
            if on_lock_lost:
                peer = await accept(network)
                peer.reply(await expect_action(peer, "off"), None)
                await peer.expect_end()
        assert isinstance(call.error, LockLost)
        assert ("is left to the next holder of the lock" in caplog.text) is not on_lock_lost


# ---- over which connection ----


async def test_a_lost_connection_is_replaced_for_the_actions(network, nursery):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:

            async def body() -> None:
                async with safe_state(session.link, "off", ("set_voltage", 0)):
                    await session.link.measure()

            call = await start(inner, body)
            await session.peer.expect("measure")
            session.peer.transport.close()
            peer = await accept(network)  # which is not asked for a link
            peer.reply(await expect_action(peer, "off"), None)
            peer.reply(await expect_action(peer, "set_voltage", 0), None)
            await peer.expect_end()
        assert isinstance(call.error, ConnectionLost)


async def test_an_action_is_repeated_over_another_connection_until_it_is_answered(network, nursery):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            call = await start(inner, fail_in, safe_state(session.link, "off"))
            await expect_action(session.peer, "off")
            session.peer.transport.close()
            for _ in range(2):
                peer = await accept(network)
                await expect_action(peer, "off")
                peer.transport.close()
            peer = await accept(network)
            peer.reply(await expect_action(peer, "off"), None)
            await peer.expect_end()
        assert type(call.error) is Broken
        assert not hasattr(call.error, "__notes__")


async def test_a_silent_connection_is_replaced(network, nursery, autojump_clock):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            began = trio.current_time()
            call = await start(inner, fail_in, safe_state(session.link, "off"))
            peer = await accept(network)
            peer.reply(await expect_action(peer, "off"), None)
            await peer.expect_end()
            await call.done.wait()
            assert trio.current_time() - began < 1.5
        assert not hasattr(call.error, "__notes__")


async def test_a_busy_service_is_waited_for_and_not_asked_again(session: Session, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, fail_in, safe_state(session.link, "off"))
        uid = await expect_action(session.peer, "off")
        for _ in range(6):  # signs of life of the Manager
            session.peer.reply(await session.peer.expect("unlink"), True)
        session.peer.reply(uid, None)
        await call.done.wait()
    assert not hasattr(call.error, "__notes__")
    assert [line.get("attribute") for line in session.peer.received].count("off") == 1


async def test_a_service_that_is_gone_is_asked_until_it_is_back(session: Session, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, fail_in, safe_state(session.link, "off"))
        for _ in range(3):
            await expect_action(session.peer, "off")
            session.peer.fail("", GONE)
        session.peer.reply(await expect_action(session.peer, "off"), None)
    assert not hasattr(call.error, "__notes__")


# ---- failures ----


async def test_a_failed_action_is_noted_and_logged_and_ends_no_other(session: Session, caplog):
    def fail() -> None:
        raise ZeroDivisionError("plain")

    async with trio.open_nursery() as nursery:
        call = await start(nursery, fail_in, safe_state(session.link, ("off", "all"), fail, "close"))
        session.peer.fail(await expect_action(session.peer, "off", "all"), "ValueError: interlock")
        session.peer.reply(await expect_action(session.peer, "close"), None)
    assert type(call.error) is Broken
    first, second = call.error.__notes__
    assert first.startswith("The safe state of the 'Echo' Service was not reached: off('all'): RemoteError: ")
    assert "ValueError: interlock" in first
    assert second.endswith("fail: ZeroDivisionError: plain")
    assert "interlock" in caplog.text


async def test_without_an_answer_the_actions_end_in_time(network, nursery, autojump_clock):
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            began = trio.current_time()
            call = await start(inner, fail_in, safe_state(session.link, "off", "close"))
            off, closed = False, False
            while not call.done.is_set():
                with trio.move_on_after(0.05):
                    line = await session.peer.line()
                    off |= line["attribute"] == "off"
                    closed |= line["attribute"] == "close"
                    if line["attribute"] == "unlink":
                        session.peer.reply(line["uid"], True)
            assert trio.current_time() - began <= ACTIONS_TIMEOUT + 0.1
        assert off
        assert closed  # the first action does not take the time of the second one
        assert len(call.error.__notes__) == 2
        assert "No answer within" in call.error.__notes__[0]


# ---- arguments ----


@pytest.mark.parametrize(
    ("actions", "error"),
    [
        ((), ValueError),
        ((5,), TypeError),
        (("",), TypeError),
        (((),), TypeError),
        (((5, 6),), TypeError),
        ((("off", {1}),), TypeError),
        (("_private",), PrivateAttribute),
        ((("off", math.nan, "\ud800"),), ValueError),
    ],
)
async def test_actions_are_checked_at_once(session: Session, actions, error):
    with pytest.raises(error):
        safe_state(session.link, *actions)


async def test_other_arguments_are_checked_at_once(session: Session):
    with pytest.raises(TypeError, match="must be a Link or a LinkedClient, not Client"):
        safe_state(session.client, "off")
    with pytest.raises(TypeError, match="on_lock_lost"):
        safe_state(session.link, "off", on_lock_lost="no")
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
    with pytest.raises(LinkBroken):
        safe_state(session.link, "off")
