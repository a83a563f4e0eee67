"""Trusted certificates: files, trust on first use, and the errors of verification.

The files are shared with msl-network 1.0.0: ``certs/{host}.crt`` in PEM, without the port. Files are read and
written in worker threads, everything else runs in the Trio thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from msl_network_trio.atomic_files import PUBLIC, user_path, write_new
from msl_network_trio.constants import certificate_folder
from msl_network_trio.exceptions import CertificateDeclined, CertificateError, ConnectError
from msl_network_trio.logger import get_logger
from msl_network_trio.transport.tcp_connect import strip_brackets
from msl_network_trio.transport.tls import TlsStream
from msl_network_trio.transport.tls_handshake import open_tls

logger = get_logger(__name__)

_FETCH_TIMEOUT = 2.0
"""Seconds for fetching a certificate that was not accepted, to show its fingerprint in the error."""

_NOT_AVAILABLE = "(not available)"

TO_GET_IT: Final = " to get the certificate"
"""The purpose of the connection of `fetch_certificate` in error texts."""

_EXPIRED = 10
_NOT_YET_VALID = 9
_MISMATCH = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_* codes for a wrong host name (62) and IP address (64)."""

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
"""A certificate in a PEM file, which may contain several and other text."""


@attrs.frozen
class Certificate:
    """The certificate of a Manager, not trusted yet."""

    host: str
    """The host as given to `connect`."""

    port: int

    der: bytes = attrs.field(repr=False)
    """The certificate in DER."""

    @property
    def pem(self) -> str:
        """The certificate in PEM, as in its file."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint, pairs of hexadecimal digits between colons."""
        return _fingerprint(self.der, "sha256")

    @property
    def fingerprint_sha1(self) -> str:
        """The SHA-1 fingerprint, for comparison with msl-network 1.0.0."""
        return _fingerprint(self.der, "sha1")


def _fingerprint(der: bytes, algorithm: str) -> str:
    digest = hashlib.new(algorithm, der, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def certificate_file(host: str) -> Path:
    """Return the path of the certificate file of a host, which need not exist.

    Raises:
        CertificateError: The host is not valid as a file name.
    """
    name = strip_brackets(host)
    if any(character in name for character in "/\\\0"):
        raise CertificateError(f"{host!r} is not the name of a host")
    if sys.platform == "win32":
        name = name.replace(":", "%3A")
    return certificate_folder() / f"{name}.crt"


def client_context(pem: str, *, check_hostname: bool) -> ssl.SSLContext:
    """Return a context that trusts only these certificates, of a Manager or of a private CA.

    A Manager's certificate is self-signed without CA constraints. `ssl.VERIFY_X509_PARTIAL_CHAIN` accepts it
    as its own root, and Python 3.13 accepts it only without `ssl.VERIFY_X509_STRICT`.

    Raises:
        ssl.SSLError: The text contains no certificate.
    """
    context = _context()
    context.check_hostname = check_hostname
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=pem)
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def fetch_certificate(host: str, port: int) -> Certificate:
    """Return the certificate of a server, by a connection that trusts any and carries no data.

    Raises:
        ConnectError: No connection, or the server does not speak TLS.
    """
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    transport, der = await open_tls(host, port, context, purpose=TO_GET_IT)
    transport.close()
    return Certificate(host, port, der)


