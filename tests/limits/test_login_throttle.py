"""Who guesses passwords has to wait, and nobody else does."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msl_network_trio.limits import login_throttle as logins
from msl_network_trio.limits.login_throttle import LoginThrottle, Outcome
from msl_network_trio.protocol.manager.admission import Authentication
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.pending_check import LoginCheck, Throttled, UserCheck
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from tests.protocol.network import NAME, Clock, encoded, raw, read


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(
    attempts: LoginThrottle, address: str = "10.0.0.1", user: str | None = "alice", times: int = 1
) -> None:
    for _ in range(times):
        attempt = attempts.begin(address, user)
        assert attempt.is_admitted
        attempt.end(Outcome.FAILED)


def succeed(attempts: LoginThrottle, address: str = "10.0.0.1", user: str | None = "alice") -> None:
    attempts.begin(address, user).end(Outcome.SUCCEEDED)


def test_a_user_of_a_host_may_fail_so_often_and_then_once_for_each_that_is_forgotten(clock):
    attempts = LoginThrottle(3, 60, 0, clock)
    for _ in range(3):
        fail(attempts)
        clock.now += 10
    assert attempts.begin("10.0.0.1", "alice").retry_after == 30
    fail(attempts, user="bob")
    fail(attempts, address="10.0.0.2")
    clock.now += 29.5
    assert attempts.begin("10.0.0.1", "alice").retry_after == 1
    clock.now += 0.5
    fail(attempts)
    assert attempts.begin("10.0.0.1", "alice").retry_after == 10
    assert attempts.refused == 3


def test_attempts_that_succeed_or_are_not_decided_do_not_count(clock):
    attempts = LoginThrottle(2, 60, 0, clock)
    for outcome in [Outcome.SUCCEEDED, Outcome.UNKNOWN] * 10:
        attempt = attempts.begin("10.0.0.1", "alice")
        assert attempt.is_admitted
        attempt.end(outcome)
    assert attempts.refused == 0


@pytest.mark.parametrize("right", [True, False])
def test_no_more_are_looked_at_than_may_yet_fail_and_the_others_wait_in_order(clock, right):
    attempts = LoginThrottle(2, 60, 0, clock)
    woken: list[int] = []
    begun = [attempts.begin("10.0.0.1", "alice", lambda n=n: woken.append(n)) for n in range(6)]
    assert [attempt.is_admitted for attempt in begun] == [True, True, False, False, False, False]
    assert [attempt.is_queued for attempt in begun] == [False, False, True, True, True, True]
    if right:
        for number in range(6):
            begun[number].end(Outcome.SUCCEEDED)
            assert woken == list(range(2, 6))[: number + 1]
        assert attempts.refused == 0
    else:
        begun[0].end(Outcome.FAILED)
        assert woken == []
        begun[1].end(Outcome.FAILED)
        assert woken == [2, 3, 4, 5]
        assert [attempt.retry_after for attempt in begun[2:]] == [60] * 4
        for attempt in begun[2:]:
            attempt.end(Outcome.UNKNOWN)  # which they need not say
        assert attempts.refused == 4


def test_who_no_longer_waits_is_passed_over(clock):
    attempts = LoginThrottle(1, 60, 0, clock)
    woken: list[int] = []
    begun = [attempts.begin("10.0.0.1", "alice", lambda n=n: woken.append(n)) for n in range(4)]
    begun[1].end(Outcome.UNKNOWN)
    begun[0].end(Outcome.SUCCEEDED)
    assert woken == [2]
    begun[3].end(Outcome.UNKNOWN)
    begun[2].end(Outcome.SUCCEEDED)
    assert woken == [2]
    succeed(attempts)


def test_a_new_attempt_does_not_overtake_those_that_wait(clock):
    attempts = LoginThrottle(1, 60, 0, clock)
    first, second = attempts.begin("10.0.0.1", "alice"), attempts.begin("10.0.0.1", "alice")
    first.end(Outcome.SUCCEEDED)
    third = attempts.begin("10.0.0.1", "alice")
    assert (second.is_admitted, third.is_queued) == (True, True)


def test_after_many_failures_of_a_host_its_new_users_are_refused_and_known_ones_delayed(clock):
    attempts = LoginThrottle(2, 60, 0.5, clock)
    succeed(attempts, user="known")
    for number in range(20):
        assert attempts.delay("10.0.0.1", "known") == 0
        fail(attempts, user=f"guess-{number}")
        clock.now += 1
    assert attempts.begin("10.0.0.1", "new").retry_after == 40
    assert attempts.delay("10.0.0.1", "new") == 0
    assert attempts.delay("10.0.0.1", "known") == logins._LONGEST_DELAY
    succeed(attempts, user="known")
    fail(attempts, user="known", times=2)
    assert attempts.begin("10.0.0.1", "known").retry_after == 60
    assert attempts.begin("10.0.0.1", "new").retry_after == 42  # now the third of them has to be forgotten
    succeed(attempts, address="10.0.0.2", user="new")


def test_no_more_new_users_of_a_host_are_looked_at_than_may_yet_fail(clock):
    attempts = LoginThrottle(1, 60, 0, clock)
    succeed(attempts, user="known")
    begun = [attempts.begin("10.0.0.1", f"new-{number}") for number in range(12)]
    assert [attempt.is_admitted for attempt in begun] == [True] * 10 + [False] * 2
    assert attempts.begin("10.0.0.1", "known").is_admitted
    begun[0].end(Outcome.SUCCEEDED)
    assert (begun[10].is_admitted, begun[11].is_queued) == (True, True)
    for attempt in begun[1:11]:
        attempt.end(Outcome.FAILED)
    assert begun[11].retry_after == 60


def test_who_phase_a_user_does_not_hold_up_other_users(clock):
    attempts = LoginThrottle(1, 60, 0, clock)
    alice, alice_again = attempts.begin("10.0.0.1", "alice"), attempts.begin("10.0.0.1", "alice")
    others = [attempts.begin("10.0.0.1", f"new-{number}") for number in range(10)]
    assert [attempt.is_admitted for attempt in others] == [True] * 9 + [False]
    others[0].end(Outcome.UNKNOWN)
    assert (alice_again.is_queued, others[9].is_admitted) == (True, True)
    alice.end(Outcome.UNKNOWN)
    assert alice_again.is_admitted


@settings(max_examples=50)
@given(st.data())
def test_all_attempts_end_and_failures_are_bounded(data):
    clock = Clock()
    attempts = LoginThrottle(2, 60, 0, clock)
    users = ["a", "b", "c", *(f"u{n}" for n in range(25))]
    truth = {user: data.draw(st.booleans()) for user in users}
    waiting = [attempts.begin("10.0.0.1", data.draw(st.sampled_from(users))) for _ in range(60)]
    names = {logins._digest(user): user for user in users}
    failed = Counter()
    known = set()
    while looked_at := [attempt for attempt in waiting if attempt.is_admitted]:
        attempt = data.draw(st.sampled_from(looked_at))
        waiting.remove(attempt)
        user = names[attempt.user]
        attempt.end(Outcome.SUCCEEDED if truth[user] else Outcome.FAILED)
        failed[user] += not truth[user]
        known |= {user} if truth[user] else set()
    assert all(attempt.retry_after for attempt in waiting)
    assert all(count <= 2 for count in failed.values())
    assert failed.total() <= 20
    # A user with the right password is refused only if others have failed too often before its first success.
    refused = {names[attempt.user] for attempt in waiting}
    assert failed.total() == 20 or not any(truth[user] for user in refused)
    host = attempts._hosts.get("10.0.0.1")
    assert host is None or not host.is_active()


def test_each_failure_of_a_user_makes_its_next_attempt_wait_longer_up_to_a_limit(clock):
    attempts = LoginThrottle(None, 60, 0.5, clock)
    waits = []
    for _ in range(20):
        waits.append(attempts.delay("10.0.0.1", "alice"))
        fail(attempts)
    assert waits[:4] == [0, 0.5, 1, 1.5]
    assert max(waits) == waits[-1] == logins._LONGEST_DELAY
    assert attempts.delay("10.0.0.1", "bob") == 0
    assert attempts.delay("10.0.0.2", "alice") == 0
    clock.now += 61
    assert attempts.delay("10.0.0.1", "alice") == 0
    assert attempts._hosts == {}


def test_who_is_refused_anyway_need_not_wait_for_it(clock):
    attempts = LoginThrottle(2, 60, 0.5, clock)
    fail(attempts, times=2)
    assert attempts.delay("10.0.0.1", "alice") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("vm", "vm", True),
        ("vm", "other", False),
    ],
)
def test_hosts_are_told_apart_by_what_one_computer_cannot_change(clock, one, other, same):
    attempts = LoginThrottle(1, 60, 0, clock)
    fail(attempts, one)
    assert (attempts.begin(other, "alice").retry_after > 0) is same


@pytest.mark.parametrize("limit", [10, None])
def test_the_memory_is_bounded(clock, monkeypatch, limit):
    monkeypatch.setattr(logins, "_HOSTS", 20)
    monkeypatch.setattr(logins, "_ENTRIES", 1000)
    monkeypatch.setattr(logins, "_USERS", 30)
    attempts = LoginThrottle(limit, 60, 0.1, clock)
    held = attempts.begin("10.0.1.1", "alice")
    for number in range(100):
        for user in range(100):
            attempts.begin(f"10.0.0.{number}", "x" * 10_000 + str(user)).end(Outcome.FAILED)
        for user in range(40):
            attempts.begin(f"10.0.0.{number}", f"known {user}").end(Outcome.SUCCEEDED)
        assert attempts._size == sum(host.size() for host in attempts._hosts.values()) <= 1000
    assert len(attempts._hosts) <= 20
    assert "10.0.1.1" in attempts._hosts  # of which an attempt is not over
    for _ in range(2 * logins._REMEMBERED):
        attempts.begin("10.0.0.99", "alice").end(Outcome.FAILED)
    host = attempts._hosts["10.0.0.99"]
    assert len(host.failed_users.get(logins._digest("alice"), ())) <= (limit or logins._REMEMBERED)
    assert len(host.known) <= 30
    held.end(Outcome.SUCCEEDED)


def test_the_failures_of_users_who_are_known_are_bounded_too(clock):
    attempts = LoginThrottle(2, 60, 0, clock)
    for number in range(50):
        succeed(attempts, user=f"known {number}")
    for number in range(50):
        fail(attempts, user=f"known {number}", times=2)
    host = attempts._hosts["10.0.0.1"]
    assert len(host.failed) == sum(map(len, host.failed_users.values())) == 40
    assert attempts._size == host.size()
    assert attempts.begin("10.0.0.1", "known 49").retry_after == 60


def test_a_few_hosts_are_forgotten_at_a_time(clock, monkeypatch):
    monkeypatch.setattr(logins, "_HOSTS", 3)
    attempts = LoginThrottle(1, 60, 0, clock)
    for number in range(4):
        fail(attempts, f"10.0.0.{number}")
    assert list(attempts._hosts) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    held = [attempts.begin(f"10.0.1.{number}", "alice") for number in range(5)]
    assert all(attempt.is_admitted for attempt in held)
    assert len(attempts._hosts) == 5  # none of which can be forgotten now


# ---- as peers see it ----


def manager(clock, authentication: Authentication) -> ManagerProtocol:
    return ManagerProtocol(
        NAME,
        {},
        authentication=authentication,
        max_backlog=10**6,
        login_attempts=3,
        login_memory=60,
        clock=clock,
    )


def connect(protocol: ManagerProtocol, address: str = "10.0.0.1") -> Peer:
    peer = Peer(Host("vm", address, "vm", "vm"), 1)
    protocol.connect(peer)
    raw(peer)
    return peer


def answer(protocol: ManagerProtocol, peer: Peer, text: object) -> list[str]:
    protocol.receive(peer, encoded({"result": text}) + b"\n")
    return [line.get("message") or line["attribute"] for line in read(peer)]


def test_the_right_password_is_not_even_looked_at_after_too_many_wrong_ones(clock):
    protocol = manager(clock, Authentication("secret"))
    for _ in range(3):
        assert answer(protocol, connect(protocol), "guess") == ["ValueError: Wrong Manager password"]
    peer = connect(protocol)
    assert answer(protocol, peer, "secret") == [
        "ValueError: Too many logins from vm have failed, the next one may begin in 60 s"
    ]
    assert peer.close_reason
    assert answer(protocol, connect(protocol, "10.0.0.2"), "secret") == ["identity"]
    clock.now += 60
    assert answer(protocol, connect(protocol), "secret") == ["identity"]


@pytest.mark.parametrize("question", [UserCheck, LoginCheck])
def test_a_peer_that_is_throttled_is_told_when_to_try_again(clock, question):
    protocol = manager(clock, Authentication(login=True))
    peer = connect(protocol)
    answer(protocol, peer, "alice")
    if question is LoginCheck:
        protocol.resolve(peer, True)
        raw(peer)
        answer(protocol, peer, "pw")
    assert isinstance(protocol.pending_check(peer), question)
    protocol.resolve(peer, Throttled("vm", 21))
    [line] = read(peer)
    text = "ValueError: Too many logins from vm have failed, the next one may begin in 21 s"
    assert (line["message"], line["again"], line["uid"]) == (text, 21, "")
    assert peer.close_reason


# ---- before the handshake is over ----


def test_blank_lines_in_the_handshake_are_bounded_and_cost_no_more_than_they_must(clock):
    protocol = manager(clock, Authentication("secret"))
    peer = connect(protocol)
    protocol.receive(peer, b"\n" * 300_000)
    [line] = read(peer)
    assert line["message"] == "ValueError: 'password' was not answered by any of 1,000 lines"
    assert peer.close_reason
