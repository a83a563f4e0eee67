"""Tests of `msl_network_trio.ended_managers`: a Service knows if its own program has closed the Manager."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial

import pytest
import trio

from msl_network_trio import ConnectionLost, Service, ended_managers
from msl_network_trio.manager.opening import open_manager
from tests.injector import Injector


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(ended_managers, "_ended", OrderedDict())


def test_an_end_is_ours_once_and_only_for_the_services_that_were_connected():
    ended_managers.add("M[h:1]", ["A[h:2]", "B[h:3]"])
    assert not ended_managers.remove("M[h:1]", "C[h:4]")
    assert not ended_managers.remove("M[h:9]", "A[h:2]")
    assert [ended_managers.remove("M[h:1]", "A[h:2]") for _ in range(2)] == [True, False]
    assert ended_managers.remove("M[h:1]", "B[h:3]")


def test_what_is_remembered_is_limited(monkeypatch):
    monkeypatch.setattr(ended_managers, "_REMEMBERED", 3)
    ended_managers.add("M", map(str, range(10)))
    assert [name for name in map(str, range(10)) if ended_managers.remove("M", name)] == ["7", "8", "9"]


def test_another_thread_may_change_the_record_at_any_step(monkeypatch):
    monkeypatch.setattr(ended_managers, "_REMEMBERED", 3)

    def attempt(number):
        ended_managers._ended.clear()
        ended_managers.add("M", ["1", "2", "3"])
        with Injector(number, lambda: ended_managers.remove("M", "3"), ("ended_managers.py",)) as injector:
            ended_managers.add("M", ["4", "5"])
        assert ended_managers.remove("M", "5"), injector.where
        return injector.steps

    for number in range(1, attempt(0) + 1):
        attempt(number)


class Noting(Service):
    ended = False

    def shutdown_handler(self):
        self.ended = True


@pytest.mark.parametrize("websocket", [False, True])
async def test_a_manager_in_a_program_and_its_services_end_as_printed_in_the_readme(home, websocket):
    service = Noting()
    port = {"websocket_port": 0} if websocket else {}
    opening = open_manager(port=0, host="localhost", disable_tls=True, **port)
    async with trio.open_nursery() as nursery, opening as manager:
        kwargs = manager.connect_kwargs("websocket" if websocket else "tcp")
        await nursery.start(partial(service.run, **kwargs))
    assert service.ended


async def test_a_service_in_a_thread_of_the_same_program_ends_quietly_as_well(home):
    service, outcome = Noting(), []

    def start(**kwargs):
        try:
            outcome.append(service.start(**kwargs))
        except Exception as error:
            outcome.append(error)

    async with open_manager(port=0, host="localhost", disable_tls=True) as manager:
        thread = threading.Thread(target=partial(start, **manager.connect_kwargs()))
        thread.start()
        while "Noting" not in manager.identity()["services"]:
            await trio.sleep(0.001)
    await trio.to_thread.run_sync(thread.join)
    assert outcome == [None]


async def test_a_connection_that_is_lost_in_another_way_is_no_such_end(home):
    service = Noting()
    with pytest.raises(BaseExceptionGroup) as caught:
        opening = open_manager(port=0, host="localhost", disable_tls=True)
        async with trio.open_nursery() as nursery, opening as manager:
            await nursery.start(partial(service.run, **manager.connect_kwargs()))
            for peer in manager._protocol.registry.peers.values():
                manager._protocol.reject(peer, ValueError("out"))
            manager._peer_loops.flush()
            await trio.sleep_forever()
    assert caught.group_contains(ConnectionLost)
