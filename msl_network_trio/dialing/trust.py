"""Whom to trust: certificates, where they are kept, and trust on first use.

The folder and the names of its files are those of msl-network 1.0.0, so trust that was given there counts
here, and the other way round: ``certs/{host}.crt`` in PEM, without the port.
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

_SHOW = 2.0
"""How many seconds to spend on getting the certificate that was not accepted, just to show it."""

_NOT_AVAILABLE = "(not available)"

TO_GET_IT: Final = " to get the certificate"
"""What the connection of `fetch_certificate` is for, for errors."""

_EXPIRED = 10
_NOT_YET_VALID = 9
_MISMATCH = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_* codes; 62: host name, 64: IP address."""

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
"""A certificate in a PEM file, which may hold several, and other things between them."""


@attrs.frozen
class Certificate:
    """A certificate that a Manager showed, and that nobody has vouched for yet."""

    host: str
    """The host, as `connect` was given it."""

    port: int

    der: bytes = attrs.field(repr=False)
    """The certificate as the Manager sent it."""

    @property
    def pem(self) -> str:
        """The certificate as text, which is how it is saved."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint, pairs of hexadecimal digits between colons."""
        return _fingerprint(self.der, "sha256")

    @property
    def fingerprint_sha1(self) -> str:
        """The SHA-1 fingerprint, only to be compared with what msl-network 1.0.0 prints."""
        return _fingerprint(self.der, "sha1")