async def open_trusted(
    host: str,
    port: int,
    *,
    cert_file: str | os.PathLike[str] | None,
    assert_hostname: bool,
    auto_save: bool,
    ask: Callable[[Certificate], Awaitable[bool]],
    fetch: Callable[[str, int], Awaitable[Certificate]] = fetch_certificate,
    as_browsers: bool = False,
) -> TlsStream:
    """Connect with TLS to a Manager that is trusted, or that the user decides to trust.

    Args:
        host: The host.
        port: The port.
        cert_file: The file with the trusted certificate, of the Manager or of a CA; a leading ``~`` is the
            home folder. None: the file of the host in the shared folder; without it, trust on first use.
        assert_hostname: Whether the certificate must be for this host.
        auto_save: Whether to trust and save on first use without asking.
        ask: Asks the user whether to trust a certificate.
        fetch: Returns the certificate of a server, as `fetch_certificate`.
        as_browsers: Whether to trust certificates of the system's CAs as well, if the file of the host does
            not help. The CAs are not used with a `cert_file`, the only trusted one then, nor without
            `assert_hostname`, as every server with a CA certificate would be trusted.

    A certificate is saved after a handshake that accepts it. If saving fails, a warning is logged and it is
    trusted for this connection only.

    Raises:
        CertificateDeclined: The user does not trust the certificate.
        CertificateError: The certificate is not the trusted one, or not for this host, or expired, or its
            file cannot be used.
        ConnectError: No connection, or the server does not speak TLS.
    """
    path = certificate_file(host) if cert_file is None else user_path(cert_file)
    pem = await _read(path)
    if pem is None and cert_file is not None:
        raise CertificateError(f"The cert_file does not exist: {path}")
    uses_cas = as_browsers and cert_file is None and assert_hostname
    refused: CertificateError | None = None
    if pem is not None:
        try:
            transport, _ = await _open(host, port, path, pem, assert_hostname, own_file=cert_file is None)
            return transport
        except CertificateError as error:
            if not uses_cas:
                raise
            refused = error
    if uses_cas and (certified := await _open_by_system_cas(host, port)) is not None:
        return certified
    if refused is not None:
        raise refused
    certificate = await fetch(host, port)
    if not auto_save and not await ask(certificate):
        raise CertificateDeclined("SSL certificate required")
    transport, der = await _open(host, port, None, certificate.pem, assert_hostname, own_file=True)
    try:
        if der != certificate.der:
            raise CertificateError(_changed(certificate, _fingerprint(der, "sha256")))
        if await trio.to_thread.run_sync(_save, path, certificate):
            return transport
        saved = await _read(path)
    except BaseException:
        transport.close()
        raise
    if saved is None or _is_just(saved, der):
        return transport
    # Another process has saved another certificate meanwhile, which is the trusted one now.
    transport.close()
    transport, _ = await _open(host, port, path, saved, assert_hostname, own_file=True)
    return transport


async def _open_by_system_cas(host: str, port: int) -> TlsStream | None:
    """Connect to a server that the system's CAs certify; return None if they do not."""
    try:
        transport, _ = await open_tls(host, port, await trio.to_thread.run_sync(_system_context))
    except ssl.SSLCertVerificationError:
        return None
    return transport


def _system_context() -> ssl.SSLContext:
    """Return a context that trusts the CAs of the operating system; blocking.

    OpenSSL reads the environment variables SSL_CERT_FILE and SSL_CERT_DIR.
    """
    context = _context()
    context.load_default_certs()
    return context


async def _open(
    host: str, port: int, path: Path | None, pem: str, assert_hostname: bool, *, own_file: bool
) -> tuple[TlsStream, bytes]:
    """Connect to a host and verify its certificate.

    Args:
        host: The host.
        port: The port.
        path: The file of the trusted certificates; None: not saved yet.
        pem: The trusted certificates.
        assert_hostname: Whether the certificate must be for this host.
        own_file: Whether the file is that of the host in the shared folder.

    Returns:
        The stream and the certificate of the server (DER).
    """
    try:
        context = await trio.to_thread.run_sync(partial(client_context, pem, check_hostname=assert_hostname))
    except (ssl.SSLError, ValueError) as error:
        if path is None:
            raise CertificateError(f"The certificate of {host}:{port} cannot be used: {error}") from error
        mend = "Delete it to be asked again" if own_file else "Check cert_file"
        raise CertificateError(f"No certificate can be read from {path}. {mend}.") from error
    try:
        return await open_tls(host, port, context)
    except ssl.SSLCertVerificationError as error:
        text = await _explain(error, host, port, path, pem, own_file=own_file)
        raise CertificateError(text) from error


