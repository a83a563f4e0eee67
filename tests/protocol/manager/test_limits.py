"""Tests of the limits of one peer: what exceeds them is refused, at no cost for others."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol.manager import open_requests, registry
from msl_network_trio.protocol.manager import protocol as manager
from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.protocol.manager.protocol import MAX_LINES
from tests.protocol.network import Clock, Network, encoded, notification, raw, read, reply, request

# ---- requests ----


def test_a_request_more_than_may_be_open_is_refused_until_one_is_answered():
    network = Network(max_requests=3)
    echo, client, other = network.peer("Echo", "service"), network.peer(), network.peer()
    network.send(client, *[request("Echo", "e", uid=str(number)) for number in range(4)])
    asked = read(echo)
    assert [line["uid"] for line in asked] == ["0", "1", "2"]
    [refused] = read(client)
    assert (refused["uid"], refused["error"]) == ("3", True)
    assert refused["message"].startswith("RuntimeError: 3 requests of C[vm:2] wait for their answers")
    assert "max_requests" in refused["message"]
    network.send(other, request("Echo", "e", uid="0"))
    assert len(read(echo)) == 1
    network.send(echo, reply(asked[1], 1))
    network.send(client, request("Echo", "e", uid="4"))
    assert [line["uid"] for line in read(client)] == ["1"]
    assert [line["uid"] for line in read(echo)] == ["4"]
    assert network.protocol.hits == {"max_requests": 1}


def test_requests_with_the_same_uid_count_as_well():
    network = Network(max_requests=3)
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, *[request("Echo", "e", number, uid="") for number in range(5)])
    asked = read(echo)
    assert [line["args"] for line in asked] == [[0], [1], [2]]
    assert [line["error"] for line in read(client)] == [True, True]
    network.send(echo, *[reply(line, 0) for line in [*asked, asked[0]]])  # the last one nobody waits for
    assert [line["error"] for line in read(client)] == [False] * 3
    assert client.open == {}


def test_each_of_several_services_that_are_asked_with_one_uid_answers_for_itself_only():
    network = Network()
    one, two, evil = (network.peer(name, "service") for name in ("One", "Two", "Evil"))
    client = network.peer()
    network.send(client, *[request(name, "e", uid="7") for name in ("One", "One", "Two")])
    [first, second], [third] = read(one), read(two)
    for forger in (evil, client):
        network.send(forger, reply(first, "forged"))
    network.send(two, reply(third, "two"), reply(third, "again"))
    network.send(one, reply(first, "one"), reply(second, "one"), reply(second, "again"))
    assert [line["result"] for line in read(client)] == ["two", "one", "one"]
    assert client.open == {}


def test_a_reply_is_for_the_client_that_asked_and_no_other_with_the_same_uid():
    network = Network()
    echo, good, bad = network.peer("Echo", "service"), network.peer(), network.peer()
    evil = network.peer("Evil", "service")
    network.send(good, request("Echo", "e", uid="1"))
    network.send(bad, request("Evil", "e", uid="1"))
    asked = read(echo)[0]
    # Its own open request has this uid, but the reply says that it is for the other client.
    network.send(evil, {**reply(asked, "forged"), "requester": good.name})
    assert read(good) == []
    network.send(echo, reply(asked, "right"), reply(asked, "twice"))
    assert [line["result"] for line in read(good)] == ["right"]
    assert set(bad.open) == {"1"}


def test_of_fields_that_come_twice_all_see_the_last():
    """The Manager decides by the value that the receiver reads: both use the same rule."""
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Manager", "link", "Echo"), request("Echo", "e", uid="1"))
    read(client)
    read(echo)
    forged = (
        b'{"uid":"notification","service":"Echo","error":false,"result":1,"requester":"C[vm:2]","uid":"1"}'
    )
    network.send(echo, forged)
    assert [line["uid"] for line in read(client)] == ["1"]
    network.send(echo, b'{"uid":"1","service":"Echo","error":false,"result":[[],{}],"uid":"notification"}')
    assert [line["uid"] for line in read(client)] == ["notification"]


def test_a_uid_is_of_bounded_length():
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="x" * 255), request("Echo", "e", uid="x" * 256))
    assert [line["uid"] for line in read(echo)] == ["x" * 255]
    assert [line["message"] for line in read(client)] == ["ValueError: The uid has more than 255 characters"]
    assert list(client.open) == ["x" * 255]


def test_all_peers_together_may_have_so_many_open_requests_and_each_some_in_any_case(monkeypatch):
    monkeypatch.setattr(open_requests, "_FREE", 2)
    monkeypatch.setattr(open_requests, "_GRANT", 3)
    monkeypatch.setattr(open_requests, "_SHARED", 5)
    clock = Clock()
    network = Network(max_requests=100, clock=clock)
    echo, client, other = network.peer("Echo", "service"), network.peer(), network.peer()

    def ask(who, count, start=0):
        """Return how many of so many requests are passed on."""
        network.send(who, *[request("Echo", "e", uid=str(start + number)) for number in range(count)])
        return read(echo)

    asked = ask(client, 10)
    assert len(asked) == 2 + 3
    assert read(client)[0]["message"].startswith("RuntimeError: Very many requests of all clients wait")
    assert len(ask(other, 10)) == 2
    # When they have been answered others may have them, as soon as somebody looks.
    network.send(echo, *[reply(line, 0) for line in asked])
    assert ask(other, 1, 10) == []
    clock.now += 1
    assert len(ask(other, 10, 10)) == 3
    # And when somebody goes.
    network.protocol.disconnect(other)
    read(client)
    assert len(ask(client, 10)) == 2 + 3


# ---- connections ----


def test_so_many_peers_and_no_more_are_connected():
    network = Network(max_connections=2)
    first, _ = network.peer(), network.peer()
    third = network.connect()
    raw(third)
    network.send(third, {"result": {"name": "C", "type": "client"}})
    assert (
        "2 peers are connected, as many as this Manager allows (max_connections)" in read(third)[0]["message"]
    )
    assert third.close_reason
    assert network.protocol.registry.peers_refused == 1
    network.protocol.disconnect(first)
    assert network.peer().kind == "client"


# ---- links ----


def test_a_link_more_than_a_client_may_have_is_refused_until_it_gives_one_up():
    network = Network(max_links=2)
    services = [network.peer(name, "service") for name in ("A", "B", "C")]
    client, other = network.peer(), network.peer()
    for name in ("A", "B", "A"):
        network.send(client, request("Manager", "link", name))
        assert read(client)[0]["error"] is False
    network.send(client, request("Manager", "link", "C", uid="9"))
    [refused] = read(client)
    assert refused["uid"] == "9"
    assert refused["message"].startswith("PermissionError: C[vm:4] is linked with 2 services")
    assert "max_links" in refused["message"]
    assert network.protocol.registry.links_refused == 1
    network.send(other, request("Manager", "link", "C"))
    assert read(other)[0]["error"] is False
    network.send(client, request("Manager", "unlink", "A"), request("Manager", "link", "C"))
    assert [line["error"] for line in read(client)] == [False, False]
    network.protocol.disconnect(services[1])  # which also ends a link
    assert client.link_count == 1
    network.protocol.disconnect(client)
    assert client.link_count == 0


def test_an_error_lists_so_many_clients_and_no_more():
    network = Network()
    network.peer("Full", "service", max_clients=150)
    clients = [network.peer() for _ in range(151)]
    for client in clients:
        network.send(client, request("Manager", "link", "Full"))
    message = read(clients[-1])[0]["message"]
    assert message.count("C[vm:") == 100
    assert message.endswith("\n  and 50 more")


# ---- notifications ----


def test_notifications_that_are_too_many_are_dropped_and_the_service_is_told_now_and_then():
    clock = Clock()
    network = Network(notification_rate=16, clock=clock)
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Manager", "link", "Echo"))
    read(client)

    def emit(count: int) -> tuple[int, list[str]]:
        network.send(echo, *[notification("Echo", number) for number in range(count)])
        return len(read(client)), [line["message"] for line in read(echo)]

    assert emit(16) == (16, [])
    passed, (told,) = emit(5)
    assert passed == 0
    assert told.startswith("RuntimeError: 1 of your notifications have been dropped: ")
    assert told.endswith("this Manager passes on 16 per second (notification_rate)")
    clock.now += 1 / 32
    assert emit(5) == (0, [])
    clock.now += 7 / 32
    assert emit(5) == (4, [])
    clock.now += 100
    passed, (told,) = emit(19)
    assert passed == 16
    assert "11 of your notifications" in told
    assert network.protocol.hits["notification_rate"] == 14
    network.send(echo, request("Manager", "identity"))  # whatever it has emitted, it is served
    assert read(echo)[0]["error"] is False


def test_one_service_that_emits_too_much_takes_nothing_from_another():
    network = Network(notification_rate=5, clock=Clock())
    loud, quiet, client = network.peer("Loud", "service"), network.peer("Quiet", "service"), network.peer()
    network.send(client, request("Manager", "link", "Loud"), request("Manager", "link", "Quiet"))
    read(client)
    network.send(loud, *[notification("Loud")] * 100)
    network.send(quiet, *[notification("Quiet")] * 5)
    assert [line["service"] for line in read(client)] == ["Loud"] * 5 + ["Quiet"] * 5


@pytest.mark.parametrize("error", [True, "x"])
def test_a_notification_that_is_an_error_is_dropped(error):
    """A client of msl-network takes it for the failure of a request, which may be another Service's."""
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Manager", "link", "Echo"))
    read(client)
    network.send(echo, {**notification("Echo"), "error": error, "message": "m", "traceback": []})
    assert read(client) == []


