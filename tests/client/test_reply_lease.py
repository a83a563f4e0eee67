"""The read lease of a client: its holder, and when the task takes it back."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from msl_network_trio.client import reply_lease
from msl_network_trio.client.reply_lease import ReplyLease
from msl_network_trio.transport import read_lease


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (reply_lease, read_lease):
        monkeypatch.setattr(module, "perf_counter", clock)
    return clock


@pytest.fixture
def lease(clock: Clock) -> ReplyLease:
    return ReplyLease(threading.RLock(), threads_may_receive=True)


async def wait(lease: ReplyLease, done: list[str]) -> None:
    await lease.wait()
    lease.take_back()
    done.append("done")


async def test_one_request_at_a_time_reads_and_only_while_the_lease_is_lent(lease: ReplyLease):
    assert not lease.take("one")
    lease.lend()
    assert lease.take("one")
    assert not lease.take("other")
    lease.release("other")
    assert lease.holder == "one"
    lease.release("one")
    assert lease.take("other")
    lease.give_back("one")
    assert lease.holder == "other"
    lease.give_back("other")
    assert not lease.take("one"), "what was received comes first"
    assert lease.is_lent
    lease.take_back()
    assert not lease.is_lent


async def test_who_calls_back_an_idle_lease_disturbs_nobody(lease: ReplyLease):
    lease.call_back()
    lease.lend()
    lease.call_back()
    with trio.fail_after(20):
        await lease.wait()


async def test_it_is_taken_back_when_no_thread_uses_it(lease: ReplyLease, autojump_clock):
    lease.lend()
    began = trio.current_time()
    await lease.wait()
    assert trio.current_time() - began == pytest.approx(0.01)


async def test_it_stays_lent_while_threads_use_it(lease: ReplyLease, nursery, autojump_clock):
    done: list[str] = []
    lease.lend()
    nursery.start_soon(wait, lease, done)
    for _ in range(50):
        await trio.sleep(0.009)
        lease.take("request")
        lease.release("request")
    assert not done
    await trio.sleep(0.05)
    assert done
    lease.lend()
    lease.take_back()
    assert lease._not_before > 0, "this time it was in vain"


async def test_a_thread_that_keeps_it_for_too_long_loses_it(
    lease: ReplyLease, clock: Clock, nursery, autojump_clock
):
    done: list[str] = []
    lease.lend()
    nursery.start_soon(wait, lease, done)
    await trio.sleep(0)
    lease.take("request")
    await trio.sleep(1)
    assert not done
    clock.now += 0.05
    await trio.sleep(0.05)
    assert done
    assert lease.holder is None
