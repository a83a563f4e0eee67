"""Tests of peers that replace others, and of administrators' requests about peers."""

from __future__ import annotations

import re

import attrs
import pytest

from msl_network_trio.constants import MANAGER
from msl_network_trio.protocol.manager import registry
from msl_network_trio.protocol.manager.answers import Encoded
from msl_network_trio.protocol.manager.peer import Host
from msl_network_trio.protocol.manager.pending_check import AdminRequest, ReplaceCheck
from msl_network_trio.protocol.manager.route import LARGE
from tests.protocol.network import NAME, Network, notification, read, request

TAKEN = "NameError: A 'S' service is already running on the Manager"


def newcomer(network, *more, **changes):
    """Connect a peer that wants to be the Service S; it may differ from those that are there."""
    peer = network.connect()
    for name, value in changes.items():
        setattr(peer, name, value)
    network.send(peer, {"result": {"name": "S", "type": "service", "attributes": {}}}, *more)
    return peer


@pytest.fixture
def network():
    return Network(replaces=True)


def test_a_peer_that_is_gone_is_replaced(network):
    old, client = network.peer("S", "service"), network.peer()
    network.send(client, request("S", "add", 1, uid="a"))
    new = newcomer(network)
    question = network.protocol.pending_check(new)
    assert question == ReplaceCheck(old, {"name": "S", "type": "service", "attributes": {}})
    assert [line["attribute"] for line in read(new)] == ["identity"]
    network.protocol.disconnect(old)  # the I/O layer has reset it
    network.protocol.resolve(new, True)
    assert network.protocol.registry.services == {"S": new}
    [answer] = read(client)
    assert answer["uid"] == "a"
    assert answer["message"] == (
        f"ConnectionError: the 'S' Service has gone from {NAME}, the request may have been executed"
    )
    network.send(client, request("S", "add", 2, uid="b"))
    assert [line["uid"] for line in read(new)] == ["b"]


def test_what_a_newcomer_sends_behind_its_identity_is_handled_when_it_is_let_in(network):
    old = network.peer("S", "service")
    new = newcomer(
        network, request(MANAGER, "unlink", "x", uid="1"), request(MANAGER, "unlink", "x", uid="2")
    )
    network.send(new, request(MANAGER, "unlink", "x", uid="3"))
    assert len(read(new)) == 1
    network.protocol.disconnect(old)
    network.protocol.resolve(new, True)
    assert [line["uid"] for line in read(new)] == ["1", "2", "3"]
    assert new.lines_received == 4
    assert new.received > 0


def test_a_peer_that_is_there_keeps_its_name(network):
    old = network.peer("S", "service")
    new = newcomer(network)
    network.protocol.resolve(new, False)
    assert read(new)[-1]["message"] == TAKEN
    assert new.close_reason
    assert network.protocol.registry.services == {"S": old}


def test_of_two_newcomers_one_has_the_name(network):
    old = network.peer("S", "service")
    first, second = newcomer(network), newcomer(network)
    network.protocol.disconnect(old)
    network.protocol.resolve(second, True)
    network.protocol.resolve(first, True)  # and not asked again: the second one is there
    assert network.protocol.registry.services == {"S": second}
    assert read(first)[-1]["message"] == TAKEN


def test_a_newcomer_of_which_nobody_can_tell_may_try_again(network):
    network.peer("S", "service")
    new = newcomer(network)
    network.protocol.resolve(new, RuntimeError("broken"))
    told = read(new)[-1]
    assert told["message"].startswith("RuntimeError: The Manager cannot check who you are: broken")
    assert told["again"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"host": Host("vm", "10.0.0.2", "vm", "vm")},
        {"host": Host("vm", "vm", "vm", "vm", gateway="10.0.0.9")},
        {"user": "alice"},
    ],
    ids=["another host", "behind a gateway", "another user"],
)
@pytest.mark.parametrize("of_old", [True, False])
def test_a_peer_that_is_another_one_keeps_its_name(network, changes, of_old):
    old = network.peer("S", "service")
    if of_old:
        for name, value in changes.items():
            setattr(old, name, value)
    new = newcomer(network, **({} if of_old else changes))
    assert read(new)[-1]["message"] == TAKEN
    assert network.protocol.pending_check(new) is None


def test_nobody_is_replaced_unless_that_is_wanted():
    network = Network()
    network.peer("S", "service")
    assert read(newcomer(network))[-1]["message"] == TAKEN