# ---- identities ----


def test_a_name_is_of_bounded_length():
    network = Network()
    peer = network.connect()
    raw(peer)
    network.send(peer, {"result": {"name": "x" * 1001, "type": "client"}})
    assert "has more than 1,000 characters" in read(peer)[0]["message"]
    assert peer.close_reason


def test_what_a_service_says_of_itself_is_of_bounded_size():
    network = Network()
    network.peer("Small", "service", attributes={"x": "y" * 990_000})
    large = network.connect()
    raw(large)
    attributes = {"x": "y" * 1_000_000}
    network.send(large, {"result": {"name": "Large", "type": "service", "attributes": attributes}})
    assert "The identity of a service has more than 1,000,000 bytes" in read(large)[0]["message"]
    assert list(network.protocol.registry.services) == ["Small"]


def test_what_all_say_of_themselves_is_of_bounded_size(monkeypatch):
    monkeypatch.setattr(registry, "_MAX_IDENTITIES", 100_000)
    network = Network()
    first = network.peer("First", os="x" * 60_000)

    def enter():
        peer = network.connect()
        raw(peer)
        network.send(peer, {"result": {"name": "Second", "type": "client", "os": "x" * 60_000}})
        return peer

    assert "The identities of all peers have more than" in read(enter())[0]["message"]
    network.protocol.disconnect(first)
    assert enter().kind == "client"


