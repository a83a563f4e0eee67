"""Requests: replies reach their callers, cancellation at each await, timeouts, replies to await, the backlog."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import logging
import math
import pickle
import weakref

import pytest
import trio
import trio.testing

from msl_network_trio import (
    BacklogFull,
    Client,
    ConnectionLost,
    Link,
    LinkBroken,
    ManagerError,
    ProtocolError,
    RemoteError,
    Reply,
    ReplyTimeout,
    StreamCorrupted,
    connect,
)
from tests.client.peer import MANAGER, Network, Peer


class Session:
    """A connected client with a link, and the scripted Manager."""

    def __init__(self, client: Client, peer: Peer, link: Link) -> None:
        self.client = client
        self.peer = peer
        self.link = link


@pytest.fixture
async def session(network: Network, nursery: trio.Nursery):
    async for session in open_session(network, nursery):
        yield session


async def open_session(network: Network, nursery: trio.Nursery, **arguments: object):
    peers: list[Peer] = []

    async def manager() -> None:
        peer = await network.accept()
        peers.append(peer)
        await peer.shake_hands()
        await peer.link()

    nursery.start_soon(manager)
    client = await connect(**arguments)  # type: ignore[arg-type]
    link = await client.link("Echo")
    yield Session(client, peers[0], link)
    peers[0].transport.close()
    await client.disconnect()


async def start(nursery: trio.Nursery, call, *args: object) -> Outcome:
    """Start a call in a task, and wait until it waits."""
    outcome = Outcome()
    nursery.start_soon(outcome.capture, call, *args)
    await trio.testing.wait_all_tasks_blocked()
    return outcome


class Outcome:
    """The outcome of a call in a task of its own."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.value: object = None
        self.error: BaseException | None = None

    async def capture(self, call, *args: object) -> None:
        with self.scope:
            try:
                self.value = await call(*args)
            except Exception as error:
                self.error = error
        self.done.set()


# ---- replies ----


async def test_replies_reach_the_tasks_that_asked_in_any_order(session: Session):
    async with trio.open_nursery() as nursery:
        calls = [await start(nursery, session.link.add, n) for n in range(20)]
        uids = [await session.peer.expect("add") for _ in calls]
        for n in sorted(range(20), key=lambda n: n * 7 % 20):
            session.peer.reply(uids[n], n)
    assert [call.value for call in calls] == list(range(20))


async def test_a_call_is_a_real_coroutine(session: Session):
    import inspect

    call = session.link.add(1)
    assert inspect.iscoroutine(call)
    call.close()
    with pytest.raises(TypeError, match="^asynchronous must be True or False, not 'False'"):
        session.link.add(1, asynchronous="False")


async def test_timeout_and_asynchronous_reach_the_service_through_request(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.request, "wait", (1,), {"timeout": 5, "asynchronous": True})
        line = await session.peer.line()
        assert line is not None
        assert (line["args"], line["kwargs"]) == ([1], {"timeout": 5, "asynchronous": True})
        session.peer.reply(line["uid"], "done")
    assert call.value == "done"


