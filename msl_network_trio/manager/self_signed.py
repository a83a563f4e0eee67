"""Private keys and self-signed certificates.

All functions are blocking and need no lock. The module imports `cryptography`, which takes a while, and is
therefore imported only to make a key or certificate.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from msl_network_trio.manager.addresses import local_addresses

KEY_SIZE = 2048
"""Default size of a key in bits, that of msl-network 1.0.0."""

CURVE = "SECP384R1"
"""Default elliptic curve, that of msl-network 1.0.0."""

Hash = (
    hashes.SHA224
    | hashes.SHA256
    | hashes.SHA384
    | hashes.SHA512
    | hashes.SHA3_224
    | hashes.SHA3_256
    | hashes.SHA3_384
    | hashes.SHA3_512
)

HASHES: dict[str, Hash] = {
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
    "SHA3_224": hashes.SHA3_224(),
    "SHA3_256": hashes.SHA3_256(),
    "SHA3_384": hashes.SHA3_384(),
    "SHA3_512": hashes.SHA3_512(),
}
"""The hash algorithms for signatures, by name."""

YEARS_VALID = 100 if sys.maxsize > 2**32 else 15
"""Default validity in years, that of msl-network 1.0.0; the clock of a 32-bit system may end in 2038."""

_COMMON_NAME_LIMIT = 64
"""Maximum characters of a common name (RFC 5280, ub-common-name)."""

_DAY = dt.timedelta(days=1)


class KeyNotUsable(Exception):
    """A private key cannot be made, read or used; the text states the reason."""


def make_key(
    password: str | None, *, algorithm: str = "rsa", size: int = KEY_SIZE, curve: str = CURVE
) -> bytes:
    """Return a new private key in PEM.

    Args:
        password: The password that encrypts it; None: it is not encrypted.
        algorithm: ``"rsa"``, ``"dsa"`` or ``"ecc"``.
        size: Bits of an RSA or DSA key.
        curve: The name of the elliptic curve of an ECC key.

    Raises:
        KeyNotUsable: The size or curve is not supported.
    """
    key: rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey
    try:
        if algorithm == "rsa":
            key = rsa.generate_private_key(public_exponent=65537, key_size=size)
        elif algorithm == "dsa":
            key = dsa.generate_private_key(size)
        else:
            key = ec.generate_private_key(_curve(curve))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyNotUsable(str(error)) from error
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _curve(name: str) -> ec.EllipticCurve:
    curves: dict[str, type[ec.EllipticCurve]] = {
        each.__name__.upper(): each for each in vars(ec).values() if _is_a(each, ec.EllipticCurve)
    }
    if name.upper() not in curves:
        known = ", ".join(sorted(curves))
        raise KeyNotUsable(f"{name!r} is not an elliptic curve. Use one of {known}")
    return curves[name.upper()]()


def _is_a(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value is not base


def make_certificate(
    key_pem: bytes,
    password: str | None,
    host: str | None,
    *,
    algorithm: str = "SHA256",
    years: float = YEARS_VALID,
) -> bytes:
    """Return a new self-signed certificate of this computer in PEM.

    It is not a CA and has no key usage extension: with one that excludes signing certificates, OpenSSL 1.1.1
    does not accept it as self-signed, and with one that includes it, newer versions require a CA.

    Args:
        key_pem: The private key.
        password: The password of the private key; None: it is not encrypted.
        host: Another name or address of this computer for the certificate; None: none.
        algorithm: The hash algorithm of the signature, one of `HASHES`.
        years: Validity in years.

    Raises:
        KeyNotUsable: The key cannot be read or cannot sign, or another argument is not supported.
    """
    key = _load_key(key_pem, password)
    if algorithm.upper() not in HASHES:
        raise KeyNotUsable(f"{algorithm!r} is not a hash algorithm. Use one of {', '.join(HASHES)}")
    hostname = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:_COMMON_NAME_LIMIT] or "localhost")])
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    try:
        until = now + years * 365.25 * _DAY
    except OverflowError:
        raise KeyNotUsable(f"{years:g} years are too many") from None
    public_key = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)  # for clients whose clock is slow
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_alternative_names(hostname, host)), critical=False)
        .sign(
            key,
            None
            if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
            else HASHES[algorithm.upper()],
        )
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _load_key(pem: bytes, password: str | None) -> CertificateIssuerPrivateKeyTypes:
    try:
        try:
            key = serialization.load_pem_private_key(pem, None)
        except TypeError:  # the key is encrypted
            if password is None:
                raise KeyNotUsable("it is encrypted and no password was given") from None
            key = serialization.load_pem_private_key(pem, password.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyNotUsable(
            "it is no private key in PEM"
            if password is None
            else "the password is wrong, or it is no private key"
        ) from error
    if not isinstance(
        key,
        rsa.RSAPrivateKey
        | ec.EllipticCurvePrivateKey
        | ed25519.Ed25519PrivateKey
        | ed448.Ed448PrivateKey
        | dsa.DSAPrivateKey,
    ):
        raise KeyNotUsable("keys of this kind cannot sign")
    return key


def _alternative_names(hostname: str, host: str | None) -> list[x509.GeneralName]:
    """Return the names and addresses of this computer without duplicates."""
    addresses = {*local_addresses(hostname), IPv4Address("127.0.0.1"), IPv6Address("::1")}
    names = [hostname, "localhost"]
    if host is not None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            names.append(host)
        else:
            addresses.add(address)
    found: dict[x509.GeneralName, None] = {}
    for name in names:
        # Names must be ASCII in a certificate but not on Windows; invalid host names are left out.
        with contextlib.suppress(UnicodeError):
            if ascii_name := name.encode("idna").decode("ascii"):
                found[x509.DNSName(ascii_name)] = None
    ordered = sorted(addresses, key=lambda address: (address.version, address.packed))
    found |= {x509.IPAddress(address): None for address in ordered if not address.is_unspecified}
    return list(found)
