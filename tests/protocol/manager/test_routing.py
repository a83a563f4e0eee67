"""Tests of routing: requests, replies, notifications, and refused lines."""

from __future__ import annotations

import json

import pytest

from msl_network_trio.protocol import routed_lines
from msl_network_trio.protocol.manager.route import CONGESTED, LARGE
from msl_network_trio.protocol.messages import departure, refusal
from tests.protocol.network import NAME, Network, notification, queue_of, raw, read, reply, request

# ---- passing on ----


def test_a_request_gets_who_made_it_at_its_end_and_nothing_else_changes(network):
    service, client = network.peer("Echo", "service"), network.peer()
    line = (
        b'{ "args":[NaN, 1e400,\t0.10, "\\ud800", "\xc3\xa9"], "attribute":"e", "service":"Echo", "uid":"1" }'
    )
    network.send(client, line)
    assert raw(service) == line[:-1] + b',"requester":"C[vm:2]"}\r\n'
    network.protocol.receive(client, line + b" \r\n")
    assert raw(service) == line[:-1] + b',"requester":"C[vm:2]"}\r\n'


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \t\r\n", b"\r\r\n"])
def test_white_space_behind_a_request_is_left_out_and_within_it_is_kept(network, end, size):
    service, client = network.peer("Echo", "service"), network.peer()
    line = b' {\t"service" : "Echo","attribute":"e", "args":["} ' + b"x" * size + b' }\r"], "uid":"1" \t }'
    network.protocol.receive(client, line.replace(b"\r", b"\\r") + end)
    assert raw(service) == line[:-1].replace(b"\r", b"\\r") + b',"requester":"C[vm:2]"}\r\n'


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"[Infinity,-Infinity,-0.0,-0,1E5,1e400,0.10]",
        str(2**200).encode(),
        b"1" * 4300,
        b'"\\ud800"',
        b'"\\ud83c\\udf89\\u0000\\/"',
        '"é\u2028日本語🎉\x7f"'.encode(),
        b'{"requester":"x","uid":"y","result":1}',
        b"[[[[{}]]]]",
        b'"' + b"x" * LARGE + b'"',
    ],
    ids=lambda value: value[:20].decode(),
)
@pytest.mark.parametrize("key", [b"args", b"kwargs", b"anything"])
def test_values_pass_through_in_requests_and_replies_byte_by_byte(network, value, key):
    service, client = network.peer("Echo", "service"), network.peer()
    line = b'{"service":"Echo","' + key + b'":' + value + b',"attribute":"e","uid":"1"}'
    network.send(client, line)
    assert raw(service) == line[:-1] + b',"requester":"C[vm:2]"}\r\n'
    line = b'{"requester":"C[vm:2]","result":' + value + b',"uid":"1"}'
    network.send(service, line)
    assert raw(client) == line + b"\r\n"
    network.send(client, request("Manager", "link", "Echo"))
    raw(client)
    line = b'{"result":[[' + value + b'],{}],"service":"Echo","uid":"notification"}'
    network.send(service, line)
    assert raw(client) == line + b"\r\n"


