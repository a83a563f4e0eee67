"""Late replies: to whom they belong, what they tell, and when there are none."""

from __future__ import annotations

import time

import pytest

from msl_network_trio import ConnectionLost, LateReply, ManagerError, RemoteError, ServiceLost
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.late_replies import RecordingFactory, undelivered_reply
from msl_network_trio.protocol.messages import departure
from msl_network_trio.protocol.requests import Request
from tests.protocol.lines import MANAGER, ask
from tests.protocol.test_client import IDENTITY, Peer, error, refusal, reply


@pytest.fixture
def peer() -> Peer:
    peer = Peer(connected=False)
    peer.protocol = ClientProtocol(IDENTITY, "localhost:1875", keep_calls=True)
    peer.receive(ask("identity"))
    peer.written()
    return peer


def call(peer: Peer, *args: object, **kwargs: object) -> Request:
    request = peer.protocol.make(Request, "Echo", "add", args, kwargs)
    peer.protocol.request(request)
    peer.written()
    return request


def test_it_tells_the_call_and_the_result(peer):
    before = time.time()
    request = call(peer, 1, 2, unit="V")
    peer.protocol.abandon(request)
    (late,) = peer.receive(reply(request.uid, 3))
    assert isinstance(late, LateReply)
    assert (late.service, late.attribute, late.args, late.kwargs) == ("Echo", "add", (1, 2), {"unit": "V"})
    assert (late.result, late.error) == (3, None)
    assert before <= late.made <= late.received <= time.time()


def test_it_tells_the_error_of_the_service(peer):
    request = call(peer)
    peer.protocol.abandon(request)
    (late,) = peer.receive(error(request.uid, "ValueError: bad"))
    assert isinstance(late.error, RemoteError)
    assert late.error.message == "ValueError: bad"
    assert late.result is None


def test_it_comes_once(peer):
    request = call(peer)
    peer.protocol.abandon(request)
    assert len(peer.receive(reply(request.uid, 3), reply(request.uid, 3))) == 1


def test_it_comes_also_after_the_manager_has_acknowledged_the_request(peer):
    early, later = call(peer), call(peer)
    peer.protocol.abandon(early)
    peer.receive(reply(later.uid, 1))
    (late,) = peer.receive(reply(early.uid, 2))
    assert late.result == 2


def test_a_withdrawn_request_has_none(peer):
    request = peer.request()
    peer.protocol.abandon(request)
    assert peer.receive(reply(request.uid, 3)) == []


def test_requests_to_the_manager_have_none(peer):
    request = peer.sent("Manager", "link")
    peer.protocol.abandon(request)
    assert peer.receive(reply(request.uid, 3)) == []


def test_a_line_without_result_is_none(peer):
    request = call(peer)
    peer.protocol.abandon(request)
    assert peer.receive(b'{"uid":"%s"}\n' % request.uid.encode()) == []


def test_the_departure_of_the_service_is_no_reply(peer):
    request = call(peer)
    peer.protocol.abandon(request)
    assert peer.receive(error(request.uid, departure("Echo", MANAGER))) == []


def test_requests_that_failed_but_may_have_run_have_one(peer):
    # Of two requests, one was refused, while the other has reached the Service, which had come back.
    first, second = call(peer, 1), call(peer, 2)
    failed = peer.receive(refusal("Echo"))
    assert [request.error.may_have_run for request in failed] == [True, True]
    (late,) = peer.receive(reply(second.uid, 4))
    assert (late.args, late.result) == ((2,), 4)
    assert isinstance(first.error, ServiceLost)


def test_a_refused_request_has_none(peer):
    request = call(peer)
    peer.receive(refusal("Echo"))
    assert peer.receive(reply(request.uid, 4)) == []


def test_the_last_thousand_are_remembered(peer):
    requests = [call(peer, number) for number in range(1001)]
    for request in requests:
        peer.protocol.abandon(request)
    assert peer.receive(reply(requests[0].uid, 0)) == []
    (late,) = peer.receive(reply(requests[1].uid, 0))
    assert late.args == (1,)


def test_there_are_none_after_the_connection(peer):
    request = call(peer)
    peer.protocol.abandon(request)
    peer.protocol.connection_lost(ConnectionLost("gone"))
    assert peer.receive(reply(request.uid, 4)) == []


def test_without_being_wanted_nothing_is_remembered():
    peer = Peer()
    request = call(peer, 1)
    assert not hasattr(request, "call")
    peer.protocol.abandon(request)
    assert peer.receive(reply(request.uid, 3)) == []
    assert undelivered_reply(request) is None


def test_a_reply_that_arrives_as_its_caller_is_cancelled_is_returned_once(peer):
    request = call(peer, 1)
    assert undelivered_reply(request) is None
    peer.receive(reply(request.uid, 3))
    late = undelivered_reply(request)
    assert late is not None
    assert (late.args, late.result) == ((1,), 3)
    assert undelivered_reply(request) is None


def test_an_undelivered_error_counts_if_the_service_has_sent_it(peer):
    lost, raised = call(peer), call(peer)
    peer.receive(error(raised.uid, "ValueError: bad"))
    late = undelivered_reply(raised)
    assert late is not None
    assert isinstance(late.error, RemoteError)
    assert not isinstance(late.error, ManagerError)
    peer.protocol.connection_lost(ConnectionLost("gone"))
    assert undelivered_reply(lost) is None


def test_a_renewed_request_keeps_the_arguments():
    factory = RecordingFactory()
    for service, kept in [("Echo", True), ("Manager", False)]:
        first = factory.make(Request, service, "add", (1,), {"y": 2})
        renewed = factory.renewed(Request, first, first.data)
        assert hasattr(renewed, "call") == kept
        if kept:
            assert renewed.call is first.call