def _is_just(pem: str, der: bytes) -> bool:
    """Return whether a file contains exactly one certificate."""
    certificates = _CERTIFICATE.findall(pem)
    try:
        return [ssl.PEM_cert_to_DER_cert(each) for each in certificates] == [der]
    except ValueError:
        return False


async def _read(path: Path) -> str | None:
    """Return the text of a certificate file; None if there is none.

    Read in a thread, as the home folder may be on a network drive. Characters that are not ASCII, for example
    in a comment, are removed, since `ssl` rejects them.
    """
    try:
        read = partial(path.read_text, encoding="ascii", errors="ignore")
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
        raise CertificateError(f"The certificate file cannot be read: {path} ({reason})") from error


def _save(path: Path, certificate: Certificate) -> bool:
    """Save a certificate and return True; return False if there is a file already, which is kept."""
    try:
        if not write_new(path, certificate.pem.encode("ascii"), mode=PUBLIC):
            path.stat()  # raises an error for a dangling link
            return False
    except OSError as error:
        logger.warning(
            "the certificate of %s:%d cannot be saved as %s (%s), so it is trusted for this connection only. "
            "To have it trusted from now on, pass cert_file, or set MSL_NETWORK_HOME to a folder that can be "
            "written",
            certificate.host,
            certificate.port,
            path,
            error.strerror or error,
        )
    return True


def _changed(trusted: Certificate, shown: str) -> str:
    return (
        f"{trusted.host}:{trusted.port} showed another certificate than the one that was just trusted, which "
        f"was not saved:\n  trusted {trusted.fingerprint}\n  shown   {shown}"
    )


async def _explain(
    error: ssl.SSLCertVerificationError,
    host: str,
    port: int,
    path: Path | None,
    pem: str,
    *,
    own_file: bool,
) -> str:
    """Return the error text for a certificate that was not accepted, with the remedy."""
    text = f"The certificate of {host}:{port} is not accepted: {error.verify_message}"
    if error.verify_code in _MISMATCH:
        return (
            f"{text}\nTo disable hostname checking set assert_hostname=False\n"
            f"Make sure you trust the connection to {host}:{port} if you decide to do this."
        )
    if error.verify_code in {_EXPIRED, _NOT_YET_VALID}:
        text = (
            f"{text}\nThe clock of one of the two computers is wrong, or the Manager needs a new certificate."
        )
        if path is None:
            return f"{text}\nThe one that it has was not saved."
        return f"{text} When it has one:\n{_remedy(host, port, path, own_file=own_file)}"
    try:
        with trio.fail_after(_FETCH_TIMEOUT):
            shown = (await fetch_certificate(host, port)).fingerprint
    except (ConnectError, ssl.SSLError, trio.TooSlowError):
        shown = _NOT_AVAILABLE
    if path is None:
        certificate = Certificate(host, port, ssl.PEM_cert_to_DER_cert(pem))
        if shown not in {certificate.fingerprint, _NOT_AVAILABLE}:
            return _changed(certificate, shown)
        return f"{text}\nIt was not saved. The Manager needs another certificate."
    certificates = _CERTIFICATE.findall(pem)
    if len(certificates) == 1:
        trusted = _fingerprint(ssl.PEM_cert_to_DER_cert(certificates[0]), "sha256")
    else:
        trusted = "(several certificates)"
    return (
        f"{text}\nPerhaps the Network Manager is using a new certificate, or another Manager runs on "
        f"{host}:{port}.\n  shown   {shown}\n  trusted {trusted}\n  in      {path}\n"
        + _remedy(host, port, path, own_file=own_file)
    )


def _remedy(host: str, port: int, path: Path, *, own_file: bool) -> str:
    """Return the steps to trust a new certificate; for the shared folder those of msl-network."""
    if not own_file:
        return "Check that cert_file is the certificate of this Manager, or of the CA that signed it."
    return (
        f"If the file is for another Manager on {host}, keep it, and pass the certificate of this one as "
        "cert_file.\n"
        f"If you trust the connection to {host}:{port}, you can delete the certificate at\n  {path}\n"
        "and then re-connect to create a new trusted certificate."
    )
