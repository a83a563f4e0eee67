"""The registry: who is connected, linked, and holds a lock, by the rules and texts of msl-network."""

from __future__ import annotations

from typing import Any

import pytest

from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.registry import Registry

PORTS = iter(range(1, 100_000))


def enter(registry: Registry, name: str = "C", kind: str = "client", **more: Any) -> Peer:
    peer = Peer("vm", next(PORTS))
    fields = {"attributes": {"echo": "()"}} if kind.lower() == "service" else {}
    registry.add(peer, {"name": name, "type": kind, **fields, **more})
    return peer


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_peer_before_it_has_said_who_it_is():
    peer = Peer("vm", 7)
    assert (peer.name, peer.kind, peer.address) == ("<Unknown>[vm:7]", "", "vm:7")
    assert repr(peer) == "<peer <Unknown>[vm:7], 0 bytes to be written>"
    assert peer.phase is Phase.GREETING
    peer.route.put(b"dropped")
    peer.route.put_large(memoryview(b"dropped"), b"as well")
    assert (peer.route.backlog, peer.route.sent) == (0, 0)


def test_a_client_is_entered_under_its_network_name(registry):
    client = enter(registry, "A", language="Python", os="Linux")
    assert client.name == f"A[{client.address}]"
    assert registry.clients() == {
        client.name: {"name": "A", "address": client.address, "language": "Python", "os": "Linux"}
    }


def test_a_service_is_entered_under_its_name_and_is_no_client(registry):
    service = enter(registry, "Echo", "SERVICE")
    assert registry.services == {"Echo": service}
    assert registry.clients() == {}
    assert service.info == {
        "attributes": {"echo": "()"},
        "address": service.address,
        "language": "unknown",
        "os": "unknown",
        "max_clients": -1,
    }


@pytest.mark.parametrize(
    ("identity", "error", "text"),
    [
        (None, TypeError, "not NoneType"),
        ([], TypeError, "not list"),
        ({"type": "client"}, KeyError, "name"),
        ({"name": "A"}, KeyError, "type"),
        ({"name": 5, "type": "client"}, TypeError, "text"),
        ({"name": "A", "type": 5}, TypeError, "text"),
        ({"name": "A", "type": "robot"}, TypeError, "Unknown connection type 'robot'. Must be"),
        ({"name": "", "type": "client"}, ValueError, "empty"),
        ({"name": "A", "type": "service"}, KeyError, "attributes"),
        ({"name": "A", "type": "service", "attributes": []}, TypeError, "attributes"),
        ({"name": "A", "type": "service", "attributes": {}, "max_clients": "2"}, TypeError, "max_clients"),
        ({"name": "Manager", "type": "service", "attributes": {}}, NameError, "'Manager'"),
        ({"name": "\ud800", "type": "client"}, ValueError, "surrogates"),
        ({"name": "\ud800", "type": "service", "attributes": {}}, ValueError, "surrogates"),
        ({"name": "A", "type": "service", "attributes": {"\ud800": 1}}, ValueError, "surrogates"),
        ({"name": "A", "type": "client", "language": nested(50_000)}, ValueError, "nested too deeply"),
        ({"name": "A", "type": "client", "os": "\ud800"}, ValueError, "surrogates"),
    ],
)
def test_an_identity_that_makes_no_sense_is_refused_and_leaves_nothing(registry, identity, error, text):
    with pytest.raises(error, match=text):
        registry.add(Peer("vm", 1), identity)
    assert registry.peers == registry.services == {}


def test_names_are_taken_once(registry):
    enter(registry, "Echo", "service")
    with pytest.raises(NameError, match="A 'Echo' service is already running on the Manager"):
        enter(registry, "Echo", "service")
    registry.add(Peer("vm", 5), {"name": "A", "type": "client"})
    with pytest.raises(NameError, match="already connected"):
        registry.add(Peer("vm", 5), {"name": "A", "type": "client"})


@pytest.mark.parametrize("name", ["\0", "a b", "Zoë", "x[vm:1]", "🎉" * 100, "Manager"])
def test_a_client_may_have_any_name_that_can_be_told(registry, name):
    client = enter(registry, name)
    assert registry.clients()[f"{name}[{client.address}]"]["name"] == name


def test_clients_of_one_name_are_told_apart_by_their_ports(registry):
    one, two = enter(registry, "C"), enter(registry, "C")
    assert registry.peers == {one.name: one, two.name: two}


