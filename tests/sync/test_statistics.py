"""Statistics and late replies in the blocking API."""

from __future__ import annotations

import queue
import threading

import pytest

from msl_network_trio import (
    ConnectionLost,
    LateReply,
    RemoteError,
    ReplyTimeout,
    Statistics,
)
from msl_network_trio.sync import Client, Link, LinkedClient, connect, statistics
from tests.patience import PATIENCE
from tests.sync.manager import FakeManager


def test_what_a_client_has_done(client: Client, link: Link, manager: FakeManager):
    before = client.statistics()
    for number in range(200):
        assert link.add(number, 1) == number + 1
    futures = [link.add(number, 1, asynchronous=True) for number in range(100)]
    assert [future.result() for future in futures] == [*range(1, 101)]
    after = client.statistics()
    assert isinstance(after, Statistics)
    assert statistics(link).requests == after.requests == before.requests + 300
    assert after.open_requests == 0
    session = manager.session()
    assert len(session.lines) == after.requests
    assert after.bytes_sent > before.bytes_sent + 300 * 50
    assert after.bytes_received > before.bytes_received + 300 * 50
    assert after.latency_samples > 0
    assert after.errors == {}


def test_errors_are_counted_by_kind_once_each(client: Client, link: Link, manager: FakeManager):
    with pytest.raises(RemoteError):
        link.unknown()
    future = link.unknown(asynchronous=True)
    for _ in range(2):
        with pytest.raises(RemoteError):
            future.result()
    with pytest.raises(ReplyTimeout):
        link.silent(timeout=0.01)
    with pytest.raises(ReplyTimeout):
        link.silent(timeout=0.01, asynchronous=True).result()
    assert client.statistics().errors == {"RemoteError": 2, "ReplyTimeout": 2}
    manager.session().close()
    with pytest.raises(ConnectionLost):
        while True:
            link.add(1, 2)
    with pytest.raises(ConnectionLost):
        link.add(1, 2, asynchronous=True)
    found = client.statistics().errors
    assert found["ConnectionLost"] == 2
    assert not client.is_connected()


def test_a_linked_client_has_a_function(manager: FakeManager):
    with LinkedClient("Echo", **manager.arguments()) as linked:
        linked.add(1, 2)
        assert statistics(linked).requests >= 2
    assert statistics(linked).requests >= 2


def test_late_replies_are_passed_to_a_function_in_a_thread_of_its_own(manager: FakeManager):
    got: queue.SimpleQueue[tuple[LateReply, threading.Thread]] = queue.SimpleQueue()

    def take(late: LateReply) -> None:
        assert client.link("Echo").add(1, 2) == 3  # it may make calls
        got.put((late, threading.current_thread()))

    with connect(on_late_reply=take, **manager.arguments()) as client:
        link = client.link("Echo")
        with pytest.raises(ReplyTimeout):
            link.hold(1, key=2, timeout=0.01)
        future = link.hold(3, asynchronous=True)
        future2 = link.add(1, 2, asynchronous=True)
        assert future2.result() == 3
        assert future.cancel()
        threads = set()
        for number, kwargs in ((1, {"key": 2}), (3, {})):
            session, line = manager.next_held()
            session.reply(line, "done")
            late, thread = got.get(timeout=PATIENCE)
            threads.add(thread)
            assert (late.attribute, late.args, late.kwargs) == ("hold", (number,), kwargs)
            assert (late.result, late.error) == ("done", None)
    assert len(threads) == 1
    assert threads.isdisjoint({threading.main_thread()})


def test_a_linked_client_takes_the_function_as_well(manager: FakeManager):
    got: queue.SimpleQueue[LateReply] = queue.SimpleQueue()
    with LinkedClient("Echo", on_late_reply=got.put, **manager.arguments()) as linked:
        with pytest.raises(ReplyTimeout):
            linked.hold(timeout=0.01)
        session, line = manager.next_held()
        session.reply(line, "done")
        assert got.get(timeout=PATIENCE).result == "done"


def test_the_reply_of_an_interrupted_call_is_not_lost(manager: FakeManager, monkeypatch):
    got: queue.SimpleQueue[LateReply] = queue.SimpleQueue()
    with connect(on_late_reply=got.put, **manager.arguments()) as client:
        link = client.link("Echo")
        calls = client._session.calls

        def interrupted(*args: object) -> bool:
            wait(*args)
            raise KeyboardInterrupt  # just when the reply has arrived

        wait = calls.wait
        monkeypatch.setattr(calls, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            link.add(1, 2)
        late = got.get(timeout=PATIENCE)
        assert (late.args, late.result) == ((1, 2), 3)


def test_a_reply_that_arrives_with_the_timeout_is_returned_and_not_late(manager: FakeManager, monkeypatch):
    got: queue.SimpleQueue[LateReply] = queue.SimpleQueue()
    with connect(on_late_reply=got.put, **manager.arguments()) as client:
        link = client.link("Echo")
        calls = client._session.calls
        wait, abandon = calls.wait, calls.abandon

        def late(*args: object) -> bool:
            wait(*args)
            return False  # as if the time had expired in the moment in which the reply arrived

        monkeypatch.setattr(calls, "wait", late)
        assert link.add(1, 2) == 3
        monkeypatch.undo()
        assert abandon == calls.abandon
        assert link.add(1, 2) == 3
        client.identities()  # what was posted to the Trio thread has been done
        assert got.empty()


def test_it_must_be_a_function(manager: FakeManager):
    with pytest.raises(TypeError, match="on_late_reply must be a function or None, not str"):
        connect(on_late_reply="print", **manager.arguments())
