"""Tests of the addresses and logins of peers behind a gateway or proxy, with a Manager on real sockets."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from msl_network_trio import AuthenticationError, connect, open_manager
from msl_network_trio.gateway import server
from msl_network_trio.gateway.server import open_gateway
from msl_network_trio.manager import gateways
from msl_network_trio.manager.gateways import addresses_of
from msl_network_trio.manager.tables import Database
from msl_network_trio.protocol.manager.event_log import FIELDS
from msl_network_trio.testing import FakeService
from msl_network_trio.transport.tcp_connect import open_tcp
from tests.manager.wires import Wire
from tests.patience import PATIENCE
from tests.transport.websockets import frame, upgrade_request


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("alice", "pw-a", True)
    return path


@pytest.fixture
def open_lab(users, home):
    return partial(
        open_manager,
        host="127.0.0.1",
        port=0,
        disable_tls=True,
        database=users,
        login_delay=0,
        auth_login=True,
    )


def gateway_to(manager, **kwargs):
    return open_gateway(
        manager=f"127.0.0.1:{manager.port}",
        manager_disable_tls=True,
        host="127.0.0.1",
        port=0,
        disable_tls=True,
        **{"trusted_proxies": ["127.0.0.1"], **kwargs},
    )


def enter(port, address, password="pw-a", **more):
    """Connect by WebSocket, as a proxy does on behalf of a peer at an address."""
    return connect(
        host="127.0.0.1",
        port=port,
        transport="websocket",
        disable_tls=True,
        headers={"X-Forwarded-For": f"6.6.6.6, {address}"},
        username="alice",
        password=password,
        **more,
    )


def addresses(client):
    """Return the addresses of peers from the Manager's table of connections."""
    return client.admin_request("connections_table.connections")


async def test_a_manager_that_trusts_the_gateway_knows_from_where_peers_come(open_lab, caplog):
    caplog.set_level("INFO")
    with trio.fail_after(PATIENCE):
        async with (
            open_lab(trusted_gateways=["localhost"]) as manager,
            gateway_to(manager) as gateway,
            enter(gateway.port, "10.0.0.7") as client,
        ):
            rows = await addresses(client)
            assert [row[2] for row in rows if row[5] == "connected as a client"] == ["10.0.0.7"]
            assert await client.identities()
            for number in range(10):
                with pytest.raises(AuthenticationError, match="Wrong login password"):
                    await enter(gateway.port, "10.0.0.8", f"guess-{number}")
            with pytest.raises(AuthenticationError, match="Too many logins from 10.0.0.8 have failed"):
                await enter(gateway.port, "10.0.0.8")
            async with enter(gateway.port, "10.0.0.9") as other:
                assert await other.identities()
    events = [getattr(record, FIELDS, {}) for record in caplog.records]
    assert {(event["host"], event["gateway"]) for event in events if event.get("event") == "logged_in"} == {
        ("10.0.0.7", "127.0.0.1"),
        ("10.0.0.9", "127.0.0.1"),
    }


async def test_a_manager_that_does_not_trust_the_gateway_sees_the_gateway(open_lab):
    with trio.fail_after(PATIENCE):
        async with (
            open_lab() as manager,
            gateway_to(manager) as gateway,
            enter(gateway.port, "10.0.0.7") as client,
        ):
            rows = await addresses(client)
            assert {row[2] for row in rows} == {"127.0.0.1"}


async def test_the_gateway_throttles_its_own_peers_before_the_manager_has_to(open_lab):
    with trio.fail_after(PATIENCE):
        async with open_lab(login_attempts=None) as manager, gateway_to(manager) as gateway:
            for number in range(10):
                with pytest.raises(AuthenticationError, match="Wrong login password"):
                    await enter(gateway.port, "10.0.0.8", f"guess-{number}")
            before = manager.status()["totals"]["bytes_received"]
            with pytest.raises(AuthenticationError, match="Too many logins from 10.0.0.8 have failed"):
                await enter(gateway.port, "10.0.0.8")
            assert (
                manager.status()["totals"]["bytes_received"] == before
            )  # the gateway has not passed the login on
            async with enter(gateway.port, "10.0.0.9") as client:
                assert await client.identities()


