"""Trusted certificates: first use, files shared with msl-network, changes, host names, `cert_file`."""

from __future__ import annotations

import errno
import hashlib
import os
import ssl
import sys
from pathlib import Path

import pytest
import trio
import trustme

from msl_network_trio.constants import certificate_folder, home_folder
from msl_network_trio.dialing.trust import (
    Certificate,
    certificate_file,
    client_context,
    fetch_certificate,
    open_trusted,
)
from msl_network_trio.exceptions import CertificateDeclined, CertificateError, ConnectError
from tests.transport.certificates import (
    Identity,
    ordinary,
    reference_default,
    self_signed,
    signed_by,
    signed_the_old_way,
)
from tests.transport.peers import LIMIT, Server, serving, stay

pytestmark = pytest.mark.usefixtures("home")

NEW_CERTIFICATE = "Perhaps the Network Manager is using a new certificate"
HOSTNAME_HINT = "To disable hostname checking set assert_hostname=False"
GREETING = b'{"attribute": "identity"}\r\n'


async def greet(stream):
    await stream.send_all(GREETING)
    await stay(stream)


def manager(identity: Identity, **options):
    """Run a server with a certificate that sends a greeting."""
    return serving(greet, context=identity.server_context(), **options)


class Asked:
    """A prompt for trust with a fixed answer, which records the certificates."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.certificates: list[Certificate] = []

    async def __call__(self, certificate: Certificate) -> bool:
        await trio.lowlevel.checkpoint()
        self.certificates.append(certificate)
        return self.answer


async def not_asked(certificate: Certificate) -> bool:
    pytest.fail("asked although there was no need to")


async def connect(server: Server, host: str = "localhost", **options) -> None:
    """Connect, receive the greeting, and close."""
    arguments = {
        "cert_file": None,
        "assert_hostname": True,
        "auto_save": False,
        "ask": not_asked,
        **options,
    }
    with trio.fail_after(LIMIT):
        transport = await open_trusted(host, server.port, **arguments)
        try:
            assert await transport.receive() == GREETING
        finally:
            transport.close()


async def refused(server: Server, host: str = "localhost", **options) -> str:
    """Return the text of the `CertificateError` of a connection."""
    with pytest.raises(CertificateError) as raised:
        await connect(server, host, **options)
    assert not isinstance(raised.value, CertificateDeclined)
    return str(raised.value)


def save(identity: Identity, host: str = "localhost") -> Path:
    """Save a certificate as trusted."""
    path = certificate_folder() / f"{host}.crt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(identity.pem)
    return path


def saved(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


# ---- the first use ----


async def test_first_use_shows_the_certificate_and_saves_exactly_it(home):
    identity, ask = self_signed(), Asked(True)
    async with manager(identity) as server:
        await connect(server, ask=ask)
        assert ask.certificates == [Certificate("localhost", server.port, identity.der)]
        assert ask.certificates[0].fingerprint == identity.fingerprint
    assert saved(home) == ["certs/localhost.crt"]
    assert (home / "certs" / "localhost.crt").read_bytes() == identity.pem.encode()


async def test_the_second_connect_does_not_ask_and_dials_once(home):
    async with manager(ordinary()) as server:
        await connect(server, ask=Asked(True))
        before = server.accepted
        await connect(server, ask=not_asked)
        assert server.accepted == before + 1


async def test_auto_save_trusts_on_first_use_without_asking(home):
    async with manager(ordinary()) as server:
        await connect(server, auto_save=True)
    assert (home / "certs" / "localhost.crt").read_text() == ordinary().pem


async def test_a_declined_certificate_is_a_refused_connection_and_saves_nothing(home):
    ask = Asked(False)
    async with manager(ordinary()) as server:
        with pytest.raises(CertificateDeclined) as raised:
            await connect(server, ask=ask)
        assert server.accepted == 1
    assert isinstance(raised.value, ConnectionRefusedError)
    assert str(raised.value) == "SSL certificate required"
    assert len(ask.certificates) == 1
    assert not home.exists()


async def test_an_error_of_the_prompt_is_raised_and_saves_nothing(home):
    async def no_terminal(certificate):
        raise EOFError("no terminal")

    async with manager(ordinary()) as server:
        with pytest.raises(EOFError, match="^no terminal$"):
            await connect(server, ask=no_terminal)
    assert not home.exists()


async def test_nothing_is_sent_to_a_manager_before_it_is_trusted():
    """The connection that fetches the certificate is closed before the question."""
    ended = trio.Event()

    async def listen(stream):
        assert await stream.receive_some() == b""
        ended.set()

    async def ask(certificate):
        with trio.fail_after(LIMIT):
            await ended.wait()
        return False

    async with serving(listen, context=ordinary().server_context()) as server:
        with pytest.raises(CertificateDeclined):
            await connect(server, ask=ask)


async def test_each_host_has_its_own_file_without_the_port(home):
    async with manager(ordinary()) as server:
        await connect(server, "localhost", auto_save=True)
        await connect(server, "127.0.0.1", auto_save=True)
    assert saved(home) == ["certs/127.0.0.1.crt", "certs/localhost.crt"]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_an_ipv6_address_is_verified_and_saved_without_brackets(host, home):
    async with manager(self_signed("::1"), host="::1") as server:
        await connect(server, host, auto_save=True)
        await connect(server, "::1")
    assert saved(home) == ["certs/::1.crt"]


async def test_a_certificate_that_another_process_saves_during_the_question_counts(home):
    """The file is not overwritten, and used if it is the right certificate."""

    async def ask(certificate):
        save(ordinary()).write_text("# by another process\n" + certificate.pem)
        return True

    async with manager(ordinary()) as server:
        await connect(server, ask=ask)
    assert (home / "certs" / "localhost.crt").read_text().startswith("# by another process\n")


async def test_a_manager_that_changes_its_certificate_after_the_question_is_not_trusted(home):
    first, second = self_signed(), self_signed()

    async def ask(certificate):
        assert certificate.der == first.der
        server.context = second.server_context()
        return True

    async with manager(first) as server:
        text = await refused(server, ask=ask)
        assert (
            f"localhost:{server.port} showed another certificate than the one that was just trusted" in text
        )
    assert f"trusted {first.fingerprint}" in text
    assert f"shown   {second.fingerprint}" in text
    assert not home.exists()


async def test_a_manager_that_shows_one_signed_by_the_trusted_one_after_the_question_is_not_trusted(home):
    """Trust is in one certificate, not in those that it has signed."""
    authority = trustme.CA()
    first = signed_by(authority)
    first = Identity(authority.cert_pem.bytes().decode(), first.key)
    second = signed_by(authority)

    async def ask(certificate):
        server.context = second.server_context()
        return True

    async with manager(second) as server:

        async def fetch(host, port):
            return Certificate(host, port, first.der)

        text = await refused(server, ask=ask, fetch=fetch)
        assert "showed another certificate than the one that was just trusted" in text
    assert f"shown   {second.fingerprint}" in text
    assert not home.exists()


async def test_a_manager_that_shows_another_saved_certificate_after_the_question_is_not_trusted(home):
    first, second = self_signed(), self_signed()

    async def ask(certificate):
        save(second)
        server.context = second.server_context()
        return True

    async with manager(first) as server:
        text = await refused(server, ask=ask)
        assert "showed another certificate than the one that was just trusted" in text
        await connect(server)
    assert (home / "certs" / "localhost.crt").read_text() == second.pem


async def test_another_certificate_that_a_process_saves_during_the_question_counts_more_than_the_answer():
    first, second = self_signed(), self_signed()

    async def ask(certificate):
        save(second)
        return True

    async with manager(first) as server:
        text = await refused(server, ask=ask)
    assert NEW_CERTIFICATE in text
    assert certificate_file("localhost").read_text() == second.pem


async def test_a_leaf_of_a_private_ca_can_be_trusted_on_first_use():
    async with manager(signed_by(trustme.CA())) as server:
        await connect(server, auto_save=True)
        await connect(server)


# ---- a certificate that is not the saved one ----


@pytest.mark.parametrize("auto_save", [False, True])
async def test_a_changed_certificate_is_an_error_with_the_way_out_and_changes_nothing(auto_save, home):
    old, new = self_signed(), self_signed(common_name="another")
    path = save(old)
    async with manager(new) as server:
        text = await refused(server, auto_save=auto_save)
    assert NEW_CERTIFICATE in text
    assert f"localhost:{server.port}" in text
    assert str(path) in text
    assert old.fingerprint in text
    assert new.fingerprint in text
    assert text.endswith(
        f"you can delete the certificate at\n  {path}\nand then re-connect to create a new trusted certificate."
    )
    assert path.read_text() == old.pem
    assert saved(home) == ["certs/localhost.crt"]


async def test_a_new_key_under_the_same_name_is_a_changed_certificate_too():
    path = save(self_signed())
    async with manager(self_signed()) as server:
        text = await refused(server)
    assert NEW_CERTIFICATE in text
    assert str(path) in text


async def test_assert_hostname_false_does_not_excuse_a_changed_certificate():
    save(self_signed())
    async with manager(self_signed()) as server:
        assert NEW_CERTIFICATE in await refused(server, assert_hostname=False)


async def test_a_changed_certificate_is_an_error_also_if_it_cannot_be_fetched():
    old, new = self_signed(), self_signed()
    save(old)

    async def no_second_time(stream):
        pytest.fail("the certificate should not have been accepted")

    async with serving(no_second_time, context=new.server_context()) as server:
        # A context without a certificate has no cipher to offer, so that the second handshake fails.
        new_context = server.context
        empty = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def change(sslobject, name, context):
            server.context = empty

        new_context.sni_callback = change
        text = await refused(server)
    assert NEW_CERTIFICATE in text
    assert "(not available)" in text
    assert old.fingerprint in text


# ---- the time ----


@pytest.mark.parametrize("assert_hostname", [True, False])
@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (self_signed(valid_from=-3, valid_to=-1), "certificate has expired"),
        (self_signed(valid_from=1, valid_to=3), "certificate is not yet valid"),
    ],
    ids=["expired", "not yet valid"],
)
async def test_a_trusted_certificate_out_of_its_time_is_an_error(identity, reason, assert_hostname):
    path = save(identity)
    async with manager(identity) as server:
        text = await refused(server, assert_hostname=assert_hostname)
    assert reason in text
    assert "clock" in text
    assert str(path) in text
    assert f"localhost:{server.port}" in text
    assert NEW_CERTIFICATE not in text
    assert path.read_text() == identity.pem


@pytest.mark.parametrize("how", [{"auto_save": True}, {"ask": "yes"}], ids=["auto_save", "yes"])
@pytest.mark.parametrize("what", ["expired", "not yet valid", "another host"])
async def test_a_certificate_rejected_on_first_use_is_not_saved(how, what, home):
    """Otherwise the next connect would not see a new certificate of the Manager."""
    bad, text = {
        "expired": (self_signed(valid_from=-3, valid_to=-1), "certificate has expired"),
        "not yet valid": (self_signed(valid_from=1, valid_to=3), "certificate is not yet valid"),
        "another host": (self_signed("somewhere-else"), HOSTNAME_HINT),
    }[what]
    arguments = {"ask": Asked(True)} if "ask" in how else how
    async with manager(bad) as server:
        told = await refused(server, **arguments)
        assert text in told
        assert str(home) not in told, "there is no file to be replaced"
        assert not home.exists()
        server.context = ordinary().server_context()
        await connect(server, **arguments)
    assert (home / "certs" / "localhost.crt").read_text() == ordinary().pem


# ---- the hostname ----


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_for_another_host_names_the_argument_that_excuses_it(host):
    identity = self_signed("somewhere-else", "192.0.2.1")
    save(identity, host)
    async with manager(identity) as server:
        text = await refused(server, host)
        assert HOSTNAME_HINT in text
        assert f"{host}:{server.port}" in text
        assert NEW_CERTIFICATE not in text
        await connect(server, host, assert_hostname=False)


async def test_assert_hostname_false_connects_on_first_use_too():
    async with manager(self_signed("somewhere-else")) as server:
        await connect(server, auto_save=True, assert_hostname=False)


async def test_a_certificate_with_ipv4_only_is_not_one_for_ipv6():
    async with manager(self_signed("localhost", "127.0.0.1"), host="::1") as server:
        assert HOSTNAME_HINT in await refused(server, "::1", auto_save=True)
        await connect(server, "::1", assert_hostname=False, auto_save=True)
        assert HOSTNAME_HINT in await refused(server, "::1")  # once saved, it is trusted for nothing more


# ---- cert_file ----


async def test_cert_file_of_the_manager_itself_is_all_that_it_takes(tmp_path, home):
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().pem)
    async with manager(ordinary()) as server:
        await connect(server, cert_file=str(path), auto_save=True)
        await connect(server, cert_file=path)
        assert server.accepted == 2
    assert not home.exists()


async def test_cert_file_of_a_private_ca_vouches_for_its_managers(tmp_path, home):
    ca = trustme.CA()
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    async with manager(signed_by(ca)) as server:
        await connect(server, cert_file=path)
    async with manager(signed_by(ca, "somewhere-else")) as server:
        assert HOSTNAME_HINT in await refused(server, cert_file=path)
    assert not home.exists()


async def test_cert_file_of_a_ca_made_without_modern_extensions_is_good_enough(tmp_path):
    """Strict verification would reject it; the openssl command of ten years ago made such certificates."""
    ca, leaf = signed_the_old_way()
    path = tmp_path / "ca.pem"
    path.write_text(ca)
    async with manager(leaf) as server:
        await connect(server, cert_file=path)


async def test_cert_file_may_hold_several_certificates(tmp_path):
    ca = trustme.CA()
    path = tmp_path / "all.pem"
    path.write_text(self_signed().pem + ordinary().pem + ca.cert_pem.bytes().decode())
    for identity in (ordinary(), signed_by(ca)):
        async with manager(identity) as server:
            await connect(server, cert_file=path)


@pytest.mark.parametrize(
    "text",
    ["Zertifikat für das Labor 4 µm\n{pem}", "\N{BYTE ORDER MARK}{pem}", "{pem}\n\nend – really\n"],
    ids=["comment", "byte order mark", "comment behind"],
)
async def test_a_certificate_file_may_hold_words_in_any_alphabet(text, tmp_path):
    path = tmp_path / "manager.pem"
    path.write_text(text.format(pem=ordinary().pem), encoding="utf-8")
    async with manager(ordinary()) as server:
        await connect(server, cert_file=path)


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
async def test_a_certificate_file_may_have_windows_line_ends(newline, tmp_path):
    path = tmp_path / "manager.pem"
    path.write_bytes(ordinary().pem.replace("\n", newline).encode())
    async with manager(ordinary()) as server:
        await connect(server, cert_file=path)


async def test_only_cert_file_counts_even_if_the_saved_certificate_is_the_right_one(tmp_path):
    save(ordinary())
    wrong = self_signed()
    path = tmp_path / "wrong.pem"
    path.write_text(wrong.pem)
    async with manager(ordinary()) as server:
        text = await refused(server, cert_file=path, auto_save=True)
    assert NEW_CERTIFICATE in text
    assert str(path) in text
    assert wrong.fingerprint in text
    assert ordinary().fingerprint in text
    assert "Check that cert_file is" in text
    assert "delete" not in text
    assert path.read_text() == wrong.pem


async def test_cert_file_of_the_wrong_ca_is_an_error(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    async with manager(signed_by(trustme.CA())) as server:
        assert "Check that cert_file is" in await refused(server, cert_file=path)


@pytest.mark.parametrize("before", ["", "The certificate of the Manager in lab 3:\n"])
async def test_the_fingerprint_of_a_wrong_cert_file_is_that_of_its_certificate(before, tmp_path):
    wrong = self_signed()
    path = tmp_path / "wrong.pem"
    path.write_text(before + wrong.pem)
    async with manager(ordinary()) as server:
        assert f"trusted {wrong.fingerprint}\n" in await refused(server, cert_file=path)


async def test_no_fingerprint_is_made_up_for_a_wrong_cert_file_with_several_certificates(tmp_path):
    path = tmp_path / "wrong.pem"
    path.write_text(self_signed().pem + self_signed().pem)
    async with manager(ordinary()) as server:
        assert "trusted (several certificates)\n" in await refused(server, cert_file=path)


async def test_a_missing_cert_file_is_an_error_before_any_connection(tmp_path, home):
    path = tmp_path / "no" / "such.pem"
    async with manager(ordinary()) as server:
        text = await refused(server, cert_file=path, auto_save=True)
        assert server.accepted == 0
    assert text == f"The cert_file does not exist: {path}"
    assert not path.parent.exists()
    assert not home.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"not a certificate",
        b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n",
        ordinary().pem[:200].encode(),
        ordinary().pem.rstrip()[:-5].encode(),
        ordinary().key.encode(),
        ordinary().der,
        "kein Schlüssel".encode(),
        bytes(range(256)),
    ],
    ids=[
        "empty",
        "blank",
        "words",
        "nonsense",
        "cut off",
        "cut off at its end",
        "a key",
        "DER",
        "other alphabet",
        "binary",
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["cert_file", "saved"])
async def test_a_file_without_a_certificate_is_an_error_with_the_remedy(content, own, tmp_path):
    path = tmp_path / "bad.pem" if own else save(ordinary())
    path.write_bytes(content)
    async with manager(ordinary()) as server:
        text = await refused(server, cert_file=path if own else None, auto_save=True)
        assert server.accepted == 0
    assert f"No certificate can be read from {path}" in text
    assert ("Check cert_file" if own else "Delete it to be asked again") in text
    assert path.read_bytes() == content


async def test_a_cert_file_that_is_a_folder_cannot_be_read(tmp_path):
    async with manager(ordinary()) as server:
        text = await refused(server, cert_file=tmp_path)
    assert text.startswith(f"The certificate file cannot be read: {tmp_path} (")


async def test_a_file_that_the_system_does_not_let_us_read_is_an_error(home):
    path = save(ordinary())
    path.unlink()
    path.symlink_to(path)  # which applies to root as well
    async with manager(ordinary()) as server:
        text = await refused(server, auto_save=True)
        assert server.accepted == 0
    assert text.startswith(f"The certificate file cannot be read: {path} (")
    assert "[Errno" not in text


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not stop root, nor Windows"
)
async def test_a_file_without_the_permission_to_read_is_an_error():
    path = save(ordinary())
    path.chmod(0)
    async with manager(ordinary()) as server:
        text = await refused(server, auto_save=True)
    assert text == f"The certificate file cannot be read: {path} (Permission denied)"


async def test_a_file_where_the_home_folder_should_be_is_an_error(home):
    home.write_text("")
    async with manager(ordinary()) as server:
        text = await refused(server, auto_save=True)
    assert str(home / "certs" / "localhost.crt") in text


# ---- when it cannot be saved ----


def folder_is_a_link_to_nowhere(home, tmp_path, monkeypatch):
    home.mkdir()
    (home / "certs").symlink_to(tmp_path / "unmounted" / "drive")


def file_is_a_link_to_nowhere(home, tmp_path, monkeypatch):
    (home / "certs").mkdir(parents=True)
    (home / "certs" / "localhost.crt").symlink_to(tmp_path / "unmounted" / "drive")


def disk_is_full(home, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("fault", [folder_is_a_link_to_nowhere, file_is_a_link_to_nowhere, disk_is_full])
@pytest.mark.parametrize("arguments", [{"auto_save": True}, {"ask": Asked(True)}], ids=["auto_save", "yes"])
async def test_that_a_certificate_cannot_be_saved_is_a_warning(
    fault, arguments, home, tmp_path, monkeypatch, caplog
):
    fault(home, tmp_path, monkeypatch)
    path = home / "certs" / "localhost.crt"
    async with manager(ordinary()) as server:
        await connect(server, **arguments)
        assert f"of localhost:{server.port} cannot be saved as {path} (" in caplog.text
    assert "[Errno" not in caplog.text
    assert "for this connection only" in caplog.text
    assert "cert_file" in caplog.text
    assert "MSL_NETWORK_HOME" in caplog.text
    assert not home.is_dir() or saved(home) == [], "something was left behind"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a folder that nobody can write to")
async def test_a_home_folder_that_cannot_be_written_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("MSL_NETWORK_HOME", "/proc/msl-network")
    async with manager(ordinary()) as server:
        await connect(server, ask=Asked(True))
    assert "cannot be saved as /proc/msl-network/certs/localhost.crt (" in caplog.text


async def test_another_program_that_has_saved_the_same_certificate_meanwhile_does_no_harm(home):
    async def ask(certificate):
        save(ordinary())
        return True

    async with manager(ordinary()) as server:
        await connect(server, ask=ask)
        assert server.accepted == 2


async def test_another_program_that_has_saved_another_certificate_meanwhile_counts(home):
    other = self_signed()

    async def ask(certificate):
        save(other)
        return True

    async with manager(ordinary()) as server:
        assert NEW_CERTIFICATE in await refused(server, ask=ask)
    assert (home / "certs" / "localhost.crt").read_text() == other.pem


async def test_cert_file_distinguishes_two_managers_on_one_host(tmp_path):
    save(self_signed())
    path = tmp_path / "second.crt"
    path.write_text(ordinary().pem)
    async with manager(ordinary()) as second:
        text = await refused(second)
        assert (
            "another Manager on localhost, keep it, and pass the certificate of this one as cert_file" in text
        )
        await connect(second, cert_file=path)


async def test_the_home_folder_in_cert_file_is_the_users(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "lab.crt").write_text(ordinary().pem)
    async with manager(ordinary()) as server:
        await connect(server, cert_file="~/lab.crt")
        await connect(server, cert_file=Path("~") / "lab.crt")
        assert str(tmp_path / "no.crt") in await refused(server, cert_file="~/no.crt")


# ---- names of files ----


@pytest.mark.parametrize("host", ["../localhost", "a/b", "a\\b", "/etc/passwd", "a\0b", "[../x]"], ids=ascii)
async def test_a_host_that_would_leave_the_folder_is_refused_and_not_dialled(host, home):
    with pytest.raises(CertificateError, match="is not the name of a host"):
        certificate_file(host)
    async with manager(ordinary()) as server:
        await refused(server, host, auto_save=True)
        assert server.accepted == 0
    assert not home.exists()


@pytest.mark.parametrize("host", ["..", ".", "localhost", "127.0.0.1", "Labor-Süd", "::1"])
def test_a_certificate_lies_in_the_folder_under_the_name_of_its_host(host, home):
    assert certificate_file(host) == home / "certs" / f"{host}.crt"
    assert certificate_file(host).parent == certificate_folder()


def test_the_colons_of_an_address_are_escaped_on_windows(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        names = [certificate_file(host).name for host in ("fe80::1", "[::1]", "lab-3")]
    assert names == ["fe80%3A%3A1.crt", "%3A%3A1.crt", "lab-3.crt"]


def test_an_empty_home_variable_is_none(monkeypatch):
    monkeypatch.setenv("MSL_NETWORK_HOME", "")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert home_folder() == Path.home() / ".msl" / "network"


def test_the_home_variable_goes_before_the_user_of_sudo(home, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "root")
    assert home_folder() == home


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sudo on Windows")
def test_under_sudo_the_folder_is_that_of_the_calling_user(monkeypatch):
    import pwd

    user = pwd.getpwall()[1]
    monkeypatch.delenv("MSL_NETWORK_HOME")
    monkeypatch.setenv("SUDO_USER", user.pw_name)
    assert home_folder() == Path(user.pw_dir) / ".msl" / "network"
    monkeypatch.setenv("SUDO_USER", "")
    assert home_folder() == Path.home() / ".msl" / "network"


# ---- the certificates of msl-network 1.0.0 ----


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_the_default_certificate_of_the_reference_is_trusted_on_first_use_and_later(host):
    async with manager(reference_default()) as server:
        await connect(server, host, ask=Asked(True))
        await connect(server, host)


async def test_the_default_certificate_of_the_reference_is_good_as_cert_file(tmp_path):
    path = tmp_path / "localhost.crt"
    path.write_text(reference_default().pem)
    async with manager(reference_default()) as server:
        await connect(server, cert_file=path)


async def test_the_default_certificate_of_the_reference_is_not_one_for_ipv6():
    async with manager(reference_default(), host="::1") as server:
        assert HOSTNAME_HINT in await refused(server, "::1", auto_save=True)


def test_a_context_requires_tls_1_2_and_trusts_only_its_certificates():
    context = client_context(ordinary().pem, check_hostname=True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509"] == 1


# ---- fetching ----


def test_a_certificate_shows_itself_as_text_and_by_two_fingerprints():
    certificate = Certificate("lab", 1875, ordinary().der)
    assert certificate.pem == ordinary().pem
    assert certificate.fingerprint == hashlib.sha256(ordinary().der).digest().hex(":")
    assert certificate.fingerprint_sha1 == hashlib.sha1(ordinary().der).digest().hex(":")
    assert repr(certificate) == "Certificate(host='lab', port=1875)"


async def test_to_fetch_a_certificate_from_a_plain_manager_names_both_purposes():
    async with serving(greet) as server:
        with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
            await fetch_certificate("localhost", server.port)
    text = str(raised.value)
    assert text.endswith("\nTry setting disable_tls=True")
    assert f"Cannot connect to localhost:{server.port} to get the certificate" in text


async def test_fetching_a_certificate_without_a_listener_suggests_to_start_a_manager(home):
    async with serving() as server:
        port = server.port
    with trio.fail_after(LIMIT), pytest.raises(ConnectError) as raised:
        await open_trusted(
            "127.0.0.1", port, cert_file=None, assert_hostname=True, auto_save=True, ask=not_asked
        )
    text = str(raised.value)
    assert "Connection refused" in text
    assert text.endswith(
        f"\nCannot connect to 127.0.0.1:{port} to get the certificate\nMake sure a Manager is running on this computer"
    )
    assert not home.exists()


async def test_a_manager_without_tls_is_distinguished_from_another_certificate():
    save(ordinary())
    async with serving(greet) as server:
        with pytest.raises(ConnectError, match="Try setting disable_tls=True") as raised:
            await connect(server)
    assert not isinstance(raised.value, CertificateError)


@pytest.mark.parametrize("known", [True, False])
async def test_to_give_up_on_a_silent_manager_saves_nothing_and_closes_the_socket(known, home):
    if known:
        save(ordinary())
    hello, ended = trio.Event(), trio.Event()

    async def listen(stream):
        assert await stream.receive_some()
        hello.set()
        assert await stream.receive_some() == b""
        ended.set()

    with trio.fail_after(LIMIT):
        async with serving(listen) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, server)
                await hello.wait()
                nursery.cancel_scope.cancel()
            await ended.wait()
    assert (saved(home) if known else home.exists()) == (["certs/localhost.crt"] if known else False)
