"""Tests of the limits of a Manager and of its end, as its peers see them."""

from __future__ import annotations

import logging
import math
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import ConnectionLost, RemoteError, connect
from msl_network_trio.constants import MANAGER
from msl_network_trio.manager import hostnames, peer_loop, unauthenticated
from msl_network_trio.manager.hostnames import Hostnames
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.unauthenticated import GRACE, UnauthenticatedPool
from msl_network_trio.service.service import Service
from tests.manager.wires import Wire, dial
from tests.protocol.network import reply, request

# ---- connections ----


async def test_who_connects_when_all_places_are_taken_is_told_so_and_may_try_again(autojump_clock):
    async with open_manager(in_memory=True, max_connections=2) as manager:
        first, second, third = await dial(manager), await dial(manager), Wire(await manager.dial())
        await third.line()
        await third.send({"result": {"name": "C", "type": "client"}})
        [told] = await third.lines()
        assert told["message"].startswith("ValueError: 2 peers are connected, as many as this Manager allows")
        assert "max_connections" in told["message"]
        assert told["again"] == 10.0
        assert (await second.ask(MANAGER, "unlink", "nobody"))["result"] is True
        first.transport.close()
        await wait_all_tasks_blocked()
        await dial(manager)


async def test_who_does_not_say_who_it_is_makes_room_for_those_who_may(autojump_clock):
    async with open_manager(in_memory=True, max_unauthenticated=3) as manager:
        mute = [Wire(await manager.dial()) for _ in range(3)]
        for wire in mute:
            await wire.line()
        clients = [await dial(manager) for _ in range(2)]
        with trio.fail_after(5):
            [told] = await mute[0].lines()
        assert (
            "Too many connections have not completed the handshake (max_unauthenticated)" in told["message"]
        )
        assert told["again"] == 1.0
        for client in clients:
            assert (await client.ask(MANAGER, "unlink", "nobody"))["result"] is True
        assert len(manager._unauthenticated) == 2  # the second of these needed no room
        await mute[1].send({"result": {"name": "late", "type": "client"}})
        await wait_all_tasks_blocked()
        assert len(manager._unauthenticated) == 1


async def owing(room, host, name, gone):
    """Add a connection to the pool and wait for a slot."""
    entry = room.add(host, lambda _: gone.append(name))
    await room.acquire_slot(entry)
    return entry


async def test_who_fills_the_pool_is_in_his_own_way_only(autojump_clock):
    gone: list[str] = []
    full = UnauthenticatedPool(5)
    await owing(full, "good", "good", gone)
    for number in range(20):
        await owing(full, "bad", f"bad {number}", gone)
    began = trio.current_time()
    await owing(full, "other", "other", gone)
    assert trio.current_time() == began  # one that has fewer places than another does not wait for one
    assert gone == [f"bad {number}" for number in range(17)]
    assert (len(full), full.evicted) == (5, 17)


async def test_all_addresses_of_an_ipv6_network_are_one_host_in_the_pool(autojump_clock):
    gone: list[str] = []
    full = UnauthenticatedPool(5)
    await owing(full, "2001:db8:1::1", "good", gone)
    for number in range(20):
        await owing(full, f"2001:db8:bad::{number:x}", f"bad {number}", gone)
    assert gone == [f"bad {number}" for number in range(16)]


async def test_those_who_wait_for_the_manager_are_not_evicted(autojump_clock):
    gone: list[str] = []
    room = UnauthenticatedPool(2)
    working = [await owing(room, "h", f"working {number}", gone) for number in range(2)]
    for entry in working:
        room.release_slot(entry)
    handshakes = [room.add("h", lambda _: gone.append("handshake")) for _ in range(10)]
    owed = [await owing(room, "h", f"owing {number}", gone) for number in range(5)]
    assert gone == ["owing 0", "owing 1", "owing 2"]
    assert all(entry in room for entry in [*working, *handshakes, *owed[3:]])
    await room.acquire_slot(working[0])
    await room.acquire_slot(working[0])
    assert gone[3:] == ["owing 3"]