async def test_who_has_not_said_yet_who_it_is_may_not_send_much_without_an_end(open_lab, monkeypatch):
    monkeypatch.setattr(server, "IDENTITY_LIMIT", 50_000)
    part = frame(0, b"x" * 1000, final=False)
    with trio.fail_after(PATIENCE):
        async with open_lab(auth_login=False) as manager, gateway_to(manager) as gateway:
            stream = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            async with stream:
                await stream.send_all(upgrade_request("/msl", Host=f"127.0.0.1:{gateway.port}"))
                assert b"101" in await stream.receive_some()
                await stream.send_all(frame(1, b"x", final=False))
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(part)
            async with trio.open_nursery() as nursery:
                service = FakeService("Echo", {"echo": lambda x: x})
                await nursery.start(partial(service.run, **manager.connect_kwargs()))
                async with enter(gateway.port, "10.0.0.7") as client, client.link("Echo") as echo:
                    assert await echo.echo("x" * 3_000_000) == "x" * 3_000_000
                nursery.cancel_scope.cancel()


async def test_what_a_peer_says_of_itself_does_not_count(open_lab):
    with trio.fail_after(PATIENCE):
        async with (
            open_lab(trusted_gateways=["127.0.0.1"]) as manager,
            gateway_to(manager, trusted_proxies=[]) as gateway,
            enter(gateway.port, "10.0.0.7") as client,
        ):
            rows = await addresses(client)
            assert {row[2] for row in rows} == {"127.0.0.1"}


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_proxy_in_front_of_the_manager_is_trusted_or_not(open_lab, trusted):
    with trio.fail_after(PATIENCE):
        gateways = ["127.0.0.1"] if trusted else ["10.9.9.9"]
        async with open_lab(websocket_port=0, trusted_gateways=gateways) as manager:
            async with enter(manager.websocket_port, "10.0.0.7") as client:
                rows = await addresses(client)
            assert {row[2] for row in rows} == {"10.0.0.7" if trusted else "127.0.0.1"}


async def say_forwarded(manager, *lines):
    wire = Wire(await open_tcp("127.0.0.1", manager.port))
    for line in lines:
        await wire.line()
        await wire.send(line)
    await wire.line()
    await wire.send({"result": {"type": "client", "name": "C"}, "forwarded": "10.0.0.4"})
    answer = await wire.ask("Manager", "connections_table.connections")
    wire.transport.close()
    return {row[2] for row in answer["result"]}


@pytest.mark.parametrize("trusted", [["127.0.0.1"], []])
async def test_only_the_first_line_of_a_gateway_counts(open_lab, trusted):
    with trio.fail_after(PATIENCE):
        async with open_lab(trusted_gateways=trusted) as manager:
            name, password = {"result": "alice"}, {"result": "pw-a", "forwarded": "10.0.0.5"}
            # The Manager records a connection before its first line.
            found = await say_forwarded(manager, {**name, "forwarded": "10.0.0.6"}, password)
            assert found == ({"127.0.0.1", "10.0.0.6"} if trusted else {"127.0.0.1"})
    with trio.fail_after(PATIENCE):
        async with open_lab(trusted_gateways=trusted) as manager:
            found = await say_forwarded(manager, name, password)
            assert "10.0.0.5" not in found
            assert "10.0.0.4" not in found


async def test_hosts_that_are_trusted_are_looked_up_by_their_names(monkeypatch):
    assert await addresses_of(["10.0.0.1", "::ffff:10.0.0.2", "fe80::1%eth0"]) == {
        "10.0.0.1",
        "10.0.0.2",
        "fe80::1",
    }
    assert "127.0.0.1" in await addresses_of(["localhost"])

    async def fail(*_, **__):
        await trio.lowlevel.checkpoint()
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(gateways.trio.socket, "getaddrinfo", fail)
    text = "The host 'lab-99', which is to be trusted, cannot be found: Name or service not known"
    with pytest.raises(OSError, match=text) as caught:
        async with open_manager(in_memory=True, trusted_gateways=["lab-99"]):
            pass
    assert caught.value.strerror is None  # else the command would show it instead of the text
    with pytest.raises(TypeError, match="trusted_gateways must be a list of hosts"):
        open_manager(in_memory=True, trusted_gateways="lab-99")
    with pytest.raises(TypeError, match="trusted_proxies must be a list of hosts"):
        open_gateway(trusted_proxies="lab-99")
