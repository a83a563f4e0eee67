"""Blocking calls: results, errors, timeouts, threads, cancellation, Ctrl-C."""

from __future__ import annotations

import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, LinkBroken, RemoteError, ReplyTimeout
from msl_network_trio import connect as async_connect
from msl_network_trio.sync import Client, Link, connect, request, to_async
from msl_network_trio.transport import tcp
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager


class Background:
    """A function that runs in a thread, and its outcome."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                self.outcome.put((function(*args, **kwargs), None))
            except BaseException as error:
                self.outcome.put((None, error))

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def result(self) -> Any:
        value, error = self.outcome.get(timeout=PATIENCE)
        self.thread.join(PATIENCE)
        if error is not None:
            raise error
        return value


# ---- one call ----


def test_a_call_returns_what_the_service_answers(link: Link):
    assert link.add(1, 2) == 3
    assert link.echo(1, x=[2]) == [[1], {"x": [2]}]


def test_many_calls_one_after_the_other_each_get_their_own_answer(link: Link):
    assert [link.add(n, 1) for n in range(500)] == [n + 1 for n in range(500)]


def test_a_thread_that_calls_often_reads_its_replies_itself(link: Link):
    lease = to_async(link)._state.session.connection.threads.lease
    if not tcp.TcpStream.threads_may_receive:
        pytest.skip("threads do not read on this platform")
    deadline = time.monotonic() + 20
    while lease._uses < 100 and time.monotonic() < deadline:
        assert link.add(1, 2) == 3
    assert lease._uses >= 100


@pytest.mark.parametrize("missing", ["poll", "sending"])
def test_it_works_where_threads_can_neither_read_nor_send(monkeypatch, manager: FakeManager, missing: str):
    monkeypatch.setattr(tcp.TcpStream, "threads_may_receive", False)
    if missing == "sending":
        monkeypatch.setattr(tcp.TcpStream, "thread_io", None)
    with connect(**manager.arguments()) as client, client.link("Echo") as link:
        assert [link.add(n, 1) for n in range(50)] == [n + 1 for n in range(50)]
        futures = [link.add(n, 1, asynchronous=True) for n in range(50)]
        assert [future.result(PATIENCE) for future in futures] == [n + 1 for n in range(50)]


def test_a_remote_error_is_raised_and_the_connection_stays_open(link: Link, manager: FakeManager):
    manager.answers["boom"] = lambda session, line: session.fail(line, "ValueError: boom") or NOTHING
    with pytest.raises(RemoteError, match="ValueError: boom") as caught:
        link.boom()
    assert caught.value.type_name == "ValueError"
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), RuntimeError)
    assert link.add(1, 2) == 3


def test_what_cannot_be_encoded_is_refused_before_anything_is_sent(link: Link):
    with pytest.raises(TypeError, match="^Object of type set is not JSON serializable$"):
        link.add({1, 2})
    with pytest.raises(ValueError, match="timeout must be a number of seconds from 0"):
        link.add(1, 2, timeout=-1)
    assert link.add(1, 2) == 3


def test_a_timeout_abandons_the_request_and_nothing_else(link: Link, manager: FakeManager):
    began = time.monotonic()
    with pytest.raises(ReplyTimeout, match=r"No reply to Echo.hold within 0.1 seconds") as caught:
        link.hold(timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 30
    assert caught.value.may_have_run
    session, line = manager.next_held()
    session.reply(line, "too late")
    assert link.add(1, 2) == 3


def test_a_timeout_holds_also_while_others_replies_keep_coming(link: Link, manager: FakeManager):
    for _ in range(200):
        link.add(1, 2)  # so that the next call takes the read lease
    call = Background(link.hold, timeout=0.3)
    session, _ = manager.next_held()
    began = time.monotonic()
    while call.thread.is_alive() and time.monotonic() - began < 10:
        session.notify("noise")
    with pytest.raises(ReplyTimeout):
        call.result()
    assert link.add(1, 2) == 3


def test_the_default_timeout_is_that_of_connect(manager: FakeManager):
    with connect(**manager.arguments(request_timeout=0.1)) as client:
        link = client.link("Echo")
        with pytest.raises(ReplyTimeout):
            link.silent()
        with pytest.raises(ReplyTimeout):
            link.silent(asynchronous=True).result(PATIENCE)


def test_a_lost_connection_wakes_every_thread_that_waits(link: Link, manager: FakeManager, client: Client):
    calls = [Background(link.hold) for _ in range(3)]
    sessions = [manager.next_held()[0] for _ in calls]
    sessions[0].close()
    for call in calls:
        with pytest.raises(ConnectionLost, match="may have been executed") as caught:
            call.result()
        assert caught.value.may_have_run
    assert not client.is_connected()
    with pytest.raises(ConnectionError, match="^Disconnected from Manager.*cannot send request to 'Echo'"):
        link.add(1, 2)


def test_a_large_message_is_sent_and_received_whole(link: Link):
    text = "x" * 5_000_000
    assert link.echo(text) == [[text], {}]
    assert link.add(1, 2) == 3


def test_a_call_waits_for_room_and_a_future_does_not(manager: FakeManager):
    started = threading.Event()
    go_on = threading.Event()

    def stall(session: Any, line: Any) -> Any:
        started.set()
        go_on.wait(PATIENCE)
        return "went on"

    manager.answers["stall"] = stall
    manager.answers["size"] = lambda session, line: len(line["args"][0])
    with connect(**manager.arguments(max_unsent=1_000_000)) as client:
        link = client.link("Echo")
        stalled = link.stall(asynchronous=True)
        assert started.wait(PATIENCE)
        with pytest.raises(BufferError, match="wait to be written"):
            while True:
                link.size("x" * 900_000, asynchronous=True)
        waiting = Background(link.size, "y" * 800_000)
        trio_statistics = to_async(client)._session.connection._queue._turns.statistics
        while (
            trio_statistics().tasks_waiting == 0
            and not to_async(client)._session.connection._queue._turns.locked()
        ):
            time.sleep(0.001)
        go_on.set()
        assert stalled.result(PATIENCE) == "went on"
        assert waiting.result() == 800_000


def test_every_name_of_the_service_can_be_requested(link: Link, manager: FakeManager):
    manager.answers["request"] = lambda session, line: [line["args"], line["kwargs"]]
    assert request(link, "request", [1], {"timeout": 2}, timeout=5) == [[1], {"timeout": 2}]
    assert link.request(1) == [[1], {}]  # no name of the class hides it
    with pytest.raises(TypeError, match="args must be a list or tuple"):
        request(link, "add", "12")


def test_a_call_through_a_broken_link_says_so(link: Link):
    add = link.add
    link.unlink()
    link.unlink()
    for call in (add, lambda *_: link.add(1, 2)):
        with pytest.raises(LinkBroken, match="^Cannot access 'add' since the link has been broken$"):
            call(1, 2)
    assert not hasattr(link, "add")


# ---- threads ----


def test_many_threads_each_get_their_own_answers(link: Link):
    def work(number: int) -> bool:
        mine = [number * 1000 + n for n in range(200)]
        return [link.add(n, 1) for n in mine] == [n + 1 for n in mine]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_slow_call_of_one_thread_delays_no_other(link: Link, manager: FakeManager):
    for _ in range(100):
        link.add(1, 2)
    slow = Background(link.hold)
    session, line = manager.next_held()
    assert [link.add(n, 1) for n in range(100)] == [n + 1 for n in range(100)]
    session.reply(line, "at last")
    assert slow.result() == "at last"


def test_threads_and_tasks_share_a_connection(manager: FakeManager):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            blocking = link.sync

            def work() -> bool:
                return [blocking.add(n, 1) for n in range(300)] == [n + 1 for n in range(300)]

            async def tasks() -> None:
                for n in range(300):
                    assert await link.add(n, 2) == n + 2

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tasks)
                    assert await trio.to_thread.run_sync(work)

    trio.run(main)


# ---- cancellation and Ctrl-C ----


@pytest.mark.parametrize("warm", [False, True])
def test_cancelling_the_task_of_a_worker_thread_ends_its_call(manager: FakeManager, warm: bool):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            blocking = link.sync
            if warm:
                await trio.to_thread.run_sync(lambda: [blocking.add(1, 2) for _ in range(100)])
            for abandon in (False, True):
                with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(
                            lambda: trio.to_thread.run_sync(blocking.hold, abandon_on_cancel=abandon)
                        )
                        await trio.to_thread.run_sync(manager.next_held)
                        scope.cancel()
                assert scope.cancelled_caught
            assert await link.add(1, 2) == 3

    trio.run(main)


def test_a_request_of_a_cancelled_task_is_not_sent(manager: FakeManager):
    async def main() -> None:
        async with async_connect(**manager.arguments()) as client, client.link("Echo") as link:
            session = manager.session()
            blocking = link.sync
            entered, go_on = threading.Event(), threading.Event()

            def work() -> None:
                entered.set()
                go_on.wait(PATIENCE)
                blocking.add(1, 2)

            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, work)
                    await trio.to_thread.run_sync(entered.wait)
                    scope.cancel()
                    with trio.CancelScope(shield=True):
                        await trio.testing.wait_all_tasks_blocked()
                    go_on.set()
            assert scope.cancelled_caught
            assert await link.echo() == [[], {}]
            assert "add" not in [line["attribute"] for line in session.lines]

    trio.run(main)


@pytest.mark.parametrize("warm", [False, True])
def test_ctrl_c_abandons_the_call_that_waits_and_nothing_else(link: Link, manager: FakeManager, warm: bool):
    if warm:
        for _ in range(100):
            link.add(1, 2)
    other = Background(link.hold)
    session, line = manager.next_held()

    def interrupt() -> None:
        manager.next_held()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupting = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        link.hold()
    interrupting.result()
    session.reply(line, "the other one")
    assert other.result() == "the other one"
    assert link.add(1, 2) == 3


@pytest.mark.usefixtures("ignored_interrupts")
def test_ctrl_c_in_the_midst_of_calls_never_breaks_the_connection(link: Link):
    stop = threading.Event()
    may_raise = False

    def interrupt() -> None:
        while not stop.is_set():
            time.sleep(0.002)  # not to wait for something, but to interrupt at any moment
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def on_sigint(number: int, frame: object) -> None:
        nonlocal may_raise
        if may_raise:  # only in the block below, and once: pytest must not be interrupted
            may_raise = False
            raise KeyboardInterrupt

    interrupted = 0
    interrupting = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, on_sigint)
    try:
        interrupting.start()
        deadline = time.monotonic() + 30
        while interrupted < 300 and time.monotonic() < deadline:
            try:
                may_raise = True
                assert link.add(interrupted, 1) == interrupted + 1
                assert link.add(interrupted, 2, asynchronous=True).result() == interrupted + 2
                may_raise = False
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        may_raise = False
        stop.set()
        interrupting.join()
        signal.signal(signal.SIGINT, before)
    assert interrupted >= 100
    assert link.add(1, 2) == 3


def test_an_exception_in_the_midst_of_sending_ends_one_call_and_not_the_connection(
    link: Link, client: Client, monkeypatch
):
    class Interrupted(BaseException):
        pass

    def interrupted(*_: Any) -> int:
        raise Interrupted("by a signal")

    monkeypatch.setattr(tcp.TcpStream, "send_in_thread", interrupted)
    with pytest.raises(Interrupted):
        link.add(1, 2)
    monkeypatch.undo()
    assert link.add(3, 4) == 7
    assert to_async(client)._session.connection.is_open


# ---- where blocking is refused ----


def test_a_blocking_call_in_the_trio_thread_raises_and_names_the_async_one(client: Client, link: Link):
    future = link.silent(asynchronous=True)

    async def main() -> None:
        for call, name in [
            (lambda: link.add(1, 2), r"await Link\.add\(\) of msl_network_trio"),
            (lambda: client.link("Echo"), r"await Client\.link\(\)"),
            (client.identities, r"await Client\.identities\(\)"),
            (link.acquire_lock, r"await Link\.acquire_lock\(\)"),
            (client.disconnect, r"await Client\.disconnect\(\)"),
            (connect, r"await connect\(\)"),
            (future.result, "await the Reply"),
        ]:
            with pytest.raises(RuntimeError, match=name):
                call()

    trio.run(main)
    assert link.add(1, 2) == 3


def test_a_blocking_call_works_beside_a_running_asyncio_loop(manager: FakeManager):
    # As in Jupyter, whose main thread runs one.
    import asyncio

    async def cell() -> int:
        with connect(**manager.arguments()) as client, client.link("Echo") as link:
            assert await asyncio.to_thread(link.add, 3, 4) == 7
            return link.add(1, 2)

    assert asyncio.run(cell()) == 3
