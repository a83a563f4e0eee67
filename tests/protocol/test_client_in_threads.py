"""What threads do with the client's protocol, each step of which may be done again."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol.requests import Request
from tests.protocol.lines import MANAGER, line
from tests.protocol.test_client import Peer, error, reply


def test_replies_are_settled_and_stay_open_until_they_are_forgotten():
    peer = Peer()
    first, second = peer.sent(), peer.sent()
    data = reply(first.uid, 1) + reply(second.uid, [2])
    for _ in range(2):
        assert peer.protocol.settle_replies(data) == [first, second]
        assert (first.settled, first.result) == (True, 1)
        assert (second.settled, second.result) == (True, [2])
        assert peer.protocol.in_flight == 2
    for _ in range(2):
        peer.protocol.replies.forget([first, second])
        assert peer.protocol.in_flight == 0
    assert peer.protocol.settle_replies(data) is None


def test_an_error_of_a_service_is_a_reply():
    peer = Peer()
    request = peer.sent()
    assert peer.protocol.settle_replies(error(request.uid, "ValueError: no")) == [request]
    assert "ValueError: no" in str(request.error)


def test_what_is_settled_and_not_forgotten_can_be_received_again():
    peer = Peer()
    first, second = peer.sent(), peer.sent()
    data = reply(first.uid, 1) + reply(second.uid, 2)
    peer.protocol.settle_replies(data)
    peer.protocol.replies.forget([first])
    assert peer.receive(data) == [second]
    assert second.result == 2
    assert peer.protocol.broken is None


def test_what_is_abandoned_is_forgotten_with_what_was_read_after_it():
    peer = Peer()
    abandoned, request = peer.sent(), peer.sent()
    peer.protocol.abandon(abandoned)
    replies = peer.protocol.settle_replies(reply(request.uid, 1))
    assert replies == [request]
    peer.protocol.replies.forget(replies)
    assert not peer.protocol._acknowledged.abandoned


@pytest.mark.parametrize("what", ["notification", "stranger", "no result", "not JSON", "nothing", "Manager"])
def test_what_is_no_reply_of_a_service_is_for_receive(what: str):
    peer = Peer()
    request, ours = peer.sent(), peer.sent("Manager", "identity")
    other = {
        "notification": line(error=False, result=[[1], {}], service="Echo", uid="notification"),
        "stranger": reply("0x0", 1),
        "no result": line(error=False, requester=MANAGER, uid=request.uid),
        "not JSON": b"hello\n",
        "nothing": b"\n",
        "Manager": reply(ours.uid, {}),
    }[what]
    assert peer.protocol.settle_replies(reply(request.uid, 1) + other) is None
    assert not request.settled


def test_behind_the_start_of_a_line_is_no_reply():
    peer = Peer()
    request = peer.sent()
    data = reply(request.uid, 1)
    assert peer.receive(data[:5]) == []
    assert peer.protocol.is_inside_a_line
    assert peer.protocol.settle_replies(data) is None
    assert peer.receive(data[5:]) == [request]
    assert not peer.protocol.is_inside_a_line


def test_a_block_that_is_longer_than_the_limit_is_for_receive():
    peer = Peer(read_limit=200)
    assert peer.protocol.has_limit
    request = peer.sent()
    assert peer.protocol.settle_replies(reply(request.uid, "x" * 300)) is None
    assert peer.protocol.settle_replies(reply(request.uid, "x")) == [request]
    assert not Peer().protocol.has_limit


def test_nothing_is_settled_when_the_stream_is_broken():
    peer = Peer()
    request = peer.sent()
    peer.receive(b"hello\n")
    assert peer.protocol.broken is not None
    assert peer.protocol.settle_replies(reply(request.uid, 1)) is None


def test_requests_can_pass_by_while_nothing_waits_and_the_gate_is_open():
    peer = Peer()
    assert peer.protocol.outbox.is_clear
    request = peer.request()
    assert not peer.protocol.outbox.is_clear
    peer.written()
    assert peer.protocol.outbox.is_clear
    admin = peer.admin()
    peer.written()
    assert not peer.protocol.outbox.is_clear
    peer.receive(reply(request.uid, 1), reply(admin.uid, 2))
    assert peer.protocol.outbox.is_clear


def test_requests_that_are_counted_again_keep_their_places():
    peer = Peer()
    before = peer.sent()
    after = peer.protocol.outbox.last_sequence
    requests = [peer.protocol.make(Request, "Echo", "add", (), None) for _ in range(3)]
    for _ in range(2):
        peer.protocol.outbox.mark_written(requests, after)
        assert [request.sequence - before.sequence for request in requests] == [1, 2, 3]
        assert peer.protocol.outbox.last_sequence == requests[-1].sequence
        assert peer.protocol.in_flight == 4