def test_a_reply_with_an_error_is_passed_on_too(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e"))
    [asked] = read(service)
    error = {**reply(asked, None), "error": True, "message": "ValueError: a\nb", "traceback": ["x"]}
    network.send(service, error)
    assert read(client) == [error]
    assert client.open == {}


def test_services_may_make_requests_too_even_of_themselves(network):
    one, two = network.peer("One", "service"), network.peer("Two", "service")
    network.send(one, request("Two", "e", 2), request("One", "e", 1, uid="2"))
    for service in (one, two):
        [asked] = read(service)
        assert asked["requester"] == one.name
        network.send(service, reply(asked, asked["args"]))
    assert [line["result"] for line in read(one)] == [[1], [2]]


def test_a_reply_is_passed_on_as_it_came(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e"))
    raw(service)
    line = b'{"error":false, "requester":"C[vm:2]", "result":[NaN,  1.0], "uid":"1"}'
    network.send(service, line)
    assert raw(client) == line + b"\r\n"


def test_a_client_cannot_make_requests_in_the_name_of_another(network):
    service, client = network.peer("Echo", "service"), network.peer()
    for name in ("Other[vm:9]", None, 5, NAME):
        network.send(client, {**request("Echo", "e", 2**70, float("nan"), "é"), "requester": name})
        line = raw(service)
        assert line.count(b"requester") == 1
        assert line.endswith(b"}\r\n")
        assert json.loads(line)["requester"] == client.name
        assert repr(json.loads(line)["args"]) == repr([2**70, float("nan"), "é"])
    network.send(client, b'{"service":"Echo","attribute":"e","requester":1,"requ\\u0065ster":2,"uid":"1"}')
    assert read(service)[0]["requester"] == client.name
    large = {**request("Echo", "e", "x" * LARGE), "requester": "Other[vm:9]"}
    network.send(client, large)
    assert read(service) == []
    assert read(client)[0]["message"] == "ValueError: A request of this length has no requester"
    network.send(
        client, b'{"service":"Echo","attribute":"e","uid":"2","requester":1,"args":[' + b"9" * 5000 + b"]}"
    )
    assert read(service) == []  # Python cannot hold this number, and to be encoded again it would have to
    network.send(client, {**request("Echo", "e", "\ud800", uid="3"), "requester": 1})
    assert read(service) == []  # nor can it be encoded again if it has text that is not Unicode
    assert [(line["uid"], line["error"]) for line in read(client)] == [("2", True), ("3", True)]
    assert set(client.open) == {"1"}


def test_large_lines_are_not_copied_but_written_in_pieces(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "x" * LARGE))
    assert [type(piece) for piece in queue_of(service).pieces] == [memoryview, bytes]
    assert queue_of(service).has_large
    [got] = read(service)
    assert got["requester"] == client.name
    network.send(service, reply(got, "y" * LARGE))
    assert len(queue_of(client).pieces) == 2
    assert read(client)[0]["result"] == "y" * LARGE


def test_lines_may_come_in_any_pieces(network):
    service, client = network.peer("Echo", "service"), network.peer()
    data = b"".join(json.dumps(request("Echo", "e", n, uid=str(n))).encode() + b"\n" for n in range(20))
    for begin in range(0, len(data), 7):
        network.protocol.receive(client, data[begin : begin + 7])
    assert [line["args"] for line in read(service)] == [[n] for n in range(20)]


def test_who_sends_to_a_service_that_does_not_read_is_noted():
    network = Network(max_backlog=10 * CONGESTED)
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "x" * (CONGESTED // 2)))
    assert client.congested_service is None
    network.send(client, request("Echo", "e", "x" * CONGESTED, uid="2"))
    assert client.congested_service is service


# ---- who gets which reply ----


def test_forged_replies_go_nowhere(network):
    service, victim, forger = network.peer("Echo", "service"), network.peer("V"), network.peer("F")
    other = network.peer("Other", "service")
    network.send(victim, request("Echo", "e"))
    [asked] = read(service)
    for peer in (forger, other):
        network.send(peer, reply(asked, "forged"))
        network.send(peer, {**reply(asked, "forged"), "uid": "2"}, {**reply(asked, 1), "requester": None})
        network.send(peer, {**reply(asked, "forged"), "requester": {"name": victim.name}})
        network.send(peer, {**reply(asked, "forged"), "error": True, "message": "X: y"})
    network.send(service, {**reply(asked, "another uid"), "uid": "2"}, {"result": "to nobody", "uid": "1"})
    network.send(victim, reply(asked, "to itself"))
    assert read(victim) == []
    network.send(service, reply(asked, "right"))
    network.send(service, reply(asked, "once more"))
    assert [line["result"] for line in read(victim)] == ["right"]


def test_requests_with_the_same_uid_are_all_answered(network):
    one, two = network.peer("One", "service"), network.peer("Two", "service")
    client = network.peer()
    network.send(client, *(request(name, "e", uid="") for name in ("One", "Two", "One", "One")))
    first, *_ = read(one)
    network.send(two, reply(read(two)[0], 2))
    network.send(two, reply(first, "forged"))
    for _ in range(4):  # one too many
        network.send(one, reply(first, 1))
    assert [line["result"] for line in read(client)] == [2, 1, 1, 1]
    assert client.open == {}


def test_the_reply_of_a_client_that_has_gone_reaches_nobody_not_even_who_has_its_address_now(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e"))
    [asked] = read(service)
    network.protocol.disconnect(client)
    network.send(service, reply(asked, 1))
    network._port -= 1
    again = network.peer()
    assert again.name == client.name
    network.send(service, reply(asked, 1))
    assert raw(client) == raw(again) == b""


@pytest.mark.parametrize("uid", ["", "1"])
def test_one_service_may_be_asked_again_and_again_with_one_uid(network, uid):
    service, client = network.peer("Echo", "service"), network.peer()
    for number in range(3):
        network.send(client, request("Echo", "e", number, uid=uid), request("Echo", "e", -number, uid=uid))
        for asked in reversed(read(service)):
            network.send(service, reply(asked, asked["args"]))
        assert [line["result"] for line in read(client)] == [[-number], [number]]
        assert client.open == {}


def test_a_request_without_a_uid_is_answered_without_one(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(
        client, b'{"service":"Echo","attribute":"e"}', b'{"service":"Manager","attribute":"identity"}'
    )
    [asked] = read(service)
    assert asked == {"service": "Echo", "attribute": "e", "requester": client.name}
    network.send(service, {"requester": client.name, "result": 5, "uid": ""})
    identity, answer = read(client)
    assert (identity["uid"], answer["uid"], answer["result"]) == ("", "", 5)


@pytest.mark.parametrize("uid", [5, None, True, 1.5, float("inf"), 10**30, "é", "\0", "\N{PARTY POPPER}"])
def test_whatever_a_uid_is_it_goes_back_as_it_came(network, uid):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(
        client,
        request("Echo", "e", uid=uid),
        request("Nope", "e", uid=uid),
        request("Manager", "identity", uid=uid),
        request("Manager", "unlink", uid=uid),
        request("Echo", "e", uid=uid),
    )
    network.send(service, reply(read(service)[0], "ok"))
    network.protocol.disconnect(service)
    assert [line["uid"] for line in read(client)] == [uid] * 5


def test_notifications_reach_who_is_linked_and_only_from_the_service_itself(network):
    service, linked, other = network.peer("Echo", "service"), network.peer(), network.peer()
    network.send(linked, request("Manager", "link", "Echo"))
    raw(linked)
    line = notification("Echo", 1)
    network.send(service, line)
    assert read(linked) == [line]
    forgers = [other, linked, network.peer("Else", "service")]
    for forger in forgers:
        network.send(forger, line, {**line, "service": "Nope"}, {**line, "service": ""})
    network.send(service, {**line, "service": "Else"}, {**line, "service": "Nope"}, {**line, "service": ""})
    assert read(linked) == []
    network.send(linked, request("Manager", "unlink", "Echo"))
    raw(linked)
    network.send(service, line)
    assert read(linked) == []


def test_a_notification_within_a_request_comes_before_its_reply(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Manager", "link", "Echo"), request("Echo", "e"))
    raw(client)
    [asked] = read(service)
    network.send(service, notification("Echo", 1), reply(asked, 2), notification("Echo", 3))
    assert [line["result"] for line in read(client)] == [[[1], {}], 2, [[3], {}]]


def test_large_notifications_go_to_all_who_are_linked(network):
    service, clients = network.peer("Echo", "service"), [network.peer() for _ in range(3)]
    for client in clients:
        network.send(client, request("Manager", "link", "Echo"))
        raw(client)
    line = notification("Echo", "x" * LARGE)
    network.send(service, line)
    assert all(queue_of(client).has_large and read(client) == [line] for client in clients)


# ---- refusals, which carry the uid ----


def test_a_service_that_is_not_there_is_told_with_the_uid(network):
    client = network.peer()
    network.send(client, request("Nope", "e", uid="17"))
    [line] = read(client)
    assert line["uid"] == "17"
    assert line["message"] == refusal("Nope", NAME)
    assert line["message"] == f"KeyError: \"the 'Nope' Service is not connected to {NAME}\""


def test_when_a_service_goes_those_who_wait_are_told_and_nobody_else(network):
    service, other = network.peer("Echo", "service"), network.peer("Other", "service")
    waiting, bystander = network.peer(), network.peer()
    network.send(waiting, request("Echo", "e", uid="1"), request("Other", "e", uid="2"))
    network.send(waiting, *(request(name, "e", uid="") for name in ("Echo", "Other", "Echo")))
    network.protocol.disconnect(service)
    lines = read(waiting)
    assert [line["uid"] for line in lines] == ["1", "", ""]
    assert {line["message"] for line in lines} == {departure("Echo", NAME)}
    assert read(bystander) == []
    for asked in read(other):
        network.send(other, reply(asked, "ok"))
    assert [line["result"] for line in read(waiting)] == ["ok", "ok"]
    network.protocol.disconnect(waiting)
    assert "Echo" not in network.protocol.identity()["services"]


def test_the_answers_for_a_service_that_has_gone_have_all_fields_of_an_error(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="17"))
    network.protocol.disconnect(service)
    network.protocol.disconnect(service)  # once more says nothing more
    assert read(client) == [
        {
            "error": True,
            "message": f"ConnectionError: the 'Echo' Service has gone from {NAME}, the request may have been executed",
            "requester": client.name,
            "result": None,
            "traceback": [],
            "uid": "17",
        }
    ]
    network.send(client, request("Echo", "e", uid="18"))
    assert [(line["uid"], line["message"]) for line in read(client)] == [("18", refusal("Echo", NAME))]


def test_a_service_that_comes_back_is_asked_but_not_linked_and_not_answerable_for_the_old_one(network):
    old, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Manager", "link", "Echo"), request("Echo", "e", "old"))
    [asked] = read(old)
    network.protocol.disconnect(old)
    raw(client)
    new = network.peer("Echo", "service")
    network.send(new, reply(asked, "not mine"), notification("Echo"))
    network.send(
        client, request("Manager", "acquire_lock", "Echo", shared=False), request("Manager", "unlink", "Echo")
    )
    assert [line["message"] for line in read(client)] == [
        f"PermissionError: {client.name} cannot acquire a lock because it is not linked with the 'Echo' service",
        f"KeyError: \"cannot unlink {client.name}, it was not linked with 'Echo'\"",
    ]
    network.send(client, request("Echo", "e", "new"))
    network.send(new, reply(read(new)[0], "mine"))
    assert [line["result"] for line in read(client)] == ["mine"]


def test_a_service_that_asks_itself_or_another_is_told_like_a_client(network):
    one, two = network.peer("One", "service"), network.peer("Two", "service")
    network.send(one, request("One", "e", uid="a"), request("Two", "e", uid="b"))
    raw(one)
    network.protocol.disconnect(two)
    assert [line["uid"] for line in read(one)] == ["b"]
    network.protocol.disconnect(one)
    assert read(one) == []


def test_a_peer_that_goes_before_it_has_said_who_it_is_leaves_nothing(network):
    for line in (None, b"rubbish"):
        peer = network.connect()
        if line:
            network.send(peer, line)
        network.protocol.disconnect(peer)
    identity = network.protocol.identity()
    assert (identity["clients"], identity["services"]) == ({}, {})


@pytest.mark.parametrize(
    ("line", "uid", "message"),
    [
        (b"nonsense", "", "JSONDecodeError"),
        (b"{}", "", 'ValueError: A request has a "service"'),
        (b"[]", "", "a JSON object was expected, not list"),
        (b"5", "", "a JSON object was expected, not int"),
        (b"null", "", "a JSON object was expected, not NoneType"),
        (b'"text"', "", "a JSON object was expected, not str"),
        (b"\xff\xfe", "", "UnicodeDecodeError"),
        (b'{"service":"Echo","attribute":"e","uid":"9","args":["\xff"]}', "9", "UnicodeDecodeError"),
        (b'{"service":"Echo","attribute":"e","uid":[]}', "", "a uid is text"),
        (b'{"service":"Echo","attribute":"e","uid":"\\ud800"}', "", "a uid is text"),
        (b'{"service":5,"attribute":"e","uid":"9"}', "9", 'the "service" of a line is text, not int'),
        (b'{"service":"Echo","uid":"9"}', "9", 'ValueError: A request has a "service"'),
        (b'{"attribute":"e","uid":"9"}', "9", 'ValueError: A request has a "service"'),
        (
            b'{"service":"Echo","attribute":"e","uid":"9","error":true}',
            "9",
            "ValueError: A request is no error",
        ),
        (
            b'{"service":"Echo","attribute":"e","uid":"notification"}',
            "",
            "ValueError: 'notification' cannot be",
        ),
        (b"[" * 100_000, "", "RecursionError"),
    ],
)
def test_a_line_that_makes_no_sense_costs_its_sender_an_error_and_nobody_anything(
    network, line, uid, message
):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, line, b"", b"  ")
    [answer] = read(client)
    assert (answer["error"], answer["uid"], answer["result"]) == (True, uid, None)
    assert answer["message"].startswith(message)
    assert read(service) == []
    network.send(client, request("Echo", "e"))
    network.send(service, reply(read(service)[0], "still here"))
    assert read(client)[0]["result"] == "still here"


# ---- what cannot be decoded ----

UNDECODABLE = {
    "too deep": b"[" * 50_000 + b"]" * 50_000,
    "too deep after NaN": b"[NaN," + b"[" * 50_000 + b"]" * 50_000 + b"]",
    "too many digits after NaN": b"[NaN," + b"1" * 5000 + b"]",
    "no UTF-8": b'"\xff"',
    "no UTF-8 after NaN": b'[NaN,"\xff"]',
    "large and no UTF-8": b'"' + b"\xff" * 300_000 + b'"',
}


@pytest.mark.parametrize("value", UNDECODABLE.values(), ids=UNDECODABLE)
def test_a_request_that_cannot_be_decoded_is_refused_under_its_own_uid(network, value):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="a"))
    network.send(client, b'{"args":%b,"attribute":"e","service":"Echo","uid":"b"}' % value)
    network.send(client, request("Echo", "e", uid="c"))
    assert [line["uid"] for line in read(service)] == ["a", "c"]
    (answer,) = read(client)
    assert (answer["error"], answer["uid"]) == (True, "b")


def test_of_a_large_line_with_stand_ins_in_its_uid_none_is_known(network):
    network.peer("Echo", "service")
    client = network.peer()
    value = UNDECODABLE["large and no UTF-8"]
    network.send(client, b'{"args":[NaN,%b],"attribute":"e","service":"Echo","uid":"NaN"}' % value)
    (answer,) = read(client)
    assert answer["uid"] == ""


@pytest.mark.parametrize(
    ("value", "uid"),
    [
        (b"[" * 150_000 + b"]" * 150_000, "a"),
        (b"[[1,2.5],%b]" % (b"[" * 50_000 + b"1," * 400_000 + b"1" + b"]" * 50_000), "a"),
        (b'[{"":' * 120_000 + b"1" + b"}]" * 120_000, ""),
    ],
    ids=["deep", "numbers", "too much work"],
)
def test_of_a_large_line_that_is_too_deep_the_uid_is_searched_within_limits(network, value, uid):
    network.peer("Echo", "service")
    client = network.peer()
    network.send(client, b'{"args":%b,"attribute":"e","service":"Echo","uid":"a"}' % value)
    (answer,) = read(client)
    assert (answer["error"], answer["uid"]) == (True, uid)


def test_a_line_of_any_length_is_not_searched(network, monkeypatch):
    monkeypatch.setattr(routed_lines, "_LONGEST_SEARCHED", 200_000)
    network.peer("Echo", "service")
    client = network.peer()
    value = b"[" * 150_000 + b"]" * 150_000
    network.send(client, b'{"args":%b,"attribute":"e","service":"Echo","uid":"a"}' % value)
    (answer,) = read(client)
    assert answer["uid"] == ""


@pytest.mark.parametrize("name", UNDECODABLE)
def test_who_waits_for_a_reply_that_cannot_be_decoded_is_told(network, name):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="a"), request("Echo", "e", uid="b"))
    first, second = read(service)
    line = b'{"error":false,"requester":"C[vm:2]","result":%b,"uid":"%b"}'
    network.send(service, line % (UNDECODABLE[name], b"a"), reply(second, 5))
    refused, answered = read(client)
    assert (refused["error"], refused["uid"]) == (True, "a")
    assert "The reply of the 'Echo' Service cannot be decoded" in refused["message"]
    assert (answered["uid"], answered["result"]) == ("b", 5)
    assert not client.open
    network.send(service, reply(first, 1))  # too late
    assert read(client) == []


