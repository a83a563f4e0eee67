"""The Manager's side of the protocol, by what goes on the wire."""

from __future__ import annotations

import sys

import pytest

from tests.protocol.network import NAME, Network, encoded, raw, read, reply, request

# ---- the handshake ----


def test_the_manager_speaks_first_and_silence_is_success(network):
    peer = network.connect()
    assert raw(peer) == (
        b'{"args":[],"attribute":"identity","error":false,"kwargs":{},"requester":"Manager[vm:1875]","uid":""}\r\n'
    )
    network.send(peer, {"result": {"name": "C", "type": "client"}})
    assert read(peer) == []
    assert (peer.name, peer.kind) == ("C[vm:1]", "client")


def test_the_password_is_asked_for_before_the_identity():
    network = Network(password="sécret")
    peer = network.connect()
    [question] = read(peer)
    assert (question["attribute"], question["args"]) == ("password", [NAME])
    network.send(peer, {"result": "sécret"})
    assert [line["attribute"] for line in read(peer)] == ["identity"]
    network.send(peer, {"result": {"name": "C", "type": "client"}})
    assert network.protocol.identity()["clients"].keys() == {"C[vm:1]"}


@pytest.mark.parametrize("answer", ["guess", "", None, 5, {"name": "C", "type": "client"}, "\ud800"])
def test_a_wrong_password_is_told_and_ends_the_connection(answer):
    network = Network(password="secret")
    peer = network.connect()
    raw(peer)
    network.send(peer, {"result": answer}, {"result": "secret"})
    [line] = read(peer)
    assert line == {
        "error": True,
        "message": "ValueError: Wrong Manager password",
        "requester": NAME,
        "result": None,
        "traceback": [],
        "uid": "",
    }
    assert peer.close_reason
    network.send(peer, {"result": "secret"})  # too late
    assert read(peer) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"GET / HTTP/1.1", "ValueError: The answer to 'identity' is not a line of JSON"),
        ({"nothing": 1}, "ValueError: The answer to 'identity' has no \"result\""),
        ({"result": None}, "TypeError: An identity is a JSON object, not NoneType"),
        ({"result": {"name": "C", "type": "robot"}}, "TypeError: Unknown connection type 'robot'."),
        ({"result": {"type": "client"}}, "KeyError: 'name'"),
    ],
)
def test_a_handshake_that_makes_no_sense_is_told(network, line, message):
    peer = network.connect()
    raw(peer)
    network.send(peer, line)
    [answer] = read(peer)
    assert answer["message"].startswith(message)
    assert peer.close_reason


def test_nothing_that_is_said_before_the_end_of_the_handshake_is_a_request():
    network = Network(password="secret")
    echo = network.peer("Echo", "service")
    peer = network.connect()
    raw(peer)
    network.send(peer, request("Echo", "e"), {"result": "secret"})
    assert read(peer)[0]["message"] == "ValueError: The answer to 'password' has no \"result\""
    assert read(echo) == []
    assert peer.close_reason


def test_the_whole_handshake_and_the_first_requests_may_come_at_once():
    network = Network(password="secret")
    echo, peer = network.peer("Echo", "service"), network.connect()
    hello = {"result": {"name": "C", "type": "client"}}
    # The last line is longer than one may be before the password is known, and most of it is in the first piece.
    requests = [request("Echo", "e"), request("Echo", "e", "x" * 200_000, uid="2")]
    data = b"".join(encoded(line) + b"\n" for line in ({"result": "secret"}, hello, *requests))
    network.send_in_pieces(peer, data, [150_000])
    assert [line["attribute"] for line in read(peer)] == ["password", "identity"]
    assert [line["args"] for line in read(echo)] == [[], ["x" * 200_000]]
    assert not peer.close_reason


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def service_answer(name: str, attributes: bytes) -> bytes:
    return b'{"result":{"type":"service","name":%s,"attributes":%s}}' % (encoded(name), attributes)


