"""Notifications from tasks and threads, and the limit for a peer that does not read."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import BacklogFull, ConnectionLost, Service
from msl_network_trio.service.state import state_of

from .peer import running

pytestmark = pytest.mark.parametrize("carrier", ["memory", "tcp"])


class Emitting(Service):
    def __init__(self, **kwargs):
        super().__init__(name="Service", **kwargs)
        self._errors = []
        self._emitted = threading.Semaphore(0)

    def plain(self, count, size=0):
        for number in range(count):
            self.emit_notification(number, "x" * size)
            self._emitted.release()

    def threadsafe(self, count, size=0):
        for number in range(count):
            self.emit_notification_threadsafe(number, "x" * size)

    async def task(self, count, size=0):
        for number in range(count):
            self.emit_notification(number, "x" * size)

    async def patient_task(self, count, size=0):
        for number in range(count):
            self.emit_notification(number, "x" * size)
            await trio.lowlevel.checkpoint()

    async def at_once(self, *args):
        return None


METHODS = ["plain", "threadsafe", "task", "patient_task"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("count", "size"), [(1, 0), (100, 10), (5, 300_000)])
async def test_those_of_a_request_come_in_order_and_before_its_answer(carrier, method, count, size):
    async with running(Emitting(), carrier) as peer:
        uid = await peer.request(method, count, size)
        lines = [await peer.answer() for _ in range(count + 1)]
        assert lines.pop()["uid"] == uid
        for number, line in enumerate(lines):
            assert line == {
                "error": False,
                "result": [[number, "x" * size], {}],
                "service": "Service",
                "uid": "notification",
            }


async def test_they_come_from_tasks_and_threads_of_the_user(carrier):
    service = Emitting()
    async with running(service, carrier) as peer:
        service.emit_notification(a=1)
        assert (await peer.answer())["result"] == [[], {"a": 1}]
        await trio.to_thread.run_sync(service.emit_notification, 2)
        assert (await peer.answer())["result"] == [[2], {}]
        thread = threading.Thread(target=service.emit_notification, args=(3,))
        thread.start()
        assert (await peer.answer())["result"] == [[3], {}]
        thread.join()


async def test_one_that_is_emitted_by_a_method_that_goes_on_is_not_held_back(carrier):
    gate = threading.Event()

    class Slow(Emitting):
        def slow(self):
            self.emit_notification("soon")
            gate.wait()

    async with running(Slow(), carrier) as peer:
        await peer.request("slow")
        assert (await peer.answer())["result"] == [["soon"], {}]
        gate.set()


async def test_what_cannot_be_sent_is_an_error_of_the_caller(carrier):
    service = Emitting()
    async with running(service, carrier) as peer:
        with pytest.raises(TypeError, match="not JSON serializable"):
            service.emit_notification({1})
        with pytest.raises(ValueError, match="surrogates"):
            service.emit_notification("\ud800")
        assert await peer.call("at_once") is None


@pytest.mark.parametrize("method", ["emit_notification", "emit_notification_threadsafe"])
async def test_without_a_connection_there_are_none(carrier, method):
    service = Emitting()
    with pytest.raises(ConnectionLost, match="not connected"):
        getattr(service, method)(1)
    async with running(service, carrier):
        pass
    with pytest.raises(ConnectionLost, match="not connected"):
        getattr(service, method)(1)


async def test_a_full_queue_is_an_error_in_the_trio_thread(carrier):
    service = Emitting()
    async with running(service, carrier, max_unsent=1_000_000) as peer:
        count = 0
        with pytest.raises(BacklogFull, match="max_unsent is 1,000,000"):
            for _ in range(1000):
                service.emit_notification(count, "x" * 100_000)
                count += 1
        for number in range(count):
            assert (await peer.answer())["result"][0][0] == number
        service.emit_notification("again")
        assert (await peer.answer())["result"] == [["again"], {}]


@pytest.mark.parametrize("max_unsent", [1_000_000, 64_000_000])
async def test_a_thread_waits_before_answers_have_to_wait_long_behind_it(carrier, max_unsent):
    service = Emitting()
    async with running(service, carrier, max_unsent=max_unsent) as peer:
        uid = await peer.request("plain", 50, 100_000)
        await trio.to_thread.run_sync(service._emitted.acquire)
        await peer.request("at_once")
        numbers = []
        while (line := await peer.answer())["uid"] != uid:
            if line["uid"] == "notification":
                numbers.append(line["result"][0][0])
                connection = state_of(service).connection
                assert connection is not None
                assert connection._send_queue.unsent < 1_300_000
        assert numbers == list(range(50))


async def test_the_end_is_an_error_in_a_thread_that_waits(carrier):
    service = Emitting()

    def emit():
        with pytest.raises(ConnectionLost):
            for number in range(1000):
                service.emit_notification(number, "x" * 100_000)
                service._emitted.release()
        return "told"

    async with running(service, carrier, max_unsent=1_000_000) as peer, trio.open_nursery() as nursery:
        told = []

        async def run():
            told.append(await trio.to_thread.run_sync(emit))

        nursery.start_soon(run)
        for _ in range(5):
            await trio.to_thread.run_sync(service._emitted.acquire)
        peer.transport.close()
        await peer.ended.wait()
    assert told == ["told"]


async def test_requests_are_not_read_while_too_much_waits_to_be_written(carrier):
    service = Emitting()
    reached = []
    service.note = reached.append
    async with running(service, carrier, max_unsent=1_000_000) as peer:
        service.emit_notification("x" * 10_000_000)
        assert peer.nursery is not None
        # The first may arrive before the Service checks how much is queued.
        for number in range(3):
            await peer.request("note", number)
            await wait_all_tasks_blocked()
        assert len(reached) <= 1
        assert len((await peer.answer())["result"][0][0]) == 10_000_000
        for _ in range(3):
            assert (await peer.answer())["result"] is None
        assert sorted(reached) == [0, 1, 2]  # worker threads: in any order


@pytest.mark.parametrize("method", ["wait", "async_wait"])
async def test_requests_are_not_read_while_too_many_are_to_be_carried_out(carrier, method):
    gate = threading.Event()

    class Waiting(Emitting):
        begun = 0
        _gate = trio.Event()

        def wait(self, text):
            gate.wait()
            return len(text)

        async def async_wait(self, text):
            self.begun += 1
            await self._gate.wait()
            return len(text)

    service = Waiting(max_workers=1)
    async with running(service, carrier, max_unsent=100_000) as peer:
        sent = 0

        async def ask():
            nonlocal sent
            for _ in range(100):
                await peer.request(method, "x" * 20_000)
                sent += 1

        assert peer.nursery is not None
        peer.nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        connection = state_of(service).connection
        assert connection is not None
        dispatcher = connection._dispatcher
        waiting = dispatcher.tasks.waiting + dispatcher._methods.waiting
        assert 100_000 < waiting < 300_000
        gate.set()
        service._gate.set()
        for _ in range(100):
            assert (await peer.answer())["result"] == 20_000
        assert dispatcher.tasks.waiting + dispatcher._methods.waiting == 0
