"""Calls from threads into Trio, and back."""

from __future__ import annotations

import contextvars
import gc
import signal
import socket
import sys
import threading
import time
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import (
    AuthenticationError,
    ConnectionLost,
    ConnectTimeout,
    ManagerError,
    TerminalPrompts,
)
from msl_network_trio import connect as async_connect
from msl_network_trio.portal import loop_call as call
from msl_network_trio.portal import process, waiting
from msl_network_trio.portal.background_thread import current_portal
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.job_thread import JobThread
from msl_network_trio.portal.loop_call import in_calling_thread
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import wait
from msl_network_trio.sync import Client, Link, LinkedClient, connect, notifications, to_async
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager
from tests.sync.test_calls import Background


async def test_what_fails_in_the_trio_thread_is_logged_and_ends_nothing(caplog):
    def fail() -> None:
        raise RuntimeError("a mistake of ours")

    portal = Portal.here()
    await trio.to_thread.run_sync(portal.post, fail)
    await trio.testing.wait_all_tasks_blocked()
    (record,) = caplog.records
    assert "fail" in record.message
    assert "a mistake of ours" in record.exc_text


async def test_a_thread_that_asks_for_a_task_in_the_last_moment_of_a_connection_ends_nothing(
    manager: FakeManager,
):
    client = await async_connect(**manager.arguments())
    connection = client._session.connection
    await client.disconnect()
    async with trio.open_nursery() as closed:
        pass
    connection._nursery = closed  # its state for a moment before it is None
    connection.threads.share()
    with connection.lock:
        connection.threads.flush()
    assert connection._to_start == []


def test_a_fork_replaces_the_process_and_then_calls_the_callbacks(monkeypatch: pytest.MonkeyPatch):
    called: list[process.Process] = []
    before = process.this
    monkeypatch.setattr(process, "this", before)
    monkeypatch.setattr(process.Process, "fork_callbacks", [])
    process.on_fork(lambda: called.append(process.this))
    process._reset()  # what the hook of a fork does
    assert called == [process.this]
    assert process.this is not before


# ---- calls ----


async def add(x: int, y: int) -> int:
    await trio.lowlevel.checkpoint()
    return x + y


async def fail() -> None:
    raise ZeroDivisionError("in Trio")


def test_a_thread_calls_an_async_function():
    portal = current_portal()
    assert portal.call(add, 1, y=2) == 3
    with pytest.raises(ZeroDivisionError, match="in Trio"):
        portal.call(fail)


def test_a_process_has_one_background_thread():
    before = threading.active_count()
    portals = [Background(current_portal) for _ in range(10)]
    assert {portal.result() for portal in portals} == {current_portal()}
    assert threading.active_count() <= before + 1


def test_a_plain_function_is_called_in_the_trio_thread_from_any_thread():
    threads = []

    def note() -> None:
        threads.append(threading.get_ident())

    async def main() -> None:
        here = Portal.here()
        here.do(note)
        await trio.to_thread.run_sync(here.do, note)
        assert threads == [here.thread_id] * 2

    trio.run(main)
    portal = current_portal()
    portal.do(note)
    assert threads[2:] == [portal.thread_id] != [threading.get_ident()]


def test_a_worker_thread_enters_the_run_of_its_application():
    async def main() -> None:
        here = Portal.here()
        assert await trio.to_thread.run_sync(current_portal) is here
        assert here.thread_id == threading.get_ident()
        task = trio.lowlevel.current_task()

        async def whose() -> Any:
            return trio.lowlevel.current_task()

        assert await trio.to_thread.run_sync(here.call, whose) is task

    trio.run(main)


def test_a_worker_thread_of_another_run_notices_the_cancellation_of_its_own():
    portal = current_portal()
    cancelled = threading.Event()
    entered = threading.Event()

    async def forever() -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async def main() -> None:
        with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, portal.call, forever)
                await trio.to_thread.run_sync(entered.wait)
                scope.cancel()
        assert scope.cancelled_caught

    trio.run(main)
    assert cancelled.wait(PATIENCE)


