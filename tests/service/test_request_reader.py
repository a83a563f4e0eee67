"""Reading of requests in worker threads: no request is lost, repeated, or held up."""

from __future__ import annotations

import logging
import threading
from contextlib import asynccontextmanager

import pytest
import trio

from msl_network_trio import ConnectionLost, Service
from msl_network_trio.dialing.trust import client_context
from msl_network_trio.service.request_lease import RequestLease
from msl_network_trio.service.request_reader import RequestReader
from msl_network_trio.service.state import state_of
from msl_network_trio.transport import tcp, tcp_connect
from msl_network_trio.transport.tls_handshake import accept_tls, open_tls
from tests.patience import PATIENCE
from tests.transport.certificates import ordinary
from tests.transport.peers import serving

from .peer import running

pytestmark = pytest.mark.skipif(
    not tcp.TcpStream.threads_may_receive, reason="threads do not read on this platform"
)


class Instrument(Service):
    def __init__(self, **kwargs):
        super().__init__(name="Service", **kwargs)
        self.calls = 0
        self.gate = threading.Event()
        self.meeting = threading.Barrier(3)

    def add(self, a, b):
        return a + b

    def large(self, size):
        self.calls += 1
        return "x" * size

    def wait(self, seriously):
        if seriously:
            assert self.gate.wait(PATIENCE)
        return seriously

    def meet(self, seriously):
        if seriously:
            self.meeting.wait(PATIENCE)
        return seriously

    def emit(self, number):
        self.emit_notification(number)
        return number

    def passed_on(self, number):
        return self.at_once(number) if number < 0 else number

    def shutdown_service(self):
        return "bye"

    async def at_once(self, number):
        return number

    def replaced(self):
        return "plain"


@pytest.fixture
def readings(monkeypatch):
    """The request readers of the Services that run, in the order of their start."""
    found = []
    create = RequestReader.__init__

    def init(self, *args, **kwargs):
        create(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(RequestReader, "__init__", init)
    return found


@asynccontextmanager
async def read_by_a_thread(service, readings, attribute, *args):
    """Run a Service, and call a method until a thread reads the requests."""
    async with running(service, "tcp") as peer:
        lease = readings[-1].lease
        with trio.fail_after(PATIENCE):
            while lease._uses - lease._uses_before < 10 or not lease.is_lent:
                await peer.call(attribute, *args)
        yield peer, lease


async def test_a_thread_reads_what_comes_one_at_a_time_and_answers_it_in_order(readings):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, lease):
        assert lease.is_lent
        assert [await peer.call("add", number, 1) for number in range(200)] == list(range(1, 201))
        assert await peer.call("at_once", 5) == 5
        assert (await peer.fail("nothing"))["message"].startswith("AttributeError")
        assert (await peer.fail("_private"))["message"].startswith("PermissionError")
        assert "ZeroDivisionError" not in (await peer.fail("add", 1))["message"]
        assert await peer.call("add", 1, 2) == 3


async def test_with_tls_threads_and_the_task_take_turns_as_well(readings, monkeypatch):
    put, take = trio.open_memory_channel(1)

    async def accept(stream):
        put.send_nowait(await accept_tls(tcp_connect.detach_socket(stream), ordinary().server_context()))

    async with serving(accept) as server:
        trust = client_context(ordinary().pem, check_hostname=True)
        ours, _ = await open_tls("localhost", server.port, trust)
        theirs = await take.receive()
    monkeypatch.setattr("tests.service.peer.tcp_pair", lambda: (ours, theirs))
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, _):
        with trio.fail_after(PATIENCE):
            for size in (1, 16_300, 16_384, 100_000, 5):  # around the size of a TLS record
                text = "x" * size
                for number in range(20):
                    assert await peer.call("add", text, str(number)) == text + str(number)
                uids = [await peer.request("add", text, str(number)) for number in range(20)]
                answers = {answer["uid"]: answer["result"] for answer in [await peer.answer() for _ in uids]}
                assert [answers[uid] for uid in uids] == [text + str(number) for number in range(20)]
                assert await peer.call("at_once", size) == size


