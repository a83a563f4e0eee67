"""Exceptions in threads that use the blocking API: from signal handlers, Ctrl-C, and other threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msl_network_trio import ConnectionLost, RemoteError, ReplyTimeout
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.job_thread import JobThread
from msl_network_trio.portal.waiting import Latch, release_if_held
from msl_network_trio.sync import Client, Link, LinkedClient, connect, notifications, to_async
from msl_network_trio.sync import futures as futures_module
from msl_network_trio.transport import tcp
from tests.injector import EVERY_STEP, FOLDER, Injector, isolated, numbers
from tests.patience import PATIENCE
from tests.sync.manager import NOTHING, FakeManager, Session
from tests.sync.waiting import wait_until
from tests.transport.certificates import ordinary

pytestmark = pytest.mark.usefixtures("ignored_interrupts")

SAMPLE = 8
LARGE = "x" * 300_000


class Stop(Exception):
    """Raised by a signal handler, or injected."""


@pytest.fixture(params=["TCP", "TLS"])
def manager(request) -> Iterator[FakeManager]:
    manager = FakeManager(ordinary().server_context() if request.param == "TLS" else None)
    yield manager
    manager.close()


@pytest.fixture
def arguments(manager: FakeManager, tmp_path) -> dict[str, Any]:
    if manager.context is None:
        return manager.arguments()
    file = tmp_path / "certificate.pem"
    file.write_text(ordinary().pem)
    return manager.arguments(cert_file=file)


@pytest.fixture
def client(arguments) -> Iterator[Client]:
    with connect(**arguments) as client:
        yield client


def injected() -> None:
    raise Stop


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def another_signal() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(params=[ctrl_c, another_signal, injected], ids=lambda function: function.__name__)
def interrupt(request) -> Iterator[Callable[[], None]]:
    """Exceptions that interrupt the thread; a handler of SIGTERM raises one that could be an error of a socket."""

    def handler(*_: object) -> None:
        raise TimeoutError("raised by the handler")

    before = signal.signal(signal.SIGTERM, handler)
    yield request.param
    signal.signal(signal.SIGTERM, before)


INTERRUPTS = (Stop, TimeoutError, KeyboardInterrupt)


# ---- each step of operations on a connection ----


def call(client: Client, link: Link) -> None:
    assert link.add(1, 2) == 3


def large_call(client: Client, link: Link) -> None:
    assert link.echo(LARGE) == [[LARGE], {}]


def failing_call(client: Client, link: Link) -> None:
    with contextlib.suppress(RemoteError):
        link.missing()


def call_that_times_out(client: Client, link: Link) -> None:
    with contextlib.suppress(ReplyTimeout):
        link.silent(timeout=0.001)


def futures(client: Client, link: Link) -> None:
    results = [link.add(number, 1, asynchronous=True) for number in range(3)]
    assert [future.result() for future in results] == [1, 2, 3]


def future_with_callback(client: Client, link: Link) -> None:
    is_called = threading.Event()
    future = link.add(1, 1, asynchronous=True)
    future.add_done_callback(lambda _: is_called.set())
    assert future.result() == 2
    is_called.wait()


def future_cancelled(client: Client, link: Link) -> None:
    link.silent(asynchronous=True).cancel()


def lock_scope(client: Client, link: Link) -> None:
    with link.acquire_lock():
        assert link.add(1, 2) == 3


def link_scope(client: Client, link: Link) -> None:
    with client.link("Echo") as other:
        assert other.add(1, 2) == 3


def stream(client: Client, link: Link) -> None:
    with notifications(link) as numbers_of_the_service:
        link.notify(2)
        assert next(numbers_of_the_service).args == [0]


def identities(client: Client, link: Link) -> None:
    client.identities()


OPERATIONS = [
    call,
    large_call,
    failing_call,
    call_that_times_out,
    futures,
    future_with_callback,
    future_cancelled,
    lock_scope,
    link_scope,
    stream,
    identities,
]


def is_locked(session: Session) -> bool:
    """Return whether the last request about the lock is one to acquire it."""
    attributes = [line["attribute"] for line in session.lines if "lock" in line["attribute"]]
    return attributes[-1:] == ["acquire_lock"]


def has_released_nothing(error: BaseException) -> bool:
    """Return whether it was raised in an ``__exit__`` before the block of `Portal.end` that cleans up."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if FOLDER in frame.filename]
    if not frames:
        return False
    name, line = frames[-1].name, frames[-1].line or ""
    return name == "__exit__" or (name == "end" and line.startswith(("def end(", "try:")))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # interrupted before its await
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_exception_at_any_step_ends_one_call_and_not_the_connection(
    manager: FakeManager, client: Client, operation, interrupt
):
    link = client.link("Echo")
    session = manager.session()

    @isolated
    def run(number: int) -> Injector:
        link.add(0, 0)  # so that this thread takes the read lease
        with Injector(number, interrupt) as injector:
            operation(client, link)
        return injector

    for number in numbers(lambda: run(0).steps, SAMPLE):
        injector = None
        try:
            injector = run(number)
        except INTERRUPTS as error:
            if has_released_nothing(error):
                link.release_lock(timeout=20)
        # It may take fewer steps, if another thread was faster than before.
        assert injector is None or injector.where is None, f"swallowed at step {number}, {injector.where}"
        for value in range(3):
            assert link.add(number, value, timeout=20) == number + value, f"after step {number}"
        # The Trio thread may still have to release it.
        wait_until(lambda: not is_locked(session))
    assert to_async(client)._session.connection.is_open