async def test_there_is_a_bound_for_those_who_wait_for_the_manager_too(autojump_clock):
    gone: list[str] = []
    room = UnauthenticatedPool(2)
    working = await owing(room, "good", "working", gone)
    room.release_slot(working)
    room.add("good", lambda _: gone.append("good"))
    for number in range(30):
        room.add("bad", lambda _, number=number: gone.append(f"bad {number}"))
    assert gone == [f"bad {number}" for number in range(12)]
    assert len(room) == 20


async def test_no_more_connections_wait_than_files_may_be_open(monkeypatch):
    monkeypatch.setattr(unauthenticated, "open_files_limit", lambda: 1000)
    room = UnauthenticatedPool(200)
    for _ in range(2000):
        room.add("h", lambda _: None)
    assert len(room) == 750


@pytest.mark.parametrize("hosts", [1, 600], ids=["one host", "many hosts"])
async def test_a_storm_in_which_everybody_answers_costs_nobody_the_connection(autojump_clock, hosts):
    gone: list[str] = []
    room = UnauthenticatedPool(200)
    done = []

    async def connect(number):
        entry = await owing(room, f"h{number % hosts}", f"{number}", gone)
        await trio.sleep(0.9)
        room.remove(entry)
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(600):
            nursery.start_soon(connect, number)
    assert (gone, len(done), len(room)) == ([], 600, 0)


async def test_there_are_no_more_slots_when_several_wait_for_the_same_eviction(autojump_clock):
    gone: list[str] = []
    pool = UnauthenticatedPool(2)
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(owing, pool, "h", f"{number}", gone)
            await wait_all_tasks_blocked()
        for evicted in (2, 4):
            await trio.sleep(GRACE + 0.1)
            assert (pool._slots.count, len(gone)) == (2, evicted)


async def test_a_place_that_is_given_to_one_who_leaves_goes_to_the_next(autojump_clock):
    gone: list[str] = []
    room = UnauthenticatedPool(1)
    first = await owing(room, "h", "first", gone)
    scopes = [trio.CancelScope() for _ in range(2)]
    entries = []

    async def wait(number):
        entry = room.add("h", lambda _: gone.append(f"{number}"))
        entries.append(entry)
        with scopes[number]:
            await room.acquire_slot(entry)
        if scopes[number].cancelled_caught:
            room.remove(entry)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        scopes[0].cancel()
        room.remove(first)  # in the same moment
    assert gone == []
    assert room._slots.count == 1
    assert entries[1] in room._slots


async def test_who_waits_for_a_slot_when_the_pool_is_closed_is_told(autojump_clock):
    gone: list[str] = []
    room = UnauthenticatedPool(1)
    async with trio.open_nursery() as nursery:
        await owing(room, "h", "first", gone)
        nursery.start_soon(owing, room, "h", "second", gone)
        await wait_all_tasks_blocked()
        room.evict_all("the end")
    assert (gone, len(room), room._slots.count, room._queue.count) == (["first", "second"], 0, 0, 0)


async def test_the_pool_forgets_those_who_leave():
    entries = [(room := UnauthenticatedPool(None)).add("h", lambda _: pytest.fail("evicted"))]
    entries += [room.add(f"h{number % 3}", lambda _: pytest.fail("evicted")) for number in range(1000)]
    for entry in entries:
        room.count_received(entry, 10)
        await room.acquire_slot(entry)
        if entry is entries[5]:
            room.release_slot(entry)
        room.remove(entry)
        room.remove(entry)
    groups = (room._all, room._slots, room._queue, room._served)
    assert (len(room), [[*group] for group in groups], room._received.size) == (0, [[]] * 4, 0)


def test_who_has_sent_most_goes_when_all_together_have_sent_too_much(monkeypatch):
    monkeypatch.setattr(unauthenticated, "_MAX_BYTES", 1000)
    gone: list[str] = []
    room = UnauthenticatedPool(None)
    small = room.add("h", lambda _: gone.append("small"))
    large = room.add("h", lambda _: gone.append("large"))
    room.count_received(large, 900)
    room.count_received(small, 100)
    assert gone == []
    room.count_received(small, 1)
    assert gone == ["large"]
    room.count_received(small, 899)
    assert gone == ["large"]