async def test_a_remote_error_is_raised_where_it_was_asked_for(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.fail(await session.peer.expect("add"), "TypeError: missing")
    assert isinstance(call.error, RemoteError)
    assert call.error.type_name == "TypeError"


@pytest.mark.parametrize(
    ("argument", "error"),
    [({1}, TypeError), ("\ud800", ValueError), (object(), TypeError), (10**5000, ValueError)],
    ids=["set", "surrogate", "object", "too many digits"],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_cannot_be_sent_raises_before_a_byte_is_written(session, argument, error, asynchronous):
    with pytest.raises(error):
        await session.link.add(argument, asynchronous=asynchronous)
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


# ---- cancellation ----


async def test_nothing_is_written_for_a_caller_that_is_already_cancelled(session: Session):
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.link.add(1, 2)
    assert scope.cancelled_caught
    with pytest.raises(ReplyTimeout) as caught:
        await session.link.add(1, 2, timeout=0)
    assert caught.value.may_have_run is False
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


async def test_the_reply_to_a_cancelled_call_goes_nowhere(session: Session):
    async with trio.open_nursery() as nursery:
        cancelled = await start(nursery, session.link.add, 1)
        kept = await start(nursery, session.link.add, 2)
        first, second = await session.peer.expect("add"), await session.peer.expect("add")
        cancelled.scope.cancel()
        await cancelled.done.wait()
        session.peer.reply(first, "late")
        session.peer.reply(second, "mine")
    assert (cancelled.value, kept.value) == (None, "mine")
    assert session.client._session.connection.protocol.in_flight == 0


async def test_a_reply_and_a_cancellation_at_the_same_moment_leave_nothing_behind(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add, 1)
        session.peer.reply(await session.peer.expect("add"), 1)
        call.scope.cancel()
    assert session.client._session.connection.protocol.in_flight == 0


async def test_a_caller_cancelled_inside_a_large_send_leaves_no_half_line(session: Session, network: Network):
    text = "x" * 5_000_000
    async with trio.open_nursery() as nursery:
        large = await start(nursery, session.link.size, text)
        behind = await start(nursery, session.link.behind)
        large.scope.cancel()
        await large.done.wait()
        after = await start(nursery, session.link.after)
        line = await session.peer.line()
        assert line is not None
        assert line["args"] == [text]  # a line that was begun is completed
        session.peer.reply(line["uid"], "late")
        session.peer.reply(await session.peer.expect("behind"), 1)
        session.peer.reply(await session.peer.expect("after"), 2)
    assert (large.value, behind.value, after.value) == (None, 1, 2)


async def test_a_caller_cancelled_before_its_line_is_begun_is_not_written(session: Session, network: Network):
    async with trio.open_nursery() as nursery:
        large = await start(nursery, session.link.size, "x" * 1_000_000)
        behind = await start(nursery, session.link.behind)
        behind.scope.cancel()
        after = await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("size"), 0)
        session.peer.reply(await session.peer.expect("after"), 2)
    assert (large.value, after.value) == (0, 2)


# ---- timeouts ----


async def test_a_timeout_names_what_was_asked_for_and_for_how_long(session, autojump_clock):
    with pytest.raises(
        ReplyTimeout, match=r"No reply to Echo.add within 2.5 seconds; it may still"
    ) as caught:
        await session.link.add(1, timeout=2.5)
    error = caught.value
    assert (error.service, error.attribute, error.seconds, error.may_have_run) == ("Echo", "add", 2.5, True)
    late = await session.peer.expect("add")
    session.peer.reply(late, "late")
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), "mine")
    assert call.value == "mine"


@pytest.mark.parametrize("timeout", [-1, math.nan, -math.inf])
async def test_a_timeout_that_is_none_raises(session: Session, timeout: float):
    with pytest.raises(ValueError, match="timeout must be a number of seconds from 0"):
        await session.link.add(1, timeout=timeout)
    with pytest.raises(ValueError, match="timeout must be a number of seconds from 0"):
        session.link.add(1, timeout=timeout, asynchronous=True)


async def test_the_request_timeout_is_the_default_of_every_call(network, nursery, autojump_clock):
    async for session in open_session(network, nursery, request_timeout=3, unresponsive_after=None):
        for call in (session.link.add, session.client.identities):
            before = trio.current_time()
            with pytest.raises(ReplyTimeout):
                await call()
            assert trio.current_time() - before == pytest.approx(3)
        before = trio.current_time()
        with pytest.raises(ReplyTimeout):
            await session.link.add(timeout=1)
        with trio.move_on_after(100) as scope:
            await session.link.add(timeout=math.inf)
        assert scope.cancelled_caught
        assert trio.current_time() - before == pytest.approx(101)
        with pytest.raises(ReplyTimeout):
            await session.link.unlink()
        with pytest.raises(LinkBroken):  # the Manager may have unlinked it
            session.link.add


# ---- replies to await ----


async def test_a_handle_is_sent_at_once_and_awaited_as_often_as_one_likes(session: Session):
    replies = [session.link.add(n, asynchronous=True) for n in range(300)]
    assert all(isinstance(reply, Reply) and not reply.done() for reply in replies)
    for n in range(300):
        session.peer.reply(await session.peer.expect("add"), n)
    assert [await reply for reply in replies] == list(range(300))
    assert [await reply for reply in replies] == list(range(300))
    assert all(reply.done() for reply in replies)


