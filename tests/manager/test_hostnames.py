"""Tests of the names of hosts, and of resolvers that do not answer."""

from __future__ import annotations

import socket
import threading

import pytest
import trio

from msl_network_trio.manager import hostnames
from msl_network_trio.manager.hostnames import Hostnames
from msl_network_trio.protocol.manager.peer import Host


@pytest.fixture(autouse=True)
def resolver(monkeypatch):
    """A resolver without a network; it notes what it was asked."""
    asked = []

    def getfqdn(address):
        asked.append(address)
        return {"10.0.0.5": "lab-5.example.org", "10.0.0.6": "lab-6", "2001:db8::5": "lab-5.example.org"}.get(
            address, address
        )

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    return asked


@pytest.fixture
def stuck(monkeypatch):
    """A resolver that answers when this event is set, at the latest in the end."""
    answer = threading.Event()

    def getfqdn(_address):
        answer.wait(30)
        return "lab-5.example.org"

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    yield answer
    answer.set()


@pytest.mark.parametrize(
    ("address", "own_address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.8.9.10", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
async def test_this_computer_is_called_by_its_own_name_by_whatever_address_it_comes(
    resolver, address, own_address
):
    host = await Hostnames().host(address, own_address)
    assert (host.name, host.domain, host.hostname) == ("here", "localhost", "localhost")
    assert host.address == address.removeprefix("::ffff:")
    assert resolver == []


@pytest.mark.parametrize("address", ["10.0.0.5", "2001:db8::5", "fe80::5%eth0"])
async def test_this_computer_is_trusted_by_its_own_name_if_it_uses_another_address(resolver, address):
    host = await Hostnames().host(address, address)
    assert host == Host("here", address.partition("%")[0], "here", "here")
    assert resolver == []


@pytest.mark.parametrize(
    ("address", "expected", "asked"),
    [
        ("10.0.0.5", "lab-5", "10.0.0.5"),
        ("10.0.0.6", "lab-6", "10.0.0.6"),
        ("::ffff:10.0.0.5", "lab-5", "10.0.0.5"),
        ("2001:db8::5", "lab-5", "2001:db8::5"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("fe80::7%eth0", "fe80::7", "fe80::7"),
    ],
)
async def test_others_are_called_by_the_first_part_of_their_name_or_by_their_address(
    resolver, address, expected, asked
):
    host = await Hostnames().host(address, "10.0.0.1")
    assert (host.name, host.hostname, host.address) == (expected, expected, asked)
    assert host.domain in {"lab-5.example.org", expected}
    assert resolver == [asked]


async def test_a_name_is_looked_up_again_after_some_minutes_only(resolver, mock_clock):
    names = Hostnames()  # at the time 0 of this clock, which must be as good as any
    for _ in range(3):
        assert (await names.host("10.0.0.5", "10.0.0.1")).name == "lab-5"
    assert len(resolver) == 1
    mock_clock.jump(hostnames._CACHE_SECONDS + 1)
    assert (await names.host("10.0.0.5", "10.0.0.1")).name == "lab-5"
    assert len(resolver) == 2


async def test_the_names_of_a_whole_network_do_not_fill_the_memory(resolver, monkeypatch):
    monkeypatch.setattr(hostnames, "_CACHE_SIZE", 10)
    names = Hostnames()
    for number in range(1, 100):
        await names.host(f"10.1.1.{number}", "10.0.0.1")
        assert len(names._names) <= 10
    assert len(resolver) == 99


@pytest.mark.parametrize("name", ["C[good:1]", "two words", "new\nline", "caf\udcc3", b"caf\xc3"])
async def test_an_answer_of_the_resolver_that_is_no_name_does_not_count(monkeypatch, name):
    monkeypatch.setattr(socket, "getfqdn", lambda _: name if isinstance(name, str) else name.decode())
    host = await Hostnames().host("10.0.0.5", "10.0.0.1")
    assert host == Host("10.0.0.5", "10.0.0.5", "10.0.0.5", "10.0.0.5")


async def test_a_resolver_that_has_not_answered_once_is_asked_again_soon(stuck, monkeypatch):
    monkeypatch.setattr(hostnames, "_RETRY_SECONDS", 0.0)
    names = Hostnames()
    with monkeypatch.context() as patch:
        patch.setattr(hostnames, "_TIMEOUT", 0.05)
        assert (await names.host("10.0.0.5", "10.0.0.1")).name == "10.0.0.5"
    stuck.set()
    monkeypatch.setattr(hostnames, "_TIMEOUT", 30.0)
    assert (await names.host("10.0.0.5", "10.0.0.1")).name == "lab-5"


async def test_a_resolver_that_does_not_answer_is_not_waited_for_long(stuck, monkeypatch):
    monkeypatch.setattr(hostnames, "_TIMEOUT", 0.05)
    with trio.fail_after(10):
        host = await Hostnames().host("10.0.0.5", "10.0.0.1")
        assert host == Host("10.0.0.5", "10.0.0.5", "10.0.0.5", "10.0.0.5")
