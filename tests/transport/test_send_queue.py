"""Send queues in the Trio thread: order, what the kernel does not take, errors, and time limits."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport import send_queue
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import AT_ONCE, SendQueue, Stalled
from tests.patience import PATIENCE
from tests.transport.kernel import Kernel


class Lines(SendQueue):
    """Lines that wait in a list."""

    def __init__(self, stream: Stream, nursery: trio.Nursery | None = None, *, stays: bool = True) -> None:
        super().__init__(stream)
        self.lines: list[bytes] = []
        self.counts: list[int] = []
        self.errors: list[Exception] = []
        self.started = 0
        self._nursery = nursery
        self._stays = stays

    def add(self, *lines: bytes) -> None:
        self.lines.extend(lines)

    def take(self) -> bytes:
        return self.lines.pop(0) if self.lines else b""

    def on_sent(self, count: int) -> None:
        self.counts.append(count)

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def start_task(self) -> None:
        self.started += 1
        if self._nursery is not None:
            self._nursery.start_soon(self.run if self._stays else self.send_rest)


# ---- in the Trio thread ----


async def test_what_waits_is_sent_at_once_and_in_order():
    kernel = Kernel()
    queue = Lines(kernel)
    queue.add(b"1", b"23")
    queue.flush()
    assert kernel.taken == b"123"
    assert queue.counts == [1, 2]
    assert queue.started == 0
    assert not queue.is_blocked
    assert queue.rest_size == 0


async def test_nothing_is_sent_if_nothing_waits():
    kernel = Kernel()
    Lines(kernel).flush()
    assert kernel.sizes == []


async def test_what_the_kernel_does_not_take_is_sent_by_the_task_before_anything_else(nursery):
    kernel = Kernel(3, 2, 0, 1)
    queue = Lines(kernel, nursery)
    queue.add(b"12345678")
    queue.flush()
    queue.add(b"9")
    queue.flush()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"123"
    assert queue.is_blocked
    assert queue.rest_size == 5
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"123456789"
    assert queue.counts == [3, 2, 0, 1, 2, 1]
    assert queue.started == 1
    assert not queue.is_blocked


async def test_the_task_that_stays_sends_what_waits_after_others_have_run(nursery):
    kernel = Kernel()
    queue = Lines(kernel, nursery)
    for number in range(3):
        queue.add(b"%d" % number)
        queue.flush_soon()
    assert kernel.taken == b""
    await wait_all_tasks_blocked()
    assert kernel.taken == b"012"
    queue.add(b"3")
    queue.flush_soon()
    queue.flush_soon()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"0123"
    assert queue.started == 1


async def test_the_task_that_ends_is_started_again_when_it_is_needed(nursery):
    kernel = Kernel(1, 1, 1)
    kernel.has_room.set()
    queue = Lines(kernel, nursery, stays=False)
    for _ in range(2):
        queue.add(b"12")
        queue.flush()
        await wait_all_tasks_blocked()
    assert kernel.taken == b"1212"
    assert queue.started == 2
    assert len(nursery.child_tasks) == 0


async def test_a_task_that_was_cancelled_is_not_started_again():
    async with trio.open_nursery() as nursery:
        queue = Lines(Kernel(0), nursery)
        queue.flush_soon()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    queue.add(b"1")
    queue.flush_soon()
    queue.flush()
    assert queue.started == 1
    assert queue.rest_size == 1


async def test_a_lot_is_not_sent_without_letting_others_run(nursery):
    kernel = Kernel()
    queue = Lines(kernel, nursery)
    queue.add(*[b"x" * (AT_ONCE // 4)] * 10)
    queue.flush()
    assert len(kernel.taken) == AT_ONCE
    assert queue.is_blocked
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert len(kernel.taken) == 10 * AT_ONCE // 4


@pytest.mark.parametrize("where", ["at once", "in the task", "while it waits"])
async def test_an_error_is_passed_on_once_and_ends_it(nursery, where):
    error = ConnectionLost("gone")
    kernel = Kernel(*([error] if where == "at once" else [1, error]))
    kernel.has_room.set()
    if where == "while it waits":

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            raise error

        kernel.wait_send = fail  # type: ignore[method-assign]
    queue = Lines(kernel, nursery)
    queue.add(b"123", b"4")
    queue.flush()
    await wait_all_tasks_blocked()
    assert queue.errors == [error]
    assert queue.failed
    assert queue.is_blocked
    assert queue.rest_size == (3 if where == "at once" else 2)
    queue.flush()
    queue.flush_soon()
    await wait_all_tasks_blocked()
    assert len(kernel.taken) == (0 if where == "at once" else 1)
    assert queue.errors == [error]


async def test_an_error_of_this_program_is_raised():
    queue = Lines(Kernel(ValueError("ours")))
    queue.add(b"1")
    with pytest.raises(ValueError, match="ours"):
        queue.flush()


async def test_a_peer_that_accepts_nothing_for_too_long_has_stalled(nursery, autojump_clock):
    queue = Lines(Kernel(0, 1), nursery)
    queue.stalled_after = 7.0
    queue.add(b"123")
    queue.flush()
    await trio.sleep(6)
    assert not queue.errors
    await trio.sleep(2)
    (error,) = queue.errors
    assert isinstance(error, Stalled)
    assert error.seconds == 7


async def test_a_peer_that_accepts_a_little_at_a_time_has_not_stalled(nursery, autojump_clock):
    kernel = Kernel(*[1] * 10)

    async def wait() -> None:
        await trio.sleep(5)

    kernel.wait_send = wait  # type: ignore[method-assign]
    queue = Lines(kernel, nursery)
    queue.stalled_after = 7.0
    queue.add(b"0123456789")
    queue.flush()
    await trio.sleep(100)
    assert kernel.taken == b"0123456789"
    assert not queue.errors


async def test_what_is_discarded_is_not_sent(nursery):
    kernel = Kernel(1)
    queue = Lines(kernel, nursery)
    queue.add(b"123")
    queue.flush()
    await wait_all_tasks_blocked()
    waiting = []

    async def wait() -> None:
        await queue.wait_progress()
        waiting.append(queue.failed)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    queue.discard()
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"1"
    assert waiting == [True]
    assert queue.errors == []


async def test_an_idle_queue_that_is_discarded_sends_nothing(nursery):
    kernel = Kernel()
    queue = Lines(kernel, nursery)
    queue.discard()
    queue.add(b"1")
    queue.flush()
    assert kernel.taken == b""


async def test_who_waits_for_progress_is_woken_when_the_task_has_sent_something(nursery):
    kernel = Kernel(0, 2)
    queue = Lines(kernel, nursery)
    queue.add(b"123")
    queue.flush()
    nursery.start_soon(_make_room, kernel)
    with trio.fail_after(PATIENCE):
        await queue.wait_progress()
    assert kernel.taken.startswith(b"12")
    queue.wake_waiting()


async def _make_room(kernel: Kernel) -> None:
    await wait_all_tasks_blocked()
    kernel.has_room.set()


async def test_without_a_limit_it_waits_for_as_long_as_it_takes(autojump_clock):
    kernel = Kernel()
    with trio.move_on_after(1e6) as scope:
        await send_queue.wait_send(kernel, math.inf)
    assert scope.cancelled_caught
