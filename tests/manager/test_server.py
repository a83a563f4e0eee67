"""Tests of a Manager with peers that do not read, do not answer, disconnect or are many: others are not affected."""

from __future__ import annotations

import logging
import math
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.manager import connection, rights
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.settings import ManagerSettings
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.protocol.manager.route import CONGESTED, LARGE
from tests.manager.wires import Wire, dial
from tests.protocol.network import encoded, notification, reply, request

HANDSHAKE = ManagerSettings().handshake_timeout


def known(manager):
    """The names of the clients and of the Services that the Manager knows."""
    identity = manager.identity()
    return set(identity["clients"]) | set(identity["services"])


# ---- the life of a Manager ----


async def test_a_request_goes_through_it_and_back(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "add", 1, 2))
        asked = await service.line()
        assert (asked["args"], asked["requester"]) == ([1, 2], client.name)
        await service.send(reply(asked, 3))
        assert (await client.line())["result"] == 3


async def test_it_says_what_it_is_and_how_it_is_reached(autojump_clock):
    opening = open_manager(in_memory=True, auth_password="secret")
    async with opening as manager:
        assert (manager.port, manager.certificate, manager.host) == (0, None, "localhost")
        assert manager.name == f"Manager[{socket.gethostname()}:0]"
        assert manager.connect_kwargs() == {
            "host": "localhost",
            "transport": manager.dial,
            "disable_tls": True,
            "password_manager": "secret",
        }
        assert repr(manager) == f"<{manager.name} 0 peers>"
        assert manager.identity()["clients"] == {}
        assert not manager.closed.is_set()
    assert repr(manager) == f"<{manager.name} closed>"
    await manager.wait_closed()


