"""Notifications: in order, bounded, counted, without blocking the reader."""

from __future__ import annotations

import logging
import math
import signal
import time
import types

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, Gap, LinkBroken, Notification, connect, dropped
from msl_network_trio.client.client import client_session
from msl_network_trio.client.link import link_state
from tests.client.peer import Network
from tests.client.test_requests import Session, open_session, start


@pytest.fixture
async def session(network: Network, nursery: trio.Nursery):
    network.capacity = 10_000_000
    async for session in open_session(network, nursery):
        yield session


def emit(session: Session, *args: object, service: str = "Echo", **kwargs: object) -> None:
    session.peer.send(error=False, result=[args, kwargs], service=service, uid="notification")


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# ---- handlers ----


async def test_a_plain_handler_gets_what_was_emitted_in_order(session: Session):
    got: list[object] = []
    session.link.notification_handler = lambda *args, **kwargs: got.append((args, kwargs))
    for number in range(100):
        emit(session, number, a=[number])
    emit(session, "of another", service="Other")
    await settle()
    assert got == [((number,), {"a": [number]}) for number in range(100)]


async def test_an_async_handler_is_awaited_before_it_is_called_again(session, autojump_clock):
    got: list[object] = []

    async def handler(number: int) -> None:
        got.append(("begin", number))
        await trio.sleep(1)
        got.append(("end", number))

    session.link.notification_handler = handler
    for number in range(3):
        emit(session, number)
    await trio.sleep(10)
    assert got == [(step, number) for number in range(3) for step in ("begin", "end")]


async def test_a_method_is_bound_to_the_link(session: Session):
    got: list[object] = []

    def print_notification(self, *args: object) -> None:
        got.append((self.service_name, args))

    session.link.notification_handler = types.MethodType(print_notification, session.link)
    emit(session, 72)
    await settle()
    assert got == [("Echo", (72,))]


async def test_the_handler_may_be_changed_at_any_time(session: Session):
    first: list[int] = []
    second: list[int] = []
    emit(session, 0)
    await settle()
    session.link.notification_handler = first.append
    emit(session, 1)
    await settle()
    session.link.notification_handler = second.append
    emit(session, 2)
    await settle()
    session.link.notification_handler = None
    emit(session, 3)
    await settle()
    assert (first, second) == ([1], [2])


async def test_a_handler_may_use_the_link(session: Session):
    got: list[object] = []

    async def handler(number: int) -> None:
        got.append(await session.link.add(number))

    session.link.notification_handler = handler
    emit(session, 5)
    session.peer.reply(await session.peer.expect("add"), "answered")
    await settle()
    assert got == ["answered"]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), ExceptionGroup("mine", [ValueError()])])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_exception_in_a_handler_is_logged_and_ends_nothing(session, caplog, error, asynchronous):
    got: list[int] = []

    def plain(number: int) -> None:
        got.append(number)
        raise error

    async def handler(number: int) -> None:
        plain(number)

    session.link.notification_handler = handler if asynchronous else plain
    emit(session, 1)
    emit(session, 2)
    await settle()
    assert got == [1, 2]
    assert "exception in the notification handler for 'Echo'" in caplog.text
    assert "in plain" in caplog.text  # the traceback
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.reply(await session.peer.expect("add"), 3)
    assert call.value == 3


async def test_a_handler_with_other_parameters_is_an_exception_in_it(session, caplog):
    session.link.notification_handler = lambda: None
    emit(session, 1)
    await settle()
    assert "TypeError" in caplog.text


async def test_a_slow_handler_delays_no_reply_and_loses_nothing(session, caplog):
    caplog.set_level(logging.WARNING)
    got: list[int] = []
    go_on = trio.Event()

    async def handler(number: int) -> None:
        got.append(number)
        await go_on.wait()

    session.link.notification_handler = handler
    for number in range(5000):
        emit(session, number)
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.reply(await session.peer.expect("add"), "at once")
    assert call.value == "at once"
    go_on.set()
    await settle()
    assert got == list(range(5000))
    assert session.client.dropped("Echo") == dropped(session.link) == 0
    assert not caplog.records


async def test_a_handler_that_is_too_slow_for_the_memory_loses_the_oldest(network, nursery, caplog):
    network.capacity = 10_000_000
    async for session in open_session(network, nursery, max_unhandled=300_000):
        await lose_the_oldest(session, caplog)


