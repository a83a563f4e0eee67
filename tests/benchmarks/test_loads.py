"""Tests of every load, with few calls, at a real and at the fake Manager in this process."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import partial

import psutil
import pytest
import trio

from benchmarks.clients import asynchronous, bare, blocking, importing, lean, ours, reference
from benchmarks.peers import PEERS
from benchmarks.processes import Child
from benchmarks.servers.fake_conversation import Conversation
from benchmarks.servers.fake_websocket import WebSocketConversation
from benchmarks.servers.service import service_of
from benchmarks.tasks import HOST, SERVICE, Address, Run, Task, check, sum_of
from msl_network_trio import Service, open_manager

SIZES = {"line": 1000, "connections": 3}


def task_of(load, port, calls=7):
    if load == "floats":
        calls = 1  # of 2 MB
    return Task(load, calls, "tcp", Address(port), SIZES.get(load, 0))


@asynccontextmanager
async def our_network(kind="ours-async", **settings):
    async with (
        open_manager(host=HOST, port=0, disable_tls=True, **settings) as manager,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(service_of(kind).run, name=SERVICE, **manager.connect_kwargs()))
        yield manager.websocket_port or manager.port
        nursery.cancel_scope.cancel()


@contextmanager
def fake_manager(conversation):
    ready = threading.Event()
    found = []

    async def serve():
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        async with await loop.create_server(conversation, HOST, 0) as server:
            found.extend((server.sockets[0].getsockname()[1], partial(loop.call_soon_threadsafe, ended.set)))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    port, end = found
    yield port
    end()
    thread.join(30)


@pytest.fixture
def fake_port():
    with fake_manager(Conversation) as port:
        yield port


@pytest.mark.parametrize("load", sorted(ours.LOADS))
async def test_our_client_does_every_load_at_our_network(load):
    async with our_network() as port:
        costs = await trio.to_thread.run_sync(ours.measure, task_of(load, port))
    assert costs["seconds"] > 0
    assert ("p99" in costs) == (load in {"one", "blocking", "blocking-handler", "fixed-times"})
    assert ("bytes" in costs) == (load == "idle")


@pytest.mark.parametrize("load", sorted(reference.LOADS))
def test_the_clients_do_the_same_at_the_fake_manager(load, fake_port):
    for measure in (ours.measure, reference.measure):
        assert measure(task_of(load, fake_port))["seconds"] > 0


@pytest.mark.parametrize("load", sorted(lean.LOADS))
async def test_the_lean_client_does_every_load_at_our_network(load):
    async with our_network() as port:
        costs = await trio.to_thread.run_sync(lean.measure, task_of(load, port, 130))
    assert costs["seconds"] > 0
    assert ("median" in costs) == (load == "one")


async def test_the_lean_client_does_not_take_a_wrong_answer():
    class Wrong(Service):
        async def add(self, a, b):
            return a + b + (a == 3)

    async with open_manager(host=HOST, port=0, disable_tls=True) as manager, trio.open_nursery() as nursery:
        await nursery.start(partial(Wrong(name=SERVICE).run, **manager.connect_kwargs()))
        with pytest.raises(RuntimeError, match="not each its own"):
            await trio.to_thread.run_sync(lean.measure, task_of("flight", manager.port, 7))
        nursery.cancel_scope.cancel()


def test_our_client_does_its_loads_over_websocket_at_the_fake_manager():
    with fake_manager(WebSocketConversation) as port:
        for load in ("one", "flight", "line", "burst"):
            task = Task(load, 3, "websocket", Address(port), SIZES.get(load, 0))
            assert ours.measure(task)["seconds"] > 0


async def test_our_client_does_its_loads_over_websocket():
    async with our_network(websocket_port=0) as port:
        task = Task("one", 3, "websocket", Address(port))
        assert (await trio.to_thread.run_sync(ours.measure, task))["seconds"] > 0


async def test_bare_clients_are_told_and_what_they_cost_the_manager_is_measured():
    async with our_network() as port:
        task = Task("fan-out", 3, "tcp", Address(port, pids=(os.getpid(),)), size=5)
        costs = await trio.to_thread.run_sync(bare.measure, task)
    assert costs["bytes"] > 0
    assert 0 < costs["median"] <= costs["p99"]


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.missing()], ids=lambda peer: peer.name)
def test_every_peer_that_is_installed_does_what_all_can_do(peer, tmp_path):
    measure = importlib.import_module(peer.module).measure
    with Child(peer.name, "benchmarks.peers.serve", peer.name, home=tmp_path) as server:
        address = Address(server.ready["port"], pids=tuple(server.ready["pids"]))
        for load in asynchronous.PEER_LOADS:
            assert measure(Task(load, 3, "tcp", address))["seconds"] > 0
    assert not any(psutil.pid_exists(pid) for pid in server.ready["pids"])


@pytest.mark.parametrize("kind", ["ours-plain", "reference"])
async def test_services_of_all_kinds_do_the_same(kind):
    if kind == "reference":
        service = service_of(kind)
        assert (service.add(1, 2), service.echo("x")) == (3, "x")
        return
    async with our_network(kind) as port:
        for load in ("one", "burst", "floats"):
            assert (await trio.to_thread.run_sync(ours.measure, task_of(load, port, 2)))["seconds"] > 0


@pytest.mark.parametrize("load", sorted(importing.PROGRAMS)[:1])
def test_what_an_import_costs_is_what_programs_differ_by(load, monkeypatch):
    seconds = {importing.PROGRAMS[load]: 0.5, "pass": 0.1}
    monkeypatch.setattr(importing, "_seconds", seconds.__getitem__)
    assert importing.measure(task_of(load, 0)) == {"seconds": pytest.approx(0.4)}


def test_a_wrong_result_is_an_error():
    check(Run("one", 4), sum_of(4))
    with pytest.raises(RuntimeError, match="4 calls came to a wrong result"):
        check(Run("one", 4), 9)
    with pytest.raises(RuntimeError, match="wrong result"):
        check(Run("line", 4, size=3), "==")


class Calls:
    """A link that adds numbers and records the maximum number of calls in flight."""

    def __init__(self):
        self.open = self.most = 0

    async def add(self, first, second):
        self.open += 1
        self.most = max(self.most, self.open)
        await trio.lowlevel.checkpoint()
        self.open -= 1
        return first + second

    async def echo(self, value):
        return value


@pytest.mark.parametrize(("load", "most"), [("one", 1), ("flight", 5)])
async def test_a_load_has_as_many_on_their_way_as_it_says(load, most):
    calls = Calls()
    run = Run(load, 20, size=5)
    assert await asynchronous.peer_load(calls, run, ours.together) == sum_of(20)
    assert calls.most == most


@pytest.mark.parametrize("load", [blocking.window, blocking.bursts])
def test_a_window_of_futures_is_never_wider_than_it_says(load):
    waiting = set()
    widths = []

    def start(number):
        waiting.add(number)
        widths.append(len(waiting))

        def wait():
            waiting.remove(number)
            return number + 1

        return wait

    assert load(start, Run("flight", 12, size=5)) == sum_of(12)
    assert max(widths) == 5


def test_tasks_are_the_same_when_they_were_sent():
    task = Task("one", 5, "tls", Address(1, "file", (2, 3)), size=4, cpu=0)
    assert Task.from_json(json.loads(json.dumps(asdict(task)))) == task
