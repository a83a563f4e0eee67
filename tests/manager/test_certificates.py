"""Tests of the key and the certificate of a Manager: created once, kept, matching, and private."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from msl_network_trio.dialing.trust import client_context
from msl_network_trio.exceptions import CertificateError
from msl_network_trio.manager import self_signed as making
from msl_network_trio.manager.certificates import server_context
from msl_network_trio.manager.self_signed import make_key
from tests.transport.certificates import Identity, ordinary, reference_default, self_signed

pytestmark = pytest.mark.usefixtures("home")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes of files")

REPLACED = "clients have to trust the new one"


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)
    return caplog


@cache
def some_key() -> bytes:
    return make_key(None)


@pytest.fixture
def fast(monkeypatch):
    """Replace the generation of keys by a fast one."""
    monkeypatch.setattr(making, "make_key", lambda password: some_key())


def save(identity: Identity, home: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Put a certificate and its key where the Manager keeps them."""
    certificate, key = home / "certs" / f"{name}.crt", home / "keys" / f"{name}.key"
    for path, text in ((certificate, identity.pem), (key, identity.key)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    return certificate, key


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Run a TLS handshake in memory; raise the client's error."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass


def strict_context(certificate: Path, *, partial_chain: bool) -> ssl.SSLContext:
    """A context as `ssl.create_default_context` makes it, with the flags that Python 3.13 has added."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    if partial_chain:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def encrypted(key: str, password: str) -> str:
    return (
        serialization.load_pem_private_key(key.encode(), None)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
        .decode()
    )


def test_the_first_start_makes_key_and_certificate_and_the_second_keeps_them(home):
    _, certificate = server_context()
    key = home / "keys" / "localhost.key"
    assert certificate == home / "certs" / "localhost.crt"
    before = key.read_bytes(), certificate.read_bytes()
    server_context()
    assert (key.read_bytes(), certificate.read_bytes()) == before
    loaded = serialization.load_pem_private_key(before[0], None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    assert loaded.key_size == 2048
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == [
        "localhost.crt",
        "localhost.key",
    ]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", socket.gethostname()])
@pytest.mark.parametrize("partial_chain", [True, False])
def test_the_certificate_is_accepted_by_strict_clients(fast, name, partial_chain):
    server, certificate = server_context()
    shake_hands(server, strict_context(certificate, partial_chain=partial_chain), name)
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), name)


def test_the_certificate_is_for_all_names_of_this_computer_and_for_no_other(fast, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-3")
    found = [
        (2, 1, 6, "", ("10.1.2.3", 0)),
        (10, 1, 6, "", ("fe80::1%eth0", 0, 0, 2)),
        (10, 1, 6, "", ("2001:db8::5", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port: found)
    server, certificate = server_context()
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert loaded.subject.rfc4514_string() == "CN=lab-3"
    assert loaded.issuer == loaded.subject
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lab-3", "localhost"]
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1", "10.1.2.3", "2001:db8::5"} <= addresses
    assert not any(address.startswith("fe80") for address in addresses)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "lab-4")


def test_the_certificate_is_no_ca_and_names_its_key(fast):
    _, certificate = server_context()
    extensions = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    subject = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == subject


@pytest.mark.parametrize("hostname", ["Messplatz-Größe", "x" * 70 + ".example", "", "a..b"])
def test_a_computer_with_an_odd_name_gets_a_certificate_too(fast, monkeypatch, hostname):
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    server, certificate = server_context()
    shake_hands(server, strict_context(certificate, partial_chain=True), "localhost")


@pytest.mark.parametrize("host", ["lab-3.example", "192.168.7.7", "2001:db8::7"])
def test_a_host_has_a_key_and_a_certificate_of_its_own(fast, home, host):
    server, certificate = server_context(host=host)
    name = host.replace(":", "%3A") if sys.platform == "win32" else host
    assert certificate == home / "certs" / f"{name}.crt"
    assert (home / "keys" / f"{name}.key").exists()
    shake_hands(server, strict_context(certificate, partial_chain=True), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_are_no_address_in_the_certificate(fast, host):
    _, certificate = server_context(host=host)
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address(host) not in names.get_values_for_type(x509.IPAddress)


def test_a_host_that_cannot_be_a_file_is_refused(home):
    with pytest.raises(CertificateError, match="not the name of a host"):
        server_context(host="../keys/x")
    assert not home.exists()


def test_tls_is_at_least_1_2(fast):
    context, _ = server_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@posix_only
def test_the_key_is_its_owners_alone_from_the_first_moment(fast, home, monkeypatch):
    modes = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    umask = os.umask(0)
    try:
        server_context()
    finally:
        os.umask(umask)
    assert modes == [0o600, 0o666]  # key, certificate: when they are written
    assert stat.S_IMODE((home / "keys" / "localhost.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700


def test_managers_that_start_at_the_same_moment_have_one_key_and_one_certificate(home):
    count = 6
    together = threading.Barrier(count)
    contexts: list[ssl.SSLContext | Exception] = []

    def start() -> None:
        together.wait()
        try:
            contexts.append(server_context()[0])
        except Exception as error:
            contexts.append(error)

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = client_context((home / "certs" / "localhost.crt").read_text(), check_hostname=True)
    assert len(contexts) == count
    for context in contexts:
        assert isinstance(context, ssl.SSLContext), context
        shake_hands(context, client, "localhost")
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == [
        "localhost.crt",
        "localhost.key",
    ]


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_manager_that_was_faster_is_followed(home, monkeypatch, hard_links):
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)
    others = ordinary()

    def slow_key(password: str | None) -> bytes:
        save(others, home)
        return some_key()

    monkeypatch.setattr(making, "make_key", slow_key)
    server, certificate = server_context()
    assert certificate.read_text() == others.pem
    shake_hands(server, client_context(others.pem, check_hostname=True), "localhost")


def no_hard_links(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_hard_links_will_do(fast, home, monkeypatch):
    monkeypatch.setattr(os, "link", no_hard_links)
    server, certificate = server_context()
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == [
        "localhost.crt",
        "localhost.key",
    ]
    if sys.platform != "win32":
        assert stat.S_IMODE((home / "keys" / "localhost.key").stat().st_mode) == 0o600


def test_what_the_reference_made_is_used_as_it_is(home):
    certificate, key = save(reference_default(), home)
    before = certificate.read_bytes(), key.read_bytes()
    server, used = server_context()
    assert used == certificate
    assert (certificate.read_bytes(), key.read_bytes()) == before
    shake_hands(server, client_context(reference_default().pem, check_hostname=True), "localhost")


@posix_only
def test_a_key_that_others_may_read_is_warned_of(home, messages):
    _, key = save(ordinary(), home)
    server_context()
    assert "chmod" not in messages.text
    key.chmod(0o644)
    server_context()
    assert f"chmod 600 {key}" in messages.text
    assert stat.S_IMODE(key.stat().st_mode) == 0o644  # it is the user's


def test_a_key_without_certificate_gets_one(home):
    certificate, key = save(ordinary(), home)
    certificate.unlink()
    server, _ = server_context()
    assert key.read_text() == ordinary().key
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_a_key_of_another_kind_gets_a_certificate(tmp_path, key):
    path = tmp_path / "my.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server, certificate = server_context(key_file=path)
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")


def test_a_certificate_without_key_is_not_replaced(home):
    certificate, key = save(ordinary(), home)
    key.unlink()
    with pytest.raises(CertificateError) as caught:
        server_context()
    assert str(certificate) in str(caught.value)
    assert str(key) in str(caught.value)
    assert "Delete the certificate" in str(caught.value)
    assert certificate.read_text() == ordinary().pem
    assert not key.exists()


@pytest.mark.parametrize("of_the_same_kind", [True, False])
def test_a_key_that_does_not_fit_is_an_error_that_names_both(home, of_the_same_kind):
    key_pem = self_signed().key if of_the_same_kind else some_key().decode()
    certificate, key = save(Identity(ordinary().pem, key_pem), home)
    with pytest.raises(CertificateError, match="does not fit") as caught:
        server_context()
    assert str(certificate) in str(caught.value)
    assert str(key) in str(caught.value)
    with pytest.raises(CertificateError, match="does not fit"):
        server_context(cert_file=certificate, key_file=key)


def test_a_certificate_file_may_hold_the_key(tmp_path, home):
    path = tmp_path / "both.pem"
    path.write_text("a comment: Größe\n" + ordinary().key + ordinary().pem, encoding="utf-8")
    server, used = server_context(cert_file=path)
    assert used == path
    shake_hands(server, client_context(ordinary().pem, check_hostname=True), "localhost")
    assert not home.exists()


def test_a_key_file_alone_gives_a_new_default_certificate(tmp_path, home, messages):
    certificate, default_key = save(ordinary(), home)
    key = tmp_path / "my.key"
    key.write_bytes(some_key())
    server, used = server_context(key_file=key)
    assert used == certificate
    assert certificate.read_text() != ordinary().pem
    assert default_key.read_text() == ordinary().key
    assert REPLACED in messages.text
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")


def test_a_key_file_alone_keeps_the_certificate_that_clients_trust(tmp_path, home, messages):
    certificate, key = save(ordinary(), home)
    server_context(key_file=key)
    assert certificate.read_text() == ordinary().pem
    assert REPLACED not in messages.text


def test_a_key_file_alone_replaces_a_certificate_that_has_expired(home, messages):
    expired = self_signed(valid_from=-3, valid_to=-1)
    certificate, key = save(expired, home)
    server, _ = server_context(key_file=key)
    assert "expired" in messages.text
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")


@pytest.mark.parametrize(
    ("valid", "warning"),
    [
        ((-3, -1), "certificate has expired"),
        ((1, 3), "certificate is not yet valid"),
        ((-1, 20), "expires on "),
    ],
)
def test_a_certificate_that_clients_will_refuse_is_warned_of(home, messages, valid, warning):
    save(self_signed(valid_from=valid[0], valid_to=valid[1]), home)
    server_context()
    assert warning in messages.text


def test_a_good_certificate_is_not_warned_of(fast, messages):
    server_context()
    assert [record for record in messages.records if record.levelno > logging.INFO] == []


def test_a_key_is_made_with_its_password_and_needs_it(home, tmp_path):
    server_context(key_file_password="open sesame")
    assert b"ENCRYPTED" in (home / "keys" / "localhost.key").read_bytes()
    server_context(key_file_password="open sesame")
    file = tmp_path / "password.txt"
    file.write_text("open sesame\nnot this\n")
    server_context(key_file_password=str(file))
    with pytest.raises(CertificateError, match="password of the private key .* is wrong"):
        server_context(key_file_password="open barley")
    with pytest.raises(CertificateError, match="is encrypted. Pass key_file_password"):
        server_context()


def test_an_encrypted_key_needs_its_password_for_a_certificate(tmp_path):
    key = tmp_path / "my.key"
    key.write_text(encrypted(ordinary().key, "open sesame"))
    with pytest.raises(CertificateError, match="encrypted"):
        server_context(key_file=key)
    with pytest.raises(CertificateError, match="password is wrong"):
        server_context(key_file=key, key_file_password="open barley")
    server, certificate = server_context(key_file=key, key_file_password="open sesame")
    shake_hands(server, client_context(certificate.read_text(), check_hostname=True), "localhost")


def test_no_password_is_ever_logged(home, messages):
    messages.set_level(logging.DEBUG)
    server_context(key_file_password="open sesame")
    with pytest.raises(CertificateError) as caught:
        server_context(key_file_password="open barley")
    assert "sesame" not in messages.text
    assert "barley" not in messages.text + str(caught.value)


def test_a_password_that_is_not_needed_is_warned_of(home, messages):
    save(ordinary(), home)
    server_context(key_file_password="open sesame")
    assert "is not encrypted" in messages.text


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"cert_file": "missing.crt"}, "The file of the certificate does not exist: .*missing.crt"),
        (
            {"cert_file": "good.crt", "key_file": "missing.key"},
            "The file of the private key does not exist: .*missing.key",
        ),
        ({"key_file": "missing.key"}, "The file of the private key does not exist: .*missing.key"),
        (
            {"cert_file": "folder", "key_file": "good.key"},
            r"The file of the certificate cannot be read: .*folder \(.+\)",
        ),
        ({"cert_file": "good.key", "key_file": "good.key"}, "no certificate in .*good.key"),
        ({"cert_file": "good.crt"}, "no private key in .*good.crt.* as key_file"),
        ({"cert_file": "good.crt", "key_file": "good.crt"}, "no private key in .*good.crt"),
        ({"cert_file": "broken.crt", "key_file": "good.key"}, "broken.crt .*cannot be used"),
        ({"key_file": "good.crt"}, "The private key .*good.crt cannot be used: it is no private key"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, files, text):
    (tmp_path / "good.crt").write_text(ordinary().pem)
    (tmp_path / "good.key").write_text(ordinary().key)
    (tmp_path / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CertificateError, match=text) as caught:
        server_context(**{name: tmp_path / file for name, file in files.items()})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "rubbish", "the first half", "all but the end"])
@pytest.mark.parametrize("damaged", ["certs", "keys", "keys, without a certificate"])
def test_a_damaged_file_in_the_home_folder_is_named_with_what_mends_it(home, damaged, content):
    save(ordinary(), home)
    certificate, key = home / "certs" / "localhost.crt", home / "keys" / "localhost.key"
    path = certificate if damaged == "certs" else key
    text = path.read_text()
    path.write_text(
        {"the first half": text[: len(text) // 2], "all but the end": text[:-20]}.get(content, content)
    )
    if "without" in damaged:
        certificate.unlink()
    with pytest.raises(CertificateError) as caught:
        server_context()
    assert str(path) in str(caught.value)
    assert f"Delete {certificate} and {key} to have both made anew" in str(caught.value)
    assert "\n" not in str(caught.value)
    for each in (certificate, key):
        each.unlink(missing_ok=True)
    server_context()


def test_files_of_a_user_may_be_named_with_a_tilde(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "good.crt").write_text(ordinary().pem)
    (tmp_path / "good.key").write_text(ordinary().key)
    _, certificate = server_context(cert_file="~/good.crt", key_file="~/good.key")
    assert certificate == tmp_path / "good.crt"


def test_a_home_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(home):
    home.write_text("not a folder")
    with pytest.raises(CertificateError, match="cannot be written .* MSL_NETWORK_HOME"):
        server_context()


def test_nothing_imports_cryptography_when_nothing_is_to_be_made(home):
    save(ordinary(), home)
    code = (
        "import sys\n"
        "from msl_network_trio.manager.certificates import server_context\n"
        "server_context()\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