@pytest.mark.parametrize(
    ("requester", "uid"),
    [(b"nobody", b"a"), (b"C[vm:2]", b"x"), (b"C[vm:2]", b"\\ud800"), (b"C[vm:3]", b"a")],
)
def test_a_reply_that_cannot_be_decoded_and_nobody_awaits_reaches_nobody(network, requester, uid):
    service, client, other = network.peer("Echo", "service"), network.peer(), network.peer("Other", "service")
    network.send(client, request("Echo", "e", uid="a"))
    network.send(
        other, b'{"requester":"%b","result":%b,"uid":"%b"}' % (requester, b"[" * 5000 + b"]" * 5000, uid)
    )
    network.send(service, b'{"requester":"nobody","result":"%b\xff","uid":"a"}' % (b"x" * 300_000))
    assert read(client) == []
    assert len(client.open) == 1


def test_a_reply_that_cannot_be_decoded_counts_only_from_who_was_asked(network):
    service, client, other = network.peer("Echo", "service"), network.peer(), network.peer("Other", "service")
    network.send(client, request("Echo", "e", uid="a"))
    (asked,) = read(service)
    network.send(other, b'{"requester":"C[vm:2]","result":%b,"uid":"a"}' % UNDECODABLE["too deep"])
    assert read(client) == []
    network.send(service, reply(asked, 1))
    assert [line["result"] for line in read(client)] == [1]