async def test_several_tasks_may_await_one_handle(session: Session):
    reply = session.link.add(asynchronous=True)

    async def wait() -> object:
        return await reply

    async with trio.open_nursery() as nursery:
        calls = [await start(nursery, wait) for _ in range(3)]
        calls[0].scope.cancel()
        await calls[0].done.wait()
        assert not reply.done()  # cancelling a task that awaits it does not cancel the request
        session.peer.reply(await session.peer.expect("add"), 7)
    assert [call.value for call in calls] == [None, 7, 7]


async def test_a_handle_raises_the_error_of_its_request_each_time(session: Session):
    reply = session.link.add(asynchronous=True)
    session.peer.fail(await session.peer.expect("add"), "ValueError: bad")
    for _ in range(2):
        with pytest.raises(RemoteError, match="ValueError: bad"):
            await reply
    assert repr(reply) == "<Reply to Echo.add failed>"


async def test_a_cancelled_handle_says_so(session: Session):
    reply = session.link.add(asynchronous=True)

    async def wait() -> object:
        return await reply

    async with trio.open_nursery() as nursery:
        waiting = await start(nursery, wait)
        assert repr(reply) == "<Reply to Echo.add waiting>"
        assert [name for name in dir(reply) if not name.startswith("_")] == ["cancel", "done"]
        assert reply.cancel() is True
    assert isinstance(waiting.error, concurrent.futures.CancelledError)
    assert reply.cancel() is False
    assert reply.done()
    assert repr(reply) == "<Reply to Echo.add cancelled>"
    with pytest.raises(concurrent.futures.CancelledError, match="Echo.add"):
        await reply
    assert session.client._session.connection.protocol.in_flight == 0


async def test_a_handle_that_has_arrived_cannot_be_cancelled(session: Session):
    reply = session.link.add(asynchronous=True)
    session.peer.reply(await session.peer.expect("add"), 1)
    assert await reply == 1
    assert reply.cancel() is False
    assert repr(reply) == "<Reply to Echo.add arrived>"


async def test_the_timeout_of_a_handle_counts_from_the_request(session, autojump_clock):
    reply = session.link.add(asynchronous=True, timeout=3)
    await trio.sleep(2)
    before = trio.current_time()
    with pytest.raises(ReplyTimeout):
        await reply
    assert trio.current_time() - before == pytest.approx(1)
    with pytest.raises(ReplyTimeout):
        await reply
    assert reply.cancel() is False


async def test_a_reply_that_a_thread_takes_just_when_it_is_awaited_is_not_missed(session: Session):
    handle = session.link.add(1, 2, asynchronous=True)
    session.peer.reply(await session.peer.expect("add"), 3)
    while not handle.settled:
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await handle._wait()  # as if it had arrived after the check
    assert await handle == 3


async def test_the_error_of_a_reply_that_is_not_awaited_is_logged(session: Session, caplog):
    caplog.set_level(logging.ERROR)
    reply = session.link.add(asynchronous=True)
    session.peer.fail(await session.peer.expect("add"), "ValueError: nobody looks")
    await trio.testing.wait_all_tasks_blocked()
    del reply
    gc.collect()
    assert "the reply to Echo.add was never awaited" in caplog.text
    assert "nobody looks" in caplog.text


async def test_the_error_of_a_handle_that_was_awaited_is_not_logged(session: Session, caplog):
    for waits_first in (True, False):
        reply = session.link.add(asynchronous=True)
        uid = await session.peer.expect("add")
        async with trio.open_nursery() as nursery:
            calls = [await start(nursery, reply._wait)] if waits_first else []
            session.peer.fail(uid, "ValueError: everybody looks")
            await trio.testing.wait_all_tasks_blocked()
        assert all(call.error is None for call in calls)
        with pytest.raises(RemoteError, match="everybody looks"):
            await reply
        del reply
        gc.collect()
    assert caplog.text == ""


async def test_the_error_of_a_handle_that_was_let_go_is_logged(session: Session, caplog):
    session.link.add(asynchronous=True)
    session.peer.fail(await session.peer.expect("add"), "ValueError: nobody ever looked")
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    assert "nobody ever looked" in caplog.text