def wait_in_call(link: Link) -> None:
    assert link.notify(2, timeout=20) == "notified"


def wait_in_failing_call(link: Link) -> None:
    with contextlib.suppress(RemoteError):
        link.notify_and_fail(2, timeout=20)


def wait_in_result(link: Link) -> None:
    assert link.notify(2, asynchronous=True).result() == "notified"


def wait_after_as_completed(link: Link) -> None:
    for future in concurrent.futures.as_completed([link.notify(2, asynchronous=True)]):
        assert future.result(PATIENCE) == "notified"


@pytest.mark.parametrize(
    "operation",
    [wait_in_call, wait_in_failing_call, wait_in_result, wait_after_as_completed],
    ids=lambda operation: operation.__name__,
)
def test_an_exception_while_a_call_waits_for_a_handler_ends_that_call_alone(
    manager: FakeManager, client: Client, operation, interrupt
):
    def notify_and_fail(session: Session, line: dict[str, Any]) -> object:
        manager._notify(session, line)
        session.fail(line, "ValueError: emitted and failed")
        return NOTHING

    manager.answers["notify_and_fail"] = notify_and_fail
    link = client.link("Echo")
    mailbox = to_async(link)._state.handler_runner._mailbox
    handled: list[int] = []
    has_waited = False
    is_over = threading.Event()

    def handler(number: int) -> None:
        nonlocal has_waited
        while not (is_over.is_set() or mailbox.waiters):
            time.sleep(0)
        has_waited |= bool(mailbox.waiters)
        handled.append(number)

    link.notification_handler = handler

    @isolated
    def run(number: int) -> Injector:
        is_over.clear()
        link.add(0, 0)  # so that this thread takes the read lease
        with Injector(number, interrupt) as injector:
            operation(link)
        return injector

    for number in numbers(lambda: run(0).steps, SAMPLE):
        injector = None
        try:
            injector = run(number)
        except INTERRUPTS:
            pass
        assert injector is None or injector.where is None, f"swallowed at step {number}, {injector.where}"
        is_over.set()
        link.add(number, 0, timeout=20)
        handled.clear()
        assert link.notify(3, timeout=20) == "notified"
        assert handled[-3:] == [0, 1, 2], f"after step {number}"
        assert not mailbox.waiters, f"after step {number}"
    assert has_waited
    assert to_async(client)._session.connection.is_open


STANDARD_LIBRARY = (os.sep + "futures" + os.sep + "_base.py", os.sep + "threading.py")


