"""Exceptions that are injected into the worker threads of a Service, at any step."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from msl_network_trio import ConnectionLost, Service
from msl_network_trio import logger as logger_module
from msl_network_trio.dialing.trust import client_context
from msl_network_trio.service.state import state_of
from msl_network_trio.service.threads import WorkerThread, WorkerThreads
from msl_network_trio.transport import tcp_connect
from msl_network_trio.transport.tls_handshake import accept_tls, open_tls
from tests.injector import EVERY_STEP, Injector, numbers
from tests.patience import PATIENCE
from tests.transport.certificates import ordinary
from tests.transport.peers import serving

from .peer import Peer, running

pytestmark = [
    pytest.mark.usefixtures("ignored_interrupts"),
    pytest.mark.skipif(
        sys.implementation.name != "cpython", reason="needs what the interpreter does in one step"
    ),
]

SAMPLE = 6

LARGE = 700_000
"""Bytes of a result that the kernel does not take at once."""


class Stop(Exception):
    """The injected exception."""


class Steps(Injector):
    """Steps at which the interpreter looks for exceptions of other threads: behind calls and at entries."""

    def _in_function(self, frame: Any, event: str, argument: Any) -> Any:
        return self._in_function if event == "line" else super()._in_function(frame, event, argument)


@pytest.fixture(autouse=True)
def records_may_be_cut(monkeypatch):
    """Accept log records that an injected exception has cut short."""
    monkeypatch.setattr(logger_module, "failures", logger_module.Failures())


class Instrument(Service):
    def __init__(self) -> None:
        super().__init__(name="Service", max_workers=1)
        self.calls: Counter[int] = Counter()

    def plain(self, number: int) -> int:
        self.calls[number] += 1
        return number

    def fail(self, number: int) -> None:
        self.calls[number] += 1
        raise ValueError(number)

    def large(self, number: int) -> str:
        self.calls[number] += 1
        return "x" * LARGE

    def emit(self, number: int) -> int:
        self.calls[number] += 1
        self.emit_notification(number)
        return number

    def emit_large(self, number: int) -> int:
        self.calls[number] += 1
        self.emit_notification("x" * LARGE)
        return number

    def passed_on(self, number: int) -> Any:
        self.calls[number] += 1
        return self.later(number)

    async def later(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number

    @property
    def value(self) -> int:
        return 0

    @property
    def found(self) -> Callable[[int], int]:
        return self.plain


@pytest.fixture
def inject(monkeypatch) -> Callable[[int, bool], list[Steps]]:
    """Raise an exception at a step of a worker thread; return the injectors that were used."""
    work_on = WorkerThreads._work_on

    def inject(number: int, looks_up: bool) -> list[Steps]:
        injectors: list[Steps] = []

        def work(self: WorkerThreads, thread: WorkerThread) -> None:
            if thread.looks_up is not looks_up or injectors:
                work_on(self, thread)
                return
            injectors.append(Steps(number, _stop))
            with injectors[0]:
                work_on(self, thread)

        monkeypatch.setattr(WorkerThreads, "_work_on", work)
        return injectors

    return inject


def _stop() -> None:
    raise Stop


async def answered(peer: Peer, attribute: str, numbers: list[int]) -> int:
    """Make requests one after the other, check that each gets one reply, and count the injected errors."""
    hit = 0
    for number in numbers:
        uid = await peer.request(attribute, *(() if attribute == "value" else (number,)))
        while True:
            answer = await peer.answer()
            if answer["uid"] != "notification":
                break
        assert answer["uid"] == uid
        if answer["error"]:
            hit += "Stop" in answer["message"]
            assert attribute == "fail" or "Stop" in answer["message"], answer
        elif attribute != "large":
            assert answer["result"] == number
    return hit


async def go_through(peer: Peer, service: Instrument, attribute: str) -> None:
    with trio.fail_after(PATIENCE):
        # The first requests are submitted to the thread, which then reads the next ones itself.
        hit = await answered(peer, attribute, list(range(6)) if attribute != "value" else [0] * 6)
        hit += await answered(peer, "plain", list(range(100, 105)))
        assert hit <= 1
        served = state_of(service).connection
        assert served is not None
        assert max(service.calls.values()) == 1, "a request was repeated"
        began = trio.current_time()
        peer.scope.cancel()
        await peer.expect_goodbye()
        await peer.ended.wait()
        assert peer.error is None
        assert trio.current_time() - began < 2 or not EVERY_STEP, "something counts as not done"
        assert served._send_queue.unsent == 0
        assert served._is_quiet()
        assert served._dispatcher._methods.waiting == served._dispatcher._properties.waiting == 0


@pytest.fixture(params=["TCP", "TLS", "memory"])
async def carrier(request, monkeypatch) -> Any:
    if request.param != "TLS":

        async def none_to_dial() -> str:
            return "tcp" if request.param == "TCP" else "memory"

        yield none_to_dial
        return
    put, take = trio.open_memory_channel[Any](1)

    async def accept(stream: Any) -> None:
        put.send_nowait(await accept_tls(tcp_connect.detach_socket(stream), ordinary().server_context()))

    async with serving(accept) as server:

        async def pair() -> tuple[Any, Any]:
            trust = client_context(ordinary().pem, check_hostname=True)
            ours, _ = await open_tls("localhost", server.port, trust)
            return ours, await take.receive()

        async def dial_next() -> str:
            ends = await pair()
            monkeypatch.setattr("tests.service.peer.tcp_pair", lambda: ends)
            return "tcp"

        yield dial_next


OPERATIONS = ["plain", "fail", "large", "emit", "emit_large", "passed_on", "value", "found"]


# A coroutine that a method has returned when the exception arrives may be lost before it can be closed.
@pytest.mark.filterwarnings("ignore:coroutine 'Instrument.later' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("attribute", OPERATIONS)
async def test_an_exception_at_a_step_of_a_thread_costs_at_most_one_request(
    attribute, carrier, inject, caplog
):
    looks_up = attribute in ("value", "found")

    async def attempt(number: int) -> Steps:
        kind = await carrier()
        injectors = inject(number, looks_up)
        service = Instrument()
        async with running(service, kind) as peer:
            try:
                await go_through(peer, service, attribute)
            except BaseException as error:
                error.add_note(f"step {number}: {injectors[0].where if injectors else None}")
                raise
        return injectors[0]

    counted = 0
    for _ in range(20):  # it is not determined which of the threads does the work
        counted = max(counted, (await attempt(0)).steps)
        if counted > SAMPLE:
            break
    hit = 0
    for number in numbers(lambda: counted, SAMPLE):
        hit += (await attempt(number)).where is not None
    assert hit
    caplog.clear()


def _inject(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Stop))


@pytest.fixture
def threads() -> Callable[[], list[threading.Thread]]:
    before = set(threading.enumerate())
    return lambda: [each for each in threading.enumerate() if each not in before and "Service" in each.name]


@pytest.mark.filterwarnings("ignore:coroutine 'Instrument.later' was never awaited:RuntimeWarning")
async def test_exceptions_injected_by_chance_cost_no_thread_and_no_connection(threads, caplog):
    service = Instrument()
    wanted = 10_000 if EVERY_STEP else 200
    injected = 0
    async with running(service, "tcp") as peer:
        with trio.fail_after(10 * PATIENCE if EVERY_STEP else PATIENCE):
            number = 0
            while injected < wanted:
                attribute = ("plain", "emit", "passed_on", "fail", "plain", "found")[number % 6]
                uid = await peer.request(attribute, number)
                if number % 3 == 0:
                    for thread in threads():
                        _inject(thread)
                        injected += 1
                while (answer := await peer.answer())["uid"] != uid:
                    assert answer["uid"] == "notification"
                if answer["error"]:
                    assert attribute == "fail" or "Stop" in answer["message"]
                number += 1
            assert len(threads()) == 2, "a thread is gone"
            for _ in range(10):  # the last exception may not have been raised yet
                with suppress(AssertionError):
                    assert await peer.call("plain", -1) == -1
            assert await peer.call("plain", -2) == -2
    assert max(count for number, count in service.calls.items() if number >= 0) == 1
    assert isinstance(peer.error, ConnectionLost), "we have closed it"
    caplog.clear()


async def test_a_thread_of_the_program_that_is_interrupted_while_it_emits_leaves_the_rest_in_order(
    carrier, caplog
):
    async def attempt(number: int) -> Steps:
        kind = await carrier()
        service = Instrument()
        steps = Steps(number, _stop)

        def emit() -> None:
            with steps, suppress(Stop):
                for size in (1, LARGE, 2):
                    service.emit_notification("x" * size)

        async with running(service, kind) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, emit)
            with trio.fail_after(PATIENCE):
                assert await _result(peer, await peer.request("plain", 1)) == 1
                uid = await peer.request("emit", 2)
                assert await _result(peer, uid) == 2
        return steps

    counted = (await attempt(0)).steps
    for number in numbers(lambda: counted, SAMPLE):
        await attempt(number)


async def _result(peer: Peer, uid: str) -> Any:
    while (answer := await peer.answer())["uid"] != uid:
        assert answer["uid"] == "notification", answer
    return answer["result"]


@pytest.mark.parametrize("others", [0, 1])
async def test_a_thread_that_cannot_be_started_costs_no_answer_and_repeats_no_request(
    others, monkeypatch, caplog
):
    class Two(Instrument):
        def __init__(self) -> None:
            super().__init__()
            state_of(self).max_workers = 2
            self.gate = threading.Event()

        def wait(self) -> str:
            assert self.gate.wait(PATIENCE)
            return "waited"

    service = Two()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("Service"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async with running(service, "tcp") as peer:
        with trio.fail_after(PATIENCE):
            if others:
                first = await peer.request("wait")
                while not state_of(service).connection._dispatcher._methods.running:
                    await trio.sleep(0)
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                second = await peer.request("plain", 7)
                if others:
                    await peer.request("later", 1)
                    assert (await peer.answer())["result"] == 1
                else:
                    answer = await peer.answer()
                    assert (answer["uid"], answer["error"]) == (second, True)
                    assert "can't start new thread" in answer["message"]
            service.gate.set()
            if others:
                assert {(await peer.answer())["uid"] for _ in range(2)} == {first, second}
            assert await peer.call("plain", 8) == 8
            assert service.calls == {7: others, 8: 1} or service.calls == {8: 1}
            assert state_of(service).connection._dispatcher._methods.waiting == 0
    caplog.clear()


async def test_an_exception_whose_text_raises_costs_no_answer_and_no_thread():
    class Worst(BaseException):
        def __str__(self) -> str:
            raise Worst

        __repr__ = __str__

    class Hopeless(Instrument):
        def worst(self) -> None:
            raise Worst

    async with running(Hopeless(), "tcp") as peer:
        with trio.fail_after(PATIENCE):
            assert "Worst" in (await peer.fail("worst"))["message"]
            assert await peer.call("plain", 1) == 1
