"""Tests of the gateway on real sockets, in front of our own Manager; for msl-network's, see tests/interop."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from msl_network_trio import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    ManagerError,
    connect,
    open_manager,
)
from msl_network_trio.dialing.reconnect import is_final, retry_after
from msl_network_trio.exceptions import CertificateError
from msl_network_trio.gateway import running, server
from msl_network_trio.gateway.server import open_gateway
from msl_network_trio.gateway.settings import split_address
from msl_network_trio.manager import running as manager_running
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.messages import ManagerNotice
from msl_network_trio.testing import FakeService
from tests.patience import PATIENCE
from tests.transport.certificates import ordinary, self_signed


@pytest.fixture
def files(tmp_path, home):
    """Certificates of a Manager and a gateway; their names differ from those of their files."""
    paths = []
    for name, identity in (("manager", ordinary()), ("gateway", self_signed())):
        path = tmp_path / f"{name}.pem"
        path.write_text(identity.key + identity.pem)
        path.chmod(0o600)
        paths.append(str(path))
    return paths


@pytest.fixture
def open_both(files):
    """A Manager with TLS, and the arguments of a gateway in front of it."""
    manager_file, gateway_file = files
    open_it = partial(
        open_manager, host="127.0.0.1", port=0, cert_file=manager_file, database=manager_file + ".db"
    )

    def gateway(manager, **kwargs):
        settings = {
            "manager": f"127.0.0.1:{manager.port}",
            "host": "127.0.0.1",
            "port": 0,
            "cert_file": gateway_file,
            "manager_cert_file": manager_file,
            **kwargs,
        }
        return open_gateway(**settings)

    return open_it, gateway


def reach(gateway, **kwargs):
    return {
        "host": f"wss://127.0.0.1:{gateway.port}/msl",
        "cert_file": str(gateway.certificate),
        **kwargs,
    }


async def test_clients_and_services_work_through_it(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager, gateway_to(manager) as gateway, trio.open_nursery() as nursery:
            service = FakeService("Adder", {"add": lambda x, y: x + y})
            await nursery.start(partial(service.run, **reach(gateway)))
            async with connect(**reach(gateway)) as client, client.link("Adder") as adder:
                assert await adder.add(1, 2) == 3
                assert client.address_manager == f"127.0.0.1:{gateway.port}"
            async with connect(**manager.connect_kwargs()) as client, client.link("Adder") as adder:
                assert await adder.add("x" * 3_000_000, "y") == "x" * 3_000_000 + "y"
            nursery.cancel_scope.cancel()


async def test_clients_behind_it_get_notices_of_the_manager_about_services(open_both, monkeypatch):
    told, notices = trio.open_memory_channel(10)
    receive = ClientProtocol.receive

    def spy(protocol, data):
        events = receive(protocol, data)
        for event in events:
            if isinstance(event, ManagerNotice):
                told.send_nowait((event.kind, event.name))
        return events

    monkeypatch.setattr(ClientProtocol, "receive", spy)
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with (
            open_it() as manager,
            gateway_to(manager) as gateway,
            connect(**reach(gateway)) as client,
        ):
            assert await notices.receive() == ("tells", "services")
            with pytest.raises(ManagerError, match="'Adder' service does not exist"):
                async with client.link("Adder"):
                    pass
            async with trio.open_nursery() as nursery:
                serving = trio.CancelScope()

                async def serve(task_status=trio.TASK_STATUS_IGNORED):
                    with serving:
                        await FakeService("Adder").run(**reach(gateway), task_status=task_status)

                await nursery.start(serve)
                assert await notices.receive() == ("came", "Adder")
                async with client.link("Adder"):
                    serving.cancel()
                    assert await notices.receive() == ("gone", "Adder")


async def test_authentication_is_between_the_ends(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it(auth_password="secret") as manager, gateway_to(manager) as gateway:
            async with connect(**reach(gateway, password_manager="secret")) as client:
                assert await client.identities()
            with pytest.raises(AuthenticationError, match="Wrong Manager password"):
                await connect(**reach(gateway, password_manager="wrong"))


async def test_a_manager_that_asks_for_no_password_is_warned_of(open_both, caplog):
    open_it, gateway_to = open_both
    async with open_it(auth_password="secret") as manager, gateway_to(manager):
        assert "--auth-hostname" not in caplog.text
    async with open_it() as manager, gateway_to(manager):
        assert "--auth-hostname" in caplog.text


async def test_the_end_of_the_manager_is_told_at_once(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager, gateway_to(manager) as gateway:
            async with connect(**reach(gateway)) as client:
                manager.shutdown()
                await client._session.connection.closed.wait()
                with pytest.raises(ConnectionLost):
                    await client.identities()
            with pytest.raises(ConnectError, match="HTTP status 502.*There is no connection to the Manager"):
                await connect(**reach(gateway))


async def test_the_end_of_the_gateway_is_told_at_once(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager:
            async with gateway_to(manager) as gateway:
                client = await connect(**reach(gateway))
                assert len((await client.identities())["clients"]) == 1
            await client._session.connection.closed.wait()
            while manager.identity()["clients"]:
                await trio.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))


async def test_a_client_that_vanishes_is_forgotten_by_the_manager(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager, gateway_to(manager) as gateway:
            client = await connect(**reach(gateway))
            client._session.connection._transport._carrier.close()
            while manager.identity()["clients"]:
                await trio.sleep(0.01)


async def test_a_manager_that_is_not_there_yet_may_come(files, open_both, caplog):
    open_it, _ = open_both
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with trio.fail_after(PATIENCE):
        async with open_gateway(
            manager=f"127.0.0.1:{port}",
            host="127.0.0.1",
            port=0,
            cert_file=files[1],
            manager_cert_file=files[0],
        ) as gateway:
            assert "cannot be reached yet" in caplog.text
            with pytest.raises(ConnectError, match="HTTP status 502"):
                await connect(**reach(gateway))
            async with open_it(port=port), connect(**reach(gateway)) as client:
                assert await client.identities()


async def test_a_certificate_that_nobody_can_be_asked_about_is_an_error_that_says_what_to_pass(open_both):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager:
            with pytest.raises(CertificateError, match="--manager-cert-file.*--manager-auto-save"):
                async with gateway_to(manager, manager_cert_file=None):
                    pytest.fail("entered")
            saving = gateway_to(manager, manager_cert_file=None, manager_auto_save=True)
            async with saving as gateway, connect(**reach(gateway)) as client:
                assert await client.identities()


async def test_without_tls_on_either_side(files):
    plain = {"host": "127.0.0.1", "port": 0, "disable_tls": True}
    with trio.fail_after(PATIENCE):
        async with open_manager(**plain, database=files[0] + ".db") as manager:
            opening = open_gateway(manager=f"127.0.0.1:{manager.port}", manager_disable_tls=True, **plain)
            async with opening as gateway, connect(host=f"ws://127.0.0.1:{gateway.port}") as client:
                assert await client.identities()


async def test_so_many_connections_and_no_more(open_both, monkeypatch, caplog):
    monkeypatch.setattr(server, "_CONNECTION_LIMIT", 1)
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager, gateway_to(manager) as gateway:
            async with connect(**reach(gateway)):
                with pytest.raises(ConnectError, match="503: 'There are too many connections") as caught:
                    await connect(**reach(gateway))
                assert retry_after(caught.value) == 10
                assert not is_final(caught.value, first=False)
            while True:  # until the gateway has noticed that a connection has ended
                with contextlib.suppress(ConnectError):
                    async with connect(**reach(gateway)):
                        break
                await trio.sleep(0.01)
    assert "cannot be connected: there are 1 already" in caplog.text


async def test_a_mistake_costs_only_one_connection(open_both, monkeypatch, caplog):
    open_it, gateway_to = open_both
    with trio.fail_after(PATIENCE):
        async with open_it() as manager, gateway_to(manager) as gateway:

            async def dial():
                raise RuntimeError("a mistake")

            with monkeypatch.context() as patch:
                patch.setattr(gateway, "_dial", dial)
                with pytest.raises(ConnectError, match="closed the connection"):
                    await connect(**reach(gateway))
            [record] = [record for record in caplog.records if record.levelname == "ERROR"]
            assert "a mistake" in str(record.exc_info)
            async with connect(**reach(gateway)) as client:
                assert await client.identities()


@pytest.mark.parametrize("run_forever", [manager_running.run_forever, running.run_forever])
def test_the_password_of_the_key_is_what_the_first_line_of_its_file_says(
    run_forever, tmp_path, home, monkeypatch
):
    """The argument may also be the name of another file."""
    monkeypatch.chdir(tmp_path)
    Path("my password").write_text("other\n")
    Path("other").write_text("wrong\n")
    key = serialization.load_pem_private_key(ordinary().key.encode(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"other"),
    )
    Path("lab.key").write_bytes(key)
    Path("lab.crt").write_text(ordinary().pem)

    class Running(Exception):
        pass

    def announce(*_):
        raise Running

    for module in (running, manager_running):
        monkeypatch.setattr(module, "_announce", announce)
    arguments = {"manager": "127.0.0.1:1"} if run_forever is running.run_forever else {}
    with pytest.raises(Running):
        run_forever(
            **arguments,
            host="127.0.0.1",
            port=0,
            cert_file="lab.crt",
            key_file="lab.key",
            key_file_password=["my", "password"],
        )


def test_what_is_no_level_is_an_error_before_anything_is_opened():
    with pytest.raises(ValueError, match="'loud' is no level of logging"):
        running.run_forever(log_level="loud")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("lab-3:1876", "lab-3", 1876),
        ("lab-3", "lab-3", 7),
        (":8875", "", 8875),
        (":0", "", 0),
        ("[::1]:8875", "::1", 8875),
        ("[::1]", "::1", 7),
        ("", "", 7),
    ],
)
def test_addresses(text, host, port):
    assert split_address(text, 7) == (host, port)


@pytest.mark.parametrize("text", ["lab:x", "lab:70000", "lab/path", "a@lab", "[::1", "wss://lab"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="no address"):
        split_address(text, 7)
