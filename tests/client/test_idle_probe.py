"""The idle probe notices lost Services and silent Managers while requests are open."""

from __future__ import annotations

import json
import math
import socket

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, ServiceLost, connect
from msl_network_trio.client.connection import Connection
from msl_network_trio.transport import tcp_connect
from tests.client.peer import ECHO, Network, Peer
from tests.client.test_requests import open_session, start
from tests.dialing.test_connect import AsyncAnswers


def registry(**addresses: str) -> dict[str, object]:
    services = {name: {**ECHO, "address": address} for name, address in addresses.items()}
    return {"hostname": "vm", "port": 1875, "clients": {}, "services": services, "attributes": {}}


async def probe(peer: Peer, answer: object) -> float:
    """Wait for a probe, answer it, and return the time at which it arrived."""
    uid = await peer.expect("identity")
    if answer is not None:
        peer.reply(uid, answer)
    return trio.current_time()


@pytest.fixture
async def session(network: Network, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock):
    async for session in open_session(network, nursery):
        await trio.sleep(60)  # the probe for the link request has ended
        yield session


async def test_a_service_that_has_gone_fails_the_calls_that_were_made_before(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        uid = await session.peer.expect("identity")
        assert trio.current_time() - began == pytest.approx(5)
        late = await start(nursery, session.link.late)
        session.peer.reply(uid, registry(Other="vm:1"))
        session.peer.reply(await session.peer.expect("late"), "answered")
    assert isinstance(call.error, ServiceLost)
    assert call.error.may_have_run is True
    assert "'Echo' Service has gone from Manager[vm:1875]; Echo.slow may have been executed" in str(
        call.error
    )
    assert late.value == "answered"


async def test_while_the_service_is_there_the_questions_come_less_and_less_often(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        call = await start(nursery, session.link.slow)
        uid = await session.peer.expect("slow")
        asked = [await probe(session.peer, registry(Echo="vm:1234")) - began for _ in range(6)]
        session.peer.reply(uid, "done")
    assert call.value == "done"
    assert asked == pytest.approx([5, 15, 35, 75, 135, 195])


async def test_a_service_at_another_address_is_another_one(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        await probe(session.peer, registry(Echo="vm:9999"))
        await call.done.wait()
        assert isinstance(call.error, ServiceLost)
        # Its address is known now, so calls through the old link are valid.
        again = await start(nursery, session.link.slow)
        uid = await session.peer.expect("slow")
        await probe(session.peer, registry(Echo="vm:9999"))
        session.peer.reply(uid, "done")
    assert again.value == "done"


async def test_linking_again_shows_that_the_service_is_another_one(session, autojump_clock):
    async with trio.open_nursery() as nursery:

        async def link() -> object:
            return await session.client.link("Echo")

        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        await start(nursery, link)
        await session.peer.link({**ECHO, "address": "vm:9999"})
    assert isinstance(call.error, ServiceLost)


async def test_asking_for_the_identities_shows_it_too(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        await start(nursery, session.client.identities)
        session.peer.reply(await session.peer.expect("identity"), registry())
    assert isinstance(call.error, ServiceLost)


@pytest.mark.parametrize(
    "answer", [None, 5, {}, {"services": 5}, {"services": {"Echo": 5}}, {"services": []}]
)
async def test_an_answer_that_is_no_registry_is_survived(session, answer, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.slow)
        uid = await session.peer.expect("slow")
        await start(nursery, session.client.identities)
        session.peer.reply(await session.peer.expect("identity"), answer)
        await trio.testing.wait_all_tasks_blocked()
        session.peer.reply(uid, "done")
    assert call.value == "done" or isinstance(call.error, ServiceLost)
    assert session.client.is_connected()


async def test_a_call_among_many_others_is_looked_after_too(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        await start(nursery, session.link.ready)
        session.peer.reply(await session.peer.expect("ready"), None)
        await trio.sleep(0.1)
        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        asked = None
        while asked is None:
            other = await start(nursery, session.link.quick)
            line = await session.peer.line()
            if line["attribute"] == "identity":
                asked = trio.current_time() - began
                session.peer.reply(line["uid"], registry())
                line = await session.peer.line()
            session.peer.reply(line["uid"], None)
            await other.done.wait()
            await trio.sleep(0.2)
    assert isinstance(call.error, ServiceLost)
    assert 5 <= asked <= 7.9


async def test_nothing_is_asked_while_nothing_is_open(session, autojump_clock):
    await trio.sleep(10_000)
    async with trio.open_nursery() as nursery:
        await start(nursery, session.link.after)
        session.peer.reply(await session.peer.expect("after"), None)
    await trio.sleep(10_000)
    assert [line.get("attribute") for line in session.peer.received] == [None, "link", "after"]


async def test_a_manager_that_says_nothing_is_given_up(session, autojump_clock):
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match=r"Manager\[localhost:1875\] has sent nothing for 60 seconds"):
        await session.link.slow()
    assert trio.current_time() - began == pytest.approx(65)
    assert not session.client.is_connected()


async def test_the_very_first_request_is_looked_after_too(network, nursery, autojump_clock):
    nursery.start_soon(silent, network)
    async with connect() as client:
        with pytest.raises(ConnectionLost, match="has sent nothing for 60 seconds"):
            await client.link("Echo")  # before any other task has run


async def silent(network: Network) -> None:
    peer = await network.accept()
    await peer.shake_hands()
    while await peer.line() is not None:
        pass


async def test_an_unanswered_question_proves_nothing_while_the_manager_says_other_things(
    session, autojump_clock
):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.slow)
        uid = await session.peer.expect("slow")
        await session.peer.expect("identity")
        for _ in range(10):
            await trio.sleep(50)
            session.peer.send(error=False, result=[[1], {}], service="Echo", uid="notification")
        session.peer.reply(uid, "done")
    assert call.value == "done"
    assert session.client.is_connected()


async def test_both_intervals_can_be_set(network, nursery, autojump_clock):
    async for session in open_session(network, nursery, probe_after=None):
        with trio.move_on_after(100_000) as scope:
            await session.link.slow()
        assert scope.cancelled_caught
        assert session.client.is_connected()
    async for session in open_session(
        network, nursery, unresponsive_after=None, probe_after=1, probe_every=2
    ):
        with trio.move_on_after(100_000) as scope:
            await session.link.slow()
        assert scope.cancelled_caught
        assert session.client.is_connected()


async def test_a_person_may_take_any_time_to_answer(network, nursery, autojump_clock):
    class Slow(AsyncAnswers):
        async def username(self, manager: str) -> object:
            await trio.sleep(100_000)
            return "alice"

    async for session in open_session(network, nursery, prompts=Slow({})):
        async with trio.open_nursery() as inner:
            call = await start(inner, session.client.admin_request, "port")
            await session.peer.expect("port")
            session.peer.ask("username", "Manager[vm:1875]")
            assert (await session.peer.line())["result"] == "alice"
            session.peer.reply("", 1875)
        assert call.value == 1875


async def test_a_manager_that_owes_the_answer_to_an_admin_request_is_given_up_too(session, autojump_clock):
    with pytest.raises(ConnectionLost, match="has sent nothing for 60 seconds"):
        await session.client.admin_request("port")


async def test_a_manager_that_dies_during_a_probe_is_noticed(session, autojump_clock):
    async with trio.open_nursery() as nursery:
        call = await start(nursery, session.link.slow)
        await session.peer.expect("slow")
        await session.peer.expect("identity")
        session.peer.transport.close()
    assert isinstance(call.error, ConnectionLost)
    assert "closed the connection" in str(call.error)


async def test_sockets_are_kept_alive():
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    sock = await tcp_connect.open_socket("127.0.0.1", port)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 50
    sock.close()
    await listener[0].aclose()


def test_the_defaults_of_connect_are_those_of_a_connection():
    import inspect

    ours = inspect.signature(connect).parameters
    theirs = inspect.signature(Connection).parameters
    for name in ("probe_after", "probe_every", "unresponsive_after", "max_unsent", "request_timeout"):
        assert ours[name].default == theirs[name].default
    assert math.isfinite(ours["probe_every"].default)


async def test_a_manager_that_takes_nothing_is_given_up_though_nothing_is_in_flight(
    network, nursery, autojump_clock
):
    network.capacity = 1000
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            large = await start(inner, session.link.size, "x" * 100_000)
            large.scope.cancel()  # its line is half written, and its reply is not awaited
            began = trio.current_time()
            call = await start(inner, session.link.add)
        assert isinstance(call.error, ConnectionLost)
        assert "has sent nothing for 60 seconds" in str(call.error)
        assert call.error.may_have_run is False
        assert trio.current_time() - began < 80


async def test_a_manager_that_takes_a_large_line_slowly_is_alive(network, nursery, autojump_clock):
    network.capacity = 1000
    async for session in open_session(network, nursery):
        async with trio.open_nursery() as inner:
            call = await start(inner, session.link.size, "x" * 20_000)
            received = b""
            while b"\n" not in received:
                await trio.sleep(30)
                del session.peer.transport._incoming.data[1000:]
                received += bytes(session.peer.transport._incoming.data)
                session.peer.transport._incoming.data.clear()
                session.peer.transport._incoming.wake()
            assert session.client.is_connected()
            line, _, rest = received.partition(b"\n")
            session.peer._buffer = rest
            session.peer.reply(json.loads(line)["uid"], "taken")
        assert call.value == "taken"