@pytest.mark.parametrize("field", ["language", "os"])
def test_what_a_client_says_of_itself_is_of_bounded_size(field):
    network = Network()
    peer = network.connect()
    raw(peer)
    network.send(peer, {"result": {"name": "C", "type": "client", field: ["x" * 10_000] * 10}})
    assert "has more than 65,536 bytes" in read(peer)[0]["message"]
    assert network.protocol.registry.peers == {}


# ---- the work ----


def test_lines_that_come_at_once_are_handled_in_turns():
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    data = b"".join(encoded(request("Echo", "e", uid=str(n))) + b"\n" for n in range(2 * MAX_LINES + 5))
    network.protocol.receive(client, data, MAX_LINES)
    counts = [len(read(echo))]
    while client.pending_lines:
        network.protocol.receive_more(client, MAX_LINES)
        counts.append(len(read(echo)))
    assert counts == [MAX_LINES, MAX_LINES, 5]
    assert client.lines_received == 1 + 2 * MAX_LINES + 5  # the first was its identity


@pytest.mark.parametrize("is_let_in", [False, True])
def test_lines_that_wait_for_a_check_are_handled_in_turns_after_it(is_let_in):
    network = Network(authentication=Authentication(hostname=not is_let_in))
    echo = network.connect()
    if not is_let_in:
        network.protocol.resolve(echo, result=True)
    network.send(echo, {"result": {"name": "Echo", "type": "service", "attributes": {}}})
    read(echo)
    client = network.connect()
    lines = [encoded({"result": {"name": "C", "type": "client"}})]
    if is_let_in:
        lines += [encoded(request("Manager", "port")), encoded({"result": "alice"})]
    lines += [encoded(request("Echo", "e", uid=str(n))) for n in range(2 * MAX_LINES + 5)]
    network.protocol.receive(client, b"".join(line + b"\n" for line in lines), MAX_LINES)
    assert read(echo) == []
    network.protocol.resolve(client, True, MAX_LINES)
    counts = [len(read(echo))]
    while client.pending_lines:
        network.protocol.receive_more(client, MAX_LINES)
        counts.append(len(read(echo)))
    assert max(counts) <= MAX_LINES
    assert sum(counts) == 2 * MAX_LINES + 5


