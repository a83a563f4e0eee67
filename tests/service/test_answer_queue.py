"""The send queue of a Service: order, room, errors, and notifications that wait for their answer."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.exceptions import BacklogFull, ConnectionLost
from msl_network_trio.service import answer_queue as queue_module
from msl_network_trio.service import coalescing as coalescing_module
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.coalescing import Coalescing
from msl_network_trio.service.method_profile import MethodProfiles
from tests.patience import PATIENCE
from tests.transport.kernel import Kernel


class RequestWorker:
    request = "a request"
    emitted = 0.0


@pytest.fixture
def errors():
    return []


def test_a_thread_that_fails_to_send_when_trio_has_ended_disturbs_nobody(errors):
    transport = None

    async def main():
        nonlocal transport
        transport = Kernel(ConnectionLost("gone"))
        transport.gate.clear()
        answers = AnswerQueue(transport, 1000, errors.append)
        thread = threading.Thread(target=answers.send, args=(b"x", RequestWorker()))
        thread.start()
        await trio.to_thread.run_sync(transport.is_in_thread.wait)
        return thread

    thread = trio.run(main)
    transport.gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors == []


async def test_what_is_added_while_a_thread_sends_is_sent_by_that_thread(errors):
    transport = Kernel()
    transport.gate.clear()
    answers = AnswerQueue(transport, 1000, errors.append)
    threads = [threading.Thread(target=answers.send, args=(b"1", RequestWorker()))]
    threads[0].start()
    await trio.to_thread.run_sync(transport.is_in_thread.wait)
    answers.add(b"2")
    answers.flush()
    answers.send(b"3", RequestWorker())
    answers.emit(b"4")
    transport.gate.set()
    await trio.to_thread.run_sync(threads[0].join)
    assert transport.taken == b"1234"
    assert transport.sizes == [1, 3]
    assert answers.unsent == 0


async def test_small_lines_are_sent_together_and_large_ones_alone(errors):
    transport = Kernel()
    answers = AnswerQueue(transport, 10**9, errors.append)
    large = b"x" * 300_000
    for line in (b"1", b"2", (b"(", large, b")"), b"3", b"4" * 262_143, b"5"):
        answers.add(line)
    answers.flush()
    assert transport.sizes == [3, 300_000, 2, 262_144]
    assert len(transport.taken) == sum(transport.sizes)


async def test_what_was_not_taken_is_sent_by_the_task_before_anything_else(errors, nursery):
    transport = Kernel(3, 2, 0, 1)
    answers = AnswerQueue(transport, 1000, errors.append)
    nursery.start_soon(answers.run)
    answers.add(b"12345678")
    answers.flush()
    answers.send(b"9", RequestWorker())
    answers.add(b"a")
    answers.flush()
    await wait_all_tasks_blocked()
    assert transport.taken == b"123"
    assert answers.unsent == 7
    transport.has_room.set()
    await answers.drain()
    assert transport.taken == b"123456789a"
    assert answers.unsent == 0


async def test_a_lot_is_not_sent_without_letting_others_run(errors, nursery):
    transport = Kernel()
    answers = AnswerQueue(transport, 10**9, errors.append)
    nursery.start_soon(answers.run)
    for _ in range(20):
        answers.add(b"x" * 262_144)
    answers.flush()
    assert len(transport.taken) == 1_048_576
    transport.has_room.set()
    await answers.drain()
    assert len(transport.taken) == 20 * 262_144


@pytest.mark.parametrize("where", ["at once", "in the task"])
async def test_an_error_is_passed_on_and_ends_it(errors, nursery, where):
    error = ConnectionLost("gone")
    transport = Kernel(*([error] if where == "at once" else [1, error]))
    transport.has_room.set()
    answers = AnswerQueue(transport, 1000, errors.append)
    nursery.start_soon(answers.run)
    answers.add(b"123")
    answers.flush()
    await answers.drain()
    assert errors == [error]
    answers.add(b"4")
    answers.flush()
    answers.send(b"5", worker := RequestWorker())
    assert worker.request is None
    with pytest.raises(ConnectionLost):
        answers.emit(b"6")
    await wait_all_tasks_blocked()
    assert answers.unsent == 0
    assert len(transport.taken) == (0 if where == "at once" else 1)


async def test_the_last_lines_are_sent_and_nothing_after_them(errors):
    transport = Kernel()
    answers = AnswerQueue(transport, 1000, errors.append)
    answers.add(b"1")
    answers.close(lambda: [b"2", b"3"])
    answers.close(lambda: [b"4"])
    answers.add(b"5")
    answers.send(b"6", RequestWorker())
    answers.flush()
    assert transport.taken == b"123"


async def test_a_full_queue_refuses_in_the_trio_thread(errors):
    transport = Kernel(0)
    answers = AnswerQueue(transport, 3, errors.append)
    answers.add(b"1234")
    assert answers.is_full
    with pytest.raises(BacklogFull, match="4 bytes wait"):
        answers.emit(b"5")
    answers.close()
    with pytest.raises(ConnectionLost):
        answers.emit(b"5")


# ---- notifications that wait for the answer ----


class Thread:
    """A thread that carries out requests."""

    def __init__(self, profile):
        self.request = "a request"
        self.profile = profile
        self.emitted = 0.0


@pytest.fixture
def profiles():
    return MethodProfiles()


def requested(answers, profile, *lines, answer=b"answer"):
    """Carry out a request for a method that emits lines; to be called in another thread."""
    thread = Thread(profile)
    answers.enter(thread)
    for line in lines:
        answers.emit(line)
    if answer:
        answers.send(answer, thread)
    answers.leave()


@pytest.fixture
def looked_after(nursery, errors, monkeypatch, profiles):
    """Return a function that makes a queue that delays notifications, and its stream."""

    async def learn(held_for, nursery=nursery):
        monkeypatch.setattr(queue_module, "MAX_DELAY", held_for)
        # What is prompt on a loaded computer is not for a test to know.
        monkeypatch.setattr(coalescing_module, "MAX_DELAY", PATIENCE)
        transport = Kernel()
        answers = AnswerQueue(transport, 1000, errors.append)
        nursery.start_soon(answers.run)
        nursery.start_soon(answers.flush_delayed)
        await wait_all_tasks_blocked()
        while not answers._coalescing.has_timer:
            await trio.to_thread.run_sync(requested, answers, profiles["tick"], b"first")
            await wait_all_tasks_blocked()
        transport.taken = b""
        transport.sizes.clear()
        return answers, transport

    return learn


async def test_a_notification_leaves_with_the_answer_of_a_method_that_has_been_prompt(looked_after, profiles):
    answers, transport = await looked_after(held_for=PATIENCE)
    for _ in range(3):
        await trio.to_thread.run_sync(requested, answers, profiles["tick"], b"12", b"3")
    assert transport.sizes == [9, 9, 9]


async def test_a_notification_of_a_method_that_goes_on_waits_for_a_moment_only(looked_after, profiles):
    answers, transport = await looked_after(held_for=0.01)
    await trio.to_thread.run_sync(partial(requested, answers, profiles["tick"], b"going", answer=b""))
    with trio.fail_after(PATIENCE):
        while transport.taken != b"going":
            await trio.sleep(0.001)
        # Nothing comes any more, so nobody looks any more.
        while answers._coalescing.has_timer:
            await trio.sleep(0.001)


async def test_others_do_not_wait_for_an_answer(looked_after, profiles):
    answers, transport = await looked_after(held_for=PATIENCE)
    # A method that is not known to be prompt, a thread that carries out nothing, and the thread of Trio.
    await trio.to_thread.run_sync(partial(requested, answers, profiles["other"], b"1", answer=b""))
    await wait_all_tasks_blocked()
    assert transport.taken == b"1"
    await trio.to_thread.run_sync(answers.emit, b"2")
    await wait_all_tasks_blocked()
    assert transport.taken == b"12"
    answers.emit(b"3")
    await wait_all_tasks_blocked()
    assert transport.taken == b"123"


async def test_what_waits_is_sent_when_nobody_looks_after_it_any_more(looked_after, profiles):
    async with trio.open_nursery() as nursery:
        answers, transport = await looked_after(PATIENCE, nursery)
        await trio.to_thread.run_sync(partial(requested, answers, profiles["tick"], b"held", answer=b""))
        await wait_all_tasks_blocked()
        assert transport.taken == b""
        nursery.cancel_scope.cancel()
    assert transport.taken == b"held"
    assert not answers._coalescing.has_timer


def test_a_method_that_has_gone_on_for_long_is_not_prompt_any_more(monkeypatch, profiles):
    coalescing, thread = Coalescing(), Thread(profiles["tick"])
    coalescing.has_timer = True
    assert not coalescing.may_delay(thread)
    coalescing.answered(thread)
    assert coalescing.may_delay(thread)
    assert coalescing.was_useful
    monkeypatch.setattr(coalescing_module, "MAX_DELAY", 0)
    coalescing.answered(thread)
    assert not coalescing.may_delay(thread)
    thread.request = None
    assert not coalescing.may_delay(thread)
