"""Peers that say nothing are waited for together, and have a task when they need one."""

from __future__ import annotations

import logging
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.constants import MANAGER
from msl_network_trio.manager import idle_poller as module
from msl_network_trio.manager.idle_poller import IdlePoller
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from msl_network_trio.protocol.manager.route import CONGESTED
from msl_network_trio.transport.tcp import TcpStream
from tests.manager.sockets import LIMIT, dial, others_are_served, reach
from tests.manager.wires import dial as dial_in_memory
from tests.protocol.network import notification, reply, request


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture
def polls(tls):
    """Whether idle peers are polled."""
    sockets = module._make_poll_set()
    if sockets is not None:
        sockets.close()
    return sockets is not None


async def test_idle_peers_have_no_tasks_and_are_served_all_the_same(open_here, polls):
    async with open_here() as manager, others_are_served(manager):
        await wait_all_tasks_blocked(0.01)
        before = living_tasks()
        wires = [await dial(manager, f"C{number}") for number in range(10)]
        for wire in wires:
            await wire.ask(MANAGER, "link", "Echo")
        while polls and living_tasks() != before:
            await trio.sleep(0.01)
        assert living_tasks() - before == (0 if polls else 10)
        for wire in wires:
            assert (await wire.ask(MANAGER, "unlink", "Echo"))["result"] is True
        for wire in wires:
            wire.transport.close()
        while any(name.startswith("C") for name in manager.identity()["clients"]):
            await trio.sleep(0.01)


@pytest.mark.parametrize("size", [1, 20_000, 16_384 * 4, 400_000])
async def test_lines_of_any_size_reach_their_peer(open_here, size):
    """With TLS some of a line may be decrypted already, of which the socket knows nothing."""
    async with open_here() as manager:
        with trio.fail_after(LIMIT):
            service, client = await dial(manager, "Echo", "service"), await dial(manager, "C")
            for number in range(5):
                text = "x" * (size + number)
                await client.send(request("Echo", "e", text, uid=str(number)))
                asked = await service.line()
                assert asked["args"] == [text]
                await service.send(reply(asked, text))
                assert (await client.line())["result"] == text