async def test_a_handle_made_in_a_cancelled_scope_is_not_sent(session: Session):
    with trio.CancelScope() as scope:
        scope.cancel()
        reply = session.link.add(asynchronous=True)
    assert reply.done()
    with pytest.raises(concurrent.futures.CancelledError):
        await reply
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


async def test_a_failed_call_leaves_no_cycles_to_collect(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.fail(await session.peer.expect("add"), "ValueError: bad")
    gc.collect()
    gc.disable()
    try:
        error = weakref.ref(call.error)
        call.error = None
        assert error() is None
    finally:
        gc.enable()


async def test_handles_fail_when_the_connection_is_lost(session: Session):
    reply = session.link.add(asynchronous=True)
    await session.peer.expect("add")
    session.peer.transport.reset()
    with pytest.raises(ConnectionLost, match="was lost: Connection reset by peer; Echo.add may have"):
        await reply
    with pytest.raises(ConnectionLost, match="cannot send request to 'Echo'"):
        session.link.add(asynchronous=True)


# ---- the backlog ----


async def test_handles_beyond_the_backlog_raise_and_calls_wait(network, nursery):
    network.capacity = 1000
    async for session in open_session(network, nursery, max_unsent=10_000):
        link, peer = session.link, session.peer
        handles = []
        with pytest.raises(BacklogFull, match="max_unsent is 10,000"):
            for _ in range(1000):
                handles.append(link.size("x" * 1000, asynchronous=True))
        assert 5 < len(handles) < (500 if network.websocket else 12)  # a WebSocket has a queue of its own
        async with trio.open_nursery() as inner:
            waiting = await start(inner, link.size, "y" * 1000)
            given_up = await start(inner, link.size, "z" * 1000)
            given_up.scope.cancel()
            for number in range(len(handles)):
                peer.reply(await peer.expect("size"), number)
            peer.reply(await peer.expect("size"), "waited")
        assert waiting.value == "waited"
        assert [await handle for handle in handles] == list(range(len(handles)))


async def test_room_that_an_abandoned_request_leaves_goes_to_waiting_ones(network, nursery, autojump_clock):
    async for session in open_session(network, nursery, max_unsent=2000):
        client, link, peer = session.client, session.link, session.peer
        async with trio.open_nursery() as inner:
            admin = await start(inner, client.admin_request, "port")
            held = await start(inner, link.size, "x" * 1500)
            waiting = await start(inner, link.size, "y" * 1500)
            held.scope.cancel()
            await peer.expect("port")
            peer.reply("", 1)
            peer.reply(await peer.expect("size"), "got room")
        assert (admin.value, waiting.value) == (1, "got room")


async def test_a_large_request_is_not_overtaken_for_ever_by_small_ones(network, nursery):
    network.capacity = 1000
    async for session in open_session(network, nursery, max_unsent=5000):
        link, peer = session.link, session.peer
        async with trio.open_nursery() as inner:
            await start(inner, link.size, "x" * 4000)
            await start(inner, link.size, "large" * 2000)
            await start(inner, link.size, "small")
            with pytest.raises(BacklogFull):
                link.size("a handle does not overtake either", asynchronous=True)
            order = []
            for _ in range(3):
                line = await peer.line()
                order.append(line["args"][0][:5])
                peer.reply(line["uid"], None)
        assert order == ["xxxxx", "large", "small"]


async def test_one_request_may_be_larger_than_the_backlog(network, nursery):
    network.capacity = 1000
    async for session in open_session(network, nursery, max_unsent=10):
        async with trio.open_nursery() as inner:
            call = await start(inner, session.link.size, "x" * 100_000)
            session.peer.reply(await session.peer.expect("size"), 1)
        assert call.value == 1


async def test_small_requests_have_room_behind_a_large_one(network, nursery):
    network.capacity = 1000
    async for session in open_session(network, nursery, max_unsent=1000):
        link, peer = session.link, session.peer
        large = link.size("x" * 100_000, asynchronous=True)
        small = [link.size("small", asynchronous=True) for _ in range(3)]
        with pytest.raises(BacklogFull):
            for _ in range(10):
                link.size("x" * 500, asynchronous=True)
        for reply in (large, *small):
            line = await peer.line()
            peer.reply(line["uid"], len(line["args"][0]))
            assert await reply == len(line["args"][0])


async def test_waiting_for_room_raises_when_the_connection_is_lost(network, nursery):
    network.capacity = 1000
    async for session in open_session(network, nursery, max_unsent=5000):
        async with trio.open_nursery() as inner:
            first = await start(inner, session.link.size, "x" * 6000)
            second = await start(inner, session.link.size, "x" * 6000)
            session.peer.transport.reset()
        assert isinstance(first.error, ConnectionLost)
        assert first.error.may_have_run
        assert isinstance(second.error, ConnectionLost)
        assert not second.error.may_have_run


# ---- the peer misbehaves ----


@pytest.mark.parametrize("data", [b"[]\n", b"garbage\n", b'{"uid": \n'])
async def test_garbage_ends_the_connection_with_its_quotation(session: Session, data: bytes):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.transport.send_nowait(data)
    assert isinstance(call.error, StreamCorrupted)
    assert data.decode().strip()[:5] in str(call.error)
    assert not session.client.is_connected()


@pytest.mark.parametrize(
    "data", [b"\r\n\n", b'{"uid":"unknown","result":1}\n', b"{}\n", b'{"uid":5,"result":1}\n']
)
async def test_what_means_nothing_is_survived(session: Session, data: bytes):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.transport.send_nowait(data)
        session.peer.reply(await session.peer.expect("add"), 3)
    assert call.value == 3


async def test_half_a_line_and_the_end_is_a_lost_connection_that_says_so(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.transport.send_nowait(b'{"error": false, "resu')
        session.peer.transport.close()
    assert isinstance(call.error, ConnectionLost)
    assert "in the middle of a line" in str(call.error)


async def test_a_line_without_end_is_bounded_by_the_read_limit(network, nursery):
    async for session in open_session(network, nursery, read_limit=1_000_000):
        async with trio.open_nursery() as inner:
            call = await start(inner, session.link.add)
            sent = 0
            with pytest.raises(ConnectionLost):
                while sent < 200_000_000:
                    await session.peer.transport.send_all(b"x" * 65_536)
                    sent += 65_536
        assert sent < 1_500_000
        assert isinstance(call.error, StreamCorrupted)
        assert "1,000,000 bytes (see read_limit)" in str(call.error)


async def test_when_nothing_can_be_written_what_the_manager_said_last_is_still_read(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        uid = await session.peer.expect("add")
        session.peer.fail("", "ValueError: you are not welcome", requester=MANAGER)
        session.peer.reply(uid, "still answered")
        session.peer.transport.close()
        late = await start(nursery, session.link.late)
    assert call.value == "still answered"
    assert isinstance(late.error, ConnectionLost)


async def test_a_write_error_ends_the_connection_though_the_peer_does_not(
    session, autojump_clock, monkeypatch
):
    def broken(_: object) -> int:
        raise ConnectionLost("Broken pipe")

    monkeypatch.setattr(session.peer.client_end, "send_nowait", broken)
    with pytest.raises(ConnectionLost, match="was lost: Broken pipe; Echo.add may have been executed"):
        await session.link.add(1)
    assert not session.client.is_connected()


async def test_a_mistake_in_the_background_is_an_error_of_the_callers(session, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session.client._session.connection.protocol, "receive", broken)
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        session.peer.reply(await session.peer.expect("add"), 1)
    assert isinstance(call.error, ConnectionLost)
    assert "ZeroDivisionError" in str(call.error)
    assert "ZeroDivisionError" in caplog.text


async def test_calls_on_a_lost_connection_let_other_tasks_run(session, autojump_clock):
    session.peer.transport.close()
    await session.client._session.connection.closed.wait()
    with trio.move_on_after(1) as scope:
        nursery_ran = False

        async def other() -> None:
            nonlocal nursery_ran
            nursery_ran = True
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(10):
                with pytest.raises(ConnectionLost):
                    await session.link.add(1)
    assert nursery_ran


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_disconnect_checks_its_timeout_before_it_does_anything(session: Session, timeout: float):
    with pytest.raises(ValueError, match="timeout must be a number of seconds from 0"):
        await session.client.disconnect(timeout)
    assert session.client.is_connected()


async def test_disconnecting_with_an_admin_request_open_still_ends_the_line_that_is_being_written(
    network, nursery
):
    network.capacity = 1000
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            large = await start(inner, session.link.size, "x" * 5000)
            admin = await start(inner, session.client.admin_request, "shutdown_manager")
            inner.start_soon(session.client.disconnect)
            await session.peer.expect("size")
            await session.peer.expect("shutdown_manager")
            await session.peer.expect_end(goodbye=False)
        assert isinstance(large.error, ConnectionLost)
        assert isinstance(
            admin.error, ConnectionLost
        )  # this side ended it, so it is unknown whether it was read


async def test_an_unread_line_does_not_delay_the_end(network, nursery, autojump_clock):
    network.capacity = 1000
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            await start(inner, session.link.size, "x" * 5000)
            await start(inner, session.client.admin_request, "port")
            before = trio.current_time()
            await session.client.disconnect()
            assert trio.current_time() - before <= 3


async def test_many_requests_set_out_before_their_maker_has_made_them_all(session, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        session.peer.client_end, "send_nowait", lambda data: sizes.append(len(data)) or len(data)
    )
    first = session.link.size("alone", asynchronous=True)
    assert len(sizes) == 1  # sent at once, as no reply is outstanding
    handles = [session.link.size("x" * 400, asynchronous=True) for _ in range(100)]
    sent = sizes[1:]
    assert 5 <= len(sent) <= 15
    assert all(4000 <= size <= 5000 for size in sent)
    assert sum(handle.may_have_run for handle in handles) < 100  # the others wait for requests of more tasks
    await trio.testing.wait_all_tasks_blocked()
    assert sum(handle.may_have_run for handle in handles) == 100
    assert len(sizes) == len(sent) + 2
    assert [handle.cancel() for handle in [first, *handles]] == [True] * 101


async def test_what_an_admin_request_holds_back_is_not_sent_however_much_it_is(session, monkeypatch):
    sizes = []
    send_nowait = session.peer.client_end.send_nowait
    monkeypatch.setattr(
        session.peer.client_end, "send_nowait", lambda data: sizes.append(len(data)) or send_nowait(data)
    )
    async with trio.open_nursery() as nursery:
        admin = await start(nursery, session.client.admin_request, "port")
        before = len(sizes)
        handles = [session.link.size("x" * 2000, asynchronous=True) for _ in range(10)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(sizes) == before
        await session.peer.expect("port")
        session.peer.reply("", 1875)
        for number in range(10):
            session.peer.reply(await session.peer.expect("size"), number)
        assert [await handle for handle in handles] == list(range(10))
    assert admin.value == 1875
    assert min(sizes) > 0


async def test_the_writer_lets_other_tasks_run(session, monkeypatch):
    turns = []

    def send_nowait(data: bytes) -> int:
        turns.append("sent")
        return 0 if len(turns) == 1 else len(data)  # there is no room, so all others wait

    monkeypatch.setattr(session.peer.client_end, "send_nowait", send_nowait)

    async def other() -> None:
        while turns.count("sent") < 21:
            turns.append("other")
            await trio.lowlevel.checkpoint()

    handles = [session.link.size("x" * 300_000, asynchronous=True) for _ in range(20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
    assert turns.count("other") >= 3  # about once per MiB
    assert [handle.cancel() for handle in handles] == [True] * 20


async def test_pending_calls_raise_when_another_task_disconnects(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add)
        assert await session.peer.expect("add")
        nursery.start_soon(session.client.disconnect)
        await session.peer.expect_end()
    assert isinstance(call.error, ConnectionLost)
    assert str(call.error).startswith("Disconnected from Manager[localhost:1875]")


# ---- links ----


async def test_a_link_has_the_properties_of_the_identity(session: Session):
    link = session.link
    assert link.service_name == "Echo"
    assert link.service_address == "vm:1234"
    assert link.service_attributes == {"add": "(x, y)", "const": 42}
    assert link.service_language == "Python 3.11.7"
    assert link.service_max_clients == -1
    assert link.service_os == "Linux"
    assert repr(link) == "<Link with Echo[vm:1234] at Manager[localhost:1875]>"
    assert repr(link.add) == "<Echo.add(x, y)>"
    assert repr(link.const) == "<Echo.const = 42>"
    assert repr(link.hidden) == "<Echo.hidden>"


async def test_a_broken_link_says_so(session: Session):
    add = session.link.add
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
    assert repr(session.link) == "<Un-Linked from Echo[vm:1234]>"
    for name in ("add", "const", "other"):
        with pytest.raises(LinkBroken, match=f"Cannot access '{name}' since the link has been broken"):
            getattr(session.link, name)
        assert not hasattr(session.link, name)
    with pytest.raises(LinkBroken):
        await add(1, 2)
    await session.link.unlink()


async def test_what_the_identity_lists_is_looked_up_once_and_nothing_else_is_kept(session: Session):
    link = session.link
    assert link.add is link.add
    assert link.made_up is not link.made_up
    assert "made_up" not in {*vars(link), *dir(link)}


async def test_what_the_user_has_put_on_a_link_stays_there(session: Session):
    session.link.add = own = object()  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
    assert session.link.add is own


async def test_a_copy_of_a_link_has_methods_of_its_own(session: Session):
    link = session.link
    original = link.add
    copied = copy.copy(link)
    assert copied.add is not original
    async with trio.open_nursery() as nursery:
        await start(nursery, link.unlink)
        session.peer.reply(await session.peer.expect("unlink"), True)
        call = await start(nursery, copied.add, 1, 2)
        session.peer.reply(await session.peer.expect("add"), 3)
    assert call.value == 3


async def test_copying_and_probing_a_link_does_not_call_the_service(session: Session):
    assert copy.copy(session.link).service_name == "Echo"
    assert not hasattr(session.link, "_repr_html_")
    assert not hasattr(session.link, "__len__")
    with pytest.raises(AttributeError, match="'Link' object has no attribute '_client'"):
        Link.__new__(Link)._client
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"<Client manager=.* cannot be copied or pickled"):
            copied(session.link)
    assert len({session.link, session.link}) == 1
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)


async def test_a_refused_link_is_a_manager_error(session: Session):
    async with trio.open_nursery() as nursery:

        async def link() -> Link:
            return await session.client.link("Locked")

        call = await start(nursery, link)
        session.peer.fail(await session.peer.expect("link"), "PermissionError: 'Locked' service is locked")
    assert isinstance(call.error, ManagerError)
    assert call.error.type_name == "PermissionError"


@pytest.mark.parametrize("identity", [None, True, [], {}, {"address": 5, "attributes": {}}, {"address": "a"}])
async def test_an_answer_that_is_no_identity_is_a_protocol_error(session: Session, identity: object):
    async with trio.open_nursery() as nursery:

        async def link() -> Link:
            return await session.client.link("Odd")

        call = await start(nursery, link)
        await session.peer.link(identity)
    assert isinstance(call.error, ProtocolError)
    assert "no identity of the 'Odd' Service" in str(call.error)


async def test_what_the_identity_leaves_out_has_the_default_of_the_protocol(session: Session):
    async with trio.open_nursery() as nursery:

        async def link() -> Link:
            return await session.client.link("Small")

        call = await start(nursery, link)
        await session.peer.link({"address": "a:1", "attributes": {}})
    assert isinstance(call.value, Link)
    assert (call.value.service_language, call.value.service_os) == ("unknown", "unknown")
    assert call.value.service_max_clients == -1


async def test_arguments_are_a_list(session: Session):
    for args in ("ab", {"x": 1}, {1}, b"ab"):
        with pytest.raises(TypeError, match="args must be a list or tuple"):
            await session.link.request("echo", args)


async def test_a_link_that_is_given_up_is_undone(session: Session):
    async with trio.open_nursery() as nursery:

        async def link() -> Link:
            return await session.client.link("Other")

        call = await start(nursery, link)
        late = await session.peer.expect("link")
        call.scope.cancel()
        session.peer.reply(await session.peer.expect("unlink"), True)
        session.peer.reply(late, {})


async def test_a_link_in_a_cancelled_scope_leaves_nothing_behind(session: Session):
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.client.link("Echo")
    assert scope.cancelled_caught
    assert session.client._session.connection.protocol._services.linking == {}


async def test_a_link_that_is_given_up_is_not_undone_if_there_is_another(session: Session):
    async with trio.open_nursery() as nursery:

        async def link() -> Link:
            return await session.client.link("Echo")

        call = await start(nursery, link)
        await session.peer.expect("link")
        call.scope.cancel()
        await call.done.wait()
        after = await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), "no unlink before")
    assert after.value == "no unlink before"


async def test_a_scope_does_not_undo_a_link_that_is_being_made(session: Session):
    async with trio.open_nursery() as nursery:

        async def scope() -> None:
            async with session.client.link("Other"):
                entered.set()
                await leave.wait()

        async def link() -> Link:
            return await session.client.link("Other")

        entered, leave = trio.Event(), trio.Event()
        scoped = await start(nursery, scope)
        await session.peer.link()
        await entered.wait()
        call = await start(nursery, link)
        leave.set()
        await scoped.done.wait()
        await session.peer.link()
        await call.done.wait()
        after = await start(nursery, call.value.after)
        session.peer.reply(await session.peer.expect("after"), "no unlink before")
    assert after.value == "no unlink before"


async def test_an_unlinking_that_is_given_up_breaks_the_link_all_the_same(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.unlink)
        late = await session.peer.expect("unlink")
        call.scope.cancel()
        session.peer.reply(await session.peer.expect("unlink"), True)  # its reply is not awaited
        session.peer.reply(late, True)
    await session.link.unlink()
    with pytest.raises(LinkBroken):
        session.link.add


async def test_two_tasks_may_unlink_at_once(session: Session):
    async with trio.open_nursery() as nursery:
        calls = [await start(nursery, session.link.unlink) for _ in range(2)]
        session.peer.reply(await session.peer.expect("unlink"), True)
        session.peer.fail(await session.peer.expect("unlink"), "KeyError: it was not linked")
    assert [call.error for call in calls] == [None, None]


async def test_leaving_a_scope_behind_an_admin_request_unlinks_afterwards(session, autojump_clock):
    async with trio.open_nursery() as nursery:

        async def scope() -> None:
            async with session.client.link("Other"):
                await start(nursery, session.client.admin_request, "port")

        scoped = await start(nursery, scope)
        await session.peer.link()
        await session.peer.expect("port")
        await scoped.done.wait()
        session.peer.reply("", 1)
        session.peer.reply(await session.peer.expect("unlink"), True)


async def test_shutdown_service_breaks_the_link(session: Session):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.shutdown_service, 1)
        session.peer.reply(await session.peer.expect("shutdown_service"), "bye")
    assert call.value == "bye"
    assert repr(session.link).startswith("<Un-Linked")


async def test_unlink_wants_a_link_of_this_client(session: Session, network: Network, nursery: trio.Nursery):
    with pytest.raises(TypeError, match="Must pass in a Link object"):
        await session.client.unlink("Echo")  # type: ignore[arg-type]
    async for other in open_session(network, nursery):
        with pytest.raises(ValueError, match="is not a link of"):
            await session.client.unlink(other.link)


# ---- the client ----


async def test_a_client_has_its_identity_and_name(session: Session):
    client = session.client
    assert (client.name, client.address_manager, client.port) == ("Client", "localhost:1875", 0)
    assert repr(client) == "<Client manager=localhost:1875 port=0>"
    assert str(client) == "Client[vm:1]"  # as in the answer of the Manager
    assert client.identity()["type"] == "client"
    assert isinstance(client, trio.abc.AsyncResource)


async def test_spawn_makes_a_connection_with_the_same_arguments(session: Session, network: Network):
    async with trio.open_nursery() as nursery:

        async def manager() -> None:
            peer = await network.accept()
            await peer.shake_hands()
            assert peer.received[0]["result"]["name"] == "Second"
            await peer.expect_end()

        nursery.start_soon(manager)
        async with session.client.spawn("Second") as second:
            assert second.name == "Second"
            assert second.address_manager == session.client.address_manager