def results(link: Link) -> None:
    futures = [link.add(number, 1, asynchronous=True) for number in range(3)]
    while not all(future.done() for future in futures):
        pass
    assert [future.result() for future in futures] == [1, 2, 3]
    assert futures[0].exception() is None


def as_completed(link: Link) -> None:
    futures = [link.add(number, 1, asynchronous=True) for number in range(3)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures)) == [1, 2, 3]


def waited_for(link: Link) -> None:
    futures = [link.add(number, 1, asynchronous=True) for number in range(3)]
    assert concurrent.futures.wait(futures).done == {*futures}


def cancelled_before_another_waits(link: Link) -> None:
    future = link.add(1, 2, asynchronous=True)
    future.cancel()
    assert future.done()


@pytest.mark.parametrize(
    "operation",
    [results, as_completed, waited_for, cancelled_before_another_waits],
    ids=lambda operation: operation.__name__,
)
def test_an_exception_in_the_standard_library_stops_no_other_thread(
    client: Client, operation, interrupt, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(futures_module._LockTimeout, "seconds", 0.01)
    link = client.link("Echo")

    @isolated
    def run(number: int) -> Injector:
        link.add(0, 0)
        with Injector(number, interrupt, STANDARD_LIBRARY) as injector:
            operation(link)
        return injector

    for number in numbers(lambda: run(0).steps, SAMPLE):
        try:
            run(number)
        except (*INTERRUPTS, RuntimeError):  # the library may release a lock twice
            pass
        assert link.add(number, 1, timeout=20) == number + 1, f"after step {number}"
    with client.link("Echo") as other:  # which the Trio thread does
        assert other.add(1, 2) == 3


def test_a_future_whose_lock_is_never_released_stops_no_other_thread(manager: FakeManager, client: Client):
    link = client.link("Echo")
    stuck = [link.silent(asynchronous=True) for _ in range(3)]
    for future in stuck:
        future._condition.acquire()  # as an interrupted concurrent.futures.wait() does
    ends = threading.Thread(target=client.disconnect)
    ends.start()
    ends.join(PATIENCE)
    assert not ends.is_alive()
    assert all(isinstance(future.exception(20), ConnectionLost) for future in stuck)


def test_interrupted_calls_are_forgotten(client: Client, interrupt):
    link = client.link("Echo")
    for number in range(1, 200, 1 if EVERY_STEP else 20):
        try:
            with Injector(number, interrupt):
                link.silent(timeout=0.001)
        except INTERRUPTS:
            pass
    link.add(1, 2)
    connection = to_async(client)._session.connection
    wait_until(lambda: not connection.protocol.open)  # the Trio thread abandons what was interrupted
    assert connection.threads.lease.holder is None


# ---- each step of opening a connection ----


def connected_scope(arguments: dict[str, Any]) -> None:
    with connect(**arguments) as client:
        client.identities()


def spawned(arguments: dict[str, Any]) -> None:
    with connect(**arguments) as client, client.spawn("Other"):
        pass


def linked_client(arguments: dict[str, Any]) -> LinkedClient:
    with LinkedClient("Echo", **arguments) as client:
        assert client.add(1, 2) == 3
    return client  # else its finalizer runs, whose exceptions Python ignores


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # interrupted before its await
@pytest.mark.parametrize(
    "operation", [connected_scope, spawned, linked_client], ids=lambda operation: operation.__name__
)
def test_an_exception_while_it_connects_leaves_no_connection(
    manager: FakeManager, arguments, operation, interrupt
):
    @isolated
    def run(number: int) -> Injector:
        with Injector(number, interrupt) as injector:
            kept = operation(arguments)
        del kept
        return injector

    manager.answers["identity"] = lambda session, line: {**manager.registry(), "services": {"Echo": {}}}
    for number in numbers(lambda: run(0).steps, SAMPLE):
        try:
            run(number)
        except INTERRUPTS:
            pass
    with connect(**arguments) as client:
        assert client.link("Echo").add(1, 2) == 3


# ---- at random moments ----


def inject(thread: threading.Thread, exception: type[BaseException]) -> None:
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(exception))


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs PyThreadState_SetAsyncExc")
def test_exceptions_that_another_thread_injects_lose_no_connection(manager: FakeManager, client: Client):
    link = client.link("Echo")
    wanted = 10_000 if EVERY_STEP else 300
    caught = 0
    unexpected: list[BaseException] = []
    is_over = threading.Event()

    def poll() -> None:
        nonlocal caught
        number = 0
        while not (is_over.is_set() or unexpected):
            try:
                try:
                    while not is_over.is_set():
                        number += 1
                        if link.add(number, 1) != number + 1:
                            raise AssertionError("a wrong result")
                except Stop:
                    caught += 1
            except Stop:
                caught += 1
            except BaseException as error:
                unexpected.append(error)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    while thread.is_alive() and caught < wanted:
        before = caught
        inject(thread, Stop)
        while thread.is_alive() and caught == before:
            time.sleep(0.0001)
    is_over.set()
    thread.join(PATIENCE)
    assert not unexpected
    assert not thread.is_alive()
    assert link.add(1, 2) == 3