@pytest.mark.parametrize("limit", [0, -1, -7, 0.5, float("inf"), float("nan"), True])
def test_a_limit_of_links_counts_if_it_is_more_than_0(registry, limit):
    enter(registry, "Echo", "service", max_clients=limit)
    registry.link(enter(registry), "Echo")
    if limit in {0.5, True}:
        with pytest.raises(PermissionError, match="maximum number"):
            registry.link(enter(registry), "Echo")
    else:
        registry.link(enter(registry), "Echo")


def test_a_place_that_was_given_up_can_be_taken(registry):
    enter(registry, "One", "service", max_clients=1)
    first, second, third = (enter(registry) for _ in range(3))
    registry.link(first, "One")
    registry.unlink(first, "One")
    registry.link(second, "One")
    registry.remove(second)
    registry.link(third, "One")


def test_a_service_can_be_linked_with_another_and_locks_end_with_either(registry):
    echo, other = enter(registry, "Echo", "service"), enter(registry, "Other", "service")
    registry.link(other, "Echo")
    registry.acquire_lock(other, "Echo", shared=False)
    with pytest.raises(PermissionError, match="'Echo' service is locked"):
        registry.link(enter(registry), "Echo")
    registry.remove(other)
    registry.link(enter(registry), "Echo")
    registry.remove(echo)
    again = enter(registry, "Echo", "service")
    assert (again.links, again.locks) == ({}, {})


def test_a_peer_that_goes_takes_its_links_and_locks_along(registry):
    service, client = enter(registry, "Echo", "service"), enter(registry)
    registry.link(client, "Echo")
    registry.acquire_lock(client, "Echo", shared=False)
    registry.remove(client)
    assert (service.links, service.locks) == ({}, {})
    assert list(registry.peers.values()) == [service]
    registry.remove(client)  # once more does no harm
    registry.remove(service)
    assert registry.peers == registry.services == {}


def test_linking(registry):
    service, one, two = enter(registry, "Echo", "service", max_clients=1), enter(registry), enter(registry)
    assert registry.link(one, "Echo") is service.info
    assert registry.link(one, "Echo") is service.info  # once more is fine
    with pytest.raises(PermissionError) as full:
        registry.link(two, "Echo")
    assert str(full.value) == (
        f"The maximum number of Clients are already linked with 'Echo'\nThe linked Clients are:\n  {one.name}"
    )
    with pytest.raises(KeyError, match=r"the 'Nope' service does not exist, cannot link with C\["):
        registry.link(one, "Nope")


def test_a_lock_keeps_others_from_linking_but_not_those_who_are(registry):
    enter(registry, "Echo", "service")
    one, two, three = (enter(registry) for _ in range(3))
    registry.link(one, "Echo")
    registry.link(two, "Echo")
    with pytest.raises(
        PermissionError, match="there are 2 links with the 'Echo' service\nThe linked"
    ) as held:
        registry.acquire_lock(one, "Echo", shared=False)
    assert str(held.value).startswith(f"{one.name} cannot acquire an exclusive lock")
    assert sorted(registry.acquire_lock(one, "Echo", shared=True)) == sorted([one.name, two.name])
    assert registry.acquire_lock(two, "Echo", shared=True)
    with pytest.raises(PermissionError, match="^'Echo' service is locked$"):
        registry.link(three, "Echo")
    assert registry.link(two, "Echo")
    assert registry.release_lock(one, "Echo") == [two.name]
    assert registry.release_lock(one, "Echo") == [two.name]  # it holds none: fine
    assert registry.release_lock(two, "Echo") == []
    assert registry.link(three, "Echo")


def test_only_who_is_linked_can_lock_an_existing_service(registry):
    enter(registry, "Echo", "service")
    client = enter(registry)
    with pytest.raises(PermissionError, match="because it is not linked with the 'Echo' service"):
        registry.acquire_lock(client, "Echo", shared=True)
    with pytest.raises(KeyError, match=r"'Nope' service does not exist, C\[.*cannot acquire a lock"):
        registry.acquire_lock(client, "Nope", shared=True)
    with pytest.raises(KeyError, match=r"'Nope' service does not exist, C\[.*cannot release the lock"):
        registry.release_lock(client, "Nope")


def test_unlinking_releases_the_own_lock_and_forgives_services_that_are_gone(registry):
    service, client = enter(registry, "Echo", "service"), enter(registry)
    registry.link(client, "Echo")
    registry.acquire_lock(client, "Echo", shared=False)
    assert registry.unlink(client, "Echo") is True
    assert (service.links, service.locks) == ({}, {})
    assert registry.unlink(client, "Nope") is True
    with pytest.raises(KeyError, match=r"cannot unlink C\[.*it was not linked with 'Echo'"):
        registry.unlink(client, "Echo")