def test_who_sends_much_from_many_connections_is_in_his_own_way_only(monkeypatch):
    monkeypatch.setattr(unauthenticated, "_MAX_BYTES", 1000)
    gone: list[str] = []
    room = UnauthenticatedPool(None)
    good = room.add("good", lambda _: gone.append("good"))
    room.count_received(good, 300)
    for number in range(10):
        bad = room.add("bad", lambda _, number=number: gone.append(f"bad {number}"))
        room.count_received(bad, 100 + number)
    # The one of the good host has sent more than each of the others.
    assert gone == ["bad 6", "bad 7", "bad 8", "bad 9"]


async def test_not_any_number_of_connections_is_kept_until_their_peers_have_read_why_they_end(
    autojump_clock, monkeypatch
):
    monkeypatch.setattr(peer_loop, "_MAX_LINGERING", 2)
    async with open_manager(in_memory=True) as manager:
        wires = []
        for _ in range(5):
            wires.append(Wire(await manager.dial()))
            await wires[-1].line()
            await wires[-1].send({"result": 5})
            await wait_all_tasks_blocked()
        assert manager._peer_loops._connections == 2
        for wire in wires:
            assert "TypeError" in (await wire.rest()).decode()
        await trio.sleep(5)
        assert manager._peer_loops._connections == 0


async def test_tls_handshakes_that_stall_are_bounded_in_number_too(tmp_path):
    from tests.transport.certificates import ordinary

    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    path.chmod(0o600)
    options = {"host": "127.0.0.1", "port": 0, "cert_file": path, "max_unauthenticated": 5}
    with trio.fail_after(30):
        async with open_manager(**options) as manager:
            streams = [await trio.open_tcp_stream("127.0.0.1", manager.port) for _ in range(57)]
            for stream in streams[:7]:  # long before any of them is out of time
                assert await stream.receive_some() == b""
            async with connect(**manager.connect_kwargs(), assert_hostname=False) as client:
                assert await client.identities()
            for stream in streams:
                await stream.aclose()


# ---- names ----