async def test_peers_in_memory_are_told_apart_by_made_up_ports(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        clients = [await dial(manager, "C") for _ in range(3)]
        assert {client.name for client in clients} == known(manager)
        assert len(known(manager)) == 3
        assert [f"C[{socket.gethostname()}:{client.transport.port}]" for client in clients] == [
            client.name for client in clients
        ]


@pytest.mark.parametrize("again", [1, 2])
async def test_shutdown_is_the_end_for_everybody_and_nobody_can_connect_any_more(autojump_clock, again):
    async with open_manager(in_memory=True) as manager:
        wires = [await dial(manager, "Echo", "service"), await dial(manager), Wire(await manager.dial())]
        await wires[2].line()
        for _ in range(again):
            manager.shutdown()
        with trio.fail_after(1):
            told = [await wire.lines() for wire in wires]
            await manager.wait_closed()
        text = f"{manager.name} is shutting down"
        assert [line["message"] for line in (*told[0], *told[2])] == [f"ConnectionAbortedError: {text}"] * 2
        assert [(line["service"], line["uid"], line["result"]) for line in told[1]] == [
            (MANAGER, "notification", [[text], {}])
        ]
        with pytest.raises(ConnectionLost, match="has been shut down"):
            await manager.dial()
    assert known(manager) == set()


async def test_shutdown_does_not_wait_for_peers_that_do_not_read(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        with trio.move_on_after(1):
            await client.send(request("Echo", "e", "x" * 5_000_000))
        manager.shutdown()
        with trio.fail_after(1):
            await manager.wait_closed()
        with pytest.raises(ConnectionLost, match="reset"):  # in the middle of the request
            await service.rest()


async def test_those_who_wait_for_a_service_are_told_that_the_manager_is_shut_down(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "Echo", "service")
        client = await dial(manager)
        await client.send(request("Echo", "e"))
        await wait_all_tasks_blocked()
        manager.shutdown()
        [answer, goodbye] = await client.lines()
        assert (answer["uid"], answer["error"]) == ("1", True)
        assert "is shutting down, the request may have been executed" in answer["message"]
        assert goodbye["uid"] == "notification"


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_manager(in_memory=True) as manager:
            client = await dial(manager)
            raise error
    assert caught.value is error
    assert len(await client.lines()) == 1


async def test_a_group_that_the_body_raises_stays_the_group_that_it_is(autojump_clock):
    group = ExceptionGroup("mine", [ValueError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_manager(in_memory=True):
            raise group
    assert caught.value is group


async def test_a_body_that_is_cancelled_ends_it(autojump_clock):
    with trio.move_on_after(5) as scope:
        async with open_manager(in_memory=True) as manager:
            client = await dial(manager)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert manager.closed.is_set()
    assert len(await client.lines()) == 1


async def test_what_the_body_raises_when_it_is_cancelled_is_not_lost(autojump_clock):
    with pytest.raises(ValueError, match="mine"), trio.move_on_after(5):
        async with open_manager(in_memory=True):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


async def test_a_body_that_is_cancelled_can_still_say_goodbye(autojump_clock):
    with trio.move_on_after(5):
        async with open_manager(in_memory=True) as manager:
            client = await dial(manager)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), trio.fail_after(1):
                    assert (await client.ask(MANAGER, "identity"))["error"] is False
                    late = await dial(manager, "late")
                    assert known(manager) == {client.name, late.name}


def test_nothing_is_opened_before_it_is_entered():
    assert open_manager(in_memory=True)  # outside Trio, too


# ---- peers that come and go ----


async def test_a_peer_that_goes_is_forgotten_however_it_goes(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        closing, resetting, half = [await dial(manager, name) for name in ("A", "B", "C")]
        polite, mute = await dial(manager, "D"), Wire(await manager.dial())
        closing.transport.close()
        resetting.transport.reset()
        half.transport.send_eof()
        await polite.send(request(polite.name, "__disconnect__"), request(MANAGER, "identity"))
        mute.transport.close()
        with trio.fail_after(1):
            assert await half.lines() == []
            assert await polite.lines() == []
            await wait_all_tasks_blocked()
        assert known(manager) == set()


async def test_half_a_line_before_the_end_harms_nobody(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        client, other = await dial(manager), await dial(manager)
        await client.transport.send_all(b'{"service":"Echo","attribute":"e"')
        client.transport.close()
        assert (await other.ask(MANAGER, "unlink", "nobody"))["result"] is True


@pytest.mark.parametrize("size", [1, 30, -1])
@pytest.mark.parametrize("has_entered", [True, False])
async def test_a_line_that_the_end_cuts_off_is_not_acted_on_and_told_in_the_log(
    autojump_clock, size, has_entered, caplog
):
    """Also if nothing is missing but its end: it may be that of a longer one."""
    caplog.set_level("INFO")
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), Wire(await manager.dial())
        if has_entered:
            await client.enter("C")
            line = encoded(request("Echo", "echo"))
        else:
            await client.line()
            line = encoded({"result": {"name": "C", "type": "client"}})
        await client.transport.send_all(line[:size] if size > 0 else line)
        client.transport.close()
        await wait_all_tasks_blocked()
        assert known(manager) == {"Echo"}
        await service.send(request(MANAGER, "identity", uid="next"))
        assert (await service.line())["uid"] == "next", "nothing has come before"
    (record,) = [each for each in caplog.messages if "it closed the connection" in each]
    assert record.endswith("it closed the connection in the middle of a line")


async def test_an_end_behind_a_whole_line_is_an_ordinary_one(autojump_clock, caplog):
    caplog.set_level("INFO")
    async with open_manager(in_memory=True) as manager:
        (await dial(manager)).transport.close()
        await wait_all_tasks_blocked()
    (record,) = [each for each in caplog.messages if "it closed the connection" in each]
    assert record.endswith("it closed the connection")


@pytest.mark.parametrize("how", ["shutdown", "end of the block"])
async def test_a_manager_that_ends_in_the_middle_of_a_line_resets_the_connection(autojump_clock, how):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        async with trio.open_nursery() as nursery:
            large = request("Echo", "echo", "x" * 1_000_000)
            nursery.start_soon(client.send, large)
            await wait_all_tasks_blocked()  # the Service does not read
        if how == "shutdown":
            manager.shutdown()
    with pytest.raises(ConnectionLost, match="reset"):
        await service.rest()
    answer, goodbye = await client.lines()
    assert answer["error"]
    assert "is shutting down" in str(goodbye)


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_when_a_service_dies_those_who_wait_are_told_at_once(autojump_clock, how):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "e", uid="7"))
        await service.line()
        getattr(service.transport, how)()
        with trio.fail_after(0.1):
            answer = await client.line()
        assert answer["uid"] == "7"
        assert answer["message"].startswith("ConnectionError: the 'Echo' Service has gone from")
        assert (await client.ask("Echo", "e", uid="8"))["message"].startswith("KeyError: ")


async def test_what_a_service_answers_before_it_dies_arrives(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "e", uid="7"), request("Echo", "e", uid="8"))
        asked = await service.line()
        await service.send(reply(asked, "x" * 1_000_000))
        service.transport.close()
        with trio.fail_after(1):
            assert (await client.line())["result"] == "x" * 1_000_000
            assert (await client.line())["uid"] == "8"


# ---- the handshake ----


async def test_who_does_not_say_who_it_is_is_told_so_and_dropped(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        mute, began = Wire(await manager.dial()), trio.current_time()
        question, answer = await mute.lines()
        assert trio.current_time() - began == pytest.approx(HANDSHAKE, abs=connection._LINGER + 0.1)
        assert question["attribute"] == "identity"
        assert answer["message"] == (
            "TimeoutError: 'identity' was not answered within 300 seconds (handshake_timeout)"
        )


async def test_the_time_that_the_manager_itself_needs_is_not_that_of_the_peer(autojump_clock, monkeypatch):
    async def is_trusted(_database, _question):
        await trio.sleep(3 * HANDSHAKE)
        return True

    monkeypatch.setattr(ManagerDatabase, "is_trusted", is_trusted)
    monkeypatch.setattr(rights, "_INTERVAL", math.inf)  # without a thread, of which the clock knows nothing
    async with open_manager(in_memory=True, auth_hostname=True) as manager:
        assert (await dial(manager)).name
        mute, began = Wire(await manager.dial()), trio.current_time()
        *_, answer = await mute.lines()
        assert answer["message"].startswith("TimeoutError: 'identity' was not answered within 300 seconds")
        assert trio.current_time() - began == pytest.approx(4 * HANDSHAKE, abs=connection._LINGER + 0.1)


async def test_who_sends_byte_by_byte_has_no_more_time_than_others(autojump_clock):
    async with (
        open_manager(in_memory=True, auth_password="secret") as manager,
        trio.open_nursery() as nursery,
    ):
        slow = Wire(await manager.dial())

        async def dribble():
            with pytest.raises(ConnectionLost):
                while True:
                    await slow.transport.send_all(b" ")
                    await trio.sleep(1)

        nursery.start_soon(dribble)
        with trio.fail_after(HANDSHAKE + 10):
            assert (await slow.lines())[-1]["message"].startswith("TimeoutError: 'password' was not answered")


async def test_a_rejected_peer_reads_why_and_then_the_end(autojump_clock):
    async with open_manager(in_memory=True, auth_password="secret") as manager:
        wire = Wire(await manager.dial())
        assert (await wire.line())["attribute"] == "password"
        await wire.send({"result": "guess"}, b"x" * 60_000, b"x" * 60_000, b"x" * 60_000)
        with trio.fail_after(HANDSHAKE - 1):
            assert [line["message"] for line in await wire.lines()] == ["ValueError: Wrong Manager password"]
        assert known(manager) == set()


async def test_the_password_lets_peers_in(autojump_clock):
    async with open_manager(in_memory=True, auth_password="secret") as manager:
        wire = Wire(await manager.dial())
        await wire.line()
        await wire.send({"result": "secret"})
        await wire.enter()
        assert known(manager) == {wire.name}


# ---- peers that do not read ----


async def test_a_client_that_does_not_read_is_bounded_told_and_dropped_while_all_others_go_on(autojump_clock):
    async with open_manager(in_memory=True, max_backlog=500_000) as manager:
        service = await dial(manager, "Echo", "service")
        lazy, diligent = await dial(manager, "L"), await dial(manager, "D")
        for client in (lazy, diligent):
            assert not (await client.ask(MANAGER, "link", "Echo"))["error"]
        for number in range(100):
            line = notification("Echo", number, "x" * 10_000)
            await service.send(line)
            with trio.fail_after(0.1):
                got = await diligent.line()
            assert got["result"][0][0] == number
        assert known(manager) == {"Echo", diligent.name}
        *before, last = await lazy.lines()
        assert [line["result"][0][0] for line in before] == list(range(len(before)))
        assert last["message"].startswith("BufferError: 5")
        assert "more than the 500,000 that this Manager keeps for one peer" in last["message"]
        assert sum(len(line["result"][0][1]) for line in before) < 500_000


async def test_a_client_that_never_reads_again_is_dropped_all_the_same(autojump_clock):
    async with open_manager(in_memory=True, max_backlog=500_000) as manager:
        service, lazy = await dial(manager, "Echo", "service"), await dial(manager, "L")
        await lazy.ask(MANAGER, "link", "Echo")
        for _ in range(100):
            await service.send(notification("Echo", "x" * 10_000))
        await trio.sleep(connection._FLUSH_TIMEOUT + connection._LINGER + 1)
        with pytest.raises(ConnectionLost):
            await lazy.transport.send_all(b"x")
        assert known(manager) == {"Echo"}


async def test_a_peer_that_takes_nothing_of_what_waits_is_dropped_after_a_while(autojump_clock, caplog):
    async with open_manager(in_memory=True, stalled_after=7) as manager:
        stalled, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "e", "x" * 200_000))
        with trio.fail_after(7.1):
            answer = await client.line()
        assert answer["message"].startswith("ConnectionError: the 'Echo' Service has gone")
        assert known(manager) == {client.name}
        assert "Echo" in caplog.text
        assert "has read nothing for 7 seconds" in caplog.text
        with pytest.raises(ConnectionLost, match="reset"):
            await stalled.rest()


