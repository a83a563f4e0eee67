"""Tests of all kinds of authentication and of certificates, with both Managers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msl_network_trio import (
    AuthenticationError,
    Certificate,
    CertificateDeclined,
    CertificateError,
    ConnectError,
    ConnectTimeout,
    connect,
)
from tests.interop.conftest import USERS
from tests.interop.reference import Manager

pytestmark = pytest.mark.interop


# ---- authentication ----


async def works(manager: Manager, **arguments: object) -> bool:
    async with connect(**manager.arguments(**arguments)) as client:
        return await (await client.link("Echo")).add(1, 2) == 3


async def test_a_manager_with_a_password(start_either):
    manager: Manager = start_either(auth_password="se cret")
    manager.start_service()
    assert await works(manager, password_manager="se cret", password="another")
    with pytest.raises(AuthenticationError, match="ValueError: Wrong Manager password"):
        await connect(**manager.arguments(password_manager="nope"))
    with pytest.raises(AuthenticationError, match="empty"):
        await connect(**manager.arguments(password_manager=""))
    with pytest.raises(AuthenticationError, match="Pass password_manager="):
        await connect(**manager.arguments(password="se cret"))


async def test_a_manager_with_logins(start_either):
    manager: Manager = start_either(auth_login=True, users=USERS)
    manager.start_service()
    assert await works(manager, username="bob", password="pw-b")
    with pytest.raises(AuthenticationError, match="ValueError: Unregistered user"):
        await connect(**manager.arguments(username="zed", password="x"))
    with pytest.raises(AuthenticationError, match="ValueError: Wrong login password"):
        await connect(**manager.arguments(username="alice", password="x"))
    with pytest.raises(AuthenticationError, match="empty"):
        await connect(**manager.arguments(username="alice", password=""))
    with pytest.raises(AuthenticationError, match="Pass username="):
        await connect(**manager.arguments())
    # An administrator by login need not log in again.
    async with connect(**manager.arguments(username="alice", password="pw-a")) as client:
        assert await client.admin_request("port") == manager.port


async def test_a_manager_that_trusts_hosts(start_either):
    manager: Manager = start_either(auth_hostname=True)
    manager.start_service()
    assert await works(manager)


async def test_a_manager_that_does_not_trust_this_host(start_either):
    manager: Manager = start_either(auth_hostname=True, users=(("alice", "pw", True),))
    async with connect(**manager.arguments(username="alice", password="pw")) as client:
        assert "localhost" in await client.admin_request("hostnames_table.hostnames")
        # The reference's Manager reads its database when it starts, ours for each connection.
        what = "hostnames_table.delete" if manager.ours else "hostnames.remove"
        await client.admin_request(what, "localhost")
        assert "localhost" not in await client.admin_request("hostnames")
    with pytest.raises(AuthenticationError, match="ValueError: 'localhost' is not a trusted hostname"):
        await connect(**manager.arguments())


# ---- certificates ----


class Says:
    """Prompts with a fixed answer that record the certificates shown."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.shown: list[Certificate] = []

    def username(self, manager: str) -> str:
        raise AssertionError

    def password(self, name: str) -> str:
        raise AssertionError

    def trust(self, certificate: Certificate) -> bool:
        self.shown.append(certificate)
        return self.answer


async def test_trust_on_first_use_of_a_default_manager(start_either, own_home: Path):
    manager: Manager = start_either(tls=True)
    arguments = {"port": manager.port}
    with pytest.raises(CertificateDeclined, match="^SSL certificate required$"):
        await connect(prompts=Says(False), **arguments)
    assert not own_home.exists()
    with pytest.raises(CertificateError, match="Pass auto_save=True or cert_file="):
        await connect(**arguments)
    prompts = Says(True)
    await (await connect(prompts=prompts, **arguments)).disconnect()
    saved = own_home / "certs" / "localhost.crt"
    assert saved.read_bytes() == manager.certificate.read_bytes()
    assert prompts.shown[0].pem == saved.read_text()
    await (await connect(prompts=prompts, **arguments)).disconnect()
    assert len(prompts.shown) == 1
    # Another Manager on another port of this host has another certificate.
    other: Manager = start_either(tls=True)
    with pytest.raises(CertificateError) as caught:
        await connect(port=other.port, auto_save=True)
    text = str(caught.value)
    assert "Perhaps the Network Manager is using a new certificate" in text
    assert f"localhost:{other.port}" in text
    assert str(saved) in text
    assert saved.read_bytes() == manager.certificate.read_bytes()


async def test_the_trust_that_msl_network_was_given_counts_here(start_either, own_home: Path):
    manager: Manager = start_either(tls=True)
    manager.start_service()
    (own_home / "certs").mkdir(parents=True)
    (own_home / "certs" / "127.0.0.1.crt").write_bytes(manager.certificate.read_bytes())
    assert await works(manager, host="127.0.0.1", cert_file=None)


async def test_the_ipv6_address_is_not_in_a_default_certificate(start, own_home: Path):
    manager: Manager = start(tls=True)
    manager.start_service()
    with pytest.raises(CertificateError, match="To disable hostname checking set assert_hostname=False"):
        await works(manager, host="::1")
    assert await works(manager, host="::1", assert_hostname=False)
    assert await works(manager, host="[::1]", assert_hostname=False, cert_file=None, auto_save=True)
    name = "%3A%3A1.crt" if sys.platform == "win32" else "::1.crt"
    assert [path.name for path in (own_home / "certs").iterdir()] == [name]


async def test_the_ipv6_address_is_in_a_default_certificate_of_ours(start):
    manager: Manager = start(tls=True, ours=True)
    manager.start_service()
    for host in ("::1", "[::1]", "127.0.0.1"):
        assert await works(manager, host=host)


async def test_tls_to_a_manager_without_it(start_either):
    manager: Manager = start_either()
    with pytest.raises(ConnectError, match="Try setting disable_tls=True"):
        await connect(port=manager.port, auto_save=True)


async def test_no_tls_to_a_manager_with_it(start_either):
    manager: Manager = start_either(tls=True)
    with pytest.raises(ConnectTimeout, match="You have TLS disabled. Perhaps the Manager is using TLS"):
        await connect(port=manager.port, disable_tls=True, timeout=0.5)


async def test_ipv6_without_tls(start_either):
    manager: Manager = start_either()
    manager.start_service()
    for host in ("::1", "[::1]"):
        assert await works(manager, host=host)
    async with connect(**manager.arguments(host="[::1]")) as client:
        assert client.address_manager == f"[::1]:{manager.port}"
