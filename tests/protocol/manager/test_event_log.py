"""Tests of the events that a Manager logs about its peers."""

from __future__ import annotations

import logging

import pytest

from msl_network_trio.protocol.manager import event_log as records
from msl_network_trio.protocol.manager.event_log import FIELDS
from msl_network_trio.protocol.manager.peer import Host
from tests.protocol.network import Clock, Network, notification, read, reply, request


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.DEBUG)
    return caplog


def events(caplog, *names: str) -> list[dict]:
    """The fields of the events with these names, and the text of each."""
    found = [(getattr(record, FIELDS, None), record.getMessage()) for record in caplog.records]
    return [{**fields, "text": text} for fields, text in found if fields and fields["event"] in names]


def test_links_and_locks_are_recorded_with_how_long_they_lasted(log):
    clock = Clock()
    network = Network(clock=clock)
    network.peer("Echo", "service")
    client = network.peer()
    network.send(client, request("Manager", "link", "Echo"))
    clock.now += 1
    network.send(client, request("Manager", "acquire_lock", "Echo", shared=True))
    clock.now += 2.5
    network.send(client, request("Manager", "release_lock", "Echo"))
    clock.now += 1
    network.send(client, request("Manager", "unlink", "Echo"))
    assert [line["error"] for line in read(client)] == [False] * 4
    who = {"peer": client.name, "host": "vm", "service": "Echo"}
    linked, locked, unlocked, unlinked = events(log, "linked", "locked", "unlocked", "unlinked")
    assert linked == {
        **who, "event": "linked", "links": 1, "text": f"{client.name} is linked with 'Echo' [1 link(s)]"
    }  # fmt: skip
    assert (locked["shared"], locked["locks"]) == (True, 1)
    assert (unlocked["seconds"], unlocked["locks"]) == (2.5, 0)
    assert unlocked["text"] == f"{client.name} holds no lock on 'Echo' any more, after 2.500 s [0 lock(s)]"
    assert (unlinked["seconds"], unlinked["links"]) == (4.5, 0)


@pytest.mark.parametrize("who", ["client", "service"])
def test_links_and_locks_end_in_the_log_as_well_when_a_peer_goes(log, who):
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(
        client, request("Manager", "link", "Echo"), request("Manager", "acquire_lock", "Echo", shared=False)
    )
    network.protocol.disconnect(client if who == "client" else echo)
    assert [event["event"] for event in events(log, "unlocked", "unlinked")] == ["unlocked", "unlinked"]


def test_a_lock_that_is_taken_again_is_one_lock(log):
    network = Network()
    network.peer("Echo", "service")
    client = network.peer()
    lock = request("Manager", "acquire_lock", "Echo", shared=False)
    network.send(client, request("Manager", "link", "Echo"), lock, lock)
    assert len(events(log, "locked")) == 1


def test_requests_that_fail_are_recorded_without_what_was_in_them(log):
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "confidential", key="confidential"))
    answer = {**reply(read(echo)[0], None), "error": True, "message": "ValueError: confidential"}
    network.send(echo, answer)
    network.send(client, request("Nope", "e", "confidential"), request("Manager", "link", "Nope"))
    failed, *refused = events(log, "failed", "refused")
    assert (failed["peer"], failed["service"]) == (client.name, "Echo")
    assert [event["error"].partition(":")[0] for event in refused] == ["KeyError", "KeyError"]
    assert "confidential" not in log.text


def test_what_a_peer_says_cannot_begin_a_line_of_its_own(log):
    network = Network()
    client = network.peer("C\n2026-01-01 [INFO] all is well\x1b[2K\u2028")
    network.send(client, request("x\ny" * 1000, "e"))
    for record in log.records:
        assert "\n" not in record.getMessage()
        assert "\x1b" not in record.getMessage()
        assert "\u2028" not in record.getMessage()
        assert len(record.getMessage()) < 1000
    [connected] = events(log, "connected")
    assert connected["peer"].startswith("C\\n2026")


def test_a_host_that_causes_too_many_records_is_summed_up_and_others_are_not(log):
    clock = Clock()
    network = Network(clock=clock)
    echo, loud, other = network.peer("Echo", "service"), network.peer(), network.connect()
    other.host = Host("e", "elsewhere", "e", "e")
    count = records.BURST + 500
    network.send(loud, *[request("Nope", "e")] * count)
    assert len(events(log, "refused")) == records.BURST - 2  # two have connected
    network.send(echo, *[notification("Other")] * 10)
    assert events(log, "forged") == []  # the same host
    network.send(other, {"result": {"name": "O", "type": "client"}}, request("Nope", "e"))
    assert len(events(log, "refused")) == records.BURST - 1
    assert events(log, "left_out") == []
    clock.now += 1
    network.send(loud, request("Nope", "e"))
    [left_out] = events(log, "left_out")
    assert (left_out["count"], left_out["host"]) == (count - (records.BURST - 2) + 10, "vm")
    network.protocol.event_log.close()
    assert len(events(log, "left_out")) == 1  # nothing more to tell


def test_all_addresses_of_an_ipv6_network_have_one_limit(log):
    network = Network(clock=Clock())
    for number in range(records.BURST + 10):
        peer = network.connect()
        peer.host = Host("h", f"2001:db8::{number:x}", "h", "h")
        network.send(peer, 5)
    assert len(events(log, "rejected")) == records.BURST
    network.protocol.event_log.close()
    [left_out] = events(log, "left_out")
    assert (left_out["count"], left_out["host"]) == (10, "2001:db8::/64")


def test_what_was_left_out_is_told_in_the_end(log):
    network = Network(clock=Clock())
    loud = network.peer()
    network.send(loud, *[request("Nope", "e")] * (records.BURST + 9))
    network.protocol.event_log.close()
    [left_out] = events(log, "left_out")
    assert left_out["count"] == 10


def test_hosts_are_not_remembered_for_ever(log, monkeypatch):
    monkeypatch.setattr(records, "_MAX_HOSTS", 10)
    network = Network(clock=Clock())
    for number in range(30):
        peer = network.connect()
        peer.host = Host("h", str(number), "h", "h")
        network.send(peer, *[5] * 3)
        assert len(network.protocol.event_log._hosts) <= 10
    assert [event["host"] for event in events(log, "rejected")] == [str(number) for number in range(30)]


def test_what_is_not_logged_takes_nothing_of_the_limit(log):
    log.set_level(logging.WARNING)
    network = Network(clock=Clock())
    loud = network.peer()
    network.send(loud, *[request("Nope", "e")] * 2 * records.BURST)
    network.send(loud, notification("Other"))
    assert len(events(log, "forged")) == 1
    assert events(log, "left_out", "refused") == []
