"""Hashes of passwords: few at a time, in turn for each host, equal ones once, right ones remembered."""

from __future__ import annotations

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio.manager import password_checks
from msl_network_trio.manager.password_checks import PasswordChecks
from msl_network_trio.protocol.manager.pending_check import TryAgain

RIGHT = (b"key", b"salt")


class Hashes:
    """Hashes that are computed when a test says so; a password is right if it is ``"right"``."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_the_same_time = self.most = 0
        self._lock = threading.Lock()
        self._may_end = threading.Semaphore(0)

    def compute(self, password: str, key: bytes | None, salt: bytes | None) -> bool:
        with self._lock:
            self.begun.append(password)
            self.at_the_same_time += 1
            self.most = max(self.most, self.at_the_same_time)
        self._may_end.acquire()
        with self._lock:
            self.at_the_same_time -= 1
        if password == "broken":
            raise MemoryError("no memory")
        return password.startswith("right")

    def let_end(self, count: int = 1) -> None:
        self._may_end.release(count)


@pytest.fixture
def hashes(monkeypatch):
    hashes = Hashes()
    monkeypatch.setattr(password_checks, "is_password", hashes.compute)
    yield hashes
    hashes.let_end(1000)


@pytest.fixture
async def checks(nursery):
    checks = PasswordChecks()
    checks.open(nursery)
    return checks


class Asked:
    """A check with a waiting task."""

    def __init__(self, nursery, checks, password, host="A", user="alice", record=RIGHT):
        self.scope = trio.CancelScope()
        self.answer: object = None
        nursery.start_soon(self._ask, checks, host, user, password, *record)

    async def _ask(self, checks, *arguments):
        with self.scope:
            try:
                self.answer = await checks.is_right(*arguments)
            except (TryAgain, MemoryError) as error:
                self.answer = error


async def answered(*asked):
    with trio.fail_after(30):
        while any(each.answer is None for each in asked):
            await trio.sleep(0.001)
    return [each.answer for each in asked]


async def begun(hashes, count):
    with trio.fail_after(30):
        while len(hashes.begun) < count:
            await trio.sleep(0.001)
    return hashes.begun


async def test_equal_attempts_share_one_hash_whether_it_is_right_or_not(checks, hashes, nursery):
    for password, right in [("right", True), ("wrong", False)]:
        hashes.begun.clear()
        asked = [Asked(nursery, checks, password, host) for host in ["A", "A", "B", "A"]]
        await begun(hashes, 1)
        late = Asked(nursery, checks, password, "C")
        await wait_all_tasks_blocked()
        hashes.let_end()
        assert await answered(*asked, late) == [right] * 5
        assert hashes.begun == [password]


@pytest.mark.parametrize(
    "other",
    [{"password": "right2"}, {"user": "bob"}, {"record": (b"new", b"salt")}, {"record": (b"key", b"s")}],
)
async def test_what_is_not_equal_shares_nothing_and_is_not_remembered(checks, hashes, nursery, other):
    for _ in range(2):
        first = Asked(nursery, checks, "right")
        second = Asked(nursery, checks, **{"password": "right", **other})
        await wait_all_tasks_blocked()
        hashes.let_end(2)
        assert await answered(first, second) == [True, True]
    assert len(hashes.begun) == 2  # of the first round; all are remembered in the second one


async def test_only_a_right_password_is_remembered_and_for_a_minute_only(
    checks, hashes, nursery, monkeypatch
):
    now = 1000.0
    monkeypatch.setattr(trio, "current_time", lambda: now)
    hashes.let_end(10)
    for password, count in [("right", 1), ("right", 1), ("wrong", 2), ("wrong", 3)]:
        await answered(Asked(nursery, checks, password))
        assert len(hashes.begun) == count
    now += 59
    assert await answered(Asked(nursery, checks, "right")) == [True]
    assert len(hashes.begun) == 3
    now += 2
    assert await answered(Asked(nursery, checks, "right")) == [True]
    assert len(hashes.begun) == 4
    checks.forget()
    assert await answered(Asked(nursery, checks, "right")) == [True]
    assert len(hashes.begun) == 5


async def test_what_is_remembered_is_no_password_and_bounded(checks, hashes, nursery, monkeypatch):
    monkeypatch.setattr(password_checks, "_CACHE_SIZE", 5)
    hashes.let_end(100)
    for number in range(20):
        await answered(Asked(nursery, checks, f"right {number}"))
    assert len(checks._right) == 5
    assert all(len(digest) == 32 for digest in checks._right)
    other = PasswordChecks()
    arguments = ("alice", "right", *RIGHT)
    assert checks._digest(*arguments) != other._digest(*arguments)  # each process has a key of its own
    assert checks._digest("ab", "c") != checks._digest("a", "bc")


@pytest.mark.parametrize("busy_host", ["A", "2001:db8::{}"], ids=["one address", "one IPv6 network"])
async def test_few_are_computed_at_a_time_and_hosts_take_turns(checks, hashes, nursery, busy_host):
    busy = [Asked(nursery, checks, f"busy {number}", busy_host.format(number)) for number in range(20)]
    await begun(hashes, 2)
    quiet = [Asked(nursery, checks, f"quiet {number}", host) for number, host in enumerate("BC")]
    await wait_all_tasks_blocked()
    for count in range(3, 23):
        hashes.let_end()
        await begun(hashes, count)
    assert {"quiet 0", "quiet 1"} < set(hashes.begun[2:5])
    hashes.let_end(2)
    assert await answered(*busy, *quiet) == [False] * 22
    assert hashes.most == 2
    assert (checks._queues, checks._checks, checks._workers) == ({}, {}, 0)


async def test_a_hash_for_which_nobody_waits_any_more_is_not_computed(checks, hashes, nursery):
    first = [Asked(nursery, checks, f"first {number}") for number in range(2)]
    await begun(hashes, 2)
    gone = [Asked(nursery, checks, "gone") for _ in range(2)]
    left = Asked(nursery, checks, "left")
    await wait_all_tasks_blocked()
    gone[0].scope.cancel()
    left.scope.cancel()
    await wait_all_tasks_blocked()
    assert len(checks._checks) == 3
    gone[1].scope.cancel()
    first[0].scope.cancel()  # whose hash goes on
    await wait_all_tasks_blocked()
    assert checks._queues == {}
    hashes.let_end(2)
    assert await answered(first[1]) == [False]
    assert sorted(hashes.begun) == ["first 0", "first 1"]
    again = Asked(nursery, checks, "gone")
    hashes.let_end()
    assert await answered(again) == [False]


async def test_who_waits_too_long_may_try_again(checks, hashes, nursery, monkeypatch):
    monkeypatch.setattr(password_checks, "_WAIT", 0.01)
    asked = Asked(nursery, checks, "right")
    [error] = await answered(asked)
    assert str(error) == "too many passwords are to be checked, this one was not within 0.01 s"
    assert error.again == 10


async def test_an_error_is_raised_where_it_is_waited_for(checks, hashes, nursery):
    asked = [Asked(nursery, checks, "broken") for _ in range(2)]
    hashes.let_end()
    assert [str(error) for error in await answered(*asked)] == ["no memory"] * 2
    hashes.let_end()
    assert await answered(Asked(nursery, checks, "right")) == [True]


async def test_a_check_that_is_cancelled_is_not_taken_for_a_wrong_password(hashes, nursery):
    async with trio.open_nursery() as inner:
        checks = PasswordChecks()
        checks.open(inner)
        asked = Asked(nursery, checks, "right")
        await begun(hashes, 1)
        inner.cancel_scope.cancel()
    (answer,) = await answered(asked)
    assert isinstance(answer, TryAgain)
