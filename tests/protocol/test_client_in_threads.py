"""Operations that threads perform on the client's protocol, each of which can be repeated."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol.requests import Request
from tests.protocol.lines import MANAGER, line
from tests.protocol.test_client import Peer, error, reply


def test_settled_replies_stay_open_until_they_are_forgotten():
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


def test_bytes_that_were_settled_and_not_forgotten_can_be_received_again():
    peer = Peer()
    first, second = peer.sent(), peer.sent()
    data = reply(first.uid, 1) + reply(second.uid, 2)
    peer.protocol.settle_replies(data)
    peer.protocol.replies.forget([first])
    assert peer.receive(data) == [second]
    assert second.result == 2
    assert peer.protocol.broken is None


def test_abandoned_requests_below_the_watermark_are_forgotten():
    peer = Peer()
    abandoned, request = peer.sent(), peer.sent()
    peer.protocol.abandon(abandoned)
    replies = peer.protocol.settle_replies(reply(request.uid, 1))
    assert replies == [request]
    peer.protocol.replies.forget(replies)
    assert not peer.protocol._acknowledged.abandoned


@pytest.mark.parametrize("what", ["notification", "stranger", "no result", "not JSON", "nothing", "Manager"])
def test_lines_that_are_no_replies_of_services_are_left_to_receive(what: str):
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


def test_bytes_behind_an_incomplete_line_are_left_to_receive():
    peer = Peer()
    request = peer.sent()
    data = reply(request.uid, 1)
    assert peer.receive(data[:5]) == []
    assert peer.protocol.is_inside_a_line
    assert peer.protocol.settle_replies(data) is None
    assert peer.receive(data[5:]) == [request]
    assert not peer.protocol.is_inside_a_line


def test_a_block_above_the_limit_is_left_to_receive():
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


def test_the_outbox_is_clear_while_nothing_is_queued_and_the_gate_is_open():
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


def test_requests_that_are_marked_written_again_keep_their_sequence():
    peer = Peer()
    before = peer.sent()
    after = peer.protocol.outbox.last_sequence
    requests = [peer.protocol.make(Request, "Echo", "add", (), None) for _ in range(3)]
    for _ in range(2):
        peer.protocol.outbox.mark_written(requests, after)
        assert [request.sequence - before.sequence for request in requests] == [1, 2, 3]
        assert peer.protocol.outbox.last_sequence == requests[-1].sequence
        assert peer.protocol.in_flight == 4
