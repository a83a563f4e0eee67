"""The private key and the certificate of a Manager: loading, making and checking their files.

Folder, file names and rules are those of msl-network 1.0.0, so that a Manager of either package uses the
files of the other. All functions are blocking, and run in worker threads without a lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import ssl
import sys
import time
from pathlib import Path

import attrs

from msl_network_trio.atomic_files import PRIVATE, PUBLIC, replace, user_path, write_new
from msl_network_trio.constants import certificate_folder, home_folder, key_folder
from msl_network_trio.dialing.trust import certificate_file, client_context
from msl_network_trio.exceptions import CertificateError
from msl_network_trio.hidden import Hidden, hide, reveal
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.secret import read_secret

logger = get_logger(__name__)

_EXPIRY_WARNING = 30 * 24 * 3600.0
"""Seconds before the expiry of a certificate from which a warning is logged."""

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` does not name."""

_HANDSHAKE_STEPS = 10
"""Steps of each end that complete a TLS handshake; more than its flights."""

_KEY_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's reasons for a key that is not that of the certificate; the last one for another kind of key."""

DEFAULT_HOST = "localhost"
"""The host name in the file names of a Manager that listens at all addresses."""

_CERTIFICATE = re.compile(r"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")


def server_context(
    *,
    host: str | None = None,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    key_file_password: str | Hidden | None = None,
) -> tuple[ssl.SSLContext, Path]:
    """Return a server context for TLS; make key and certificate if there are none.

    Blocking: making a key is slow, and the home folder may be on a network drive.

    Args:
        host: The host name or address at which the Manager listens; None: all addresses. It determines the
            default files, ``keys/{host}.key`` and ``certs/{host}.crt`` in the home folder, with ``localhost``
            for None.
        cert_file: A file with the certificate in PEM; without `key_file` also with the private key.
        key_file: A file with the private key in PEM. Without `cert_file`, the default certificate
            ``certs/localhost.crt`` is replaced unless it is for this key already.
        key_file_password: The password of the key, or the path of a file with the password in its first line.
            Also encrypts a new key.

    Returns:
        The context and the file of the certificate.

    Raises:
        CertificateError: A file cannot be read or written, the password is wrong or missing, or the key is
            not that of the certificate.
    """
    password = None
    if key_file_password is not None:
        # Hidden in tracebacks that show the values of variables, as in crash reports.
        key_file_password = hide(key_file_password)
        password = hide(read_secret(key_file_password, "The password of the private key", CertificateError))
    if cert_file is not None:
        certificate = user_path(cert_file)
        key = certificate if key_file is None else user_path(key_file)
        remedy = "Pass the key_file that the certificate was made for."
    elif key_file is not None:
        certificate, key = certificate_file(DEFAULT_HOST), user_path(key_file)
        _renew_certificate(certificate, key, password, host)
        remedy = "Perhaps another Manager was started at the same moment; start this one again."
    else:
        certificate = certificate_file(host or DEFAULT_HOST)
        key = key_folder() / certificate.with_suffix(".key").name
        _make_missing_files(certificate, key, password, host)
        remedy = (
            "Pass the key_file that the certificate was made for, or delete the certificate: "
            "it is then made anew for this key, and clients have to trust the new one."
        )
    context = _load(certificate, key, password, remedy)
    _warn_of_readers(key)
    _warn_of_refusal(context, certificate)
    logger.info("loaded certificate %s", certificate)
    return context, certificate


def _make_missing_files(certificate: Path, key: Path, password: Hidden | None, host: str | None) -> None:
    """Make the default key and its certificate if they do not exist.

    Existing files are never replaced, and the key is written first: two Managers that start at the same time
    use the same key and a certificate for it.
    """
    # The certificate is checked first: as it is written last, an existing one has its key.
    has_certificate = certificate.exists()
    if not key.exists():
        if has_certificate:
            raise CertificateError(
                f"There is a certificate, {certificate}, but not the private key for it, {key}. "
                "Perhaps a client has saved it, of a Manager with another home folder. Delete the "
                "certificate to have both made, or pass cert_file and key_file."
            )
        from msl_network_trio.manager.self_signed import make_key

        if _write_new(key, make_key(reveal(password)), PRIVATE):
            logger.info("made the private key %s", key)
    if not has_certificate and _write_new(certificate, _make_certificate(key, password, host), PUBLIC):
        logger.info("made the certificate %s", certificate)


def _renew_certificate(certificate: Path, key: Path, password: Hidden | None, host: str | None) -> None:
    """Make a certificate for a key, unless it has a valid one, which clients may trust already."""
    if certificate.exists():
        try:
            context = _load(certificate, key, password, "")
        except CertificateError as error:
            if getattr(error.__cause__, "reason", None) not in _KEY_MISMATCH:
                raise
            why = "was for another key"
        else:
            why = refusal(context, certificate)
            if not why:
                return
        logger.warning(
            "the certificate %s is replaced (%s): clients have to trust the new one", certificate, why
        )
    pem = _make_certificate(key, password, host)
    try:
        replace(certificate, pem, mode=PUBLIC)
    except OSError as error:
        raise _cannot_write(certificate, error) from error
    logger.info("made the certificate %s", certificate)


def _make_certificate(key: Path, password: Hidden | None, host: str | None) -> bytes:
    pem = _read(key, "private key").encode("ascii")
    from msl_network_trio.manager.self_signed import KeyNotUsable, make_certificate

    try:
        return make_certificate(pem, reveal(password), host)
    except KeyNotUsable as error:
        remedy = "" if b"ENCRYPTED" in pem else _replacement_hint(key)
        raise CertificateError(f"The private key {key} cannot be used: {error}{remedy}") from error