async def test_a_service_that_does_not_read_makes_those_wait_who_send_to_it_and_nobody_else(
    autojump_clock, nursery
):
    async with open_manager(in_memory=True) as manager:
        stuck, echo = await dial(manager, "Stuck", "service"), await dial(manager, "Echo", "service")
        sender, other = await dial(manager, "S"), await dial(manager, "O")
        await other.ask(MANAGER, "link", "Stuck")
        total = 200
        sent = 0

        async def send():
            nonlocal sent
            for number in range(total):
                await sender.send(request("Stuck", "e", number, "x" * 50_000, uid=str(number)))
                sent += 1

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert sent * 50_000 < CONGESTED + 500_000
        with trio.fail_after(1):
            # Others are served, also by the Service that does not read, and it is listened to.
            await other.send(request("Echo", "e"))
            await echo.send(reply(await echo.line(), "ok"))
            assert (await other.line())["result"] == "ok"
            await stuck.send(notification("Stuck", 1))
            assert (await other.line())["result"] == [[1], {}]
            # Who waits still gets answers.
            asked = await stuck.line()
            await stuck.send(reply(asked, asked["args"][0]))
            assert (await sender.line())["result"] == 0
        with trio.fail_after(10):
            for number in range(1, total):
                asked = await stuck.line()
                assert asked["args"][0] == number
                await stuck.send(reply(asked, number))
                assert (await sender.line())["result"] == number
        assert sent == total


