"""Statistics of a client, and late replies, as a program on Trio sees them."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
import trio.testing

from msl_network_trio import (
    BacklogFull,
    ConnectionLost,
    LateReply,
    LinkBroken,
    LinkedClient,
    NetworkError,
    RemoteError,
    ReplyTimeout,
    connect,
    statistics,
)
from msl_network_trio.client.client import client_session
from msl_network_trio.client.statistics import ErrorCounts
from tests.client.peer import Network, served
from tests.client.test_requests import Session, open_session, session, start  # noqa: F401

# ---- counters ----


async def test_what_a_client_has_done(session: Session):  # noqa: F811
    before = session.client.statistics()
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.add, 1)
        during = session.client.statistics()
        session.peer.reply(await session.peer.expect("add"), 1)
    after = session.client.statistics()
    assert call.value == 1
    assert (before.requests, before.open_requests, before.errors) == (1, 0, {})  # the link
    assert (during.requests, during.open_requests) == (2, 1)
    assert (after.requests, after.open_requests, after.unsent_bytes) == (2, 0, 0)
    assert after.bytes_sent > before.bytes_sent > 0
    assert after.bytes_received > before.bytes_received > 0
    assert after.reconnections == 0
    assert json.loads(json.dumps(attrs.asdict(after)))["requests"] == 2


async def test_notifications_and_dropped_ones_are_counted_by_service(session: Session):  # noqa: F811
    async with session.link.notifications(max_buffer_size=1):
        for number in range(3):
            session.peer.send(error=False, result=[[number], {}], service="Echo", uid="notification")
        await trio.testing.wait_all_tasks_blocked()
        found = session.client.statistics()
    assert found.notifications == {"Echo": 3}
    assert found.dropped == {"Echo": 2}
    assert found.gaps == {}


async def test_latencies_are_measured_for_a_sample(network: Network):
    async with served(network), connect() as client, client.link("Echo") as link:
        for _ in range(200):
            await link.add(1, 2)
        found = client.statistics()
    assert 2 < found.latency_samples < 60  # 12 on average
    assert [*found.latencies] == [0.5, 0.9, 0.99, 1.0]
    assert 0 < found.latencies[0.5] <= found.latencies[1.0]


# ---- errors ----


async def test_errors_are_counted_by_kind_once_each(session: Session):  # noqa: F811
    link, peer = session.link, session.peer
    with pytest.raises(ReplyTimeout):
        await link.add(timeout=0)
    async with trio.open_nursery() as nursery:
        call = await start(nursery, link.add)
        peer.fail(await peer.expect("add"), "ValueError: bad")
    assert isinstance(call.error, RemoteError)
    reply = link.add(asynchronous=True)
    peer.fail(await peer.expect("add"), "ValueError: bad")
    for _ in range(2):
        with pytest.raises(RemoteError):
            await reply
    assert session.client.statistics().errors == {"ReplyTimeout": 1, "RemoteError": 2}


async def test_an_error_that_nobody_awaits_is_counted(session: Session, caplog):  # noqa: F811
    reply = session.link.add(asynchronous=True)
    session.peer.fail(await session.peer.expect("add"), "ValueError: bad")
    await trio.testing.wait_all_tasks_blocked()
    assert session.client.statistics().errors == {"RemoteError": 1}
    with pytest.raises(RemoteError):
        await reply
    assert session.client.statistics().errors == {"RemoteError": 1}


async def test_a_timeout_of_a_reply_is_counted(session: Session, autojump_clock):  # noqa: F811
    reply = session.link.add(asynchronous=True, timeout=1)
    with pytest.raises(ReplyTimeout):
        await reply
    assert session.client.statistics().errors == {"ReplyTimeout": 1}


async def test_the_loss_of_the_connection_is_counted_for_each_request(session: Session):  # noqa: F811
    async with trio.open_nursery() as nursery:
        calls = [await start(nursery, session.link.add) for _ in range(3)]
        session.peer.transport.close()
    assert all(isinstance(call.error, ConnectionLost) for call in calls)
    with pytest.raises(ConnectionLost):
        await session.link.add()
    with pytest.raises(ConnectionLost):
        session.link.add(asynchronous=True)
    assert session.client.statistics().errors == {"ConnectionLost": 5}
    assert session.client.statistics().requests == 4  # the link, and three calls


async def test_a_full_backlog_is_counted(network: Network):
    network.capacity = 1000
    async with trio.open_nursery() as nursery:
        async for opened in open_session(network, nursery, max_unsent=2000):
            with pytest.raises(BacklogFull):
                for _ in range(10):
                    opened.link.add("x" * 1000, asynchronous=True)
            assert opened.client.statistics().errors["BacklogFull"] == 1


async def test_errors_of_the_clients_own_requests_are_not_counted(session: Session):  # noqa: F811
    reply = client_session(session.client).connection.requests.post("unlink", "nobody")
    session.peer.fail(await session.peer.expect("unlink"), "KeyError: nobody")
    with pytest.raises(NetworkError):
        await reply
    assert session.client.statistics().errors == {}


def test_an_error_is_counted_once_in_all_threads():
    errors = ErrorCounts()
    error = ConnectionLost("gone")
    assert errors.count(error) is error
    errors.count(error)
    errors.count(ConnectionLost("gone"))
    assert errors.counts == {"ConnectionLost": 2}


# ---- the function ----


async def test_links_and_linked_clients_have_a_function(network: Network):
    async with served(network):
        early = LinkedClient("Echo")
        with pytest.raises(LinkBroken):
            statistics(early)
        async with early as linked:
            await linked.add(1, 2)
            assert linked.link is not None
            assert statistics(linked.link) == statistics(linked)
            found = statistics(linked)
            assert found.requests >= 2
        assert statistics(linked).requests == found.requests  # the goodbye is none
        async with connect() as client:
            link = await client.link("Echo")
            assert statistics(link).requests == 1
            await link.unlink()
            with pytest.raises(LinkBroken):
                statistics(link)
            assert client.statistics().requests == 2


# ---- late replies ----


async def test_the_reply_after_a_timeout_reaches_the_function(
    network: Network, nursery: trio.Nursery, autojump_clock
):
    got: list[LateReply] = []
    async for opened in open_session(network, nursery, on_late_reply=got.append):
        with pytest.raises(ReplyTimeout) as caught:
            await opened.link.add(1, y=2, timeout=1)
        assert caught.value.may_have_run
        opened.peer.reply(await opened.peer.expect("add"), 3)
        await trio.testing.wait_all_tasks_blocked()
        (late,) = got
        assert (late.service, late.attribute, late.args, late.kwargs) == ("Echo", "add", (1,), {"y": 2})
        assert (late.result, late.error) == (3, None)
        assert opened.client.statistics().late_replies == 1


async def test_the_reply_after_a_cancellation_reaches_an_async_function(
    network: Network, nursery: trio.Nursery
):
    got: list[object] = []

    async def take(late: LateReply) -> None:
        await trio.lowlevel.checkpoint()
        got.append(late.error)

    async for opened in open_session(network, nursery, on_late_reply=take):
        call = await start(nursery, opened.link.add)
        call.scope.cancel()
        await call.done.wait()
        opened.peer.fail(await opened.peer.expect("add"), "ValueError: bad")
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in got] == [RemoteError]


async def test_the_reply_that_arrives_as_its_caller_is_cancelled_is_not_lost(
    network: Network, nursery: trio.Nursery
):
    got: list[LateReply] = []
    async for opened in open_session(network, nursery, on_late_reply=got.append):
        call = await start(nursery, opened.link.add, 5)
        opened.peer.reply(await opened.peer.expect("add"), 5)
        # The task of the caller and the reader run in the same step of the scheduler, in any order.
        call.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (call.value is None) == (len(got) == 1)


async def test_the_reply_to_a_cancelled_asynchronous_request_reaches_the_function(
    network: Network, nursery: trio.Nursery
):
    got: list[LateReply] = []
    async for opened in open_session(network, nursery, on_late_reply=got.append):
        reply = opened.link.add(7, asynchronous=True)
        uid = await opened.peer.expect("add")
        assert reply.cancel()
        opened.peer.reply(uid, 7)
        await trio.testing.wait_all_tasks_blocked()
        assert [late.args for late in got] == [(7,)]


async def test_it_must_be_a_function():
    with pytest.raises(TypeError, match="on_late_reply must be a function or None, not int"):
        await connect(on_late_reply=5)  # type: ignore[arg-type]
