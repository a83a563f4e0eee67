"""Traffic: what a client has sent and received, over all its connections."""

from __future__ import annotations

from msl_network_trio import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from tests.protocol.lines import ask
from tests.protocol.test_client import IDENTITY, Peer, error, reply


def test_bytes_and_requests_are_counted():
    peer = Peer()
    traffic = peer.protocol.traffic
    sent, received = traffic.bytes_sent, traffic.bytes_received
    request = peer.protocol.make(Request, "Echo", "add", (1, 2), None)
    size = len(request.data)
    peer.protocol.request(request)
    assert peer.protocol.requests_written == 0  # it is queued only
    peer.protocol.take()
    answer = reply(request.uid, 3)
    peer.receive(answer)
    assert traffic.bytes_sent == sent + size
    assert traffic.bytes_received == received + len(answer)
    assert peer.protocol.requests_written == 1


def test_what_threads_receive_counts_as_well():
    peer = Peer()
    request = peer.sent()
    before = peer.protocol.traffic.bytes_received
    answer = reply(request.uid, 3)
    replies = peer.protocol.settle_replies(answer)
    assert replies is not None
    peer.protocol.replies.forget(replies)
    assert peer.protocol.traffic.bytes_received == before + len(answer)
    assert (
        peer.protocol.settle_replies(reply("unknown", 3)) is None
    )  # the Trio thread processes and counts it
    assert peer.protocol.traffic.bytes_received == before + len(answer)


def test_the_identity_answers_and_the_goodbye_are_no_requests():
    peer = Peer()
    assert peer.protocol.requests_written == 0
    admin = peer.admin()
    peer.written()
    peer.receive(ask("password", "alice"))
    peer.protocol.answer("secret")
    peer.written()
    peer.receive(reply("", 1875))
    assert admin.settled
    peer.protocol.say_goodbye()
    peer.written()
    assert peer.protocol.requests_written == 1


def test_the_counters_outlive_a_connection():
    peer = Peer()
    peer.sent()
    sent = peer.protocol.traffic.bytes_sent
    peer.protocol.connection_lost(ConnectionLost("gone"))
    assert peer.protocol.requests_written == 0
    assert peer.protocol.traffic.requests == 1
    second = ClientProtocol(IDENTITY, "localhost:1875", traffic=peer.protocol.traffic)
    second.receive(ask("identity"))
    second.take()
    assert second.traffic.requests + second.requests_written == 1
    assert second.traffic.bytes_sent > sent
    second.request(second.make(Request, "Echo", "add", (), None))
    second.take()
    second.connection_lost(ConnectionLost("gone"))
    second.connection_lost(ConnectionLost("gone"))  # counts once
    assert second.traffic.requests == 2


def test_replies_to_no_open_request_are_counted():
    peer = Peer()
    request = peer.sent()
    peer.protocol.abandon(request)
    peer.receive(reply(request.uid, 3))
    peer.receive(error("unknown", "ValueError: bad"))
    assert peer.protocol.traffic.late_replies == 2
