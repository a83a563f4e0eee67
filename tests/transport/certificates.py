"""Certificates of all kinds for servers, made once per test run."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = datetime.timedelta(days=1)

_AS_THE_REFERENCE_DOES = """
import sys
from msl.network.cryptography import generate_certificate, generate_key
generate_key(path=sys.argv[2])
generate_certificate(path=sys.argv[1], key_path=sys.argv[2])
"""


@attrs.frozen
class Identity:
    """A certificate and its key, for a server."""

    pem: str
    """The certificate."""

    key: str = attrs.field(repr=False)
    """The private key in PEM."""

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pem)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint, not computed by the package."""
        return hashlib.sha256(self.der).digest().hex(":")

    def server_context(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return a context for a server.

        Args:
            version: The only TLS version; None: any.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "both.pem")
            path.write_text(self.key + self.pem)
            context.load_cert_chain(path)
        return context


def self_signed(
    *names: str, valid_from: float = -1, valid_to: float = 30, common_name: str = "a Manager"
) -> Identity:
    """Return a self-signed certificate without BasicConstraints, as that of the reference, with a small key.

    Args:
        names: Host names and addresses; `LOCAL_NAMES` if empty.
        valid_from: The beginning of validity in days from now.
        valid_to: The end of validity in days from now.
        common_name: The common name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(common_name, common_name, key, valid_from, valid_to)
    certificate = builder.add_extension(_alternative_names(names), critical=False).sign(key, hashes.SHA256())
    return Identity(_pem(certificate), _key_pem(key))


def signed_the_old_way() -> tuple[str, Identity]:
    """Return the certificate of a CA without key identifiers and key usage, and one that it has signed."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    is_ca = x509.BasicConstraints(ca=True, path_length=None)
    ca = _builder("old CA", "old CA", ca_key).add_extension(is_ca, critical=False)
    leaf = _builder("a Manager", "old CA", key).add_extension(_alternative_names(()), critical=False)
    return (
        _pem(ca.sign(ca_key, hashes.SHA256())),
        Identity(_pem(leaf.sign(ca_key, hashes.SHA256())), _key_pem(key)),
    )


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, valid_from: float = -1, valid_to: float = 30
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid_from * _DAY)
        .not_valid_after(now + valid_to * _DAY)
    )


def _alternative_names(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in names or LOCAL_NAMES])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def signed_by(ca: trustme.CA, *names: str) -> Identity:
    """Return a certificate signed by a private CA."""
    leaf = ca.issue_cert(*(names or LOCAL_NAMES))
    (pem,) = leaf.cert_chain_pems
    return Identity(pem.bytes().decode(), leaf.private_key_pem.bytes().decode())


@cache
def ordinary() -> Identity:
    """Return a self-signed certificate of this computer, the same in all tests."""
    return self_signed()


@cache
def reference_default() -> Identity:
    """Return a certificate made by msl-network 1.0.0 as for its Manager."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "localhost.crt"), Path(folder, "localhost.key")
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _AS_THE_REFERENCE_DOES, certificate, key],
            check=True,
            env=dict(os.environ, MSL_NETWORK_HOME=folder),
        )
        return Identity(certificate.read_text(), key.read_text())