async def test_a_client_that_asks_and_asks_without_reading_has_to_wait_but_is_not_dropped(
    autojump_clock, nursery
):
    async with open_manager(in_memory=True, max_backlog=2 * CONGESTED) as manager:
        greedy, other = await dial(manager, "G"), await dial(manager)
        question = request("Nope" * 2000, "e")  # the answer is about as long
        sent = 0

        async def send():
            nonlocal sent
            for _ in range(1000):
                await greedy.send(question)
                sent += 1

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert sent < 300
        assert (await other.ask(MANAGER, "unlink", "nobody"))["result"] is True
        with trio.fail_after(10):
            for _ in range(1000):
                assert (await greedy.line())["error"]


async def test_a_service_is_listened_to_even_if_it_does_not_read_its_answers(autojump_clock):
    """It may be about to send what makes room."""
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.ask(MANAGER, "link", "Echo")
        bad = b'{"service":"' + b"Nope" * 10_000 + b'","attribute":"e"}'
        with trio.fail_after(1):
            for _ in range(50):
                await service.send(bad)
            await service.send(notification("Echo", "heard"))
            assert (await client.line())["result"] == [["heard"], {}]


async def test_lines_of_several_peers_to_one_that_reads_slowly_do_not_mix(autojump_clock, nursery):
    async with open_manager(in_memory=True) as manager:
        services = [await dial(manager, name, "service") for name in ("A", "B", "C")]
        client = await dial(manager)
        for name in ("A", "B", "C"):
            await client.ask(MANAGER, "link", name)

        async def emit(service, name, size):
            for number in range(20):
                await service.send(notification(name, number, name * size))

        for service, name, size in zip(services, "ABC", (LARGE * 2, 10, LARGE - 10), strict=True):
            nursery.start_soon(emit, service, name, size)
        seen = {"A": [], "B": [], "C": []}
        with trio.fail_after(10):
            for _ in range(60):
                line = await client.line()
                number, text = line["result"][0]
                assert set(text) == {line["service"]}
                seen[line["service"]].append(number)
        assert list(seen.values()) == [list(range(20))] * 3


# ---- mistakes of ours ----


@pytest.fixture
def mistake(monkeypatch):
    """Let the protocol fail at a marked line, after it has queued output for a peer."""
    receive = ManagerProtocol.receive

    def fail(self, peer, data, *more):
        receive(self, peer, data, *more)
        if b"a mistake" in data:
            raise RuntimeError("a mistake")

    monkeypatch.setattr(ManagerProtocol, "receive", fail)


async def test_a_mistake_costs_the_connection_that_it_was_made_in_and_no_other(
    autojump_clock, mistake, caplog
):
    async with open_manager(in_memory=True) as manager:
        service, unlucky, other = (
            await dial(manager, "Echo", "service"),
            await dial(manager),
            await dial(manager),
        )
        await unlucky.send(request("Echo", "a mistake"))
        with trio.fail_after(connection._LINGER + 1):
            assert await unlucky.lines() == []
        assert known(manager) == {"Echo", other.name}
        assert (await service.line())["attribute"] == "a mistake"  # what was to be written is written
        assert (await other.ask(MANAGER, "unlink", "nobody"))["result"] is True
    assert "RuntimeError: a mistake" in caplog.text
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