async def test_for_a_method_that_is_not_prompt_the_task_reads(readings, monkeypatch):
    monkeypatch.setattr("msl_network_trio.service.threads.PROMPT", -1.0)
    async with running(Instrument(), "tcp") as peer:
        for _ in range(50):
            assert await peer.call("add", 1, 2) == 3
        assert not readings[-1]._profiles["add"].is_prompt
        assert readings[-1].lease._called_back is None, "it was never lent"


async def test_while_requests_wait_for_a_thread_the_task_reads(readings, monkeypatch):
    monkeypatch.setattr("msl_network_trio.service.threads.PROMPT", 1000.0)
    async with running(Instrument(), "tcp") as peer:
        readings[-1]._is_idle = lambda: False
        for _ in range(50):
            assert await peer.call("add", 1, 2) == 3
        assert readings[-1]._profiles["add"].is_prompt
        assert readings[-1].lease._called_back is None, "it was never lent"


async def test_notifications_of_a_method_precede_its_reply_also_if_a_thread_has_read_the_request(readings):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, _):
        for number in range(100):
            uid = await peer.request("emit", number)
            assert (await peer.answer())["result"] == [[number], {}]
            assert (await peer.answer())["uid"] == uid


async def test_a_method_that_was_prompt_and_goes_on_does_not_hold_up_others(readings):
    service = Instrument()
    async with read_by_a_thread(service, readings, "wait", False) as (peer, _):
        slow = await peer.request("wait", True)
        with trio.fail_after(PATIENCE):
            assert await peer.call("add", 1, 2) == 3
            assert await peer.call("at_once", 4) == 4
        assert not readings[-1]._profiles["at_once"].is_prompt
        service.gate.set()
        assert (await peer.answer())["uid"] == slow


async def test_what_comes_together_is_carried_out_side_by_side(readings):
    async with read_by_a_thread(Instrument(), readings, "meet", False) as (peer, _):
        with trio.fail_after(PATIENCE):
            uids = {await peer.request("meet", True) for _ in range(3)}
            assert {(await peer.answer())["uid"] for _ in range(3)} == uids


async def test_what_comes_while_a_method_is_at_work_that_a_thread_has_read_is_not_lost(readings):
    service = Instrument(max_workers=1)
    async with read_by_a_thread(service, readings, "wait", False) as (peer, _):
        uids = [await peer.request("wait", True)] + [await peer.request("add", 1, 2) for _ in range(50)]
        service.gate.set()
        assert [(await peer.answer())["uid"] for _ in uids] == uids


async def test_a_method_that_returns_something_to_be_awaited_has_it_awaited(readings):
    async with read_by_a_thread(Instrument(), readings, "passed_on", 1) as (peer, _):
        assert await peer.call("passed_on", -1) == -1
        assert await peer.call("passed_on", 1) == 1


async def test_a_method_that_has_become_another_one_is_looked_up_again(readings):
    class Changing(Instrument):
        pass

    async with read_by_a_thread(Changing(), readings, "replaced") as (peer, _):

        async def replaced(self):
            return "async"

        Changing.replaced = replaced
        assert await peer.call("replaced") == "async"
        Changing.replaced = 5
        assert await peer.call("replaced") == 5


async def test_a_prompt_method_that_is_deleted_is_an_error(readings, monkeypatch):
    monkeypatch.setattr("msl_network_trio.service.threads.PROMPT", 1000.0)

    class Changing(Instrument):
        def temporary(self):
            return 5

    async with read_by_a_thread(Changing(), readings, "temporary") as (peer, lease):
        with trio.fail_after(PATIENCE):
            while lease.holder is None:
                await peer.call("add", 1, 2)
            del Changing.temporary
            assert (await peer.fail("temporary"))["message"].startswith("AttributeError")
            assert await peer.call("add", 1, 2) == 3