async def test_resolvers_that_are_stuck_do_not_take_the_threads_of_others(monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(hostnames.socket, "getfqdn", lambda address: answer.wait(30) and address)
    monkeypatch.setattr(hostnames, "_TIMEOUT", 0.05)
    names = Hostnames()
    free = trio.to_thread.current_default_thread_limiter().available_tokens
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(names.host, f"10.0.1.{number}", "10.0.0.1")
            assert trio.to_thread.current_default_thread_limiter().available_tokens == free
            assert names._threads.borrowed_tokens <= hostnames._THREADS
    finally:
        answer.set()


async def test_a_name_is_looked_up_once_for_many_connections_at_a_time(monkeypatch):
    asked = []

    def getfqdn(address):
        asked.append(address)
        return "lab-5.example.org"

    monkeypatch.setattr(hostnames.socket, "getfqdn", getfqdn)
    monkeypatch.setattr(hostnames, "_TIMEOUT", math.inf)  # a thread starts late on a busy machine
    names, found = Hostnames(), []

    async def look_up():
        found.append((await names.host("10.0.0.5", "10.0.0.1")).name)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(look_up)
    assert found == ["lab-5"] * 20
    assert asked == ["10.0.0.5"]
    assert names._pending == {}


# ---- logins ----


async def guess(manager, password: str) -> tuple[str, float]:
    """Try a password; return what the Manager says, and how long that took."""
    wire, began = Wire(await manager.dial()), trio.current_time()
    assert (await wire.line())["attribute"] == "password"
    await wire.send({"result": password})
    answer = await wire.line()
    return answer.get("message") or answer["attribute"], trio.current_time() - began


async def test_who_guesses_has_to_wait_and_then_to_stop_and_nobody_else(autojump_clock, nursery):
    options = {"login_attempts": 4, "login_delay": 1.0, "login_memory": 100}
    async with open_manager(in_memory=True, auth_password="secret", **options) as manager:
        other = Wire(await manager.dial())
        await other.line()
        await other.send({"result": "secret"})
        await other.enter()
        waits = []
        for _ in range(4):
            said, seconds = await guess(manager, "guess")
            assert said == "ValueError: Wrong Manager password"
            waits.append(seconds)
        assert waits == pytest.approx([0, 1, 2, 3])
        said, seconds = await guess(manager, "secret")
        assert said.startswith("ValueError: Too many logins from")
        assert seconds == pytest.approx(0)
        with trio.fail_after(0.1):
            assert (await other.ask(MANAGER, "unlink", "nobody"))["result"] is True
        await trio.sleep(101)
        assert (await guess(manager, "secret"))[0] == "identity"


async def test_others_are_served_while_who_guesses_waits(autojump_clock, nursery):
    async with open_manager(in_memory=True, auth_password="secret", login_delay=5) as manager:
        client = Wire(await manager.dial())
        await client.line()
        await client.send({"result": "secret"})
        await client.enter()
        await guess(manager, "guess")
        nursery.start_soon(guess, manager, "guess again")
        await wait_all_tasks_blocked()
        with trio.fail_after(0.1):
            assert (await client.ask(MANAGER, "identity"))["error"] is False


# ---- fairness ----


async def test_a_small_call_is_answered_while_a_large_reply_passes(autojump_clock, nursery):
    """The large one takes its way in pieces, however slowly it is read; the small one goes past it."""
    async with open_manager(in_memory=True) as manager:
        large, small = await dial(manager, "Large", "service"), await dial(manager, "Small", "service")
        slow, quick = await dial(manager, "slow"), await dial(manager, "quick")
        await slow.send(request("Large", "e"))
        asked = await large.line()
        nursery.start_soon(large.send, reply(asked, "x" * 20_000_000))
        for _ in range(20):
            await slow.transport.receive()  # a piece of it
            with trio.fail_after(0.1):
                await quick.send(request("Small", "e"))
                await small.send(reply(await small.line(), 1))
                assert (await quick.line())["result"] == 1


async def test_a_chunk_with_many_lines_does_not_keep_others_waiting(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        service, many, one = await dial(manager, "Echo", "service"), await dial(manager), await dial(manager)
        await many.send(*[b"{}"] * 10_000)
        peer = manager._protocol.registry.peers[many.name]
        with trio.fail_after(1):
            while not peer.pending_lines:
                await trio.lowlevel.checkpoint()
        await one.send(request("Echo", "e"))
        with trio.fail_after(1):
            asked = await service.line()
        assert asked["requester"] == one.name
        assert peer.pending_lines  # which is still to be looked at
        for _ in range(10_000):
            assert (await many.line())["error"]


# ---- the end ----


class Slow(Service):
    """A Service that answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__(name="Slow")
        self._go = trio.Event()
        self._began = trio.Event()

    async def work(self) -> str:
        self._began.set()
        await self._go.wait()
        return "done"


async def test_a_client_of_ours_is_told_that_the_manager_is_shutting_down(autojump_clock, nursery):
    async with open_manager(in_memory=True) as manager:
        service = Slow()
        await nursery.start(lambda task_status: ends(service, manager, task_status))
        client = await connect(**manager.connect_kwargs())
        link = await client.link("Slow")
        waiting = link.work(asynchronous=True)
        await service._began.wait()
        manager.shutdown()
        with pytest.raises(ConnectionLost) as caught:
            await waiting
        text = f"closed the connection: {manager.name} is shutting down; Slow.work may have been executed"
        assert text in str(caught.value)


async def ends(service: Service, manager, task_status) -> None:
    """Run a Service until the Manager says that it ends, which is no failure in the same program."""
    await service.run(**manager.connect_kwargs(), task_status=task_status)
    assert manager._peer_loops.is_ending


async def test_open_requests_are_answered_before_the_end_and_new_ones_refused(
    autojump_clock, nursery, caplog
):
    caplog.set_level(logging.INFO)
    service, answers = Slow(), []
    async with open_manager(in_memory=True, drain=30) as manager:
        await nursery.start(lambda task_status: ends(service, manager, task_status))
        client, other = [await connect(**manager.connect_kwargs()) for _ in range(2)]
        link, late = await client.link("Slow"), await other.link("Slow")

        async def call():
            answers.append(await link.work())

        nursery.start_soon(call)
        await service._began.wait()
        manager.shutdown()
        await wait_all_tasks_blocked()
        assert not manager.closed.is_set()
        with pytest.raises(ConnectionLost, match="has been shut down"):
            await manager.dial()
        with pytest.raises(RemoteError, match="is shutting down, the request was not executed"):
            await late.work()
        service._go.set()
        with trio.fail_after(5):
            await manager.wait_closed()
        await wait_all_tasks_blocked()
    assert answers == ["done"]
    assert "waiting at most 30 s for the replies to open requests" in caplog.text


async def test_the_end_does_not_wait_for_requests_longer_than_it_was_told(autojump_clock, nursery):
    async with open_manager(in_memory=True) as manager:
        await dial(manager, "Echo", "service")
        client = await dial(manager)
        await client.send(request("Echo", "e"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        manager.shutdown(drain=7)
        await manager.wait_closed()
        assert 7 <= trio.current_time() - began < 8
        [answer, goodbye] = await client.lines()
        assert "is shutting down" in answer["message"]
        assert goodbye["service"] == MANAGER


@pytest.mark.parametrize("who", ["client", "service"])
async def test_the_end_does_not_wait_for_those_who_have_gone(autojump_clock, who):
    async with open_manager(in_memory=True, drain=1000) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "e"))
        await wait_all_tasks_blocked()
        manager.shutdown()
        await wait_all_tasks_blocked()
        (client if who == "client" else service).transport.close()
        with trio.fail_after(5):
            await manager.wait_closed()


# ---- the log ----


async def test_no_secret_is_ever_logged_nor_what_is_in_requests(autojump_clock, caplog, nursery):
    caplog.set_level(logging.DEBUG)
    secrets = ["manager-pw", "wrong-pw", "argument-pw", "result-pw", "keyword-pw", "error-pw", "note-pw"]
    async with open_manager(in_memory=True, auth_password="manager-pw") as manager:
        assert "pw" not in repr(manager._settings)
        await guess(manager, "wrong-pw")
        for bad in (b'{"result":"wrong-pw"', b'{"result":["wrong-pw"]}', b"wrong-pw \xff", b'"wrong-pw"'):
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send(bad)
            await wire.line()

        async def enter(name, kind):
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send({"result": "manager-pw"})
            await wire.enter(name, kind)
            return wire

        service, client = await enter("Echo", "service"), await enter("C", "client")
        await client.ask(MANAGER, "link", "Echo")
        await client.send(request("Echo", "e", "argument-pw", uid="1", key="keyword-pw"))
        asked = await service.line()
        await service.send(reply(asked, "result-pw"), reply(asked, "result-pw"))
        await client.send(request("Echo", "e", "argument-pw", uid="2"))
        asked = await service.line()
        await service.send(
            {**reply(asked, None), "error": True, "message": "error-pw", "traceback": ["error-pw"]}
        )
        await service.send({"result": [["note-pw"], {}], "service": "Other", "uid": "notification"})
        await client.send(
            request("Nope", "e", "argument-pw", key="keyword-pw"),
            b'{"service":"Echo","attribute":"e","args":["argument-pw"],"uid":["argument-pw"]}',
            b'{"service":"Echo","args":["argument-pw"',
            request(MANAGER, "users_table.insert", "argument-pw", "argument-pw", "argument-pw"),
        )
        await wait_all_tasks_blocked()
    assert "is a new client" in caplog.text
    for secret in secrets:
        assert secret not in caplog.text
