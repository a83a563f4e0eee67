"""``asynchronous=True`` gives Futures of the standard library."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import threading
import time
import weakref
from collections import deque
from typing import Any

import pytest
import trio

from msl_network_trio import ConnectionLost, RemoteError, ReplyTimeout
from msl_network_trio import connect as async_connect
from msl_network_trio.sync import Client, Future, Link, to_async
from msl_network_trio.sync.calls import _MAX_FLUSH_DELAY, _MIN_FLUSH_DELAY
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager
from tests.sync.test_calls import Background


def test_a_future_is_one_of_the_standard_library(link: Link):
    future = link.add(1, 2, asynchronous=True)
    assert isinstance(future, Future)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(PATIENCE) == 3
    assert future.result() == 3
    assert future.exception() is None
    assert future.done()
    assert not future.cancelled()
    assert not future.running()
    assert not future.cancel()


def test_hundreds_of_futures_are_in_flight_at_a_time(link: Link):
    futures = [link.add(n, 1, asynchronous=True) for n in range(500)]
    assert [future.result(PATIENCE) for future in futures] == [n + 1 for n in range(500)]


def test_a_window_of_futures_is_kept_in_flight(link: Link):
    window: list[Any] = []
    results = []
    for n in range(2000):
        if len(window) == 100:
            results.append(window.pop(0).result(PATIENCE))
        window.append(link.add(n, 1, asynchronous=True))
    results += [future.result(PATIENCE) for future in window]
    assert results == [n + 1 for n in range(2000)]


def test_futures_of_many_threads_get_their_own_answers(link: Link):
    def work(number: int) -> bool:
        mine = [number * 1000 + n for n in range(300)]
        futures = [link.add(n, 1, asynchronous=True) for n in mine]
        return [future.result(PATIENCE) for future in futures] == [n + 1 for n in mine]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_requests_arrive_in_the_order_in_which_they_were_made(link: Link, manager: FakeManager):
    session = manager.session()
    futures = [link.add(0, n, asynchronous=n % 7 != 6) for n in range(100)]
    concurrent.futures.wait([f for f in futures if isinstance(f, Future)], 10)
    numbers = [line["args"][1] for line in session.lines if line["attribute"] == "add"]
    assert numbers == list(range(100))


def test_an_unawaited_request_is_sent(link: Link, manager: FakeManager):
    first = link.hold(asynchronous=True)
    manager.next_held()
    second = link.hold(asynchronous=True)  # behind a request without a reply
    session, line = manager.next_held()
    session.reply(line, "second")
    assert concurrent.futures.wait([second], 10).done == {second}
    assert second.result(0) == "second"
    assert not first.done()


def test_the_flush_delay_grows_while_threads_send_everything_themselves(link: Link, manager: FakeManager):
    calls = to_async(link)._state.session.calls
    deadline = time.monotonic() + 20
    window: deque[Future] = deque()
    while calls._flush_delay < _MAX_FLUSH_DELAY and time.monotonic() < deadline:
        window.append(link.add(1, 2, asynchronous=True))
        if len(window) > 50:
            assert window.popleft().result(PATIENCE) == 3
    assert calls._flush_delay == _MAX_FLUSH_DELAY
    concurrent.futures.wait(window, PATIENCE)
    while calls._flush_delay > _MIN_FLUSH_DELAY and time.monotonic() < deadline:
        left_behind = [link.hold(asynchronous=True), link.hold(asynchronous=True)]
        for _ in left_behind:  # only the Trio thread sends the second
            session, line = manager.next_held()
            session.reply(line, "held")
        assert [future.result(PATIENCE) for future in left_behind] == ["held", "held"]
    assert calls._flush_delay == _MIN_FLUSH_DELAY


def test_as_completed_and_wait_work(link: Link):
    futures = [link.add(n, 1, asynchronous=True) for n in range(50)]
    done = {future.result() for future in concurrent.futures.as_completed(futures, PATIENCE)}
    assert done == {n + 1 for n in range(50)}
    futures = [link.silent(asynchronous=True), link.add(1, 2, asynchronous=True)]
    waited = concurrent.futures.wait(futures, PATIENCE, concurrent.futures.FIRST_COMPLETED)
    assert waited.done == {futures[1]}
    assert waited.not_done == {futures[0]}


def test_as_completed_works_after_a_thread_has_read_its_replies_itself(link: Link):
    for _ in range(100):
        link.add(1, 2)
    futures = [link.add(n, 1, asynchronous=True) for n in range(50)]
    assert len(list(concurrent.futures.as_completed(futures, PATIENCE))) == 50


def test_an_error_is_raised_each_time(link: Link, manager: FakeManager):
    manager.answers["boom"] = lambda session, line: session.fail(line, "ValueError: boom") or NOTHING
    future = link.boom(asynchronous=True)
    for _ in range(2):
        with pytest.raises(RemoteError, match="ValueError: boom"):
            future.result(PATIENCE)
    assert isinstance(future.exception(), RemoteError)


def test_waiting_for_a_future_may_have_an_end_of_its_own(link: Link, manager: FakeManager):
    future = link.hold(asynchronous=True)
    for wait in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            wait(0.05)
    with pytest.raises(TimeoutError):
        future.result(0)
    session, line = manager.next_held()
    session.reply(line, "there")
    assert future.result(PATIENCE) == "there"


def test_the_timeout_of_the_request_ends_the_future(link: Link):
    future = link.silent(asynchronous=True, timeout=0.1)
    assert concurrent.futures.wait([future], 10).done == {future}
    with pytest.raises(ReplyTimeout, match="No reply to Echo.silent within 0.1 seconds"):
        future.result()
    future = link.add(1, 2, asynchronous=True, timeout=5)
    assert future.result() == 3


def test_cancelling_abandons_the_request_and_wakes_waiting_threads(link: Link, manager: FakeManager):
    future = link.hold(asynchronous=True)
    session, line = manager.next_held()
    waiting = Background(lambda: concurrent.futures.wait([future], 10))
    resulting = Background(future.result)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert waiting.result().done == {future}
    for result in (resulting.result, future.result, lambda: future.exception(1)):
        with pytest.raises(concurrent.futures.CancelledError):
            result()
    assert list(concurrent.futures.as_completed([future], 10)) == [future]
    session.reply(line, "too late")
    assert link.add(1, 2) == 3
    assert not to_async(link)._state.session.connection.protocol.in_flight


def test_what_is_cancelled_before_it_is_sent_is_never_sent(link: Link, manager: FakeManager):
    session = manager.session()
    stalled, go_on = threading.Event(), threading.Event()

    def stall(*_: Any) -> Any:
        stalled.set()
        go_on.wait(PATIENCE)

    manager.answers["stall"] = stall
    first = link.stall(asynchronous=True)
    assert stalled.wait(PATIENCE)
    with to_async(link)._state.session.connection.lock:  # so that no other thread sends it
        second = link.echo("second", asynchronous=True)
        assert second.cancel()
    go_on.set()
    assert first.result(PATIENCE) is None
    assert link.add(1, 2) == 3
    assert "echo" not in [line["attribute"] for line in session.lines]


def test_callbacks_run_in_a_thread_of_their_own_and_may_call_the_link(
    link: Link, manager: FakeManager, caplog
):
    called: Any = concurrent.futures.Future()

    def callback(future: Any) -> None:
        called.set_result((future.result(), link.add(3, 4), threading.current_thread()))

    future = link.hold(asynchronous=True)
    with caplog.at_level(logging.CRITICAL, "msl_network_trio"):
        future.add_done_callback(lambda _: 1 / 0)  # is logged, and does not prevent other callbacks
    future.add_done_callback(callback)
    session, line = manager.next_held()
    session.reply(line, "there")
    result, sum_, thread = called.result(PATIENCE)
    assert (result, sum_) == ("there", 7)
    assert thread is not threading.main_thread()
    assert thread.ident != to_async(link)._state.session.connection.portal.thread_id
    assert thread.daemon


def test_a_callback_of_a_future_that_a_thread_has_read_runs_elsewhere_too(link: Link, manager: FakeManager):
    for _ in range(100):
        link.add(1, 2)
    called: Any = concurrent.futures.Future()
    future = link.hold(asynchronous=True)
    future.add_done_callback(lambda _: called.set_result(threading.current_thread()))
    session, line = manager.next_held()  # so that the reply comes after the callback was added
    session.reply(line, 3)
    assert future.result(PATIENCE) == 3
    assert called.result(PATIENCE) is not threading.main_thread()


def test_a_callback_of_a_future_that_is_done_is_called_at_once(link: Link):
    future = link.add(1, 2, asynchronous=True)
    future.result(PATIENCE)
    called = []
    future.add_done_callback(lambda f: called.append((f, threading.current_thread())))
    assert called == [(future, threading.current_thread())]


def test_the_end_of_the_connection_is_the_end_of_all_futures(
    link: Link, client: Client, manager: FakeManager
):
    futures = [link.hold(asynchronous=True) for _ in range(3)]
    for _ in futures:
        manager.next_held()
    client.disconnect()
    for future in futures:
        with pytest.raises(ConnectionLost):
            future.result(PATIENCE)
    with pytest.raises(ConnectionLost, match="^Disconnected from"):
        link.add(1, 2, asynchronous=True)


def test_a_future_that_is_done_is_freed_without_the_garbage_collector(link: Link):
    gc.disable()
    try:
        future = link.add(1, 2, asynchronous=True)
        future.result(PATIENCE)
        link.add(1, 2)  # the settling thread may still hold a reference
        gone = weakref.ref(future)
        del future
        deadline = time.monotonic() + 10
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert gone() is None
    finally:
        gc.enable()


def test_a_worker_thread_that_waits_for_a_future_notices_cancellation(manager: FakeManager):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            future = link.sync.hold(asynchronous=True)
            with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, future.result)
                    session, line = await trio.to_thread.run_sync(manager.next_held)
                    scope.cancel()
            assert scope.cancelled_caught
            session.reply(line, "goes on")
            assert await trio.to_thread.run_sync(future.result, 10) == "goes on"

    trio.run(main)
