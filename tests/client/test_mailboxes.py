"""Limits of mailboxes, and dropped notifications."""

from __future__ import annotations

import random
import threading

import pytest
import trio
import trio.testing

from msl_network_trio import constants
from msl_network_trio.client.mailboxes import OVERHEAD, Mailbox, Mailboxes, Waiter
from msl_network_trio.protocol.messages import Gap, Notification, NotificationBatch


def batch(*numbers: int, size: int = 100, service: str = "Echo", mailboxes: Mailboxes | None = None):
    notifications = NotificationBatch.of(
        [Notification(service, [n], {}) for n in numbers], size * len(numbers)
    )
    if mailboxes is not None:
        mailboxes.number(notifications)
    return notifications


def waiting(mailbox: Mailbox) -> list[int]:
    return [notification.args[0] for notification in mailbox.queue]


# ---- limits ----


async def test_a_notification_counts_for_its_line_and_the_overhead():
    mailbox = Mailbox("Echo", Mailboxes(10 * (100 + OVERHEAD)))
    mailbox.put(batch(*range(10)))
    assert mailbox.size() == 10 * (100 + OVERHEAD)
    assert mailbox.dropped == 0
    mailbox.put(batch(10))
    assert waiting(mailbox) == list(range(1, 11))
    assert mailbox.dropped == 1


async def test_the_newest_notification_is_kept_however_large_it_is():
    limits = Mailboxes(1000)
    mailbox = Mailbox("Echo", limits)
    mailbox.put(batch(0, 1))
    mailbox.put(batch(2, size=1_000_000))
    assert waiting(mailbox) == [2]
    mailbox.put(batch(3))
    assert waiting(mailbox) == [3]
    assert mailbox.dropped == limits.dropped["Echo"] == 3


async def test_what_was_taken_does_not_count_any_more():
    mailbox = Mailbox("Echo", Mailboxes(3 * (100 + OVERHEAD)))
    for number in range(1000):
        mailbox.put(batch(2 * number, 2 * number + 1))
        mailbox.queue.popleft()
        mailbox.queue.popleft()
    mailbox.put(batch(0, 1, 2))
    mailbox.queue.popleft()
    mailbox.put(batch(3))
    assert (waiting(mailbox), mailbox.dropped) == ([1, 2, 3], 0)
    assert len(mailbox._runs) == 2


async def test_a_number_limits_the_number_and_not_the_bytes():
    limits = Mailboxes(1)
    mailbox = Mailbox("Echo", limits, 3)
    mailbox.put(batch(*range(5), size=10_000_000))
    assert waiting(mailbox) == [2, 3, 4]
    assert limits.dropped["Echo"] == 2
    assert mailbox.size() == 0


@pytest.mark.parametrize("seed", range(20))
async def test_the_size_is_that_of_what_waits(seed: int):
    chance = random.Random(seed)
    limit = chance.randrange(3000, 20_000)
    mailbox = Mailbox("Echo", Mailboxes(limit))
    model: list[tuple[int, int]] = []  # number and bytes
    dropped = number = 0
    for _ in range(300):
        if chance.random() < 0.5:
            count, size = chance.randrange(1, 5), chance.randrange(50, 500)
            mailbox.put(batch(*range(number, number + count), size=size))
            model += [(n, size + OVERHEAD) for n in range(number, number + count)]
            number += count
            while sum(size for _, size in model) > limit and len(model) > 1:
                model.pop(0)
                dropped += 1
        for _ in range(chance.randrange(3)):
            if model:
                assert mailbox.queue.popleft().args == [model.pop(0)[0]]
        assert waiting(mailbox) == [n for n, _ in model]
        assert mailbox.size() == sum(size for _, size in model)
        assert mailbox.dropped == dropped


