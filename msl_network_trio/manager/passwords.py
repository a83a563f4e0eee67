"""Hashes of the passwords of users. Blocking and slow on purpose; called in worker threads.

The format is that of msl-network 1.0.0, which reads the same database: PBKDF2 with HMAC-SHA256, 100,000
iterations, 16 random bytes of salt. Today more iterations are recommended, but the database has no column for
their number.
"""

from __future__ import annotations

import hashlib
import hmac
import os

_ITERATIONS = 100_000
_SALT_SIZE = 16
"""Bytes of the salt."""

_KEY_SIZE = 32
"""Bytes of the hash."""

_DUMMY_SALT = os.urandom(_SALT_SIZE)
"""The salt for users that do not exist."""


def hash_password(password: str) -> tuple[bytes, bytes]:
    """Return the hash of a password and its new salt."""
    salt = os.urandom(_SALT_SIZE)
    return _derive(password, salt), salt


def is_password(password: str, key: bytes | None, salt: bytes | None) -> bool:
    """Return whether a password matches a hash and its salt.

    Takes as long without them, for users that do not exist: the time must not reveal which users there are.
    """
    derived = _derive(password, _DUMMY_SALT if salt is None else salt)
    return hmac.compare_digest(derived, key or b"")


def _derive(password: str, salt: bytes) -> bytes:
    # Lone surrogates, which no stored password contains, must not raise an error.
    return hashlib.pbkdf2_hmac(
        "sha256", password.encode("utf-8", "surrogatepass"), salt, _ITERATIONS, _KEY_SIZE
    )