async def lose_the_oldest(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    got: list[int] = []
    go_on = trio.Event()

    async def handler(number: int) -> None:
        got.append(number)
        await go_on.wait()

    session.link.notification_handler = handler
    for number in range(1500):
        emit(session, number)
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.reply(await session.peer.expect("add"), "at once")
    assert call.value == "at once"
    go_on.set()
    await settle()
    lost = session.client.dropped("Echo")
    assert dropped(session.link) == lost
    assert len(got) + lost == 1500
    assert got[1:] == list(range(1501 - len(got), 1500))  # the handler was working on the first one
    assert 900 < lost < 1200
    assert "notifications dropped so far" in caplog.text
    assert len(caplog.records) < 15


async def test_a_handler_may_disconnect_and_go_on(network, nursery):
    async for session in open_session(network, nursery):
        done = trio.Event()

        async def handler() -> None:
            await session.client.disconnect()
            await trio.lowlevel.checkpoint()
            done.set()

        session.link.notification_handler = handler
        emit(session)
        await session.peer.expect_end()
        with trio.fail_after(5):
            await done.wait()
        assert not session.client.is_connected()


async def test_disconnecting_ends_handlers_that_are_at_work(network, nursery):
    async for session in open_session(network, nursery):
        ended = trio.Event()

        async def handler() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        session.link.notification_handler = handler
        emit(session)
        await settle()
        async with trio.open_nursery() as inner:
            inner.start_soon(session.client.disconnect)
            await session.peer.expect_end()
        with trio.fail_after(5):
            await ended.wait()


async def test_what_came_before_the_connection_was_lost_is_still_handled(network, nursery):
    async for session in open_session(network, nursery):
        got: list[int] = []
        session.link.notification_handler = got.append
        emit(session, 1)
        emit(session, 2)
        session.peer.transport.close()
        await session.client._session.connection.closed.wait()
        await settle()
        assert got == [1, 2]


async def test_none_are_handled_after_unlink(session: Session):
    got: list[int] = []
    session.link.notification_handler = got.append
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
    emit(session, 1)
    await settle()
    assert got == []


async def test_every_link_with_a_service_gets_its_own(session: Session):
    got: list[object] = []
    async with trio.open_nursery() as nursery:

        async def link() -> object:
            return await session.client.link("Echo")

        call = await start(nursery, link)
        await session.peer.link()
    session.link.notification_handler = lambda n: got.append(("first", n))
    call.value.notification_handler = lambda n: got.append(("second", n))
    emit(session, 1)
    await settle()
    assert sorted(got) == [("first", 1), ("second", 1)]


def test_ctrl_c_in_a_handler_reaches_the_main_task(monkeypatch: pytest.MonkeyPatch):
    from msl_network_trio.dialing import connect as connecting

    async def main() -> None:
        network = Network()
        monkeypatch.setattr(connecting, "_open_stream", network.dial)
        listening = trio.Event()

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.link()
            await listening.wait()
            peer.send(error=False, result=[[], {}], service="Echo", uid="notification")
            with trio.CancelScope(shield=True):
                await peer.expect_end()

        trio.lowlevel.spawn_system_task(manager)
        client = await connect()
        link = await client.link("Echo")
        link.notification_handler = lambda: signal.raise_signal(signal.SIGINT)
        listening.set()
        await trio.sleep_forever()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


# ---- streams ----


async def test_a_stream_yields_what_was_received_since_it_was_entered(session: Session):
    emit(session, 0)
    await settle()
    before = time.time()
    async with session.link.notifications() as stream:
        emit(session, 1, a=2)
        emit(session, 3)
        notification = await anext(stream)
        assert notification == Notification("Echo", [1], {"a": 2})
        assert before <= notification.received <= time.time()
        assert (await anext(stream)).args == [3]
    emit(session, 4)
    await settle()
    assert session.link._state.streams == set()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_cancelled_consumer_does_not_take_the_place_of_the_next_one(session: Session):
    async with session.link.notifications() as stream:
        for _ in range(2):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await start(nursery, stream.__anext__)
                    scope.cancel()
        async with trio.open_nursery() as nursery:
            calls = [await start(nursery, stream.__anext__) for _ in range(2)]
            emit(session, 1)
            emit(session, 2)
        # Both are woken together, and Trio may schedule either first.
        assert sorted(call.value.args for call in calls) == [[1], [2]]
        emit(session, 3)
        assert (await anext(stream)).args == [3]
        assert not stream._mailbox._wanted


async def test_notifications_before_a_reply_are_delivered_before_the_caller_resumes(session: Session):
    async with session.link.notifications() as stream, trio.open_nursery() as nursery:

        async def call() -> object:
            await session.link.add()
            return len(stream._mailbox.queue)

        asked = await start(nursery, call)
        uid = await session.peer.expect("add")
        emit(session, "before")
        session.peer.reply(uid, None)
    assert asked.value == 1


async def test_a_slow_loop_loses_the_oldest_and_can_count_them(session: Session):
    async with session.link.notifications(max_buffer_size=3) as stream:
        for number in range(10):
            emit(session, number)
        async with trio.open_nursery() as nursery:
            await start(nursery, session.link.add)
            session.peer.reply(await session.peer.expect("add"), None)
        assert stream.dropped == session.client.dropped("Echo") == 7
        assert [(await anext(stream)).args for _ in range(3)] == [[7], [8], [9]]


async def test_several_streams_and_a_handler_each_get_everything(session: Session):
    got: list[int] = []
    session.link.notification_handler = got.append
    async with session.link.notifications() as one, session.link.notifications(math.inf) as two:
        emit(session, 1)
        assert (await anext(one)).args == [1]
        assert (await anext(two)).args == [1]
    await settle()
    assert got == [1]


async def test_a_stream_ends_when_the_link_is_unlinked(session: Session):
    async with session.link.notifications() as stream, trio.open_nursery() as nursery:

        async def loop() -> list[object]:
            return [notification.args async for notification in stream]

        looping = await start(nursery, loop)
        emit(session, 1)
        await settle()
        await start(nursery, session.link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
    assert looping.value == [[1]]
    with pytest.raises(LinkBroken):
        session.link.notifications()


async def test_a_stream_raises_when_the_connection_is_lost_after_what_had_come(session: Session):
    async with session.link.notifications() as stream:
        emit(session, 1)
        session.peer.transport.close()
        await session.client._session.connection.closed.wait()
        assert (await anext(stream)).args == [1]
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await anext(stream)


async def test_a_cancelled_loop_loses_nothing(session: Session):
    async with session.link.notifications() as stream:
        with trio.CancelScope() as scope:
            emit(session, 1)
            await settle()
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        assert (await anext(stream)).args == [1]


@pytest.mark.parametrize("size", [0, -1, math.nan])
async def test_a_buffer_has_a_size(session: Session, size: float):
    with pytest.raises(ValueError, match="max_buffer_size"):
        session.link.notifications(size)


# ---- hidden names, and the end ----


async def test_linking_warns_of_attributes_that_our_names_hide(session: Session, caplog):
    identity = {"attributes": {"request": "()", "unlink": "()", "shutdown_service": "()"}, "address": "a:1"}
    async with trio.open_nursery() as nursery:

        async def link() -> object:
            return await session.client.link("Odd")

        await start(nursery, link)
        await session.peer.link(identity)
    assert "the 'Odd' Service has attributes that Link hides: request, unlink; reach them" in caplog.text


async def test_dir_lists_the_attributes_of_the_service(session: Session):
    assert {"add", "const", "acquire_lock", "service_name"} <= set(dir(session.link))


@pytest.mark.parametrize("how", ["disconnect", "lost"])
async def test_the_shutdown_handler_is_called_once_when_the_connection_has_ended(
    network, nursery, how, caplog
):
    async for session in open_session(network, nursery):
        called: list[bool] = []

        async def handler() -> None:
            await trio.lowlevel.checkpoint()
            called.append(session.client.is_connected())
            raise ValueError("in the handler")

        session.client.shutdown_handler = handler
        if how == "lost":
            session.peer.transport.close()
            await session.client._session.connection.closed.wait()
        else:
            async with trio.open_nursery() as inner:
                inner.start_soon(session.client.disconnect)
                await session.peer.expect_end()
        await settle()
        await session.client.disconnect()
        assert called == [False]
        assert "exception in the shutdown handler" in caplog.text


async def test_a_shutdown_handler_has_a_limited_time(network, nursery, autojump_clock):
    async with trio.open_nursery() as inner:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            await peer.expect_end()

        inner.start_soon(manager)
        before = trio.current_time()
        async with connect() as client:
            client.shutdown_handler = trio.sleep_forever
        assert trio.current_time() - before == pytest.approx(2)


# ---- gaps ----


def put_gap(session: Session, gap: Gap) -> None:
    """Put a gap where a reconnected client would."""
    link_state(session.link).put_gap(gap, client_session(session.client).callback_tasks.start)


def lose(session: Session, number: int) -> Gap:
    gap = Gap(time.time() + number, time.time() + number, f"loss {number}", "Echo")
    put_gap(session, gap)
    return gap


async def test_a_stream_yields_gaps_in_order_if_it_is_asked_to(session: Session):
    async with session.link.notifications(gaps=True) as stream:
        emit(session, 1)
        await settle()
        gap = lose(session, 1)
        emit(session, 2)
        await settle()
        second = lose(session, 2)
        assert [await anext(stream) for _ in range(4)] == [
            Notification("Echo", [1], {}),
            gap,
            Notification("Echo", [2], {}),
            second,
        ]


async def test_a_gap_is_yielded_at_once_while_nothing_else_is_received(session: Session, nursery):
    got: list[object] = []

    async def listen() -> None:
        async with session.link.notifications(gaps=True) as stream:
            got.append(await anext(stream))

    nursery.start_soon(listen)
    await settle()
    gap = lose(session, 1)
    await settle()
    assert got == [gap]


async def test_by_default_a_gap_is_an_attribute_of_the_next_notification(session: Session):
    async with session.link.notifications() as stream:
        emit(session, 1)
        await settle()
        first, second = lose(session, 1), lose(session, 2)
        emit(session, 2)
        emit(session, 3)
        await settle()
        got = [await anext(stream) for _ in range(3)]
        assert got == [Notification("Echo", [number], {}) for number in (1, 2, 3)]
        assert [each.gap for each in got] == [None, first.merged(second), None]


async def test_a_gap_begins_with_the_subscription_at_the_earliest(session: Session):
    before = time.time()
    async with session.link.notifications(gaps=True) as stream:
        put_gap(session, Gap(0.0, time.time() + 1, "lost", "Echo"))
        put_gap(session, Gap(0.0, 1.0, "lost", "Echo"))
        gap = await anext(stream)
        assert before <= gap.since <= gap.until


async def test_each_stream_gets_the_gap_where_it_is_itself(session: Session):
    async with session.link.notifications(gaps=True) as one, session.link.notifications(1) as other:
        emit(session, 1)
        await settle()
        gap = lose(session, 1)
        emit(session, 2)
        emit(session, 3)
        await settle()
        got = [await anext(one) for _ in range(4)]
        assert got[1] == gap
        (last,) = [await anext(other)]
        assert (last.args, last.gap, other.dropped) == ([3], gap, 2)


async def test_gaps_must_be_a_flag(session: Session):
    with pytest.raises(TypeError, match="gaps"):
        session.link.notifications(gaps="yes")


class Recorder:
    """A handler with a method for gaps; its methods are async if `slow` is set."""

    def __init__(self, slow: bool = False) -> None:
        self.got: list[object] = []
        self.slow = slow

    def record(self, number: object) -> object:
        self.got.append(number)
        return trio.sleep(1) if self.slow else None

    __call__ = record

    def on_gap(self, gap: Gap) -> object:
        return self.record(gap)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("is_method", [False, True])
async def test_a_handler_is_called_with_gaps_in_order(session: Session, slow, is_method, autojump_clock):
    recorder = Recorder(slow)
    gaps = [lose(session, 0)]  # before there is a handler: for nobody
    session.link.notification_handler = recorder.record if is_method else recorder
    for number in range(3):
        emit(session, number)
        emit(session, -number)
        await settle()
        gaps.append(lose(session, number))
    emit(session, 3)
    await trio.sleep(100)
    assert recorder.got == [0, 0, gaps[1], 1, -1, gaps[2], 2, -2, gaps[3], 3]


async def test_a_gap_starts_the_task_of_a_handler_that_was_not_called_yet(session: Session):
    recorder = Recorder()
    session.link.notification_handler = recorder
    gap = lose(session, 1)
    await settle()
    assert recorder.got == [gap]


async def test_a_handler_without_a_method_for_gaps_goes_on(session: Session):
    got: list[int] = []
    session.link.notification_handler = got.append
    emit(session, 1)
    await settle()
    lose(session, 1)
    emit(session, 2)
    await settle()
    assert got == [1, 2]


async def test_a_handler_may_be_replaced_by_one_without_a_method_for_gaps(session: Session):
    got: list[int] = []
    session.link.notification_handler = Recorder()
    lose(session, 1)
    session.link.notification_handler = got.append
    emit(session, 2)
    await settle()
    assert got == [2]


async def test_a_method_of_the_link_is_no_handler_of_gaps(session: Session):
    got: list[object] = []

    def record(self: object, number: int) -> None:
        got.append(number)

    # The link has every attribute, as one of the Service: on_gap must not be requested.
    session.link.notification_handler = types.MethodType(record, session.link)
    lose(session, 1)
    emit(session, 1)
    await settle()
    assert got == [1]


async def test_an_exception_in_the_handler_of_gaps_is_logged(session: Session, caplog):
    recorder = Recorder()
    recorder.on_gap = lambda gap: 1 / 0
    session.link.notification_handler = recorder
    lose(session, 1)
    emit(session, 1)
    await settle()
    assert recorder.got == [1]
    assert "ZeroDivisionError" in caplog.text