def _load(certificate: Path, key: Path, password: Hidden | None, remedy: str) -> ssl.SSLContext:
    """Return a server context with a certificate and its key.

    Args:
        certificate: The file of the certificate.
        key: The file of the key.
        password: The password of the key; None: none.
        remedy: The text about what to do if the key is not that of the certificate.

    Raises:
        CertificateError: They cannot be used.
    """
    certificate_pem = _read(certificate, "certificate")
    key_pem = _read(key, "private key")
    encrypted = False

    def answer() -> str:
        # Without an answer, OpenSSL would prompt on the terminal.
        nonlocal encrypted
        encrypted = True
        if password is None:
            raise CertificateError(
                f"The private key {key} is encrypted. Pass key_file_password: the password, or the path "
                "of a file that holds it."
            )
        return str(password.reveal())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=answer)
    except CertificateError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason in _KEY_MISMATCH:
            text = f"The private key {key} does not fit the certificate {certificate}. {remedy}"
        elif not _CERTIFICATE.search(certificate_pem):
            hint = _replacement_hint(certificate)
            text = f"There is no certificate in {certificate}, which must be in PEM{hint}"
        elif not _PRIVATE_KEY.search(key_pem):
            text = f"There is no private key in {key}, which must be in PEM{_replacement_hint(key)}"
            if key == certificate:
                text += ". Pass the key's own file as key_file."
        elif encrypted:
            text = f"The password of the private key {key} is wrong"
        else:
            text = (
                f"The certificate {certificate} with the private key {key} cannot be used: {reason}"
                f"{_replacement_hint(certificate)}"
            )
        raise CertificateError(text) from error
    if password is not None and not encrypted:
        logger.warning("the private key %s is not encrypted, so its password is of no use", key)
    return context


def _replacement_hint(path: Path) -> str:
    """Return the remedy for a damaged file in the home folder; empty for other files."""
    if home_folder() not in path.parents:
        return ""
    key = key_folder() / path.with_suffix(".key").name
    certificate = certificate_folder() / path.with_suffix(".crt").name
    return f". Delete {certificate} and {key} to have both made anew; clients have to trust the new one."


def _read(path: Path, what: str) -> str:
    try:
        # Characters that are not ASCII, for example in a comment, are removed, since `ssl` rejects them.
        return path.read_text(encoding="ascii", errors="ignore")
    except FileNotFoundError as error:
        raise CertificateError(f"The file of the {what} does not exist: {path}") from error
    except OSError as error:
        raise CertificateError(
            f"The file of the {what} cannot be read: {path} ({error.strerror or error})"
        ) from error


def _write_new(path: Path, data: bytes, mode: int) -> bool:
    try:
        return write_new(path, data, mode=mode)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> CertificateError:
    return CertificateError(
        f"The file {path} cannot be written ({error.strerror or error}). "
        "Set MSL_NETWORK_HOME to a folder that can, or pass cert_file and key_file."
    )


def _warn_of_readers(key: Path) -> None:
    """Warn if other users may read the key. On Windows, the rights of the profile folder protect it."""
    if sys.platform != "win32" and key.stat().st_mode & 0o077:
        logger.warning(
            "other users of this computer may read the private key %s. To change that: chmod 600 %s",
            key,
            shlex.quote(str(key)),
        )


def _warn_of_refusal(context: ssl.SSLContext, certificate: Path) -> None:
    reason = refusal(context, certificate)
    if reason:
        logger.warning(
            "clients will not accept the certificate %s: %s. Replace it (one in the home folder is made anew "
            "after it was deleted); clients have to trust the new one.",
            certificate,
            reason,
        )


def refusal(context: ssl.SSLContext, path: Path) -> str:
    """Return the reason why a client that trusts the certificate rejects it; empty if it does not.

    Logs a warning if the certificate expires soon.
    """
    try:
        presented = _present(context, path)
    except (ssl.SSLError, ValueError) as error:
        return getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    if presented.expires - time.time() < _EXPIRY_WARNING:
        logger.warning("the certificate %s expires on %s", path, presented.expires_on)
    return ""


@attrs.frozen
class PresentedCertificate:
    """The certificate that clients receive."""

    der: bytes = attrs.field(repr=False)

    expires_on: str
    """The end of validity in OpenSSL's format."""

    @property
    def expires(self) -> float:
        """The end of validity in seconds since the epoch, as `time.time`."""
        return float(ssl.cert_time_to_seconds(self.expires_on))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint, pairs of hexadecimal digits between colons."""
        return hashlib.sha256(self.der).digest().hex(":")


def presented_certificate(context: ssl.SSLContext, path: Path) -> PresentedCertificate | None:
    """Return the certificate that clients receive, also if it is not valid at this time.

    Args:
        context: The server context.
        path: The file of the certificate.

    Returns:
        None if clients would not accept it for another reason.
    """
    try:
        return _present(context, path, _NO_CHECK_TIME)
    except (ssl.SSLError, ValueError):
        return None


def _present(context: ssl.SSLContext, path: Path, flags: int = 0) -> PresentedCertificate:
    """Return the certificate that a client receives which trusts it, by a handshake in memory.

    The handshake verifies it as a client would, without a library that parses certificates.

    Raises:
        ssl.SSLError, ValueError: The client does not accept it.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = client_context(_read(path, "certificate"), check_hostname=False)
    trust.verify_flags |= flags
    client = trust.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_HANDSHAKE_STEPS):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass  # the other end continues
    told, der = client.getpeercert(), client.getpeercert(binary_form=True)
    assert told is not None  # a server has one
    assert der is not None
    return PresentedCertificate(der, str(told["notAfter"]))