async def test_a_method_that_becomes_the_one_that_ends_the_service_does_so(readings):
    class Changing(Instrument):
        shutdown_service = property(lambda self: "not yet")

    async with read_by_a_thread(Changing(), readings, "add", 1, 2) as (peer, lease):
        with trio.fail_after(PATIENCE):
            while not readings[-1]._profiles["shutdown_service"].is_prompt:
                assert await peer.call("shutdown_service") == "not yet"
            while lease.holder is None:
                await peer.call("add", 1, 2)
            Changing.shutdown_service = lambda self: "bye"
            assert await peer.call("shutdown_service") == "bye"
            await peer.expect_goodbye()


async def test_a_thread_reads_no_more_than_there_is_room_for(readings, monkeypatch):
    monkeypatch.setattr("msl_network_trio.service.threads.PROMPT", 1000.0)
    service = Instrument()
    async with read_by_a_thread(service, readings, "large", 1) as (peer, lease):
        answers = readings[-1]._send_queue
        service.calls = 0
        asked = 0
        with trio.fail_after(PATIENCE):
            while not answers.is_full:
                await peer.request("large", 1_000_000)
                asked += 1
                while service.calls < asked:
                    await trio.sleep(0)
                # The reply enters the send queue at the moment at which the worker finishes the request.
                await answers.wait_until(lambda: all(each.request is None for each in _threads(service)))
            await peer.request("large", 1)
            while lease.is_lent:
                await trio.sleep(0.001)
            assert service.calls == asked
            assert [len((await peer.answer())["result"]) for _ in range(asked + 1)] == [1_000_000] * asked + [
                1
            ]


def _threads(service):
    return state_of(service).connection._dispatcher._methods._threads


async def test_it_ends_in_order_while_a_thread_reads(readings):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, lease):
        with trio.fail_after(PATIENCE):
            peer.scope.cancel()
            await peer.expect_goodbye()
            await peer.ended.wait()
        assert not lease.is_lent
        assert peer.error is None


async def test_a_client_can_shut_it_down_while_a_thread_reads(readings):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, _):
        with trio.fail_after(PATIENCE):
            assert await peer.call("shutdown_service") == "bye"
            await peer.expect_goodbye()
            await peer.ended.wait()
        assert peer.error is None


async def test_once_it_is_about_to_end_no_thread_reads_on(readings):
    service = Instrument()
    async with read_by_a_thread(service, readings, "wait", False) as (peer, lease):
        slow = await peer.request("wait", True)
        with trio.fail_after(PATIENCE):
            while not any(each.request for each in _threads(service)):
                await trio.sleep(0.001)
            peer.scope.cancel()
            refused = await peer.fail("add", 1, 2)
            assert "has ended before" in refused["message"]
            service.gate.set()
            assert (await peer.answer())["uid"] == slow
            await peer.expect_goodbye()
            await peer.ended.wait()
        assert not lease.is_lent


async def test_the_end_of_the_stream_is_noticed_while_a_thread_reads(readings):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, _):
        peer.transport.close()
        with trio.fail_after(PATIENCE):
            await peer.ended.wait()
    assert isinstance(peer.error, ConnectionLost)


async def test_a_defect_in_a_thread_ends_the_connection(readings, monkeypatch, caplog):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, lease):
        assert lease.is_lent

        def receive(data):
            raise ZeroDivisionError("ours")

        monkeypatch.setattr(readings[-1].protocol, "only_request", receive)
        monkeypatch.setattr(readings[-1].protocol, "receive", receive)
        await peer.request("add", 1, 2)
        with trio.fail_after(PATIENCE):
            await peer.expect_goodbye_or_end()
            await peer.ended.wait()
    assert isinstance(peer.error, ConnectionLost)
    assert "ZeroDivisionError('ours')" in str(peer.error)
    caplog.clear()