def test_lines_after_the_end_of_a_connection_are_not_handled_in_a_later_turn():
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    lines = [request("Echo", "e", uid="1"), request("", "__disconnect__"), request("Echo", "e", uid="2")]
    network.protocol.receive(client, b"".join(encoded(line) + b"\n" for line in lines), 1)
    network.protocol.receive_more(client, 1)
    network.protocol.receive_more(client, 1)
    assert client.close_reason
    assert len(read(echo)) == 1


@pytest.mark.parametrize("turn", [1, 5])
def test_a_line_that_is_too_long_comes_to_light_behind_those_before_it(turn):
    network = Network(read_limit=1000)
    echo, client = network.peer("Echo", "service"), network.peer()
    before = b"".join(encoded(request("Echo", "e", uid=str(n))) + b"\n" for n in range(3))
    network.protocol.receive(client, before + b"x" * 2000, turn)
    while client.pending_lines:
        assert not client.close_reason
        network.protocol.receive_more(client, turn)
    assert len(read(echo)) == 3
    assert client.close_reason
    assert network.protocol.hits == {"read_limit": 1}


# ---- incomplete lines ----


def send_part(network, peer, size):
    network.protocol.receive(peer, b"x" * size)


def test_lines_of_all_peers_that_are_not_complete_are_bounded_and_who_has_most_goes(monkeypatch):
    monkeypatch.setattr(manager, "_MAX_INCOMPLETE", 10_000)
    network = Network()
    echo, honest = network.peer("Echo", "service"), network.peer()
    honest.host = Host("lab", "10.0.0.1", "lab", "lab")
    many = [network.peer() for _ in range(10)]
    for number, peer in enumerate(many):
        peer.host = Host("evil", f"2001:db8::{number}", "evil", "evil")
    send_part(network, honest, 1900)
    for number, peer in enumerate(many):
        send_part(network, peer, 600 + number)
        send_part(network, peer, 200)
    # The host of these has more than the one of the honest peer, which has the longest line of all.
    assert not any(peer.close_reason for peer in many)
    send_part(network, many[0], 1000)
    assert [peer.close_reason for peer in many if peer.close_reason] == [many[0].close_reason]
    assert many[0].close_reason.startswith("ValueError: The lines of all peers that are not complete")
    assert read(many[0])[-1]["error"]
    assert len(many[0].lines) == 0
    send_part(network, many[0], 5000)  # which nobody looks at any more
    network.send(honest, b"")  # which ends the line
    assert [line["error"] for line in read(honest)] == [True]
    network.send(honest, request("Echo", "e"))
    assert len(read(echo)) == 1


def test_what_was_incomplete_counts_no_more_when_it_is_complete_or_its_peer_has_gone(monkeypatch):
    monkeypatch.setattr(manager, "_MAX_INCOMPLETE", 10_000)
    network = Network()
    network.peer("Echo", "service")
    peer = network.peer()
    for _ in range(20):
        send_part(network, peer, 4000)
        network.send(peer, b"")
        gone = network.peer()
        send_part(network, gone, 4000)
        network.protocol.disconnect(gone)
    assert not peer.close_reason
    assert network.protocol._incomplete.size == 0


class Untouched(dict):
    """Open requests that fail the test if they are iterated."""

    def items(self):
        raise AssertionError("looked through")

    __iter__ = keys = values = items


def test_when_a_service_goes_only_requests_of_those_who_have_asked_it_are_looked_through():
    network = Network()
    busy, short = network.peer("Busy", "service"), network.peer("Short", "service")
    one, two = network.peer(), network.peer()
    one.open = Untouched()
    network.send(one, request("Busy", "e"))
    network.send(two, request("Busy", "e"), request("Short", "e", uid="s"))
    network.protocol.disconnect(short)
    assert [line["uid"] for line in read(two)] == ["s"]
    assert set(busy.requesters) == {one, two}


def test_many_requests_with_one_uid_are_kept_as_numbers():
    network = Network()
    one, two, client = network.peer("One", "service"), network.peer("Two", "service"), network.peer()
    network.send(client, *[request(name, "e", uid="") for _ in range(500) for name in ("One", "Two")])
    assert client.open == {"": {one: 500, two: 500}}
    network.send(two, *[reply(line, 1) for line in read(two)])
    assert client.open == {"": {one: 500}}
    network.protocol.disconnect(one)
    assert len(read(client)) == 1000
    assert client.open == {}