def _fingerprint(der: bytes, algorithm: str) -> str:
    digest = hashlib.new(algorithm, der, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def certificate_file(host: str) -> Path:
    """Return where the certificate of a host is kept, whether it exists or not.

    Raises:
        CertificateError: The name of the host cannot be that of a file.
    """
    name = strip_brackets(host)
    if any(character in name for character in "/\\\0"):
        raise CertificateError(f"{host!r} is not the name of a host")
    if sys.platform == "win32":
        name = name.replace(":", "%3A")
    return certificate_folder() / f"{name}.crt"


def client_context(pem: str, *, check_hostname: bool) -> ssl.SSLContext:
    """Return a context that trusts just these certificates, be they of a Manager or of a private CA.

    A Manager's certificate is self-signed and says nothing about being a CA. That it is accepted as its
    own root takes `ssl.VERIFY_X509_PARTIAL_CHAIN`, and that Python 3.13 accepts it at all takes
    not to be strict.

    Raises:
        ssl.SSLError: The text holds no certificate.
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
    """Ask a server for its certificate, and trust it with nothing.

    Raises:
        ConnectError: No connection, or no TLS there.
    """
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    transport, der = await open_tls(host, port, context, purpose=TO_GET_IT)
    transport.close()
    return Certificate(host, port, der)


async def open_trusted_as_browsers(
    host: str,
    port: int,
    *,
    cert_file: str | os.PathLike[str] | None,
    assert_hostname: bool,
    auto_save: bool,
    ask: Callable[[Certificate], Awaitable[bool]],
    fetch: Callable[[str, int], Awaitable[Certificate]] = fetch_certificate,
) -> TlsStream:
    """Connect with TLS to a server for which the system's CAs vouch, or else as `open_trusted` does.

    With a `cert_file` only that counts. Without `assert_hostname` the CAs do not: they vouch for names, and
    would have every server of the world trusted. A certificate that was saved for the host is tried first:
    the same ones are accepted in the end, but most often at once.

    Args and exceptions are those of `open_trusted`.
    """
    open_ = partial(
        open_trusted,
        host,
        port,
        cert_file=cert_file,
        assert_hostname=assert_hostname,
        auto_save=auto_save,
        ask=ask,
        fetch=fetch,
    )
    if cert_file is not None or not assert_hostname:
        return await open_()
    refused: CertificateError | None = None
    if await _read(certificate_file(host)) is not None:
        try:
            return await open_()
        except CertificateError as error:
            refused = error
    try:
        transport, _ = await open_tls(host, port, await trio.to_thread.run_sync(_system_context))
    except ssl.SSLCertVerificationError:
        if refused is not None:
            raise refused from None
        return await open_()
    return transport


def _system_context() -> ssl.SSLContext:
    """Return a context that trusts the CAs of the operating system, which takes a while to be made.

    OpenSSL's environment variables, SSL_CERT_FILE and SSL_CERT_DIR, count as everywhere.
    """
    context = _context()
    context.load_default_certs()
    return context


async def open_trusted(
    host: str,
    port: int,
    *,
    cert_file: str | os.PathLike[str] | None,
    assert_hostname: bool,
    auto_save: bool,
    ask: Callable[[Certificate], Awaitable[bool]],
    fetch: Callable[[str, int], Awaitable[Certificate]] = fetch_certificate,
) -> TlsStream:
    """Connect with TLS to a Manager that is trusted, or that the user says is.

    Args:
        host: The host.
        port: The port.
        cert_file: The only file that counts, with the Manager's own certificate or that of a CA; ``~`` at
            its beginning is the home folder. None: the file of the host in the shared folder; if there is
            none, trust on first use.
        assert_hostname: Whether the certificate must be for this host.
        auto_save: Trust and save on first use without asking.
        ask: Asks the user whether to trust a certificate.
        fetch: Gets the certificate of a server, as `fetch_certificate` does.

    A certificate is saved when a handshake has shown that it will be accepted from now on. That it cannot be
    saved is logged as a warning: then it is trusted for this connection only.

    Raises:
        CertificateDeclined: The user does not trust the certificate.
        CertificateError: The certificate is not the trusted one, or not for this host, or expired, or its
            file cannot be used.
        ConnectError: No connection, or no TLS there.
    """
    path = certificate_file(host) if cert_file is None else user_path(cert_file)
    pem = await _read(path)
    if pem is not None:
        transport, _ = await _open(host, port, path, pem, assert_hostname, own_file=cert_file is None)
        return transport
    if cert_file is not None:
        raise CertificateError(f"The cert_file does not exist: {path}")
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
    # Another process has saved another one in the meantime: what is in the file is what counts.
    transport.close()
    transport, _ = await _open(host, port, path, saved, assert_hostname, own_file=True)
    return transport


async def _open(
    host: str, port: int, path: Path | None, pem: str, assert_hostname: bool, *, own_file: bool
) -> tuple[TlsStream, bytes]:
    """Connect to a host that has to show a certificate that is trusted.

    Args:
        host: The host.
        port: The port.
        path: The file that the trusted certificate is in; None: none yet.
        pem: What is trusted.
        assert_hostname: Whether the certificate must be for this host.
        own_file: Whether the file is the one in which the certificate of the host is saved.

    Returns:
        The connection, and the certificate that was shown.
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
    """Whether a certificate is all that there is in a file."""
    certificates = _CERTIFICATE.findall(pem)
    try:
        return [ssl.PEM_cert_to_DER_cert(each) for each in certificates] == [der]
    except ValueError:
        return False


async def _read(path: Path) -> str | None:
    """Read a certificate file, in a thread: the home folder may be on a network drive.

    Certificates are ASCII; what is not, in a comment for example, `ssl` does not want to see.
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
    """Save a certificate, never over another one; False if there is one."""
    try:
        if not write_new(path, certificate.pem.encode("ascii"), mode=PUBLIC):
            path.stat()  # it may be a link to nowhere
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
    """Say what is wrong with a certificate, and what mends it."""
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
        return f"{text} When it has one:\n{_way_out(host, port, path, own_file=own_file)}"
    try:
        with trio.fail_after(_SHOW):
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
        + _way_out(host, port, path, own_file=own_file)
    )


def _way_out(host: str, port: int, path: Path, *, own_file: bool) -> str:
    """Say how to have a new certificate trusted; if its file is ours as in msl-network, which users match."""
    if not own_file:
        return "Check that cert_file is the certificate of this Manager, or of the CA that signed it."
    return (
        f"If the file is for another Manager on {host}, keep it, and pass the certificate of this one as "
        "cert_file.\n"
        f"If you trust the connection to {host}:{port}, you can delete the certificate at\n  {path}\n"
        "and then re-connect to create a new trusted certificate."
    )
