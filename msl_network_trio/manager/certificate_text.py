"""The content of a certificate as text for people. Pure: without I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from msl_network_trio.visible import visible

_WIDTH = 75
"""Maximum characters of a line of hexadecimal digits."""


class NotACertificate(Exception):
    """The data contains no certificate; the text states the reason."""


def describe(pem: bytes) -> str:
    """Return the content of a certificate as text.

    Args:
        pem: The certificate; may be surrounded by other text.

    Raises:
        NotACertificate: It cannot be read.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        # Control characters in a forged certificate must not change what a terminal shows.
        return "\n".join(map(visible, _lines(certificate)))
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = "" if b"-----BEGIN CERTIFICATE-----" in pem else "; it must be in PEM"
        raise NotACertificate(f"there is no certificate in it that can be read{reason}") from error


def _lines(certificate: x509.Certificate) -> Iterator[str]:
    yield f"Version: {certificate.version.name}"
    yield f"Serial Number: {_hex_of_number(certificate.serial_number)}"
    yield from _name("Issuer", certificate.issuer)
    yield "Validity:"
    yield f"  Not Before: {certificate.not_valid_before_utc:%d %B %Y %H:%M:%S} GMT"
    yield f"  Not After : {certificate.not_valid_after_utc:%d %B %Y %H:%M:%S} GMT"
    yield from _name("Subject", certificate.subject)
    yield "Subject Public Key Info:"
    yield from _key(certificate)
    if certificate.extensions:
        yield "Extensions:"
    for extension in certificate.extensions:
        yield f"  {_name_of(extension.oid)}{' (critical)' if extension.critical else ''}:"
        yield from _extension(extension.value)
    yield "Signature Algorithm:"
    yield f"  OID: {certificate.signature_algorithm_oid.dotted_string}"
    yield f"  Name: {_name_of(certificate.signature_algorithm_oid)}"
    yield "  Value:"
    yield from _block(certificate.signature)
    for name, algorithm in (("SHA256", hashes.SHA256()), ("SHA1", hashes.SHA1())):
        yield f"Fingerprint ({name}):"
        yield f"  {certificate.fingerprint(algorithm).hex(':')}"


def _name(title: str, name: x509.Name) -> Iterator[str]:
    yield f"{title}:"
    for attribute in name:
        words = "".join(f" {letter}" if letter.isupper() else letter for letter in _name_of(attribute.oid))
        yield f"  {words.strip().title()}: {attribute.value!s}"


def _key(certificate: x509.Certificate) -> Iterator[str]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        yield "  Encryption: RSA"
        yield f"  Size: {key.key_size}"
        yield f"  Exponent: {key.public_numbers().e}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        yield "  Encryption: Elliptic Curve"
        yield f"  Curve: {key.curve.name}"
        yield f"  Size: {key.key_size}"
    elif isinstance(key, dsa.DSAPublicKey):
        yield "  Encryption: DSA"
        yield f"  Size: {key.key_size}"
    else:
        yield f"  Encryption: {type(key).__name__.lstrip('_').removesuffix('PublicKey')}"
    yield "  Key (DER):"
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    yield from _block(der)


def _extension(value: x509.ExtensionType) -> Iterator[str]:
    if isinstance(value, x509.SubjectAlternativeName):
        for name in value:
            yield f"    {type(name).__name__}: {name.value!s}"
    elif isinstance(value, x509.BasicConstraints):
        yield f"    CA: {value.ca}"
    elif isinstance(value, x509.ExtendedKeyUsage):
        yield from (f"    {_name_of(usage)}" for usage in value)
    elif isinstance(value, x509.SubjectKeyIdentifier):
        yield f"    {value.digest.hex(':')}"
    elif isinstance(value, x509.AuthorityKeyIdentifier) and value.key_identifier is not None:
        yield f"    {value.key_identifier.hex(':')}"
    else:
        yield f"    {value!r}"


def _name_of(oid: x509.ObjectIdentifier) -> str:
    # A private attribute, the only access to the name; the number if there is none.
    name = getattr(oid, "_name", "Unknown OID")
    return oid.dotted_string if name == "Unknown OID" else str(name)


def _hex_of_number(number: int) -> str:
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big").hex(":")


def _block(data: bytes) -> Iterator[str]:
    return (f"    {line}" for line in textwrap.wrap(data.hex(":"), _WIDTH))
