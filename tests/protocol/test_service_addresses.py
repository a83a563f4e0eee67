"""Services are recognised by their addresses, and departures by a missing or another address."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol.service_addresses import ServiceAddresses


def identity(**addresses: object) -> dict[str, object]:
    return {"services": {name: {"address": address} for name, address in addresses.items()}}


def test_a_service_that_is_seen_for_the_first_time_has_not_departed():
    addresses = ServiceAddresses({})
    assert not addresses.observe("Echo", "vm:1")
    assert not addresses.observe("Echo", "vm:1")


def test_a_service_without_an_address_has_departed_even_if_it_was_never_seen():
    addresses = ServiceAddresses({})
    assert addresses.observe("Echo", None)
    addresses.observe("Other", "vm:1")
    assert addresses.observe("Other", None)


@pytest.mark.parametrize("between", [[], [None]])
def test_a_service_at_another_address_has_departed_once(between):
    addresses = ServiceAddresses({})
    addresses.observe("Echo", "vm:1")
    for address in between:
        addresses.observe("Echo", address)
    assert addresses.observe("Echo", "vm:2")
    assert not addresses.observe("Echo", "vm:2")


def test_an_identity_updates_all_services_and_only_requested_ones_are_returned():
    addresses = ServiceAddresses({})
    asked = {"Same", "Moved", "Gone", "New"}
    assert set(addresses.observe_all(identity(Same="a:1", Moved="a:2", Gone="a:3", Idle="a:4"), asked)) == {
        "New"
    }
    later = identity(Same="a:1", Moved="b:2", New="a:5")
    assert set(addresses.observe_all(later, asked)) == {"Moved", "Gone", "New"}
    assert set(addresses.observe_all(later, asked)) == {"Gone"}
    assert addresses.observe("Idle", "a:4")  # it was missing in between


@pytest.mark.parametrize("registry", [None, 5, [], {}, {"services": None}, {"services": ["Echo"]}])
def test_an_invalid_identity_changes_nothing(registry):
    addresses = ServiceAddresses({})
    addresses.observe("Echo", "vm:1")
    assert list(addresses.observe_all(registry, {"Echo"})) == []
    assert not addresses.observe("Echo", "vm:1")


@pytest.mark.parametrize("entry", [None, 5, {}, {"address": 5}])
def test_a_service_with_an_invalid_address_has_departed(entry):
    addresses = ServiceAddresses({})
    addresses.observe("Echo", "vm:1")
    assert list(addresses.observe_all({"services": {"Echo": entry}}, {"Echo"})) == ["Echo"]
