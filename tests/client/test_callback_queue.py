"""Callback queues: order, errors, limits and the end."""

from __future__ import annotations

import trio
import trio.testing

from msl_network_trio.callbacks import CallbackTasks, in_callback
from msl_network_trio.client import callback_queue
from msl_network_trio.client.callback_queue import CallbackQueue


async def test_calls_are_made_in_order_and_one_at_a_time(nursery: trio.Nursery):
    tasks = CallbackTasks()
    tasks.nursery = nursery
    calls: list[object] = []

    async def slow(value: object) -> None:
        calls.append((value, in_callback.get()))
        await trio.testing.wait_all_tasks_blocked()
        calls.append(value)

    queue = CallbackQueue(tasks, slow, "slow")
    for value in range(3):
        queue.put(value)
    await trio.testing.wait_all_tasks_blocked(0.01)
    queue.put(3)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert calls == [(0, True), 0, (1, True), 1, (2, True), 2, (3, True), 3]
    assert not in_callback.get()


async def test_an_exception_is_logged_and_ends_nothing(nursery: trio.Nursery, caplog):
    tasks = CallbackTasks()
    tasks.nursery = nursery
    calls: list[int] = []

    def fail(value: int) -> None:
        calls.append(value)
        raise ValueError("mine")

    queue = CallbackQueue(tasks, fail, "the handler of something")
    queue.put(1)
    queue.put(2)
    await trio.testing.wait_all_tasks_blocked()
    assert calls == [1, 2]
    assert caplog.text.count("exception in the handler of something") == 2


async def test_without_calls_there_is_no_task(nursery: trio.Nursery):
    tasks = CallbackTasks()
    tasks.nursery = nursery
    queue = CallbackQueue(tasks, lambda: None, "nothing")
    assert not nursery.child_tasks
    queue.put()
    await trio.testing.wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_beyond_the_limit_the_oldest_calls_are_dropped_and_logged(
    nursery: trio.Nursery, monkeypatch, caplog
):
    monkeypatch.setattr(callback_queue, "_MAX_QUEUED", 3)
    tasks = CallbackTasks()
    tasks.nursery = nursery
    calls: list[int] = []
    queue = CallbackQueue(tasks, calls.append, "the handler")
    for value in range(10):
        queue.put(value)
    await trio.testing.wait_all_tasks_blocked()
    assert calls == [7, 8, 9]
    assert "the handler falls behind: 7 calls dropped so far" in caplog.text


async def test_after_the_end_of_the_client_nothing_is_called(nursery: trio.Nursery):
    tasks = CallbackTasks()
    calls: list[int] = []
    queue = CallbackQueue(tasks, calls.append, "the handler")
    queue.put(1)
    tasks.nursery = nursery
    tasks.cancel()
    queue.put(2)
    await trio.testing.wait_all_tasks_blocked()
    assert calls == []


async def test_the_last_call_is_made_although_the_tasks_are_cancelled(nursery: trio.Nursery):
    tasks = CallbackTasks()
    tasks.nursery = nursery
    calls: list[int] = []

    async def slow(value: int) -> None:
        calls.append(value)
        if value == 1:
            await trio.sleep_forever()

    queue = CallbackQueue(tasks, slow, "slow")
    queue.put(1)
    await trio.testing.wait_all_tasks_blocked()
    queue.put(2)
    queue.put_last(3, seconds=1)
    tasks.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert calls == [1, 2, 3]
    assert not nursery.child_tasks


async def test_the_last_call_has_a_time_limit(nursery: trio.Nursery, autojump_clock):
    tasks = CallbackTasks()
    queue = CallbackQueue(tasks, trio.sleep, "slow")
    queue.put_last(1000, seconds=1)
    await trio.testing.wait_all_tasks_blocked()
    assert not nursery.child_tasks  # the client has ended, or not begun
    tasks.nursery = nursery
    queue.put_last(1000, seconds=1)
    began = trio.current_time()
    await trio.testing.wait_all_tasks_blocked()
    while nursery.child_tasks:
        await trio.sleep(0.1)
    assert trio.current_time() - began < 2
