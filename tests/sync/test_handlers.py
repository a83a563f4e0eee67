"""Calls wait for notification handlers: for all notifications received before the reply."""

from __future__ import annotations

import logging
import math
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from msl_network_trio import RemoteError
from msl_network_trio import connect as async_connect
from msl_network_trio.sync import Client, Link, LinkedClient, calls, connect, dropped, request, to_async
from msl_network_trio.transport import tcp
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager, Session
from tests.sync.test_calls import Background
from tests.sync.waiting import wait_until


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make calls wait for handlers without limit, so that no result depends on the timeout."""
    monkeypatch.setattr(calls, "_HANDLER_TIMEOUT", 1000.0)


@pytest.fixture
def hardly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make calls wait for handlers only briefly."""
    monkeypatch.setattr(calls, "_HANDLER_TIMEOUT", 0.01)


@pytest.fixture
def failing(manager: FakeManager) -> None:
    """Give the Service a method that emits notifications and raises."""

    def fail(session: Session, line: dict[str, Any]) -> Any:
        manager._notify(session, line)
        session.fail(line, "ValueError: emitted and failed")
        return NOTHING

    manager.answers["notify_and_fail"] = fail


class Slow:
    """A handler that returns when the test allows it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.handled: list[int] = []

    def __call__(self, number: int) -> None:
        self.entered.set()
        self.leave.wait(PATIENCE)
        self.handled.append(number)


@pytest.fixture
def slow(link: Link) -> Iterator[Slow]:
    slow = Slow()
    link.notification_handler = slow
    yield slow
    slow.leave.set()


def waiters(link: Link) -> list[Any]:
    return to_async(link)._state.handler_runner._mailbox.waiters


def received(link: Link) -> int:
    return to_async(link)._state.handler_runner._mailbox._received


# ---- calls that wait, and for which handlers ----


def failed(link: Any, count: int) -> None:
    with pytest.raises(RemoteError, match="emitted and failed"):
        link.notify_and_fail(count)


def done_already(link: Any, count: int) -> None:
    future = link.notify(count, asynchronous=True)
    wait_until(future.done)
    assert future.result() == "notified"


CALLS: dict[str, Callable[[Any, int], object]] = {
    "call": lambda link, count: link.notify(count),
    "with a timeout": lambda link, count: link.notify(count, timeout=30),
    "error": failed,
    "request": lambda link, count: request(link, "notify", [count]),
    "result": lambda link, count: link.notify(count, asynchronous=True).result(),
    "exception": lambda link, count: link.notify_and_fail(count, asynchronous=True).exception(),
    "result that is there": done_already,
}


@pytest.mark.parametrize("way", CALLS)
def test_whatever_waits_for_a_reply_waits_for_the_handler(
    link: Link, for_ever: None, failing: None, way: str
):
    got: list[int] = []
    link.notification_handler = got.append
    for count in (1, 10) * 10:
        got.clear()
        CALLS[way](link, count)
        assert got == list(range(count))


def plain(link: Any, got: list[int]) -> None:
    link.notification_handler = got.append


def asynchronous(link: Any, got: list[int]) -> None:
    async def handler(number: int) -> None:
        await trio.lowlevel.checkpoint()
        got.append(number)

    link.notification_handler = handler


def twin(link: Any, got: list[int]) -> None:
    to_async(link).notification_handler = got.append


def asynchronous_twin(link: Any, got: list[int]) -> None:
    asynchronous(to_async(link), got)


def another_link(link: Any, got: list[int]) -> None:
    plain(link._owner.link("Echo"), got)


HANDLERS = {
    "plain": plain,
    "async": asynchronous,
    "twin": twin,
    "async twin": asynchronous_twin,
    "another link": another_link,
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_every_kind_of_handler_is_waited_for(link: Link, for_ever: None, kind: str):
    got: list[int] = []
    HANDLERS[kind](link, got)
    for count in (1, 10) * 10:
        got.clear()
        link.notify(count)
        assert got == list(range(count))


@pytest.mark.parametrize("kind", ["assigned", "overridden", "view"])
def test_handlers_of_linked_clients_are_waited_for(manager: FakeManager, for_ever: None, kind: str):
    got: list[int] = []

    class Overriding(LinkedClient):
        def notification_handler(self, number: int) -> None:
            got.append(number)

    with (Overriding if kind == "overridden" else LinkedClient)("Echo", **manager.arguments()) as linked:
        if kind == "assigned":
            linked.notification_handler = got.append
        elif kind == "view":
            to_async(linked).notification_handler = got.append
        for count in (1, 10) * 10:
            got.clear()
            linked.notify(count)
            assert got == list(range(count))


@pytest.mark.parametrize("missing", ["poll", "sending"])
def test_it_waits_where_threads_can_neither_read_nor_send(
    monkeypatch, manager: FakeManager, for_ever: None, missing: str
):
    monkeypatch.setattr(tcp.TcpStream, "threads_may_receive", False)
    if missing == "sending":
        monkeypatch.setattr(tcp.TcpStream, "thread_io", None)
    with connect(**manager.arguments()) as client, client.link("Echo") as link:
        got: list[int] = []
        link.notification_handler = got.append
        for count in (1, 10) * 10:
            got.clear()
            link.notify(count)
            assert got == list(range(count))


def test_a_thread_that_reads_its_replies_itself_waits_for_what_it_has_read(link: Link, for_ever: None):
    got: list[int] = []
    link.notification_handler = got.append
    for _ in range(20):
        for _ in range(20):
            link.add(1, 2)  # so that the next call takes the read lease
        got.clear()
        link.notify(3)
        assert got == [0, 1, 2]


def test_a_thread_waits_for_what_another_one_has_read(link: Link, manager: FakeManager, for_ever: None):
    # One thread reads the notification and, behind it, the reply for the other.
    def answer(session: Session, line: dict[str, Any]) -> Any:
        session.notify(number)
        _, held = manager.next_held()
        session.reply(held, "held")
        return "answered"

    manager.answers["answer"] = answer
    got: list[int] = []
    link.notification_handler = got.append

    def hold() -> tuple[str, list[int]]:
        return link.hold(), got[:]

    for number in range(50):
        got.clear()
        holding = Background(hold)
        wait_until(lambda: not manager.held.empty())
        assert link.answer() == "answered"
        assert holding.result() == ("held", [number])


def test_notifications_after_the_reply_are_not_waited_for(link: Link, manager: FakeManager, for_ever: None):
    def answer(session: Session, line: dict[str, Any]) -> Any:
        session.notify(1)
        session.reply(line, "answered")
        session.notify(2)
        return NOTHING

    manager.answers["answer"] = answer
    returned = threading.Event()
    got: list[int] = []

    def handler(number: int) -> None:
        if number == 2:
            returned.wait(PATIENCE)
        got.append(number)

    link.notification_handler = handler
    for _ in range(20):
        returned.clear()
        got.clear()
        assert link.answer() == "answered"
        assert got == [1]
        returned.set()
        wait_until(lambda: got == [1, 2])


def test_a_call_that_has_to_wait_for_room_waits_for_the_handler(manager: FakeManager, for_ever: None):
    started, go_on = threading.Event(), threading.Event()

    def stall(session: Session, line: dict[str, Any]) -> Any:
        started.set()
        go_on.wait(PATIENCE)
        return "went on"

    def notify(session: Session, line: dict[str, Any]) -> Any:
        session.notify(1)
        return "notified"

    manager.answers.update(stall=stall, notify=notify, size=lambda session, line: len(line["args"][0]))
    with connect(**manager.arguments(max_unsent=1_000_000)) as client:
        link = client.link("Echo")
        got: list[int] = []
        link.notification_handler = got.append
        link.stall(asynchronous=True)
        assert started.wait(PATIENCE)
        with pytest.raises(BufferError):
            while True:
                link.size("x" * 900_000, asynchronous=True)
        waiting = Background(lambda: (link.notify("y" * 800_000), got[:]))
        queue = to_async(client)._session.connection._queue._turns
        wait_until(queue.locked)
        go_on.set()
        assert waiting.result() == ("notified", [1])


@pytest.mark.parametrize("linked", [False, True])
def test_what_a_service_emits_when_it_shuts_down_is_handled(
    manager: FakeManager, for_ever: None, linked: bool
):
    manager.answers["shutdown_service"] = lambda session, line: manager._notify(session, {"args": [3]})
    with connect(**manager.arguments()) as client:
        link: Any = LinkedClient("Echo", **manager.arguments()) if linked else client.link("Echo")
        got: list[int] = []
        link.notification_handler = got.append
        assert link.shutdown_service() == "notified"
        assert got == [0, 1, 2]
        with pytest.raises(AttributeError, match="the link has been broken"):
            link.add(1, 2)
        link.disconnect()


def test_a_burst_for_a_fast_handler_is_complete(link: Link, for_ever: None):
    got: list[int] = []
    link.notification_handler = got.append
    link.notify(5000)
    assert got == list(range(5000))
    assert dropped(link) == 0


def test_the_handler_may_be_changed_and_removed_while_others_wait(link: Link, slow: Slow, for_ever: None):
    got: list[int] = []
    call = Background(link.notify, 3)
    assert slow.entered.wait(PATIENCE)
    wait_until(lambda: waiters(link))
    link.notification_handler = got.append
    slow.leave.set()
    assert call.result() == "notified"
    assert (slow.handled, got) == ([0], [1, 2])
    link.notification_handler = None
    assert link.notify(3) == "notified"
    link.notification_handler = got.append
    assert link.notify(1) == "notified"
    assert got == [1, 2, 0]


def test_an_exception_in_the_handler_does_not_keep_calls_waiting(link: Link, for_ever: None, caplog):
    got: list[int] = []

    def handler(number: int) -> None:
        got.append(number)
        raise ValueError("mine")

    link.notification_handler = handler
    with caplog.at_level(logging.CRITICAL, "msl_network_trio"):
        link.notify(3)
    assert got == [0, 1, 2]


# ---- calls that need not wait ----


def test_nothing_is_waited_for_if_no_handler_is_set_or_nothing_is_pending(link: Link, monkeypatch):
    link.notify(3)
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    monkeypatch.setattr(calls, "Waiter", None)  # each wait makes one
    assert link.notify(3) == "notified"
    assert link.notify(3, asynchronous=True).result() == "notified"
    monkeypatch.undo()
    link.notification_handler = received.put
    link.notify(3)
    assert [received.get(timeout=PATIENCE) for _ in range(3)] == [0, 1, 2]
    wait_until(lambda: not to_async(link)._state.handler_runner.is_behind(0))
    monkeypatch.setattr(calls, "Waiter", None)
    assert link.add(1, 2) == 3
    assert link.add(1, 2, asynchronous=True).result() == 3


def test_notifications_of_another_service_are_not_waited_for(link: Link, client: Client, for_ever: None):
    slow = Slow()
    client.link("Other").notification_handler = slow
    to_async(client)._session.connection.mailboxes.numbers["Other"] = 1000  # as if it had emitted some
    assert link.notify(3) == "notified"
    assert not slow.entered.is_set()


# ---- handlers that exceed the timeout ----


def test_a_handler_that_takes_too_long_is_not_waited_for_until_it_has_caught_up(
    link: Link, slow: Slow, hardly: None, monkeypatch, caplog
):
    caplog.set_level(logging.WARNING, "msl_network_trio")
    assert link.notify(1) == "notified"
    assert len(caplog.records) == 1
    assert "the notification handler for 'Echo' has not returned within" in caplog.text
    assert "so calls do not wait for it until it has caught up" in caplog.text
    monkeypatch.setattr(calls, "_HANDLER_TIMEOUT", 1000.0)
    assert link.notify(1) == "notified"  # at once
    assert link.notify(1, asynchronous=True).result() == "notified"
    assert len(caplog.records) == 1
    slow.leave.set()
    wait_until(lambda: len(slow.handled) == 3)
    wait_until(lambda: not to_async(link)._state.handler_runner._is_late)
    slow.leave.clear()
    call = Background(link.notify, 1)  # waits again
    wait_until(lambda: waiters(link))
    slow.leave.set()
    assert call.result() == "notified"
    assert len(slow.handled) == 4
    assert len(caplog.records) == 1


def test_one_warning_is_logged_if_the_time_of_several_threads_is_over_at_once(
    link: Link, slow: Slow, hardly: None, monkeypatch, caplog: pytest.LogCaptureFixture
):
    runner = to_async(link)._state.handler_runner
    others = [runner.give_up_on]

    def may_hold(last: int) -> bool:
        if others:  # another thread waits meanwhile
            others.pop()(last, 0.01)
        return True

    monkeypatch.setattr(runner._mailbox, "may_hold", may_hold)
    runner.give_up_on(1, 0.01)
    assert not others
    assert len(caplog.records) == 1
    monkeypatch.setattr(runner._mailbox, "may_hold", lambda last: False)
    runner.give_up_on(1, 0.01)  # the handler has caught up at the last moment
    assert not runner._is_late
    assert len(caplog.records) == 1


def test_an_error_is_raised_although_a_handler_takes_too_long(
    link: Link, slow: Slow, hardly: None, failing: None
):
    failed(link, 1)
    assert slow.handled == []


def test_the_timeout_of_a_call_limits_the_wait_for_handlers(link: Link, monkeypatch):
    seconds: list[float] = []

    def wait_for_handlers(self: Any, service: str, preceding: int, limit: float) -> None:
        assert (service, preceding) == ("Echo", len(seconds) + 1)
        seconds.append(limit)

    monkeypatch.setattr(calls.Calls, "wait_for_handlers", wait_for_handlers)
    link.notify(1)
    link.notify(1, timeout=30)
    link.notify(1, asynchronous=True).result()
    link.notify(1, asynchronous=True).result(PATIENCE)
    link.notify(1, asynchronous=True, timeout=30).result()
    future = link.notify(1, asynchronous=True)
    wait_until(future.done)
    future.result(PATIENCE)
    assert [math.isinf(limit) for limit in seconds] == [True, False, True, False, False, False]
    assert all(0 < limit <= PATIENCE for limit in seconds if math.isfinite(limit))


def test_a_result_is_returned_without_a_timeout_when_handlers_take_too_long(
    link: Link, slow: Slow, for_ever: None
):
    future = link.notify(1, asynchronous=True)
    wait_until(future.done)
    assert future.result(0) == "notified"  # only checks
    assert not to_async(link)._state.handler_runner._is_late
    assert future.result(0.01) == "notified"
    assert to_async(link)._state.handler_runner._is_late
    assert future.exception(0.01) is None


# ---- calls that must not wait ----


def test_calls_of_a_handler_do_not_wait_for_it(link: Link, manager: FakeManager, for_ever: None):
    got: list[object] = []

    def handler(number: int) -> None:
        if number == 0:
            got.append(link.notify_from(1))
            got.append(link.notify_from(2, asynchronous=True).result())

    def notify_from(session: Session, line: dict[str, Any]) -> Any:
        session.notify(*line["args"])
        return line["args"]

    manager.answers["notify_from"] = notify_from
    link.notification_handler = handler
    assert Background(link.notify, 1).result() == "notified"
    assert got == [[1], [2]]


def test_calls_in_threads_below_an_async_handler_do_not_wait_for_it(link: Link, for_ever: None):
    got: list[object] = []

    async def handler(number: int) -> None:
        if number == 2:
            got.append(await trio.to_thread.run_sync(link.notify, 1))

    link.notification_handler = handler
    assert Background(link.notify, 3).result() == "notified"
    assert got == ["notified"]


@pytest.mark.parametrize("when", ["later", "at once"])
def test_calls_of_a_callback_do_not_wait_for_handlers(link: Link, slow: Slow, for_ever: None, when: str):
    called: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def callback(_: Any) -> None:
        called.put(link.notify(1))

    future = link.hold(asynchronous=True) if when == "later" else link.add(1, 2, asynchronous=True)
    if when == "at once":
        wait_until(future.done)
        future.add_done_callback(callback)
    else:
        future.add_done_callback(callback)
        future.cancel()
    assert called.get(timeout=PATIENCE) == "notified"
    assert slow.handled == []


def test_a_callback_of_a_reply_does_not_wait_for_handlers(link: Link, slow: Slow, for_ever: None):
    called: queue.SimpleQueue[Any] = queue.SimpleQueue()
    future = link.notify(1, asynchronous=True)
    future.add_done_callback(lambda future: called.put((future.result(), link.notify(1))))
    assert called.get(timeout=PATIENCE) == ("notified", "notified")
    assert slow.handled == []


def test_the_trio_thread_does_not_wait(link: Link, slow: Slow, for_ever: None):
    future = link.notify(1, asynchronous=True)
    wait_until(future.done)

    async def main() -> object:
        return future.result()

    assert trio.run(main) == "notified"


def test_a_handler_that_waits_for_a_call_of_another_thread_costs_the_limit_once(
    link: Link, manager: FakeManager, hardly: None
):
    returned: list[str] = []

    def handler(number: int) -> None:
        if number == 0:
            returned.append(Background(link.notify_one).result())

    def notify_one(session: Session, line: dict[str, Any]) -> Any:
        session.notify(1)
        return "notified"

    manager.answers["notify_one"] = notify_one
    link.notification_handler = handler
    assert link.notify(1) == "notified"
    wait_until(lambda: returned == ["notified"])


# ---- ends of the wait ----


def unlink(link: Link, client: Client, manager: FakeManager) -> None:
    link.unlink()


def disconnect(link: Link, client: Client, manager: FakeManager) -> None:
    client.disconnect()


def lose(link: Link, client: Client, manager: FakeManager) -> None:
    manager.session().close()


@pytest.mark.parametrize("end", [unlink, disconnect, lose])
def test_the_end_of_the_link_ends_the_wait(
    link: Link,
    client: Client,
    manager: FakeManager,
    slow: Slow,
    for_ever: None,
    caplog,
    end: Callable[..., None],
):
    calls = [Background(link.notify, 1), Background(link.notify, 1)]
    wait_until(lambda: len(waiters(link)) == 2)
    end(link, client, manager)
    assert [call.result() for call in calls] == ["notified", "notified"]
    assert slow.handled == []
    assert "has not returned" not in caplog.text


def test_ctrl_c_ends_the_wait(link: Link, slow: Slow, for_ever: None):
    def interrupt() -> None:
        wait_until(lambda: waiters(link))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupting = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        link.notify(1)
    interrupting.result()
    assert waiters(link) == []
    slow.leave.set()
    assert link.notify(1) == "notified"
    assert slow.handled == [0, 0]


def test_cancelling_the_task_of_a_worker_thread_ends_the_wait(manager: FakeManager, for_ever: None):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            slow = Slow()
            link.sync.notification_handler = slow
            with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, link.sync.notify, 1)
                    while not link._state.handler_runner._mailbox.waiters:
                        await trio.sleep(0.001)
                    scope.cancel()
            assert scope.cancelled_caught
            assert link._state.handler_runner._mailbox.waiters == []
            slow.leave.set()
            assert await link.add(1, 2) == 3

    trio.run(main)


def test_what_was_received_before_threads_came_is_waited_for(manager: FakeManager, for_ever: None):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            go_on = trio.Event()
            got: list[int] = []

            async def handler(number: int) -> None:
                await go_on.wait()
                got.append(number)

            link.notification_handler = handler
            assert await link.notify(3) == "notified"
            blocking = link.sync

            def work() -> list[int]:
                blocking.add(1, 2)
                return got[:]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(_check, work)
                while not link._state.handler_runner._mailbox.waiters:
                    await trio.sleep(0.001)
                go_on.set()

    async def _check(work: Callable[[], list[int]]) -> None:
        assert await trio.to_thread.run_sync(work) == [0, 1, 2]

    trio.run(main)


# ---- dropped notifications ----


def test_what_a_handler_is_too_slow_for_is_counted(manager: FakeManager, hardly: None, caplog):
    with connect(**manager.arguments(max_unhandled=10_000)) as client, client.link("Echo") as link:
        slow = Slow()
        link.notification_handler = slow
        link.notify(1)
        assert slow.entered.wait(PATIENCE)
        link.notify(100)
        wait_until(lambda: received(link) == 101)
        lost = client.dropped("Echo")
        assert lost > 0
        assert dropped(link) == to_async(client).dropped("Echo") == lost
        assert client.dropped("Other") == 0
        slow.leave.set()
        wait_until(lambda: slow.handled[-1:] == [99])
        assert slow.handled == [0, *range(lost, 100)]
        assert "notifications dropped so far" in caplog.text
    assert client.dropped("Echo") == dropped(link) == lost


def test_a_linked_client_tells_what_it_has_lost(manager: FakeManager, hardly: None):
    with LinkedClient("Echo", **manager.arguments(max_unhandled=1)) as linked:
        slow = Slow()
        linked.notification_handler = slow
        linked.notify(1)
        assert slow.entered.wait(PATIENCE)
        linked.notify(100)
        assert linked.link is not None
        wait_until(lambda: received(linked.link) == 101)
        assert dropped(linked) == 99
        slow.leave.set()
    assert dropped(linked) == 99
