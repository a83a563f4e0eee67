"""Keys and certificates made on request, by the commands keygen and certgen. Blocking."""

from __future__ import annotations

import os
from pathlib import Path

from msl_network_trio.atomic_files import PRIVATE, PUBLIC, replace, user_path
from msl_network_trio.constants import key_folder
from msl_network_trio.dialing.trust import certificate_file
from msl_network_trio.exceptions import CertificateError
from msl_network_trio.manager.certificates import DEFAULT_HOST
from msl_network_trio.manager.self_signed import KeyNotUsable, make_certificate, make_key


def default_key_file() -> Path:
    """Return the path of the private key of this computer's Manager."""
    return key_folder() / f"{DEFAULT_HOST}.key"


def generate_key(
    path: str | os.PathLike[str] | None, *, algorithm: str, password: str | None, size: int, curve: str
) -> Path:
    """Make a private key; an existing file is replaced.

    Args:
        path: The file; None: the default one.
        algorithm: See `make_key`, as for the others.
        password: The password that encrypts it; None: it is not encrypted.
        size: Bits.
        curve: The elliptic curve.

    Returns:
        The file.

    Raises:
        CertificateError: The size or curve is not supported.
        OSError: The file cannot be written.
    """
    file = default_key_file() if path is None else user_path(path)
    try:
        pem = make_key(password, algorithm=algorithm, size=size, curve=curve)
    except KeyNotUsable as error:
        raise CertificateError(f"The private key cannot be made: {error}") from error
    replace(file, pem, mode=PRIVATE)
    return file


def generate_certificate(
    path: str | os.PathLike[str] | None,
    *,
    key_file: str | os.PathLike[str] | None,
    key_file_password: str | None,
    algorithm: str,
    years: float,
) -> Path:
    """Make a self-signed certificate; an existing file is replaced.

    Args:
        path: The file; None: the default one.
        key_file: The private key; None: the default one, which is made if it does not exist.
        key_file_password: The password of the key; None: it is not encrypted.
        algorithm: See `make_certificate`.
        years: Validity in years.

    Returns:
        The file.

    Raises:
        CertificateError: The key cannot be used, or another argument is not supported.
        OSError: A file cannot be read or written.
    """
    file = certificate_file(DEFAULT_HOST) if path is None else user_path(path)
    key = default_key_file() if key_file is None else user_path(key_file)
    if key_file is None and not key.exists():
        replace(key, make_key(key_file_password), mode=PRIVATE)
    try:
        pem = make_certificate(key.read_bytes(), key_file_password, None, algorithm=algorithm, years=years)
    except KeyNotUsable as error:
        raise CertificateError(f"No certificate can be made for the private key {key}: {error}") from error
    replace(file, pem, mode=PUBLIC)
    return file
