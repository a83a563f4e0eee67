"""Latencies: the histogram, the sample of requests, and what does not count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio import ConnectionLost
from msl_network_trio.protocol.latencies import LONGEST, Latencies, quantiles
from msl_network_trio.protocol.requests import ABANDONED, SETTLED, Line, Request
from tests.protocol.test_client import Peer, error, reply


class Clock:
    """A clock that the test sets, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def measure(latencies: Latencies, clock: Clock, seconds: float, uid: str = "a") -> None:
    request = Request("Echo", "add", uid)
    latencies.begin(request)
    clock.now += seconds
    request.phase = SETTLED
    latencies.end()


@given(st.floats(1e-7, LONGEST))
def test_a_latency_is_reported_within_7_percent(seconds):
    clock = Clock()
    latencies = Latencies(clock)
    clock.now = 0.0
    measure(latencies, clock, seconds)
    assert quantiles(latencies.buckets, (0.5, 1.0)) == {
        0.5: pytest.approx(seconds, rel=0.07),
        1.0: pytest.approx(seconds, rel=0.07),
    }


def test_quantiles_are_the_latencies_that_a_share_does_not_exceed(clock):
    latencies = Latencies(clock)
    for seconds in [0.001] * 90 + [0.1] * 9 + [5]:
        measure(latencies, clock, seconds)
    found = quantiles(latencies.buckets, (0.0, 0.5, 0.9, 0.99, 1.0))
    assert [*found.values()] == pytest.approx([0.001, 0.001, 0.001, 0.1, 5], rel=0.07)


def test_without_requests_there_are_no_quantiles():
    assert quantiles({}, (0.5,)) == {}


def test_what_is_no_request_to_a_service_is_not_measured(clock):
    latencies = Latencies(clock)
    latencies.begin(Line(b"identity"))
    latencies.begin(Request("Manager", "link", "a"))
    assert not latencies.open


def test_abandoned_requests_do_not_count(clock):
    latencies = Latencies(clock)
    request = Request("Echo", "add", "a")
    latencies.begin(request)
    latencies.end()
    assert latencies.open  # it is not settled yet
    request.phase = ABANDONED
    latencies.end()
    assert not latencies.open
    assert not latencies.buckets


def test_at_most_eight_are_measured_at_a_time_and_those_of_a_minute_make_room(clock):
    latencies = Latencies(clock)
    for number in range(10):
        latencies.begin(Request("Echo", "add", str(number)))
    assert [*latencies.open] == [*"01234567"]
    clock.now += LONGEST
    latencies.begin(Request("Echo", "add", "new"))
    assert [*latencies.open] == ["new"]
    assert quantiles(latencies.buckets, (0.5,)) == {0.5: pytest.approx(LONGEST, rel=0.07)}
    assert sum(latencies.buckets.values()) == 8


def test_the_protocol_measures_one_request_in_16_on_average():
    peer = Peer()
    for _ in range(3000):
        peer.receive(reply(peer.sent().uid, 3))
    assert 120 < sum(peer.protocol.traffic.latencies.buckets.values()) < 260  # 182 on average
    assert not peer.protocol.traffic.latencies.open


def test_requests_that_threads_send_are_measured_as_well():
    peer = Peer()
    outbox, latencies = peer.protocol.outbox, peer.protocol.traffic.latencies
    outbox.next_measured = outbox.last_sequence + 2
    requests = [peer.protocol.make(Request, "Echo", "add", (), None) for _ in range(2)]
    for request, is_measured in zip(requests, [False, True], strict=True):
        outbox.mark_written([request], outbox.last_sequence)
        assert (request.uid in latencies.open) == is_measured
    assert outbox.next_measured > outbox.last_sequence


def test_replies_that_threads_settle_are_measured_as_well():
    peer = Peer()
    latencies = peer.protocol.traffic.latencies
    peer.protocol.outbox.next_measured = 0
    request = peer.sent()
    assert [*latencies.open] == [request.uid]
    assert peer.protocol.settle_replies(reply(request.uid, 3)) == [request]
    assert not latencies.open
    assert sum(latencies.buckets.values()) == 1


def test_each_request_of_a_batch_is_as_likely_to_be_measured(monkeypatch):
    peer = Peer()
    measured = set()
    begin = Latencies.begin
    monkeypatch.setattr(Latencies, "begin", lambda self, line: [measured.add(line), begin(self, line)][1])
    positions = set()
    for _ in range(200):
        batch = [peer.request() for _ in range(20)]
        peer.written()
        positions |= {position for position, request in enumerate(batch) if request in measured}
        peer.receive(*(reply(request.uid, 3) for request in batch))
    assert positions == set(range(20))


def test_the_end_of_the_connection_ends_no_measurement_as_a_reply_would():
    peer = Peer()
    while not peer.protocol.traffic.latencies.open:
        peer.sent()
    peer.protocol.connection_lost(ConnectionLost("gone"))
    assert not peer.protocol.traffic.latencies.open
    assert not peer.protocol.traffic.latencies.buckets


def test_errors_of_services_are_replies():
    peer = Peer()
    while not peer.protocol.traffic.latencies.buckets:
        peer.receive(error(peer.sent().uid, "ValueError: bad"))
