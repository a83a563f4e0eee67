"""Trust in WebSocket servers: the system's CAs, the saved certificate, trust on first use."""

from __future__ import annotations

import pytest
import trio
import trustme

from msl_network_trio.dialing.trust import certificate_file, open_trusted
from msl_network_trio.exceptions import CertificateDeclined, CertificateError
from tests.transport.certificates import ordinary, self_signed, signed_by
from tests.transport.peers import serving


@pytest.fixture
def system_ca(tmp_path, home, monkeypatch):
    """A CA that the system trusts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    return ca


def save(identity) -> None:
    path = certificate_file("localhost")
    path.parent.mkdir(parents=True)
    path.write_text(identity.pem)


async def dial(port, *, answer=None, **kwargs):
    """Connect and return the certificates of the prompts; a prompt without an answer fails the test."""
    asked = []

    async def ask(certificate):
        await trio.lowlevel.checkpoint()
        asked.append(certificate.fingerprint)
        assert answer is not None, "somebody was asked"
        return answer

    settings = {"cert_file": None, "assert_hostname": True, "auto_save": False, "as_browsers": True, **kwargs}
    transport = await open_trusted("localhost", port, ask=ask, **settings)
    transport.close()
    return asked


async def test_a_certificate_of_a_ca_of_the_system_is_trusted_and_not_saved(system_ca):
    async with serving(context=signed_by(system_ca).server_context()) as server:
        assert await dial(server.port) == []
    assert not certificate_file("localhost").exists()


async def test_by_tcp_it_is_not(system_ca):
    async with serving(context=signed_by(system_ca).server_context()) as server:
        with pytest.raises(CertificateDeclined):
            await dial(server.port, as_browsers=False, answer=False)


async def test_one_for_another_host_is_not(system_ca):
    async with serving(context=signed_by(system_ca, "lab.example").server_context()) as server:
        with pytest.raises(CertificateDeclined):
            await dial(server.port, answer=False)


async def test_without_the_hosts_name_cas_do_not_count(system_ca):
    async with serving(context=signed_by(system_ca, "lab.example").server_context()) as server:
        with pytest.raises(CertificateDeclined):
            await dial(server.port, answer=False, assert_hostname=False)


async def test_a_self_signed_one_is_trusted_on_first_use(system_ca):
    async with serving(context=ordinary().server_context()) as server:
        assert len(await dial(server.port, answer=True)) == 1
        assert await dial(server.port) == []
    assert certificate_file("localhost").read_text() == ordinary().pem


async def test_or_saved_without_a_question(system_ca):
    async with serving(context=ordinary().server_context()) as server:
        assert await dial(server.port, auto_save=True) == []
    assert certificate_file("localhost").read_text() == ordinary().pem


async def test_a_certificate_of_an_unknown_ca_is_prompted_for(system_ca):
    async with serving(context=signed_by(trustme.CA()).server_context()) as server:
        with pytest.raises(CertificateDeclined):
            await dial(server.port, answer=False)


async def test_a_saved_one_is_tried_first(system_ca):
    save(ordinary())
    async with serving(context=ordinary().server_context()) as server:
        assert await dial(server.port) == []
        assert server.accepted == 1


async def test_a_saved_one_of_the_manager_is_not_in_the_way_of_a_proxy_with_a_ca(system_ca):
    save(ordinary())
    async with serving(context=signed_by(system_ca).server_context()) as server:
        assert await dial(server.port) == []
    assert certificate_file("localhost").read_text() == ordinary().pem


async def test_one_that_is_neither_the_saved_one_nor_of_a_ca_is_an_error(system_ca):
    save(ordinary())
    async with serving(context=self_signed().server_context()) as server:
        with pytest.raises(CertificateError, match="new certificate"):
            await dial(server.port, auto_save=True)
    assert certificate_file("localhost").read_text() == ordinary().pem


async def test_with_cert_file_only_that_counts(system_ca, tmp_path):
    (tmp_path / "mine.pem").write_text(ordinary().pem)
    async with serving(context=signed_by(system_ca).server_context()) as server:
        with pytest.raises(CertificateError, match="cert_file"):
            await dial(server.port, cert_file=tmp_path / "mine.pem")
