"""The way out, where it cannot be seen from outside."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import BacklogFull, ConnectionLost
from msl_network_trio.service.outlet import Outlet
from msl_network_trio.transport.base import Transport


class Worker:
    call = "a request"


class Scripted(Transport):
    """Takes as many bytes at a time as it is told to, and keeps them."""

    threads_may_send = True

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