async def test_all_services_together_have_a_limit_and_the_largest_loses():
    limits = Mailboxes(max_total=10 * (100 + OVERHEAD))
    mailboxes = {service: Mailbox(service, limits) for service in "ABC"}
    for mailbox in mailboxes.values():
        limits.add(mailbox)
    mailboxes["A"].put(batch(*range(7), service="A"))
    mailboxes["B"].put(batch(*range(3), service="B"))
    mailboxes["C"].put(batch(*range(2), service="C"))
    assert {service: waiting(mailbox) for service, mailbox in mailboxes.items()} == {
        "A": [2, 3, 4, 5, 6],
        "B": [0, 1, 2],
        "C": [0, 1],
    }
    assert limits.dropped == {"A": 2}
    for _ in range(5):
        mailboxes["A"].queue.popleft()
    mailboxes["C"].put(batch(2, 3, 4, 5, 6, service="C"))
    assert limits.dropped == {"A": 2}
    limits.remove(mailboxes["B"])
    limits.remove(mailboxes["B"])
    mailboxes["C"].put(batch(7, 8, 9, service="C"))
    assert limits.dropped == {"A": 2}
    mailboxes["C"].put(batch(10, service="C"))
    assert limits.dropped == {"A": 2, "C": 1}


async def test_several_mailboxes_of_a_service_share_its_notifications():
    limits = Mailboxes(max_total=10 * (100 + OVERHEAD))
    mailboxes = [Mailbox("A", limits) for _ in range(5)]
    for mailbox in mailboxes:
        limits.add(mailbox)
        mailbox.put(batch(*range(10), service="A"))
    assert limits.dropped == {}
    limits.add(Mailbox("B", limits, 100))  # not limited by bytes, and does not count
    for mailbox in mailboxes:
        mailbox.put(batch(10, service="A"))
    assert {tuple(waiting(mailbox)) for mailbox in mailboxes} == {tuple(range(1, 11))}
    assert limits.dropped == {"A": 5}


async def test_other_services_lose_if_the_largest_has_nothing_to_lose():
    limits = Mailboxes(max_total=10_000)
    large, small = Mailbox("large", limits), Mailbox("small", limits)
    limits.add(large)
    limits.add(small)
    large.put(batch(0, service="large", size=1_000_000))
    small.put(batch(0, 1, 2, service="small"))
    assert (waiting(large), waiting(small)) == ([0], [2])


# ---- threads that wait for handlers ----


async def test_a_waiter_is_released_when_everything_before_was_handled():
    limits = Mailboxes()
    limits.numbers["Echo"] = 0
    mailbox = Mailbox("Echo", limits)
    assert not mailbox.add_waiter(Waiter(0))
    first, second = batch(0, 1, mailboxes=limits), batch(2, mailboxes=limits)
    assert (first.last, second.last) == (2, 3)
    waiter = Waiter(2)
    assert mailbox.may_hold(2)
    assert mailbox.add_waiter(waiter)  # not in the mailbox yet
    mailbox.put(first)
    mailbox.put(second)
    for _ in range(2):
        mailbox.at_work = True
        mailbox.queue.popleft()
        mailbox.release_waiters()
        assert not waiter.timed_wait(0)
    mailbox.queue.popleft()
    mailbox.release_waiters()
    assert waiter.timed_wait(0)
    assert not mailbox.add_waiter(Waiter(2))
    last = Waiter(3)
    assert mailbox.add_waiter(last)
    mailbox.remove_waiter(last)
    mailbox.remove_waiter(last)
    assert mailbox.waiters == []
    mailbox.at_work = False
    assert not mailbox.may_hold(3)
    assert not mailbox.add_waiter(Waiter(3))