def test_ctrl_c_cancels_the_function_and_waits_until_it_has_cleaned_up():
    portal = current_portal()
    cleaned_up = []

    async def forever() -> None:
        try:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            cleaned_up.append(True)

    with pytest.raises(KeyboardInterrupt):
        portal.call(forever)
    assert cleaned_up == [True]
    assert portal.call(add, 1, 2) == 3


def test_what_is_opened_in_spite_of_ctrl_c_is_closed():
    closed = []

    async def open_it() -> str:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        with trio.CancelScope(shield=True):
            await trio.sleep(0.05)
        return "the thing"

    async def close(thing: str) -> None:
        await trio.lowlevel.checkpoint()
        closed.append(thing)

    with pytest.raises(KeyboardInterrupt):
        current_portal().open(open_it, close)
    assert closed == ["the thing"]


def test_a_call_that_ctrl_c_interrupts_before_it_begins_returns_at_once(monkeypatch):
    portal = current_portal()
    post = portal.post

    def interrupted(*args: Any) -> None:
        monkeypatch.setattr(portal, "post", post)
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "post", interrupted)
    monkeypatch.setattr(call, "_CLEAN_UP_TIMEOUT", 50.0)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        portal.call(add, 1, 2)
    assert time.monotonic() - began < call._CLEAN_UP_TIMEOUT