def test_a_signal_handler_that_raises_loses_no_connection(manager: FakeManager, client: Client, monkeypatch):
    if not hasattr(signal, "setitimer"):
        pytest.skip("there are no timers")
    raised = 0
    ignored: list[object] = []  # by Python: in a callback of the garbage collector, for example
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)

    def handler(*_: object) -> None:
        nonlocal raised
        raised += 1
        raise TimeoutError("by the alarm")

    link = client.link("Echo")
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for number in range(2000 if EVERY_STEP else 60):
            raised = 0
            ignored.clear()
            with pytest.raises(TimeoutError, match="by the alarm") as caught:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0005 + number % 7 * 0.0001, 0.5)
                    while True:
                        assert link.add(number, 1) == number + 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert raised == 1 or ignored or isinstance(caught.value.__context__, TimeoutError), "swallowed"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert link.add(1, 2) == 3


def test_what_a_handler_raises_is_not_taken_for_a_connection_that_has_ended():
    class Interrupted:
        def setsockopt(self, *_: object) -> None:
            raise TimeoutError("by a handler")

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sock,
    ):
        transport = tcp.TcpStream(sock)
        transport._sock = Interrupted()
        with pytest.raises(TimeoutError, match="by a handler"):
            transport._linger(tcp.RESET)
        transport._sock = sock
    transport._linger(tcp.RESET)  # the socket is closed, which is no error


def test_what_a_handler_raises_is_no_error_of_the_socket():
    def by_a_handler() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError) as caught:
        by_a_handler()
    with pytest.raises(ConnectionResetError):
        tcp.reraise_if_injected(caught.value)
    with pytest.raises(TimeoutError):
        tcp.reraise_if_injected(TimeoutError("of a handler"))


# ---- critical sections ----