async def test_notifications_without_a_handler_are_not_waited_for_but_earlier_ones_are():
    limits = Mailboxes()
    limits.numbers["Echo"] = 0
    mailbox = Mailbox("Echo", limits)
    mailbox.put(batch(0, mailboxes=limits))
    mailbox.skip(batch(*range(1, 5), mailboxes=limits))
    mailbox.put(batch(5, mailboxes=limits))
    waiters = [Waiter(last) for last in (1, 5, 6)]
    assert all(mailbox.add_waiter(waiter) for waiter in waiters)
    mailbox.at_work = True
    mailbox.queue.popleft()
    mailbox.release_waiters()
    assert [waiter.timed_wait(0) for waiter in waiters] == [False, False, False]
    mailbox.queue.popleft()
    mailbox.release_waiters()
    assert [waiter.timed_wait(0) for waiter in waiters] == [True, True, False]
    mailbox.at_work = False
    mailbox.release_waiters()
    assert waiters[2].timed_wait(0)
    late = Waiter(7)
    assert mailbox.add_waiter(late)
    mailbox.skip(batch(6, mailboxes=limits))
    assert late.timed_wait(0)


@pytest.mark.parametrize("drop", [False, True])
async def test_the_end_releases_everybody(drop: bool):
    mailbox = Mailbox("Echo", Mailboxes())
    waiters = [Waiter(n) for n in (1, 2)]
    assert all(mailbox.add_waiter(waiter) for waiter in waiters)
    mailbox.end(drop=drop)
    assert all(waiter.timed_wait(0) for waiter in waiters)
    assert not mailbox.add_waiter(Waiter(1))


async def test_what_a_mailbox_made_later_never_gets_is_not_waited_for():
    limits = Mailboxes()
    limits.numbers["Echo"] = 0
    batch(0, mailboxes=limits)
    mailbox = Mailbox("Echo", limits)
    assert not mailbox.may_hold(1)
    assert not mailbox.add_waiter(Waiter(1))


async def test_notifications_of_services_without_a_link_are_not_numbered():
    limits = Mailboxes()
    assert batch(0, service="Other", mailboxes=limits).last == 0
    assert limits.numbers == {}
    assert not limits.has_numbers


async def test_a_thread_may_take_while_others_are_put_and_dropped():
    limits = Mailboxes(50 * (100 + OVERHEAD))
    limits.is_shared = True
    limits.numbers["Echo"] = 0
    mailbox = Mailbox("Echo", limits)
    taken: list[int] = []
    over = threading.Event()

    def take() -> None:
        is_last = False
        while not is_last:
            is_last = over.is_set()  # it checks the queue once more then
            while True:
                mailbox.at_work = True
                try:
                    taken.append(mailbox.queue.popleft().args[0])
                except IndexError:
                    break
                mailbox.release_waiters()
            mailbox.at_work = False
            mailbox.release_waiters()

    thread = threading.Thread(target=take)
    thread.start()
    waiters = []
    for number in range(0, 20_000, 20):
        mailbox.put(batch(*range(number, number + 20), mailboxes=limits))
        waiter = Waiter(number + 20)
        if mailbox.add_waiter(waiter):
            waiters.append(waiter)
    over.set()
    thread.join()
    assert all(waiter.timed_wait(0) for waiter in waiters)
    assert len(taken) + mailbox.dropped == 20_000
    assert taken == sorted(taken)
    assert mailbox.size() == 0


def test_the_limits_are_those_that_are_documented():
    assert constants.MAX_UNHANDLED == 64 * 1024**2
    assert Mailboxes().max_total == 256 * 1024**2
    assert OVERHEAD == 500


# ---- gaps ----


def gap(number: int) -> Gap:
    return Gap(number, number + 0.5, f"loss {number}", "Echo")


def drained(mailbox: Mailbox) -> list[object]:
    """Take everything: numbers of notifications, and the times of gaps."""
    taken: list[object] = []
    while mailbox.queue or mailbox.gaps:
        found = mailbox.take_gap()
        taken.append(mailbox.queue.popleft().args[0] if found is None else (found.since, found.until))
    return taken