@pytest.mark.parametrize("what", ["connect", "spawn", "LinkedClient", "link", "lock", "notifications"])
def test_nothing_stays_open_that_an_interrupted_thread_will_never_know(
    manager: FakeManager, link: Link, monkeypatch, what: str
):
    client, session = to_async(link)._state.session.client.sync, manager.session()
    calls = {
        "connect": lambda: connect(**manager.arguments()),
        "spawn": client.spawn,
        "LinkedClient": lambda: LinkedClient("Echo", **manager.arguments()),
        "link": lambda: client.link("Other"),
        "lock": link.acquire_lock,
        "notifications": lambda: notifications(link).__enter__(),
    }
    # The last moment before the thread takes what was opened.
    with monkeypatch.context() as patch:
        patch.setattr(call, "park_at_exit", lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            calls[what]()
    if what in {"connect", "spawn", "LinkedClient"}:
        other = manager.session()
        assert other.ended.wait(PATIENCE)
        assert other.said_goodbye
    elif what == "notifications":
        assert not to_async(link)._state.streams
    else:
        undone = {"link": ("unlink", ["Other"]), "lock": ("release_lock", ["Echo"])}[what]
        assert undone in [(line["attribute"], line["args"]) for line in session.lines]
    assert link.add(1, 2) == 3


def test_a_run_that_has_ended_is_a_lost_connection():
    async def main() -> Portal:
        return Portal.here()

    ended = trio.run(main)
    with pytest.raises(ConnectionLost, match="The Trio run .* has ended"):
        ended.call(add, 1, 2)
    with pytest.raises(ConnectionLost):
        ended.post(print)


def test_the_end_of_the_run_is_the_end_of_its_calls():
    entered = threading.Event()

    async def forever() -> None:
        entered.set()
        await trio.sleep_forever()

    async def main() -> Background:
        call = Background(Portal.here().call, forever)
        while not entered.is_set():
            await trio.sleep(0.001)
        return call

    with pytest.raises(ConnectionLost, match="has ended"):
        trio.run(main).result()


def test_a_wait_has_an_end():
    event = threading.Event()
    for seconds in (0, 0.01, 0.12):
        began = time.monotonic()
        assert not wait(lambda seconds: event.wait(seconds), seconds)
        assert seconds <= time.monotonic() - began < seconds + 30
    event.set()
    assert wait(lambda seconds: event.wait(seconds), 0)
    assert wait(lambda seconds: event.wait(seconds), float("inf"))


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_a_wait_looks_around_where_a_signal_does_not_interrupt_it(monkeypatch, platform: str):
    waited = []

    def attempt(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) > 3

    monkeypatch.setattr(sys, "platform", platform)
    assert wait(attempt, float("inf"))
    longest = waiting.SLICE if platform == "win32" else threading.TIMEOUT_MAX
    assert waited == [waiting.SLICE, longest, longest, longest]


# ---- Ctrl-C ----


def test_what_is_uninterrupted_is_interrupted_at_its_end():
    steps = []

    def section() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        steps.append("the end")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        uninterrupted(section)
    assert steps == ["the end"]
    assert signal.getsignal(signal.SIGINT) is before
    assert uninterrupted(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_an_ignored_ctrl_c_stays_ignored(handler: Any):
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert uninterrupted(lambda: signal.getsignal(signal.SIGINT)) == handler
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_the_users_is_called_at_the_end():
    called: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    try:

        def section() -> list[int]:
            signal.raise_signal(signal.SIGINT)
            return list(called)

        assert uninterrupted(section) == []
        assert called == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


# ---- background threads with job queues ----


def test_a_worker_ends_with_its_object():
    worker = JobThread("the worker")
    done: list[threading.Thread] = []
    event = threading.Event()
    worker.submit(lambda: done.append(threading.current_thread()))
    worker.submit(event.set)
    assert event.wait(PATIENCE)
    (thread,) = done
    assert thread.name == "the worker"
    gone = weakref.ref(worker)
    del worker
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_worker_calls_for_trio_and_is_abandoned_by_cancellation():
    async def main() -> None:
        worker = JobThread("w")
        assert await worker.call(lambda x, y: x + y, 1, y=2) == 3
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda: 1 / 0)
        go_on = threading.Event()
        with trio.move_on_after(0.05) as scope:
            await worker.call(go_on.wait, PATIENCE)
        assert scope.cancelled_caught
        go_on.set()
        assert await worker.call(lambda: "next") == "next"

    trio.run(main)


def test_a_worker_does_not_mind_that_the_run_has_ended():
    go_on, done = threading.Event(), threading.Event()
    worker = JobThread("w")

    async def main() -> None:
        with trio.move_on_after(0.01):
            await worker.call(go_on.wait, PATIENCE)

    trio.run(main)
    go_on.set()
    worker.submit(done.set)
    assert done.wait(PATIENCE)


# ---- questions are asked in the calling thread ----


def test_a_task_calls_a_function_in_the_thread_that_waits_for_it():
    async def ask() -> Any:
        with pytest.raises(ZeroDivisionError):
            await in_calling_thread(lambda: 1 / 0)
        return await in_calling_thread(threading.current_thread)

    assert current_portal().call(ask) is threading.current_thread()


def test_without_such_a_thread_a_worker_thread_is_asked():
    async def main() -> None:
        thread = await in_calling_thread(threading.current_thread)
        assert thread is not threading.current_thread()

    trio.run(main)

    # A task that was started during a call outlives it, in a copy of its context.
    answers: list[Any] = []
    go_on, asked = trio.Event(), threading.Event()

    async def later() -> None:
        await go_on.wait()
        answers.append(await in_calling_thread(threading.current_thread))
        asked.set()

    async def begin() -> None:
        trio.lowlevel.spawn_system_task(later, context=contextvars.copy_context())

    portal = current_portal()
    portal.call(begin)
    portal.post(go_on.set)
    assert asked.wait(PATIENCE)
    assert answers[0] is not threading.current_thread()


class Asked:
    """Prompts that record the thread in which they were asked."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def username(self, manager: str) -> str:
        self.threads.append(threading.current_thread())
        return "alice"

    def password(self, name: str) -> str:
        self.threads.append(threading.current_thread())
        return f"the password of {name}"

    async def trust(self, certificate: Any) -> bool:
        return True


def test_connect_asks_in_the_calling_thread(manager: FakeManager):
    manager.questions = [("username", "Manager[vm:1875]"), ("password", "alice")]
    prompts = Asked()
    with connect(**manager.arguments(prompts=prompts)) as client:
        assert client.is_connected()
        with client.spawn("Second") as second:
            assert second.is_connected()
    assert manager.session().answered == ["alice", "the password of alice"]
    assert manager.session().answered == ["alice", "the password of alice"]
    assert prompts.threads == [threading.current_thread()] * 4


def test_an_admin_request_asks_in_the_thread_that_makes_it(manager: FakeManager):
    prompts = Asked()
    with connect(**manager.arguments(prompts=prompts)) as client:
        session = manager.session()

        def log_in() -> None:
            if len(session.answered) == 1:
                session.ask("password", "alice")
            else:
                session.send(error=False, requester="Client[vm:1]", result=["alice"], uid="")

        session.on_answer = log_in  # type: ignore[method-assign]
        manager.answers["users_table.usernames"] = lambda s, line: (
            s.ask("username", "Manager[vm:1875]") or NOTHING
        )
        call = Background(client.admin_request, "users_table.usernames")
        assert call.result() == ["alice"]
        assert session.answered == ["alice", "the password of alice"]
        assert prompts.threads == [call.thread] * 2
        with pytest.raises(ValueError, match="^Cannot make asynchronous requests to a Manager$"):
            client.admin_request("port", asynchronous=True)


def test_the_terminal_is_asked_in_the_calling_thread(manager: FakeManager, monkeypatch, capsys):
    threads = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            threads.append(threading.current_thread())
            return "bob\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    manager.questions = [("username", "Manager[vm:1875]")]
    for prompts in (None, TerminalPrompts()):
        with connect(**manager.arguments(prompts=prompts)):
            assert manager.session().answered == ["bob"]
    assert threads == [threading.current_thread()] * 2
    assert capsys.readouterr().err == "Enter a username for Manager[vm:1875] > " * 2


def test_without_a_terminal_it_says_at_once_which_argument_to_pass(manager: FakeManager, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    manager.questions = [("username", "Manager[vm:1875]")]
    with pytest.raises(AuthenticationError, match="Pass username= to connect"):
        connect(**manager.arguments())


def test_ctrl_c_at_a_question_gives_up_connecting(manager: FakeManager):
    class Interrupted(Asked):
        def username(self, manager: str) -> str:
            signal.raise_signal(signal.SIGINT)
            return "never"

    manager.questions = [("username", "Manager[vm:1875]")]
    with pytest.raises(KeyboardInterrupt):
        connect(**manager.arguments(prompts=Interrupted()))
    assert manager.session().ended.wait(PATIENCE)


# ---- connect ----


def test_what_connect_refuses_is_raised_as_it_is(manager: FakeManager):
    with pytest.raises(TypeError, match="unexpected keyword argument 'hots'"):
        connect(hots="x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="port must be a number"):
        connect(port=0)
    manager.close()
    with pytest.raises(ConnectionError, match=f"Cannot connect to 127.0.0.1:{manager.port}"):
        connect(**manager.arguments())


def test_the_time_to_connect_is_limited():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectTimeout, match="within 0.2 seconds"),
    ):
        connect(host="127.0.0.1", port=silent.getsockname()[1], disable_tls=True, timeout=0.2)


def test_a_connection_of_an_application_is_used_from_its_worker_threads(manager: FakeManager):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client:
            blocking = client.sync
            assert isinstance(blocking, Client)
            assert client.sync is blocking
            assert to_async(blocking) is client

            def work() -> Any:
                with blocking.link("Echo") as link:
                    return link.add(1, 2), link.acquire_lock(), link.release_lock()

            assert await trio.to_thread.run_sync(work) == (3, ["Client[vm:1]"], [])
            mine = await trio.to_thread.run_sync(lambda: connect(**manager.arguments(name="Mine")))
            assert mine.loop_thread_id == threading.get_ident()
            await trio.to_thread.run_sync(mine.disconnect)
            manager.answers["link"] = lambda session, line: session.fail(line, "KeyError: no") or NOTHING
            with pytest.raises(ManagerError):
                await trio.to_thread.run_sync(blocking.link, "Nope")

    trio.run(main)


def test_cancelling_an_application_cancels_what_its_threads_do(manager: FakeManager):
    manager.answers["link"] = manager.answers["hold"]

    async def main() -> None:
        async with async_connect(**manager.arguments()) as client:
            with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, client.sync.link, "Echo")
                    await trio.to_thread.run_sync(manager.next_held)
                    scope.cancel()
            assert scope.cancelled_caught

    trio.run(main)