def test_the_names_of_the_manager_and_of_clients_are_nobodys_to_take(network):
    manager = network.connect()
    network.send(manager, {"result": {"name": MANAGER, "type": "service", "attributes": {}}})
    assert "already running" in read(manager)[-1]["message"]
    first = network.peer("C")
    same = network.connect()
    same.address = first.address
    network.send(same, {"result": {"name": "C", "type": "client"}})
    answer = read(same)[-1]
    assert answer["message"].startswith("NameError: A peer with the name ")
    assert "is already connected" in answer["message"]
    assert answer["again"] == 1  # by another port


def test_a_service_is_asked_for_something_that_it_answers_to_nobody(network):
    service, client = network.peer("S", "service"), network.peer()
    network.protocol.ask_for_identity(service)
    [asked] = read(service)
    assert (asked["service"], asked["attribute"], asked["requester"], asked["uid"]) == (
        "S",
        "identity",
        NAME,
        "",
    )
    network.send(service, {"error": False, "result": {}, "requester": NAME, "uid": ""})
    assert read(service) == read(client) == []
    assert not service.close_reason


# ---- locks ----


@pytest.mark.parametrize("how", ["all", "name", "address", "IP address"])
def test_locks_are_released_for_others(network, how):
    network.peer("S", "service")
    first, second = network.peer("A"), network.peer("B")
    for client in (first, second):
        network.send(client, request(MANAGER, "link", "S"))
    for client in (first, second):
        network.send(client, request(MANAGER, "acquire_lock", "S", shared=True))
    second.host = attrs.evolve(second.host, address="192.0.2.1")
    ip_address = f"192.0.2.1:{second.port}"
    holder = {"all": None, "name": second.name, "address": second.address, "IP address": ip_address}[how]
    names = network.protocol.registry.release_locks("S", holder)
    assert names == ([first.name, second.name] if holder is None else [second.name])
    assert list(network.protocol.registry.services["S"].locks) == ([] if holder is None else [first])
    if holder is None:
        assert network.protocol.registry.release_locks("S") == []
    else:
        with pytest.raises(ValueError, match=f"{re.escape(holder)} holds no lock on 'S'"):
            network.protocol.registry.release_locks("S", holder)


def test_locks_of_a_service_that_is_not_there_cannot_be_released(network):
    with pytest.raises(KeyError, match="'S' service does not exist"):
        network.protocol.registry.release_locks("S")


# ---- large answers ----


@pytest.mark.parametrize("size", [3, LARGE + 1])
def test_a_result_that_is_encoded_is_the_answer(network, size):
    client = network.peer()
    client.is_admin = True
    network.send(client, request(MANAGER, "users", uid="a"))
    assert isinstance(network.protocol.pending_check(client), AdminRequest)
    network.protocol.resolve(client, Encoded(memoryview(b'"%b"' % (b"x" * size))))
    network.send(client, request(MANAGER, "unlink", "x", uid="b"))
    first, second = read(client)
    assert (first["uid"], first["result"], first["requester"]) == ("a", "x" * size, client.name)
    assert second["uid"] == "b"


# ---- those who may try again ----


def test_who_is_one_too_many_is_told_when_to_try_again(monkeypatch):
    network = Network(max_connections=1)
    network.peer()
    other = network.connect()
    network.send(other, {"result": {"name": "C", "type": "client"}})
    told = read(other)[-1]
    assert (told["message"].split(",")[0], told["again"]) == ("ValueError: 1 peers are connected", 10.0)
    monkeypatch.setattr(registry, "_MAX_IDENTITIES", 10)
    network = Network()
    other = network.connect()
    network.send(other, {"result": {"name": "C", "type": "client"}})
    assert read(other)[-1]["again"] == 10.0


def test_a_service_is_told_when_to_come_back_to_a_manager_that_ends():
    network = Network()
    service, client = network.peer("S", "service"), network.peer()
    network.protocol.say_goodbye()
    assert read(service)[-1]["again"] == 1.0
    assert "again" not in read(client)[-1]


def test_who_was_dropped_since_it_did_not_read_may_come_again():
    network = Network(max_backlog=1000)
    service, client = network.peer("S", "service"), network.peer()
    network.send(client, request(MANAGER, "link", "S"))
    network.send(service, *[notification("S", "x" * 600)] * 4)
    assert read(client)[-1]["again"] == 1.0


def test_a_rejection_because_of_the_peer_has_no_such_field():
    network = Network("secret")
    peer = network.connect()
    network.send(peer, {"result": "guess"})
    assert "again" not in read(peer)[-1]
