"""The login throttle slows down guesses at passwords, and no other logins."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msl_network_trio.limits import login_throttle as module
from msl_network_trio.limits.login_throttle import LoginThrottle, Outcome
from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Host, Peer
from msl_network_trio.protocol.manager.pending_check import LoginCheck, Throttled, UserCheck
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from tests.protocol.network import NAME, Clock, encoded, raw, read


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(
    throttle: LoginThrottle, address: str = "10.0.0.1", user: str | None = "alice", times: int = 1
) -> None:
    for _ in range(times):
        attempt = throttle.begin(address, user)
        assert attempt.is_admitted
        attempt.end(Outcome.FAILED)


def succeed(throttle: LoginThrottle, address: str = "10.0.0.1", user: str | None = "alice") -> None:
    throttle.begin(address, user).end(Outcome.SUCCEEDED)


def test_a_user_of_a_host_is_refused_after_the_limit_until_failures_expire(clock):
    throttle = LoginThrottle(3, 60, 0, clock)
    for _ in range(3):
        fail(throttle)
        clock.now += 10
    assert throttle.begin("10.0.0.1", "alice").retry_after == 30
    fail(throttle, user="bob")
    fail(throttle, address="10.0.0.2")
    clock.now += 29.5
    assert throttle.begin("10.0.0.1", "alice").retry_after == 1
    clock.now += 0.5
    fail(throttle)
    assert throttle.begin("10.0.0.1", "alice").retry_after == 10
    assert throttle.refused == 3


def test_successful_and_unknown_outcomes_do_not_count(clock):
    throttle = LoginThrottle(2, 60, 0, clock)
    for outcome in [Outcome.SUCCEEDED, Outcome.UNKNOWN] * 10:
        attempt = throttle.begin("10.0.0.1", "alice")
        assert attempt.is_admitted
        attempt.end(outcome)
    assert throttle.refused == 0


@pytest.mark.parametrize("right", [True, False])
def test_attempts_beyond_the_limit_are_queued_in_order(clock, right):
    throttle = LoginThrottle(2, 60, 0, clock)
    woken: list[int] = []
    begun = [throttle.begin("10.0.0.1", "alice", lambda n=n: woken.append(n)) for n in range(6)]
    assert [attempt.is_admitted for attempt in begun] == [True, True, False, False, False, False]
    assert [attempt.is_queued for attempt in begun] == [False, False, True, True, True, True]
    if right:
        for number in range(6):
            begun[number].end(Outcome.SUCCEEDED)
            assert woken == list(range(2, 6))[: number + 1]
        assert throttle.refused == 0
    else:
        begun[0].end(Outcome.FAILED)
        assert woken == []
        begun[1].end(Outcome.FAILED)
        assert woken == [2, 3, 4, 5]
        assert [attempt.retry_after for attempt in begun[2:]] == [60] * 4
        for attempt in begun[2:]:
            attempt.end(Outcome.UNKNOWN)  # which has no effect
        assert throttle.refused == 4


def test_withdrawn_attempts_are_skipped(clock):
    throttle = LoginThrottle(1, 60, 0, clock)
    woken: list[int] = []
    begun = [throttle.begin("10.0.0.1", "alice", lambda n=n: woken.append(n)) for n in range(4)]
    begun[1].end(Outcome.UNKNOWN)
    begun[0].end(Outcome.SUCCEEDED)
    assert woken == [2]
    begun[3].end(Outcome.UNKNOWN)
    begun[2].end(Outcome.SUCCEEDED)
    assert woken == [2]
    succeed(throttle)


def test_a_new_attempt_does_not_overtake_queued_ones(clock):
    throttle = LoginThrottle(1, 60, 0, clock)
    first, second = throttle.begin("10.0.0.1", "alice"), throttle.begin("10.0.0.1", "alice")
    first.end(Outcome.SUCCEEDED)
    third = throttle.begin("10.0.0.1", "alice")
    assert (second.is_admitted, third.is_queued) == (True, True)


def test_after_many_failures_of_a_host_its_new_users_are_refused_and_known_ones_delayed(clock):
    throttle = LoginThrottle(2, 60, 0.5, clock)
    succeed(throttle, user="known")
    for number in range(20):
        assert throttle.delay("10.0.0.1", "known") == 0
        fail(throttle, user=f"guess-{number}")
        clock.now += 1
    assert throttle.begin("10.0.0.1", "new").retry_after == 40
    assert throttle.delay("10.0.0.1", "new") == 0
    assert throttle.delay("10.0.0.1", "known") == module._LONGEST_DELAY
    succeed(throttle, user="known")
    fail(throttle, user="known", times=2)
    assert throttle.begin("10.0.0.1", "known").retry_after == 60
    assert throttle.begin("10.0.0.1", "new").retry_after == 42  # the third failure must expire first
    succeed(throttle, address="10.0.0.2", user="new")


def test_attempts_of_new_users_beyond_the_limit_of_a_host_are_queued(clock):
    throttle = LoginThrottle(1, 60, 0, clock)
    succeed(throttle, user="known")
    begun = [throttle.begin("10.0.0.1", f"new-{number}") for number in range(12)]
    assert [attempt.is_admitted for attempt in begun] == [True] * 10 + [False] * 2
    assert throttle.begin("10.0.0.1", "known").is_admitted
    begun[0].end(Outcome.SUCCEEDED)
    assert (begun[10].is_admitted, begun[11].is_queued) == (True, True)
    for attempt in begun[1:11]:
        attempt.end(Outcome.FAILED)
    assert begun[11].retry_after == 60


def test_queued_attempts_of_a_user_do_not_block_other_users(clock):
    throttle = LoginThrottle(1, 60, 0, clock)
    alice, alice_again = throttle.begin("10.0.0.1", "alice"), throttle.begin("10.0.0.1", "alice")
    others = [throttle.begin("10.0.0.1", f"new-{number}") for number in range(10)]
    assert [attempt.is_admitted for attempt in others] == [True] * 9 + [False]
    others[0].end(Outcome.UNKNOWN)
    assert (alice_again.is_queued, others[9].is_admitted) == (True, True)
    alice.end(Outcome.UNKNOWN)
    assert alice_again.is_admitted


@settings(max_examples=50)
@given(st.data())
def test_all_attempts_end_and_failures_are_bounded(data):
    clock = Clock()
    throttle = LoginThrottle(2, 60, 0, clock)
    users = ["a", "b", "c", *(f"u{n}" for n in range(25))]
    truth = {user: data.draw(st.booleans()) for user in users}
    waiting = [throttle.begin("10.0.0.1", data.draw(st.sampled_from(users))) for _ in range(60)]
    names = {module._digest(user): user for user in users}
    failed = Counter()
    known = set()
    while admitted := [attempt for attempt in waiting if attempt.is_admitted]:
        attempt = data.draw(st.sampled_from(admitted))
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
    host = throttle._hosts.get("10.0.0.1")
    assert host is None or not host.is_active()


def test_each_failure_of_a_user_makes_its_next_attempt_wait_longer_up_to_a_limit(clock):
    throttle = LoginThrottle(None, 60, 0.5, clock)
    waits = []
    for _ in range(20):
        waits.append(throttle.delay("10.0.0.1", "alice"))
        fail(throttle)
    assert waits[:4] == [0, 0.5, 1, 1.5]
    assert max(waits) == waits[-1] == module._LONGEST_DELAY
    assert throttle.delay("10.0.0.1", "bob") == 0
    assert throttle.delay("10.0.0.2", "alice") == 0
    clock.now += 61
    assert throttle.delay("10.0.0.1", "alice") == 0
    assert throttle._hosts == {}


def test_an_attempt_that_would_be_refused_is_not_delayed(clock):
    throttle = LoginThrottle(2, 60, 0.5, clock)
    fail(throttle, times=2)
    assert throttle.delay("10.0.0.1", "alice") == 0


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
def test_hosts_are_identified_by_the_part_of_the_address_that_they_cannot_change(clock, one, other, same):
    throttle = LoginThrottle(1, 60, 0, clock)
    fail(throttle, one)
    assert (throttle.begin(other, "alice").retry_after > 0) is same


@pytest.mark.parametrize("limit", [10, None])
def test_the_memory_is_bounded(clock, monkeypatch, limit):
    monkeypatch.setattr(module, "_HOSTS", 20)
    monkeypatch.setattr(module, "_ENTRIES", 1000)
    monkeypatch.setattr(module, "_USERS", 30)
    throttle = LoginThrottle(limit, 60, 0.1, clock)
    held = throttle.begin("10.0.1.1", "alice")
    for number in range(100):
        for user in range(100):
            throttle.begin(f"10.0.0.{number}", "x" * 10_000 + str(user)).end(Outcome.FAILED)
        for user in range(40):
            throttle.begin(f"10.0.0.{number}", f"known {user}").end(Outcome.SUCCEEDED)
        assert throttle._size == sum(host.size() for host in throttle._hosts.values()) <= 1000
    assert len(throttle._hosts) <= 20
    assert "10.0.1.1" in throttle._hosts  # with an attempt in progress
    for _ in range(2 * module._REMEMBERED):
        throttle.begin("10.0.0.99", "alice").end(Outcome.FAILED)
    host = throttle._hosts["10.0.0.99"]
    assert len(host.failed_users.get(module._digest("alice"), ())) <= (limit or module._REMEMBERED)
    assert len(host.known) <= 30
    held.end(Outcome.SUCCEEDED)


def test_the_failures_of_known_users_are_bounded(clock):
    throttle = LoginThrottle(2, 60, 0, clock)
    for number in range(50):
        succeed(throttle, user=f"known {number}")
    for number in range(50):
        fail(throttle, user=f"known {number}", times=2)
    host = throttle._hosts["10.0.0.1"]
    assert len(host.failed) == sum(map(len, host.failed_users.values())) == 40
    assert throttle._size == host.size()
    assert throttle.begin("10.0.0.1", "known 49").retry_after == 60


def test_hosts_are_evicted_as_needed(clock, monkeypatch):
    monkeypatch.setattr(module, "_HOSTS", 3)
    throttle = LoginThrottle(1, 60, 0, clock)
    for number in range(4):
        fail(throttle, f"10.0.0.{number}")
    assert list(throttle._hosts) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    held = [throttle.begin(f"10.0.1.{number}", "alice") for number in range(5)]
    assert all(attempt.is_admitted for attempt in held)
    assert len(throttle._hosts) == 5  # none of which can be evicted now


# ---- in the protocol of a Manager ----


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


def test_the_right_password_is_not_checked_after_too_many_wrong_ones(clock):
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
def test_a_throttled_peer_receives_the_seconds_until_the_next_attempt(clock, question):
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