@pytest.fixture
def two_handlers() -> Iterator[list[int]]:
    calls: list[int] = []

    def handler(number: int, _: object) -> None:
        calls.append(number)
        raise Stop(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    yield calls
    for number, old in before.items():
        signal.signal(number, old)


def test_all_handlers_are_deferred_and_each_is_called_once(two_handlers: list[int]):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    is_complete = False

    def section() -> None:
        nonlocal is_complete
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        is_complete = not two_handlers

    with pytest.raises(Stop):
        uninterrupted(section)
    assert is_complete
    assert sorted(two_handlers) == sorted([signal.SIGTERM, signal.SIGINT])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_handlers_are_set_again_wherever_one_of_them_raises(two_handlers: list[int]):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    uninterrupted(len, "x")  # the first time it takes more steps
    steps = _steps_of(lambda: uninterrupted(len, "x"))
    for how in (another_signal, injected):
        for number in range(1, steps + 1):
            with pytest.raises(Stop), Injector(number, how):
                uninterrupted(len, "x")
            assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def _steps_of(function: Callable[[], object]) -> int:
    with Injector(0, injected) as injector:
        function()
    return injector.steps


def test_a_latch_wakes_all_that_wait_and_stays_set():
    latch = Latch()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(latch.timed_wait(20))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not latch.timed_wait(0)
    latch.set()
    latch.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [True] * 3
    assert latch.timed_wait(0)


def test_a_lock_is_let_go_by_the_thread_that_holds_it_only():
    lock = threading.RLock()
    release_if_held(lock)
    lock.acquire()
    release_if_held(lock)
    assert concurrent.futures.ThreadPoolExecutor(1).submit(lock.acquire, False).result()


# ---- threads of the package ----


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs PyThreadState_SetAsyncExc")
def test_an_exception_that_hits_the_thread_of_a_handler_does_not_end_it(client: Client, caplog):
    link = client.link("Echo")
    handled: list[int] = []
    threads: list[threading.Thread] = []
    is_handled = threading.Event()

    def handler(number: int) -> None:
        threads.append(threading.current_thread())
        handled.append(number)
        is_handled.set()

    link.notification_handler = handler
    link.notify(1)
    assert is_handled.wait(PATIENCE)
    for _ in range(20):
        inject(threads[0], Stop)  # while it waits for the next one
        is_handled.clear()
        link.notify(1)
        assert is_handled.wait(PATIENCE)
    assert set(threads) == {threads[0]}


def test_jobs_of_a_worker_run_once_each_at_whatever_step_it_is_interrupted(monkeypatch):
    done: list[int] = []
    worker = JobThread("interrupted")
    is_over = threading.Event()
    for number in range(100):
        worker.submit(lambda number=number: done.append(number))
        inject(next(t for t in threading.enumerate() if t.name == "interrupted"), Stop)
    worker.submit(is_over.set)
    assert is_over.wait(PATIENCE)
    # The exception may interrupt a job, which is then not called again.
    assert done == sorted(set(done))


# ---- waits ----


def run_program(source: str, *arguments: object) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(os.name == "nt", reason="has no limit of descriptors")
def test_without_a_free_descriptor_connect_raises_and_works_again_later():
    manager = FakeManager()
    lines = run_program(
        """
        import os, resource, sys
        from msl_network_trio import ConnectError
        from msl_network_trio.sync import connect
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        arguments = {"host": "127.0.0.1", "port": int(sys.argv[1]), "disable_tls": True, "timeout": 30}
        for _ in range(2):
            try:
                connect(**arguments)
            except ConnectError as error:
                print(error)
        for descriptor in taken:
            os.close(descriptor)
        with connect(**arguments) as client:
            print(client.link("Echo").add(1, 2))
        """,
        manager.port,
    )
    manager.close()
    assert len(lines) == 3
    assert all("Cannot start the event loop" in line and "open files" in line for line in lines[:2])
    assert lines[2] == "3"


def test_functions_of_atexit_that_were_registered_before_connect_can_use_the_link():
    manager = FakeManager()
    lines = run_program(
        """
        import atexit, sys
        from msl_network_trio.sync import connect
        atexit.register(lambda: print("before", link.add(1, 2)))
        link = connect(host="127.0.0.1", port=int(sys.argv[1]), disable_tls=True).link("Echo")
        atexit.register(lambda: print("after", link.add(3, 4)))
        """,
        manager.port,
    )
    session = manager.session()
    session.ended.wait(PATIENCE)
    manager.close()
    assert lines == ["after 7", "before 3"]
    assert session.said_goodbye


def test_a_thread_that_cannot_be_started_is_an_error_that_says_so(monkeypatch, manager: FakeManager):
    from msl_network_trio import ConnectError
    from msl_network_trio.portal import background_thread

    monkeypatch.setattr(background_thread, "current", background_thread._Global())

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectError, match="background thread .* can't start new thread"):
            background_thread.current_portal()
    assert background_thread.current.thread is None
    background_thread.current_portal()
    assert background_thread.current.thread is not None
    background_thread.current.thread.end(20)
