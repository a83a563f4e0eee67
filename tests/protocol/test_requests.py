"""Requests: their phases and their outcomes."""

from __future__ import annotations

import re

import pytest

from msl_network_trio.exceptions import ConnectionLost, ReplyTimeout
from msl_network_trio.protocol.requests import ABANDONED, MADE, QUEUED, SETTLED, WRITTEN, Phase, Request
from tests.protocol.test_client import Peer, refusal, reply


def test_a_request_shows_where_it_is():
    request = Request("Echo", "add", "1", b"{}")
    assert repr(request) == "<Request Echo.add not written>"
    assert not request.may_have_run
    request.phase, request.sequence = WRITTEN, 1
    assert repr(request) == "<Request Echo.add written>"
    assert request.may_have_run
    request.phase = SETTLED
    assert repr(request) == "<Request Echo.add settled>"
    request.wake()  # of the base class: nobody waits


def test_a_request_that_is_settled_has_a_result_or_raises_its_error_once():
    request = Request("Echo", "add", "1", b"{}")
    request.result = 3
    assert request.outcome() == 3
    failed = Request("Echo", "add", "2", b"{}")
    failed.error = error = ReplyTimeout(
        "too late", service="Echo", attribute="add", seconds=1, may_have_run=True
    )
    with pytest.raises(ReplyTimeout) as raised:
        failed.outcome()
    assert raised.value is error
    assert failed.error is None  # else the two would keep each other


@pytest.fixture
def peer() -> Peer:
    return Peer()


def made(peer: Peer) -> Request:
    return peer.protocol.make(Request, "Echo", "add", (1,), None)


def queued(peer: Peer) -> Request:
    return peer.request("Echo", "add", 1)


def written(peer: Peer) -> Request:
    return peer.sent("Echo", "add", 1)


def abandoned(peer: Peer) -> Request:
    request = peer.sent("Manager", "port", admin=True)
    peer.protocol.abandon(request)
    return request


def settled(peer: Peer) -> Request:
    request = written(peer)
    peer.receive(reply(request.uid, 3))
    return request


STARTS = {MADE: made, QUEUED: queued, WRITTEN: written, SETTLED: settled, ABANDONED: abandoned}


def add(peer: Peer, request: Request) -> None:
    peer.protocol.request(request)


def take(peer: Peer, request: Request) -> None:
    peer.protocol.take()


def mark_written(peer: Peer, request: Request) -> None:
    outbox = peer.protocol.outbox
    outbox.mark_written([request], outbox.last_sequence)


def answer(peer: Peer, request: Request) -> None:
    peer.receive(reply("" if request.admin else request.uid, 3))


def refuse(peer: Peer, request: Request) -> None:
    peer.receive(refusal("Echo"))


def lose(peer: Peer, request: Request) -> None:
    peer.protocol.connection_lost(ConnectionLost("gone"))


def fail(peer: Peer, request: Request) -> None:
    request.fail(ConnectionLost("gone"))


def abandon(peer: Peer, request: Request) -> None:
    peer.protocol.abandon(request)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (MADE, add, QUEUED),
        (MADE, take, MADE),
        (MADE, mark_written, WRITTEN),
        (MADE, fail, SETTLED),
        (MADE, abandon, ABANDONED),
        (QUEUED, take, WRITTEN),
        (QUEUED, answer, QUEUED),
        (QUEUED, refuse, QUEUED),
        (QUEUED, lose, SETTLED),
        (QUEUED, abandon, ABANDONED),
        (WRITTEN, take, WRITTEN),
        (WRITTEN, answer, SETTLED),
        (WRITTEN, refuse, SETTLED),
        (WRITTEN, lose, SETTLED),
        (WRITTEN, abandon, ABANDONED),
        (SETTLED, mark_written, SETTLED),
        (SETTLED, answer, SETTLED),
        (SETTLED, lose, SETTLED),
        (SETTLED, abandon, SETTLED),
        (ABANDONED, answer, SETTLED),
        (ABANDONED, lose, SETTLED),
        (ABANDONED, fail, SETTLED),
        (ABANDONED, abandon, ABANDONED),
    ],
)
def test_the_phases_of_a_request_follow_the_table(peer, before, event, after):
    request = STARTS[before](peer)
    assert request.phase is before
    event(peer, request)
    assert request.phase is after
    assert (request.settled, request.abandoned) == (after is SETTLED, after is ABANDONED)
    assert request.may_have_run == (request.sequence > 0)


def test_the_table_of_phases_is_that_of_the_docstring():
    rows = re.findall(r"^ +([A-Z, ]+?)  +([A-Z]+)  ", Phase.__doc__, re.MULTILINE)
    documented = {(Phase[old], Phase[new]) for olds, new in rows for old in olds.split(", ")}
    [table] = [
        mark.args[1]
        for mark in test_the_phases_of_a_request_follow_the_table.pytestmark
        if mark.name == "parametrize"
    ]
    assert {(before, after) for before, _, after in table if before is not after} == documented


def test_a_request_that_is_given_up_before_it_is_queued_is_written_if_a_thread_has_begun_to_send_it(peer):
    request = made(peer)
    abandon(peer, request)
    mark_written(peer, request)
    assert request.phase is ABANDONED
    assert request.may_have_run
    answer(peer, request)
    assert request.phase is SETTLED