def test_a_client_that_goes_is_forgotten_by_the_services_it_has_asked():
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e"))
    asked = read(echo)[0]
    network.protocol.disconnect(client)
    assert echo.requesters == {}
    network.send(echo, reply(asked, 1))  # to nobody
    assert network.protocol.registry.peers == {echo.name: echo}
    assert network.protocol.touched[-1] is not client.route


def test_who_was_told_once_is_told_again_of_the_service_that_comes_next():
    network = Network()
    client = network.peer()
    for uid in "12":
        echo = network.peer("Echo", "service")
        network.send(client, request("Echo", "e", uid=uid))
        network.protocol.disconnect(echo)
        assert [(line["uid"], line["message"].split(":")[0]) for line in read(client)] == [
            (uid, "ConnectionError")
        ]


@pytest.mark.parametrize("uid", ["1", "2"])
def test_when_the_manager_is_about_to_end_no_request_is_passed_on(uid):
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="1"))
    asked = read(echo)[0]
    network.protocol.refuse_requests(lambda: None)
    assert not network.protocol.is_quiet
    network.send(client, request("Echo", "e", uid=uid), request("Manager", "unlink", "nobody", uid="3"))
    assert read(echo) == []
    refused, answered = read(client)
    assert (refused["uid"], answered["uid"], answered["result"]) == (uid, "3", True)
    assert refused["message"].endswith("is shutting down, the request was not executed")
    network.send(echo, reply(asked, 1))
    assert [line["result"] for line in read(client)] == [1]
    assert network.protocol.is_quiet


@pytest.mark.parametrize("how", ["reply", "reply in a later turn", "the Service disconnects"])
def test_the_end_of_the_last_open_request_is_reported_while_the_manager_drains(how):
    network = Network()
    quiet: list[bool] = []
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", uid="1"))
    answer = reply(read(echo)[0], 1)
    network.protocol.refuse_requests(lambda: quiet.append(True))
    assert quiet == []
    if how == "reply":
        network.send(echo, answer)
    elif how == "reply in a later turn":
        network.protocol.receive(echo, b"\n" + encoded(answer) + b"\n", 1)
        assert quiet == []
        network.protocol.receive_more(echo)
    else:
        network.protocol.disconnect(echo)
    assert quiet


def test_when_the_manager_ends_each_peer_is_told_in_a_way_that_it_puts_up_with():
    network = Network()
    service, client = network.peer("Echo", "service"), network.peer()
    network.protocol.say_goodbye()
    assert (service.close_reason, client.close_reason) == ("the Manager is shutting down",) * 2
    [to_client], [to_service] = read(client), read(service)
    text = "Manager[vm:1875] is shutting down"
    assert (to_client["uid"], to_client["service"], to_client["result"]) == (
        "notification",
        "Manager",
        [[text], {}],
    )
    assert (to_service["error"], to_service["message"]) == (True, f"ConnectionAbortedError: {text}")


def test_when_the_manager_ends_open_requests_are_answered_once():
    network = Network()
    one, two, client = network.peer("One", "service"), network.peer("Two", "service"), network.peer()
    requests = [request(name, "e", uid=uid) for name, uid in (("One", "1"), ("One", "2"), ("Two", "2"))]
    network.send(client, *requests)
    network.protocol.say_goodbye()
    for service in (one, two):
        network.protocol.disconnect(service)
    *answers, goodbye = read(client)
    assert [(line["uid"], line["error"]) for line in answers] == [("1", True), ("2", True), ("2", True)]
    text = "ConnectionAbortedError: Manager[vm:1875] is shutting down, the request may have been executed"
    assert {line["message"] for line in answers} == {text}
    assert goodbye["uid"] == "notification"
    assert network.protocol.is_quiet


def test_when_a_service_goes_requests_of_the_same_uid_to_others_stay_open():
    network = Network()
    one, two, gone = (network.peer(name, "service") for name in ("One", "Two", "Gone"))
    client = network.peer()
    network.send(
        client, *[request(name, "e", uid=uid) for name, uid in (("One", "1"), ("Two", "1"), ("Gone", "2"))]
    )
    network.protocol.disconnect(gone)
    assert [line["uid"] for line in read(client)] == ["2"]
    for service in (one, two):
        network.send(service, reply(read(service)[0], 5))
    assert [(line["uid"], line["result"]) for line in read(client)] == [("1", 5)] * 2