async def test_an_idle_peer_that_logs_in_is_served_on(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await dial(manager, "C")
        for number in range(3):
            await wire.send(request(MANAGER, "port", uid=f"admin {number}"))
            question = await wire.line()
            assert question["attribute"] == "username"
            await wire.send({"result": ""})
            refusal = await wire.line()
            assert refusal["error"]
            assert refusal["uid"] == f"admin {number}"
            assert (await wire.ask(MANAGER, "unlink", "nobody"))["result"] is True


async def test_more_lines_than_are_handled_at_a_time_are_all_answered(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await dial(manager, "C")
        for _ in range(3):
            await wire.send(*[request(MANAGER, "unlink", "nobody", uid=str(uid)) for uid in range(1000)])
            assert [(await wire.line())["uid"] for _ in range(1000)] == [str(uid) for uid in range(1000)]


async def test_an_idle_peer_that_has_to_go_because_of_another_one_goes(open_here, caplog):
    caplog.set_level(logging.INFO, "msl_network_trio")
    async with open_here(max_backlog=1000, stalled_after=0.2) as manager, others_are_served(manager):
        service, lazy = await dial(manager, "Chatty", "service"), await dial(manager, "Lazy")
        await lazy.ask(MANAGER, "link", "Chatty")
        while lazy.name in manager.identity()["clients"]:
            await service.send(notification("Chatty", "x" * 100_000))
            await trio.sleep(0.001)
    assert "Lazy" in caplog.text


async def test_the_end_of_the_manager_reaches_idle_peers(open_here):
    async with open_here() as manager:
        wires = [await dial(manager, f"C{number}") for number in range(3)]
        await wait_all_tasks_blocked(0.01)
        manager.shutdown()
        with trio.fail_after(LIMIT):
            for wire in wires:
                assert b"is shutting down" in await wire.rest()
            await manager.wait_closed()


async def test_a_mistake_about_an_idle_peer_costs_only_this_peer(open_here, monkeypatch, caplog):
    async with open_here() as manager, others_are_served(manager):
        wire = await dial(manager, "C")
        receive = ManagerProtocol.receive

        def fail(self, peer, data, *args):
            if peer.name == wire.name:
                raise RuntimeError("a mistake")
            receive(self, peer, data, *args)

        monkeypatch.setattr(ManagerProtocol, "receive", fail)
        await wire.send(request(MANAGER, "identity"))
        assert await wire.rest() == b""
        while wire.name in manager.identity()["clients"]:
            await trio.sleep(0.01)
    assert "RuntimeError: a mistake" in caplog.text


async def test_peers_that_leave_their_connections_half_open_are_forgotten(open_here):
    async with open_here() as manager, others_are_served(manager):
        wire = await dial(manager, "C")
        wire.transport.send_eof()
        while wire.name in manager.identity()["clients"]:
            await trio.sleep(0.01)


async def test_a_peer_that_closes_behind_many_lines_is_disconnected(open_here):
    """Its last line is handled in a later turn than it was received."""
    async with open_here() as manager, others_are_served(manager):
        client, service = await dial(manager, "C"), await dial(manager, "S", "service")
        goodbye = request(MANAGER, "__disconnect__")
        await client.send(*[request(MANAGER, "unlink", "nobody", uid="1")] * 1000, goodbye)
        assert len(await client.lines()) == 1000
        await service.send(*[notification("S", 1)] * 1000, goodbye)  # nothing is sent to it
        await service.rest()


async def dial_lazy(manager):
    """Connect a client that does not read what a Service sends to it, and return it with its peer."""
    service, lazy = await dial(manager, "Chatty", "service"), await dial(manager, "Lazy")
    await lazy.ask(MANAGER, "link", "Chatty")
    peer = manager._protocol.registry.peers[lazy.name]
    while peer.route.backlog < 2 * CONGESTED:
        await service.send(notification("Chatty", "x" * 100_000))
        await trio.sleep(0.001)
    return lazy, peer


async def test_a_peer_that_stalls_while_its_task_waits_for_it_to_read_is_disconnected(open_here):
    async with open_here(stalled_after=1) as manager, others_are_served(manager):
        lazy, peer = await dial_lazy(manager)
        await lazy.send(request(MANAGER, "identity"))  # handled when it has read
        while peer.name in manager.identity()["clients"]:
            await trio.sleep(0.01)
        assert peer.close_reason == "it does not read"


async def test_a_peer_that_is_dismissed_while_it_does_not_read_is_disconnected(open_here):
    async with open_here() as manager, others_are_served(manager), trio.open_nursery() as nursery:
        lazy, peer = await dial_lazy(manager)
        nursery.start_soon(manager._peer_loops.dismiss, peer, "the test wants it")
        while peer.name in manager.identity()["clients"]:
            await trio.sleep(0.01)
        assert b"the test wants it" in await lazy.rest()


async def test_busy_peers_let_others_have_their_turn(open_here):
    """The poller polls a limited time only before other tasks run."""
    async with open_here() as manager:
        with trio.fail_after(LIMIT):
            busy, other = await dial(manager, "Busy"), await reach(manager)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def keep_busy():
                    while True:
                        await busy.ask(MANAGER, "unlink", "nobody")

                await other.enter("Other")
                nursery.cancel_scope.cancel()


class Idle:
    """The part of a connection that a poller uses."""

    def __init__(self, sock):
        self.peer = Peer("vm", 7)
        self.peer.phase = Phase.READY
        self.stream = self.pollable = TcpStream(sock)
        self.scope = self.poller = None
        self.backlog = 0


class Receiving:
    """The part of the Manager's protocol that a poller uses."""

    def __init__(self, receive=lambda _peer: None):
        self.touched = []
        self.receive = lambda peer, _data, _at_most: receive(peer)


class Unread(TcpStream):
    """Receives without reading, so that there is always more."""

    def receive_nowait(self):
        return b"x"


@pytest.fixture
def pair():
    if module._make_poll_set() is None:
        pytest.skip("this system cannot wait for a set of sockets as if it were one")
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = [socket.create_connection(server.getsockname()), server.accept()[0]]
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


async def test_when_the_poller_ends_every_peer_has_a_task_again(pair):
    served = []
    poller = IdlePoller(Receiving(), served.append, None)
    idle = Idle(pair[0])
    assert not poller.take(idle)  # it does not run yet
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        assert poller.take(idle)
        assert idle.poller is poller
        nursery.cancel_scope.cancel()
    assert served == [idle]
    assert idle.poller is None
    assert not idle.scope.cancel_called
    assert not poller.take(idle)
    poller.wake(idle)  # which is too late, and does no harm
    assert served == [idle]


async def test_a_peer_that_was_woken_by_another_one_is_not_received_from(pair):
    served = []

    def receive(peer):
        poller.wake(second if peer is first.peer else first)

    poller = IdlePoller(Receiving(receive), served.append, None)
    first, second = Idle(pair[0]), Idle(pair[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        pair[0].send(b"x")
        pair[1].send(b"x")
        assert poller.take(first)
        assert poller.take(second)
        with trio.fail_after(LIMIT):
            while not served:
                await trio.lowlevel.checkpoint()
        assert len(served) == 1
        nursery.cancel_scope.cancel()
    assert set(served) == {first, second}


async def test_a_connection_that_is_lost_or_has_ended_is_not_polled(pair):
    poller = IdlePoller(Receiving(), lambda _: None, None)
    ended, closed = Idle(pair[0]), Idle(pair[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        pair[1].shutdown(socket.SHUT_WR)
        assert await ended.stream.receive() == b""
        assert not poller.take(ended)
        closed.stream.close()
        assert not poller.take(closed)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["phase", "congested service", "backlog"])
async def test_a_peer_has_a_task_when_it_waits_for_something_else_than_its_next_line(pair, what):
    served = []

    def receive(peer):
        if what == "phase":
            peer.phase = Phase.CHECK
        elif what == "congested service":
            peer.congested_service = Peer("vm", 8)
        else:
            idle.backlog = CONGESTED + 1

    poller = IdlePoller(Receiving(receive), served.append, None)
    idle = Idle(pair[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        assert poller.take(idle)
        pair[1].send(b"x")
        with trio.fail_after(LIMIT):
            while not served:
                await trio.lowlevel.checkpoint()
        assert served == [idle]
        nursery.cancel_scope.cancel()


# ---- waiting for the next line without the event loop ----


class Looks:
    """A set of sockets that records the timeouts of polls, and does not wait."""

    def __init__(self, sockets):
        self.seconds = []
        self.sockets = sockets
        self.fileno = sockets.fileno
        self.register = sockets.register
        self.unregister = sockets.unregister
        self.close = sockets.close

    def poll(self, seconds, max_events):
        self.seconds.append(seconds)
        return self.sockets.poll(0, max_events)


@pytest.fixture
def looks(monkeypatch):
    sockets = module._make_poll_set()
    if sockets is None:
        pytest.skip("this system cannot wait for a set of sockets as if it were one")
    looks = Looks(sockets)
    monkeypatch.setattr(module, "_make_poll_set", lambda: looks)
    return looks


@pytest.mark.parametrize(
    ("may_block", "max_turn", "seconds"),
    [
        (True, LIMIT, [0.0, module._BLOCK]),
        (True, 0.0, [0.0, 0.0]),
        (False, LIMIT, [0.0, 0.0]),
        (None, LIMIT, [0.0, 0.0]),
    ],
)
async def test_it_waits_for_a_moment_where_it_may_and_not_for_long(
    pair, looks, monkeypatch, may_block, max_turn, seconds
):
    monkeypatch.setattr(module, "_MAX_TURN", max_turn)

    poller = IdlePoller(Receiving(), lambda _: None, None if may_block is None else lambda: may_block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        assert poller.take(Idle(pair[0]))
        pair[1].send(b"x")
        with trio.fail_after(LIMIT):
            while len(looks.seconds) < len(seconds):
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert looks.seconds == seconds
        nursery.cancel_scope.cancel()


async def test_others_have_their_turn_also_while_lines_keep_coming(pair, looks):
    poller = IdlePoller(Receiving(), lambda _: None, lambda: True)
    idle = Idle(pair[0])
    idle.stream = idle.pollable = Unread(pair[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await wait_all_tasks_blocked()
        assert poller.take(idle)
        pair[1].send(b"x")
        with trio.fail_after(LIMIT):
            while not looks.seconds:
                await trio.lowlevel.checkpoint()
            for _ in range(3):
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


async def until(condition):
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.001)


@pytest.mark.parametrize("tls", ["plain"], indirect=True)
async def test_it_may_wait_only_if_it_is_alone_and_nobody_else_has_anything_to_do(open_here, polls):
    if not polls:
        pytest.skip("this system cannot wait for a set of sockets as if it were one")
    async with open_here(alone=True) as manager, others_are_served(manager):
        loops = manager._peer_loops
        await until(loops.is_quiescent)

        entry = manager._unauthenticated.add("192.0.2.1", lambda reason: None)
        assert not loops.is_quiescent(), "somebody is about to make the connection secure"
        manager._unauthenticated.remove(entry)
        assert loops.is_quiescent()

        stranger = await reach(manager)
        await stranger.line()
        assert not loops.is_quiescent(), "somebody is about to say who it is"
        await stranger.send({"result": {"name": "S", "type": "service", "attributes": {}}})
        await stranger.ask(MANAGER, "unlink", "nobody")
        await until(loops.is_quiescent)

        in_memory = await dial_in_memory(manager)
        assert not loops.is_quiescent(), "it is in no set of sockets"
        in_memory.transport.close()
        await until(loops.is_quiescent)

        client = await dial(manager, "Asks")
        await client.send(request("S", "e", "x" * 20_000_000))
        while not manager._protocol.registry.services["S"].route.writing:
            await trio.lowlevel.checkpoint()
        assert not loops.is_quiescent(), "somebody does not take what there is for it"
        await stranger.line()
        await until(loops.is_quiescent)
        loops.is_ending = True
        assert not loops.is_quiescent()
        loops.is_ending = False


@pytest.mark.parametrize("tls", ["plain"], indirect=True)
async def test_it_never_waits_where_it_is_not_alone(open_here):
    async with open_here(alone=False) as manager, others_are_served(manager):
        await wait_all_tasks_blocked(0.01)
        assert manager._peer_loops._poller._may_block is None
