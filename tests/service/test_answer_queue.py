"""The way out, where it cannot be seen from outside."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import BacklogFull, ConnectionLost
from msl_network_trio.service import coalescing as holding_module
from msl_network_trio.service import outlet as outlet_module
from msl_network_trio.service.coalescing import Holding
from msl_network_trio.service.outlet import Outlet
from msl_network_trio.transport.base import Stream, ThreadIO

LIMIT = 30.0
"""How many seconds something may take that takes none."""


class Worker:
    call = "a request"
    emitted = 0.0


class Scripted(Stream, ThreadIO):
    """Takes as many bytes at a time as it is told to, and keeps them."""

    def __init__(self, *takes):
        super().__init__()
        self.takes = list(takes)
        self.taken = b""
        self.sends = []
        self.sending = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.may_send = trio.Event()

    def send_nowait(self, data):
        self.sending.set()
        self.gate.wait()
        take = self.takes.pop(0) if self.takes else len(data)
        if isinstance(take, Exception):
            raise take
        self.sends.append(len(data))
        self.taken += data[:take]
        return min(take, len(data))

    @property
    def thread_io(self):
        return self

    def send_in_thread(self, data, sent):
        try:
            sent.append(self.send_nowait(data))
        except ConnectionLost:
            pass  # send_nowait() will tell the task

    async def wait_send(self):
        await self.may_send.wait()

    async def receive(self):
        raise NotImplementedError

    def send_eof(self):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError


@pytest.fixture
def errors():
    return []


def test_a_thread_that_fails_to_send_when_trio_has_ended_disturbs_nobody(errors):
    transport = None

    async def main():
        nonlocal transport
        transport = Scripted(ConnectionLost("gone"))
        transport.gate.clear()
        outlet = Outlet(transport, 1000, errors.append)
        thread = threading.Thread(target=outlet.send, args=(b"x", Worker()))
        thread.start()
        await trio.to_thread.run_sync(transport.sending.wait)
        return thread

    thread = trio.run(main)
    transport.gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert errors == []


async def test_what_is_added_while_a_thread_sends_is_sent_by_that_thread(errors):
    transport = Scripted()
    transport.gate.clear()
    outlet = Outlet(transport, 1000, errors.append)
    threads = [threading.Thread(target=outlet.send, args=(b"1", Worker()))]
    threads[0].start()
    await trio.to_thread.run_sync(transport.sending.wait)
    outlet.add(b"2")
    outlet.flush()
    outlet.send(b"3", Worker())
    outlet.emit(b"4")
    transport.gate.set()
    await trio.to_thread.run_sync(threads[0].join)
    assert transport.taken == b"1234"
    assert transport.sends == [1, 3]
    assert outlet.unsent == 0


async def test_small_lines_are_sent_together_and_large_ones_alone(errors):
    transport = Scripted()
    outlet = Outlet(transport, 10**9, errors.append)
    large = b"x" * 300_000
    for line in (b"1", b"2", (b"(", large, b")"), b"3", b"4" * 262_143, b"5"):
        outlet.add(line)
    outlet.flush()
    assert transport.sends == [3, 300_000, 2, 262_144]
    assert len(transport.taken) == sum(transport.sends)


async def test_what_was_not_taken_is_sent_by_the_task_before_anything_else(errors, nursery):
    transport = Scripted(3, 2, 0, 1)
    outlet = Outlet(transport, 1000, errors.append)
    nursery.start_soon(outlet.run)
    outlet.add(b"12345678")
    outlet.flush()
    outlet.send(b"9", Worker())
    outlet.add(b"a")
    outlet.flush()
    await wait_all_tasks_blocked()
    assert transport.taken == b"123"
    assert outlet.unsent == 7
    transport.may_send.set()
    await outlet.drain()
    assert transport.taken == b"123456789a"
    assert outlet.unsent == 0


async def test_a_lot_is_not_sent_without_letting_others_run(errors, nursery):
    transport = Scripted()
    outlet = Outlet(transport, 10**9, errors.append)
    nursery.start_soon(outlet.run)
    for _ in range(20):
        outlet.add(b"x" * 262_144)
    outlet.flush()
    assert len(transport.taken) == 1_048_576
    transport.may_send.set()
    await outlet.drain()
    assert len(transport.taken) == 20 * 262_144


@pytest.mark.parametrize("where", ["at once", "in the task"])
async def test_a_failure_is_told_and_ends_it(errors, nursery, where):
    error = ConnectionLost("gone")
    transport = Scripted(*([error] if where == "at once" else [1, error]))
    transport.may_send.set()
    outlet = Outlet(transport, 1000, errors.append)
    nursery.start_soon(outlet.run)
    outlet.add(b"123")
    outlet.flush()
    await outlet.drain()
    assert errors == [error]
    outlet.add(b"4")
    outlet.flush()
    outlet.send(b"5", worker := Worker())
    assert worker.call is None
    with pytest.raises(ConnectionLost):
        outlet.emit(b"6")
    await wait_all_tasks_blocked()
    assert outlet.unsent == 0
    assert len(transport.taken) == (0 if where == "at once" else 1)


async def test_the_last_lines_are_sent_and_nothing_after_them(errors):
    transport = Scripted()
    outlet = Outlet(transport, 1000, errors.append)
    outlet.add(b"1")
    outlet.close(lambda: [b"2", b"3"])
    outlet.close(lambda: [b"4"])
    outlet.add(b"5")
    outlet.send(b"6", Worker())
    outlet.flush()
    assert transport.taken == b"123"


async def test_a_full_outlet_refuses_in_the_trio_thread(errors):
    transport = Scripted(0)
    outlet = Outlet(transport, 3, errors.append)
    outlet.add(b"1234")
    assert outlet.is_full
    with pytest.raises(BacklogFull, match="4 bytes wait"):
        outlet.emit(b"5")
    outlet.close()
    with pytest.raises(ConnectionLost):
        outlet.emit(b"5")


# ---- notifications that wait for the answer ----


class Call:
    attribute = "tick"


class Thread:
    """What carries out requests."""

    def __init__(self):
        self.call = Call()
        self.emitted = 0.0


def requested(outlet, thread, *lines, answer=b"answer", attribute="tick"):
    """Carry out a request, that emits lines, in another thread."""
    thread.call = Call()
    thread.call.attribute = attribute
    outlet.enter(thread)
    for line in lines:
        outlet.emit(line)
    if answer:
        outlet.send(answer, thread)
    outlet.leave()


@pytest.fixture
def looked_after(nursery, errors, monkeypatch):
    """Return an outlet that has learned that notifications may wait, and what it writes to."""

    async def learn(held_for, nursery=nursery):
        monkeypatch.setattr(outlet_module, "HELD_FOR", held_for)
        # What is prompt on a loaded computer is not for a test to know.
        monkeypatch.setattr(holding_module, "HELD_FOR", LIMIT)
        transport = Scripted()
        outlet = Outlet(transport, 1000, errors.append)
        nursery.start_soon(outlet.run)
        nursery.start_soon(outlet.look_after_held)
        await wait_all_tasks_blocked()
        while not outlet._holding.is_looked_after:
            await trio.to_thread.run_sync(requested, outlet, Thread(), b"first")
            await wait_all_tasks_blocked()
        transport.taken = b""
        transport.sends.clear()
        return outlet, transport

    return learn


async def test_a_notification_leaves_with_the_answer_of_a_method_that_has_been_prompt(looked_after):
    outlet, transport = await looked_after(held_for=LIMIT)
    for _ in range(3):
        await trio.to_thread.run_sync(requested, outlet, Thread(), b"12", b"3")
    assert transport.sends == [9, 9, 9]


async def test_a_notification_of_a_method_that_goes_on_waits_for_a_moment_only(looked_after):
    outlet, transport = await looked_after(held_for=0.01)
    await trio.to_thread.run_sync(partial(requested, outlet, Thread(), b"going", answer=b""))
    with trio.fail_after(LIMIT):
        while transport.taken != b"going":
            await trio.sleep(0.001)
        # Nothing comes any more, so nobody looks any more.
        while outlet._holding.is_looked_after:
            await trio.sleep(0.001)


async def test_others_do_not_wait_for_an_answer(looked_after):
    outlet, transport = await looked_after(held_for=LIMIT)
    # A method that is not known to be prompt, a thread that carries out nothing, and the thread of Trio.
    await trio.to_thread.run_sync(partial(requested, outlet, Thread(), b"1", answer=b"", attribute="other"))
    await wait_all_tasks_blocked()
    assert transport.taken == b"1"
    await trio.to_thread.run_sync(outlet.emit, b"2")
    await wait_all_tasks_blocked()
    assert transport.taken == b"12"
    outlet.emit(b"3")
    await wait_all_tasks_blocked()
    assert transport.taken == b"123"


async def test_what_waits_is_sent_when_nobody_looks_after_it_any_more(looked_after):
    async with trio.open_nursery() as nursery:
        outlet, transport = await looked_after(LIMIT, nursery)
        await trio.to_thread.run_sync(partial(requested, outlet, Thread(), b"held", answer=b""))
        await wait_all_tasks_blocked()
        assert transport.taken == b""
        nursery.cancel_scope.cancel()
    assert transport.taken == b"held"
    assert not outlet._holding.is_looked_after


def test_a_method_that_has_gone_on_for_long_is_not_prompt_any_more(monkeypatch):
    holding, thread = Holding(), Thread()
    holding.is_looked_after = True
    assert not holding.may_wait(thread)
    holding.answered(thread)
    assert holding.may_wait(thread)
    assert holding.is_worthwhile
    monkeypatch.setattr(holding_module, "HELD_FOR", 0)
    holding.answered(thread)
    assert not holding.may_wait(thread)
    thread.call = None
    assert not holding.may_wait(thread)


def test_how_many_methods_are_remembered_is_bounded():
    holding, thread = Holding(), Thread()
    for number in range(2500):
        thread.call.attribute = f"name {number}"
        holding.may_wait(thread)
        holding.answered(thread)
    assert len(holding._prompt) <= 1000
