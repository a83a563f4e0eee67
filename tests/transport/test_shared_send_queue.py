"""Send queues for several threads: who sends, and exceptions at any step of a thread."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.transport.base import Stream
from msl_network_trio.transport.send_queue import AT_ONCE
from msl_network_trio.transport.shared_send_queue import SharedSendQueue
from tests.injector import Injector, isolated, numbers
from tests.patience import PATIENCE
from tests.transport.kernel import Kernel

SAMPLE = 3


class Lines(SharedSendQueue):
    """Lines that threads add and send."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.errors: list[Exception] = []
        self.changes: list[int] = []

    def add_and_send(self, sender: object, line: bytes) -> None:
        """Add a line and send it, in a thread."""
        try:
            with self._mutex:
                pieces = len(self._pieces)
                try:
                    self._append(line)
                except BaseException:
                    if len(self._pieces) == pieces:
                        self._append(line)
                    raise
                if self._batch is not None or not self._take_batch(sender):
                    return
            self._send_in_thread(sender)
        except BaseException:
            self.mend(sender)
            raise

    def on_change(self) -> None:
        self.changes.append(self.unsent)

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def start_task(self) -> None:
        """The test runs it."""


async def test_the_trio_thread_can_do_everything_alone(nursery):
    kernel = Kernel(1)
    queue = Lines(kernel)
    nursery.start_soon(queue.run)
    await wait_all_tasks_blocked()
    queue.add(b"12")
    queue.add(b"3")
    queue.flush()
    queue.flush()
    await wait_all_tasks_blocked()
    assert queue.rest_size == 2
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"123"
    queue.discard()
    queue.add(b"4")
    queue.flush()
    assert kernel.taken == b"123"


async def test_what_is_added_while_a_thread_sends_is_sent_by_that_thread(nursery):
    kernel = Kernel()
    kernel.gate.clear()
    queue = Lines(kernel)
    nursery.start_soon(trio.to_thread.run_sync, queue.add_and_send, "A", b"1")
    await trio.to_thread.run_sync(kernel.is_in_thread.wait)
    queue.add_and_send("B", b"2")
    queue.add(b"3")
    queue.flush()
    assert kernel.taken == b""
    assert queue.rest_size == 1
    kernel.gate.set()
    with trio.fail_after(PATIENCE):
        while queue.unsent:
            await trio.sleep(0)
    assert kernel.taken == b"123"
    assert threading.get_ident() not in kernel.senders


async def test_what_a_thread_cannot_send_is_left_to_the_task(nursery):
    kernel = Kernel(1, 0)
    queue = Lines(kernel)
    nursery.start_soon(queue.run)
    await wait_all_tasks_blocked()
    await trio.to_thread.run_sync(queue.add_and_send, "A", b"123")
    await trio.to_thread.run_sync(queue.add_and_send, "A", b"4")
    await wait_all_tasks_blocked()
    assert kernel.taken == b"1"
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert kernel.taken == b"1234"
    assert kernel.senders[1:] == [threading.get_ident()] * 3


async def test_an_error_of_a_thread_is_found_by_the_task(nursery):
    error = ConnectionLost("gone")
    kernel = Kernel(error, error)
    kernel.has_room.set()
    queue = Lines(kernel)
    nursery.start_soon(queue.run)
    await wait_all_tasks_blocked()
    await trio.to_thread.run_sync(queue.add_and_send, "A", b"123")
    await wait_all_tasks_blocked()
    assert queue.errors == [error]
    assert queue.rest_size == 3


async def test_a_queue_that_is_discarded_while_a_thread_sends_stays_so(nursery):
    kernel = Kernel()
    kernel.gate.clear()
    queue = Lines(kernel)
    nursery.start_soon(trio.to_thread.run_sync, queue.add_and_send, "A", b"1")
    await trio.to_thread.run_sync(kernel.is_in_thread.wait)
    queue.discard()
    queue.add(b"2")
    kernel.gate.set()
    with trio.fail_after(PATIENCE):
        while not queue.is_blocked:
            await trio.sleep(0)
    queue.flush()
    assert kernel.taken == b"1"


def test_a_thread_that_sends_when_trio_has_ended_disturbs_nobody():
    async def main() -> Lines:
        return Lines(Kernel(0))

    trio.run(main).add_and_send("A", b"1")


class Stop(Exception):
    """Is injected."""


def _stop() -> None:
    raise Stop


class Steps(Injector):
    """Steps at which the interpreter looks for exceptions of other threads: behind calls and at entries."""

    def _in_function(self, frame: Any, event: str, argument: Any) -> Any:
        return self._in_function if event == "line" else super()._in_function(frame, event, argument)


def _interrupted(queue: Lines, injector: Injector) -> None:
    with injector:
        for line in (b"12", b"345", b"6"):
            with suppress(Stop):
                queue.add_and_send("A", line)


@pytest.mark.parametrize("takes", [(), (1,), (2, 1), (2, 0, 1)])
async def test_an_exception_at_any_step_of_a_thread_loses_no_byte_and_repeats_none(takes):
    async def attempt(number: int) -> Injector:
        async with trio.open_nursery() as nursery:
            kernel = Kernel(*takes)
            kernel.has_room.set()
            queue = Lines(kernel)
            nursery.start_soon(queue.run)
            await wait_all_tasks_blocked()
            injector = Steps(number, _stop, (os.path.join("transport", "shared_send_queue.py"),))
            await trio.to_thread.run_sync(isolated(_interrupted), queue, injector)
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(queue.add_and_send, "B", b"!")
            await wait_all_tasks_blocked()
            assert kernel.taken == b"123456!", injector.where
            assert queue.rest_size == 0, injector.where
            assert not queue.is_blocked, injector.where
            nursery.cancel_scope.cancel()
        return injector

    counted = (await attempt(0)).steps
    for number in numbers(lambda: counted, SAMPLE):
        await attempt(number)


async def test_small_pieces_are_joined_and_large_ones_are_not_copied():
    kernel = Kernel()
    queue = Lines(kernel)
    large = b"x" * 300_000
    for line in (b"1", b"2", (b"(", large, b")"), b"3", b"4" * 262_143, b"5"):
        queue.add(line)
    assert queue.unsent == 562_149
    queue.flush()
    assert kernel.sizes == [3, 300_000, 2, 262_144]
    assert queue.unsent == 0


async def test_a_lot_is_not_sent_without_letting_others_run(nursery):
    kernel = Kernel()
    queue = Lines(kernel)
    nursery.start_soon(queue.run)
    for _ in range(10):
        queue.add(b"x" * (AT_ONCE // 4))
    queue.is_watched = True
    queue.flush()
    assert len(kernel.taken) == AT_ONCE
    kernel.has_room.set()
    await wait_all_tasks_blocked()
    assert len(kernel.taken) == 10 * AT_ONCE // 4
    assert queue.changes[-1] == 0
    queue.closed = True
    queue.add(b"1")
    assert queue.unsent == 0
    assert not queue.is_blocked


async def test_what_waits_when_the_stream_breaks_is_dropped(nursery):
    queue = Lines(Kernel(ConnectionLost("gone")))
    queue.add(b"1" * 300_000)
    queue.add(b"2")
    queue.flush()
    assert queue.unsent == 0
    assert queue.rest_size == 300_000
    queue.flush()
    await trio.to_thread.run_sync(queue.mend, "A")