@pytest.mark.parametrize(
    "line",
    [
        service_answer("\ud800", b"{}"),
        service_answer("Echo", b'{"\\ud800":1}'),
        pytest.param(
            service_answer("Echo", b'{"a":%s}' % nested(900)),
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python can tell of it"),
        ),
        service_answer("Echo", b'{"a":%s}' % nested(100_000)),
        service_answer("Echo", b'{"a":%s}' % (b"9" * 5000)),
    ],
    ids=["name", "attribute", "deep", "too deep", "number"],
)
def test_a_service_that_could_not_be_told_of_to_others_is_rejected_and_harms_nobody(network, line):
    client, hostile = network.peer(), network.connect()
    raw(hostile)
    network.send(hostile, line)
    assert "Error: " in read(hostile)[0]["message"]
    assert hostile.close_reason
    network.send(client, request("Manager", "identity"))
    assert read(client)[0]["result"]["services"] == {}


def test_attributes_that_are_accepted_can_be_told_however_deep_they_are(network):
    client = network.peer()
    accepted = 0
    for depth in (*range(100, 850, 50), *range(850, 1000)):
        service = network.connect()
        network.send(service, service_answer("Deep", b'{"a":%s}' % nested(depth)))
        if not service.close_reason:
            accepted = depth
            network.send(client, request("Manager", "identity"), request("Manager", "link", "Deep"))
            assert raw(client).count(nested(depth)) == 2
        network.protocol.disconnect(service)
    assert accepted > 100


def test_a_name_that_is_taken_is_told(network):
    network.peer("Echo", "service")
    second = network.connect()
    raw(second)
    network.send(second, {"result": {"name": "Echo", "type": "service", "attributes": {}}})
    assert read(second)[0]["message"] == "NameError: A 'Echo' service is already running on the Manager"


@pytest.mark.parametrize(("password", "size"), [("x", 70_000), (None, 17_000_000)])
def test_who_is_not_known_yet_cannot_send_long_lines(password, size):
    network = Network(password=password)
    peer = network.connect()
    raw(peer)
    network.protocol.receive(peer, b"x" * size)
    assert "longer than the limit" in read(peer)[0]["message"]
    assert peer.close_reason


def test_the_limits_of_the_handshake_do_not_hold_after_it():
    network = Network(password="x", max_backlog=100_000_000)
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "x" * 17_000_000))
    assert len(read(echo)[0]["args"][0]) == 17_000_000


@pytest.mark.parametrize("pieces", [[], [1], [999] * 4])
def test_a_line_that_is_too_long_is_refused_before_it_ends_and_those_before_it_count(pieces):
    network = Network(read_limit=1000)
    echo, client = network.peer("Echo", "service"), network.peer()
    before, long = encoded(request("Echo", "e")), encoded(request("Echo", "e", "x" * 5000))
    network.send_in_pieces(client, before + b"\n" + long, pieces)
    assert len(read(echo)) == 1
    assert [line["message"] for line in read(client)] == [
        "ValueError: The line is longer than the limit of 1,000 bytes"
    ]
    assert client.close_reason
    network.send(client, b"", request("Echo", "e"))
    assert read(echo) == read(client) == []


def test_the_limit_of_a_line_holds_after_the_handshake_too():
    network = Network(read_limit=1000)
    peer = network.peer()
    network.send(peer, request("Echo", "echo", "x" * 2000))
    assert read(peer)[0]["message"] == "ValueError: The line is longer than the limit of 1,000 bytes"
    assert peer.close_reason


# ---- endings ----


@pytest.mark.parametrize("service", ["C[vm:1]", "Echo", "self", "Manager"])
def test_goodbye_closes_the_connection_and_nothing_behind_it_counts(network, service):
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request(service, "__disconnect__"), request("Echo", "e"))
    assert client.close_reason
    assert read(echo) == read(client) == []
    network.protocol.receive(client, b"rubbish\n" + encoded(request("Echo", "e")) + b"\n")
    assert read(echo) == read(client) == []


def test_what_was_sent_before_goodbye_counts_and_open_requests_of_others_are_answered(network):
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", 1), request("Echo", "e", 2, uid="2"))
    first, second = read(echo)
    network.send(
        echo, reply(first, 1), b'{"service": "Echo[vm:1]", "attribute": "__disconnect__"}', reply(second, 2)
    )
    network.protocol.disconnect(echo)
    assert [(line["uid"], line["result"]) for line in read(client)] == [("1", 1), ("2", None)]
