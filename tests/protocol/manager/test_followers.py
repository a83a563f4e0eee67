"""Notices to clients about Services that disconnect and connect."""

from __future__ import annotations

import json

import pytest

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.manager import followers
from msl_network_trio.protocol.manager.identity import MAX_NAME
from tests.protocol.network import Network, notification, raw, read, request

FOLLOWS = {"follows": ["services"]}


def notice(**kwargs):
    return {"error": False, "result": [[], kwargs], "service": MANAGER, "uid": "notification"}


def link(network, client, name="S"):
    network.send(client, request(MANAGER, "link", name, uid="link"))


@pytest.fixture
def network():
    return Network()


def follower(network, name="C"):
    """Connect a client that follows, and read the lines of its admission."""
    client = network.connect()
    network.send(client, {"result": {"name": name, "type": "client", **FOLLOWS}})
    question, tells = read(client)
    assert question["attribute"] == "identity"
    assert tells == notice(tells=["services"])
    return client


def test_a_linked_follower_gets_a_notice_when_its_service_disconnects_and_connects_again(network):
    service, client = network.peer("S", "service"), follower(network)
    link(network, client)
    assert [line["uid"] for line in read(client)] == ["link"]
    network.protocol.disconnect(service)
    assert read(client) == [notice(gone="S")]
    service = network.peer("S", "service")
    assert read(client) == [notice(came="S")]
    network.protocol.disconnect(service)  # it was not linked again
    network.peer("S", "service")
    assert read(client) == []


def test_the_notice_precedes_the_errors_of_open_requests(network):
    service, client = network.peer("S", "service"), follower(network)
    link(network, client)
    network.send(client, request("S", "add", uid="a"), request("S", "add", uid="b"))
    read(client)
    network.protocol.disconnect(service)
    first, *errors = read(client)
    assert first == notice(gone="S")
    assert [line["uid"] for line in errors] == ["a", "b"]


def test_a_notice_follows_what_the_service_sent_before_it_disconnected(network):
    service, client = network.peer("S", "service"), follower(network)
    link(network, client)
    read(client)
    network.send(service, notification("S", 1))
    network.protocol.disconnect(service)
    assert [line["result"] for line in read(client)] == [[[1], {}], [[], {"gone": "S"}]]


def test_a_notice_has_the_end_of_a_line_and_the_form_by_which_clients_find_notifications(network):
    client = follower(network)
    link(network, client)
    network.peer("S", "service")
    [_, line] = raw(client).splitlines(keepends=True)
    assert line.endswith(b'"uid":"notification"}\r\n')
    assert json.loads(line) == notice(came="S")


def test_a_follower_whose_link_was_refused_since_the_service_was_not_there_gets_a_notice_of_it(network):
    client = follower(network)
    link(network, client)
    link(network, client)
    assert [line["error"] for line in read(client)] == [True, True]
    network.peer("S", "service")
    assert read(client) == [notice(came="S")]


def test_a_follower_that_is_refused_for_another_reason_gets_none(network):
    one, other = follower(network), follower(network)
    service = network.peer("S", "service", max_clients=1)
    link(network, one)
    link(network, other)
    network.protocol.disconnect(service)
    assert [line["uid"] for line in read(one)] == ["link", "notification"]
    assert [line["uid"] for line in read(other)] == ["link"]
    network.peer("S", "service")
    assert read(one) == [notice(came="S")]
    assert read(other) == []


def test_a_client_that_unlinks_waits_no_more(network):
    service, client = network.peer("S", "service"), follower(network)
    link(network, client)
    network.protocol.disconnect(service)
    network.send(client, request(MANAGER, "unlink", "S", uid="unlink"))
    assert read(client)[-1]["result"] is True
    network.peer("S", "service")
    assert read(client) == []
    link(network, client)
    network.send(client, request(MANAGER, "unlink", "S", uid="unlink"))
    network.protocol.disconnect(network.protocol.registry.services["S"])
    assert [line["uid"] for line in read(client)] == ["link", "unlink"]


def test_other_clients_and_services_receive_nothing(network):
    service = network.peer("S", "service")
    plain = network.peer("P")
    peers = [plain, network.peer("T", "service", **FOLLOWS)]
    peers += [
        network.peer("P", follows=follows) for follows in ("services", None, ["others"], {"services": 1})
    ]
    for peer in peers:
        link(network, peer)
        link(network, peer, "X")
        read(peer)
    network.protocol.disconnect(service)
    network.peer("S", "service")
    network.peer("X", "service")
    assert [read(peer) for peer in peers] == [[]] * len(peers)


def test_the_identity_that_others_see_is_that_of_msl_network(network):
    follower(network)
    [info] = network.protocol.identity()["clients"].values()
    assert set(info) == {"name", "address", "language", "os"}


def test_a_service_that_is_replaced_is_gone_and_comes():
    network = Network(replaces=True)
    old, client = network.peer("S", "service"), follower(network)
    link(network, client)
    read(client)
    new = network.connect()
    network.send(new, {"result": {"name": "S", "type": "service", "attributes": {}}})
    assert read(client) == []
    network.protocol.disconnect(old)
    network.protocol.resolve(new, True)
    assert read(client) == [notice(gone="S"), notice(came="S")]


def test_the_goodbye_of_the_manager_is_the_last_line(network):
    service, client = network.peer("S", "service"), follower(network)
    link(network, client)
    network.protocol.say_goodbye()
    network.protocol.disconnect(service)
    assert [line["uid"] for line in read(client)] == ["link", "notification"]
    network.protocol.disconnect(client)


def kept(network):
    """The size of what is kept of clients that wait."""
    record = network.protocol._followers
    assert {(client, name) for name, clients in record._waiting.items() for client in clients} == {
        (client, name) for client, names in record._awaited.items() for name in names
    }
    return sum(map(len, record._waiting.values()))


def test_nothing_is_kept_of_clients_that_do_not_wait(network):
    one, other = follower(network), follower(network)
    for name in "STU":
        link(network, one, name)
        link(network, other, name)
    assert kept(network) == 6
    network.send(one, request(MANAGER, "unlink", "S", uid="1"), request(MANAGER, "unlink", "X", uid="2"))
    assert kept(network) == 5
    network.peer("T", "service")
    assert kept(network) == 3
    network.protocol.disconnect(other)
    assert kept(network) == 1
    network.protocol.disconnect(one)
    assert kept(network) == 0
    assert network.protocol._followers.__dict__ == followers.Followers().__dict__


def test_a_client_waits_for_a_limited_number_of_services_with_possible_names(network, monkeypatch):
    monkeypatch.setattr(followers, "_MAX_AWAITED", 2)
    one, other = follower(network), follower(network)
    for name in ("x" * (MAX_NAME + 1), "A", "B", "C", "A"):
        link(network, one, name)
    link(network, other, "C")
    assert kept(network) == 3
    read(one), read(other)
    for name in "ABC":
        network.peer(name, "service")
    assert read(one) == [notice(came="A"), notice(came="B")]
    assert read(other) == [notice(came="C")]
