"""Who guesses passwords has to wait, and nobody else does."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol import logins
from msl_network_trio.protocol.admission import Authentication
from msl_network_trio.protocol.logins import Logins
from msl_network_trio.protocol.manager import ManagerProtocol
from msl_network_trio.protocol.peer import Host, Peer
from msl_network_trio.protocol.verdicts import KnowUser, LogIn

from .network import NAME, encoded, raw, read
from .test_manager_limits import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_so_many_attempts_and_then_one_for_each_that_is_forgotten(clock):
    attempts = Logins(3, 60, 0, clock)
    for _ in range(3):
        assert attempts.begin("10.0.0.1") == 0
        clock.now += 10
    assert attempts.begin("10.0.0.1") == 30
    assert attempts.begin("10.0.0.2") == 0
    clock.now += 29
    assert attempts.begin("10.0.0.1") == 1
    clock.now += 1
    assert attempts.begin("10.0.0.1") == 0
    assert attempts.begin("10.0.0.1") == 10
    assert attempts.refused == 3


def test_attempts_that_succeed_do_not_count(clock):
    attempts = Logins(2, 60, 0, clock)
    for _ in range(10):
        assert attempts.begin("10.0.0.1") == 0
        attempts.succeeded("10.0.0.1")
    attempts.succeeded("10.0.0.9")  # of whom nothing is known any more


def test_attempts_at_the_same_time_count_before_they_have_failed(clock):
    attempts = Logins(2, 60, 0, clock)
    assert [attempts.begin("10.0.0.1") for _ in range(4)] == [0, 0, 60, 60]


def test_each_failure_makes_the_next_attempt_wait_longer_up_to_a_limit(clock):
    attempts = Logins(100, 60, 0.5, clock)
    waits = []
    for _ in range(20):
        waits.append(attempts.delay("10.0.0.1"))
        attempts.begin("10.0.0.1")
    assert waits[:4] == [0, 0.5, 1, 1.5]
    assert max(waits) == waits[-1] == logins._LONGEST_DELAY
    assert attempts.delay("10.0.0.2") == 0
    clock.now += 61
    assert attempts.delay("10.0.0.1") == 0
    assert attempts._failed == {}


def test_who_is_refused_anyway_need_not_wait_for_it(clock):
    attempts = Logins(2, 60, 0.5, clock)
    attempts.begin("10.0.0.1")
    attempts.begin("10.0.0.1")
    assert attempts.delay("10.0.0.1") == 0


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
    attempts = Logins(1, 60, 0, clock)
    attempts.begin(one)
    assert (attempts.begin(other) > 0) is same


@pytest.mark.parametrize("limit", [10, None])
def test_the_memory_is_bounded(clock, monkeypatch, limit):
    monkeypatch.setattr(logins, "_HOSTS", 20)
    attempts = Logins(limit, 60, 0.1, clock)
    for number in range(100):
        for _ in range(5):
            attempts.begin(f"10.0.0.{number}")
    assert len(attempts._failed) == 20
    for _ in range(1000):
        attempts.begin("10.0.0.99")
    assert len(attempts._failed["10.0.0.99"]) == (limit or 100)


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
    assert peer.closing
    assert answer(protocol, connect(protocol, "10.0.0.2"), "secret") == ["identity"]
    clock.now += 60
    assert answer(protocol, connect(protocol), "secret") == ["identity"]


@pytest.mark.parametrize("how", ["unknown user", "wrong password"])
def test_failed_logins_of_users_count_and_others_do_not(clock, how):
    protocol = manager(clock, Authentication(login=True))

    def log_in(known: object, verdict: object) -> list[str]:
        peer = connect(protocol)
        said = answer(protocol, peer, "alice")
        if isinstance(protocol.undecided(peer), KnowUser):
            protocol.decide(peer, known)
            said = [line.get("message") or line["attribute"] for line in read(peer)]
        if said == ["password"]:
            answer(protocol, peer, "pw")
            assert isinstance(protocol.undecided(peer), LogIn)
            protocol.decide(peer, verdict)
            said = [line.get("message") or line["attribute"] for line in read(peer)]
        return said

    for _ in range(5):
        assert log_in(True, False) == ["identity"]  # a user who is no administrator
        assert log_in(True, True) == ["identity"]
        assert "cannot check" in log_in(RuntimeError("no database"), None)[0]
        assert "cannot check" in log_in(True, RuntimeError("no database"))[0]
    for _ in range(3):
        assert log_in(*((False, None) if how == "unknown user" else (True, None)))[0].endswith(
            "Unregistered user" if how == "unknown user" else "Wrong login password"
        )
    assert log_in(True, True)[0].startswith("ValueError: Too many logins from vm have failed")


# ---- before the handshake is over ----


def test_blank_lines_in_the_handshake_are_bounded_and_cost_no_more_than_they_must(clock):
    protocol = manager(clock, Authentication("secret"))
    peer = connect(protocol)
    protocol.receive(peer, b"\n" * 300_000)
    [line] = read(peer)
    assert line["message"] == "ValueError: 'password' was not answered by any of 1,000 lines"
    assert peer.closing