async def test_a_request_that_is_too_long_is_refused_also_by_a_thread(readings):
    async with running(Instrument(), "tcp", read_limit=10_000) as peer:
        lease = readings[-1].lease
        with trio.fail_after(PATIENCE):
            while lease._uses - lease._uses_before < 10 or not lease.is_lent:
                await peer.call("add", 1, 2)
            answer = await peer.fail("add", "x" * 20_000)
            assert await peer.call("add", 1, 2) == 3
    assert "more than 10,000 bytes" in answer["message"]


async def test_requests_that_a_thread_reads_are_logged(readings, caplog):
    async with read_by_a_thread(Instrument(), readings, "add", 1, 2) as (peer, _):
        caplog.set_level(logging.DEBUG, logger="msl_network_trio")
        for _ in range(3):
            await peer.call("add", 1, 2)
    assert sum("requested 'add'" in record.getMessage() for record in caplog.records) == 3


# ---- the read lease ----


class Thread:
    started_at = 0.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("msl_network_trio.service.request_lease.perf_counter", clock)
    monkeypatch.setattr("msl_network_trio.transport.read_lease.perf_counter", clock)
    return clock


@pytest.fixture
def lease(clock):
    return RequestLease(threading.RLock(), lambda function: function(), threads_may_receive=True)


def settled(lease, clock):
    """Return whether the lease is worth lending when requests arrive often."""
    lease.is_worth_lending()
    clock.now += 0.01
    return lease.is_worth_lending()


async def test_the_task_lends_the_lease_for_prompt_methods_that_are_requested_often(lease, clock):
    assert not lease.is_worth_lending(), "for the first time"
    clock.now += 0.01
    assert lease.is_worth_lending()
    clock.now += 1
    assert not lease.is_worth_lending(), "after a while"
    assert settled(lease, clock)


async def test_where_threads_cannot_read_the_task_never_lends_the_lease(clock):
    lease = RequestLease(threading.RLock(), lambda function: function(), threads_may_receive=False)
    assert not settled(lease, clock)


async def test_a_thread_for_which_a_request_waits_does_not_read(lease):
    lease.lend()
    assert not lease.take(Thread(), lambda: False)
    assert lease.take(Thread(), lambda: True)


async def test_one_thread_at_a_time_reads_and_only_while_the_task_lends_the_lease(lease):
    one, other = Thread(), Thread()
    assert not lease.take(one, lambda: True)
    lease.lend()
    assert lease.take(one, lambda: True)
    assert lease.take(one, lambda: True), "it goes on"
    assert not lease.take(other, lambda: True)
    lease.give_back(other)
    assert lease.holder is one
    lease.give_back(one)
    assert not lease.take(other, lambda: True), "what is left comes first"
    lease.take_back()
    lease.take_back()
    assert not lease.take(one, lambda: True)
    lease.lend()
    assert lease.take(other, lambda: True)


async def test_a_task_that_lent_the_lease_in_vain_does_so_less_and_less_often(lease, clock):
    for backoff in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6):
        assert settled(lease, clock)
        lease.lend()
        lease.take_back()
        began = clock.now
        while not lease.is_worth_lending():
            clock.now += 0.01
        assert clock.now - began == pytest.approx(backoff, abs=0.011)
    lease.lend()
    for _ in range(8):
        lease.count_use()
    lease.take_back()
    assert settled(lease, clock), "now it was of use"


async def test_the_task_waits_while_a_thread_reads_and_not_while_one_works_for_long(lease, clock):
    thread = Thread()
    lease.lend()
    lease.take(thread, lambda: True)
    with trio.move_on_after(0.05) as scope:
        await lease.wait()
    assert scope.cancelled_caught, "it reads"
    thread.started_at = clock.now
    with trio.move_on_after(0.05) as scope:
        await lease.wait()
    assert scope.cancelled_caught, "it has just begun"
    clock.now += 0.006
    with trio.fail_after(PATIENCE):
        await lease.wait()


async def test_the_task_does_not_wait_for_a_thread_that_never_reads(lease):
    lease.lend()
    with trio.fail_after(PATIENCE):
        await lease.wait()