async def test_gaps_keep_their_positions():
    mailbox = Mailbox("Echo", Mailboxes())
    mailbox.put_gap(gap(0))
    mailbox.put(batch(1, 2))
    mailbox.put_gap(gap(2))
    mailbox.put(batch(3))
    mailbox.put_gap(gap(3))
    assert drained(mailbox) == [(0, 0.5), 1, 2, (2, 2.5), 3, (3, 3.5)]


async def test_a_gap_is_not_due_before_the_notifications_in_front_of_it_are_taken():
    mailbox = Mailbox("Echo", Mailboxes())
    mailbox.put(batch(1, 2))
    mailbox.put_gap(gap(2))
    assert mailbox.take_gap() is None
    mailbox.queue.popleft()
    assert mailbox.take_gap() is None
    mailbox.queue.popleft()
    assert mailbox.take_gap() == gap(2)
    assert mailbox.take_gap() is None


async def test_gaps_with_nothing_between_them_are_one():
    mailbox = Mailbox("Echo", Mailboxes())
    mailbox.put(batch(1))
    for number in range(10):
        mailbox.put_gap(gap(number))
        assert len(mailbox.gaps) == 1
    assert drained(mailbox) == [1, (0, 9.5)]


@pytest.mark.parametrize("max_count", [None, 2])
async def test_gaps_are_merged_and_not_dropped_on_overflow(max_count):
    mailbox = Mailbox("Echo", Mailboxes(2 * (100 + OVERHEAD)), max_count)
    for number in range(1000):
        mailbox.put_gap(gap(number))
        mailbox.put(batch(number))
        assert len(mailbox.gaps) <= 4
    assert mailbox.dropped == 998
    assert drained(mailbox) == [(0, 998.5), 998, (999, 999.5), 999]


async def test_a_random_sequence_of_gaps_and_notifications_loses_no_mark():
    chance = random.Random(16)
    for _ in range(300):
        limit = chance.randrange(1, 5)
        mailbox = Mailbox("Echo", Mailboxes(), limit)
        taken: list[object] = []
        put: list[object] = []
        for number in range(chance.randrange(30)):
            match chance.randrange(3):
                case 0:
                    mailbox.put(batch(number))
                    put.append(number)
                case 1:
                    mailbox.put_gap(gap(number))
                    put.append((number, number + 0.5))
                case 2 if mailbox.queue or mailbox.gaps:
                    found = mailbox.take_gap()
                    taken.append(
                        mailbox.queue.popleft().args[0] if found is None else (found.since, found.until)
                    )
        taken += drained(mailbox)
        for position, each in enumerate(put):
            if isinstance(each, tuple):
                before = [taken.index(n) for n in put[:position] if isinstance(n, int) and n in taken]
                behind = [taken.index(n) for n in put[position:] if isinstance(n, int) and n in taken]
                between = taken[max(before, default=-1) + 1 : min(behind, default=len(taken))]
                assert any(found[0] <= each[0] and each[1] <= found[1] for found in between)


async def test_the_end_drops_gaps_only_together_with_notifications():
    mailbox = Mailbox("Echo", Mailboxes())
    mailbox.put(batch(1))
    mailbox.put_gap(gap(1))
    mailbox.end(drop=False)
    assert await mailbox.wait()
    assert drained(mailbox) == [1, (1, 1.5)]
    mailbox.put_gap(gap(2))
    mailbox.end(drop=True)
    assert not await mailbox.wait(for_gaps=True)
    assert drained(mailbox) == []


async def test_only_those_who_want_gaps_are_woken_by_one(autojump_clock):
    mailbox = Mailbox("Echo", Mailboxes())
    woken: list[str] = []

    async def wait(name: str, for_gaps: bool) -> None:
        await mailbox.wait(for_gaps=for_gaps)
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "gaps", True)
        nursery.start_soon(wait, "notifications", False)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put_gap(gap(0))
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["gaps"]
        mailbox.put(batch(1))
    assert woken == ["gaps", "notifications"]
