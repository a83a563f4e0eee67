"""How passwords of users are kept.

As msl-network 1.0.0 keeps them, since its Manager has to be able to read the same database: PBKDF2 with
HMAC-SHA256, 100,000 iterations, 16 random bytes of salt. That is fewer iterations than is advised today.
They cannot be more: the database has no place for their number.
"""

from __future__ import annotations

import hashlib
import hmac
import os

_ITERATIONS = 100_000
_SALT_SIZE = 16
"""Bytes."""

_KEY_SIZE = 32
"""Bytes."""

_NOBODY = os.urandom(_SALT_SIZE)


def hash_password(password: str) -> tuple[bytes, bytes]:
    """Return the key and the salt to keep; takes a noticeable time."""
    salt = os.urandom(_SALT_SIZE)
    return _derive(password, salt), salt


def is_password(password: str, key: bytes | None, salt: bytes | None) -> bool:
    """Return whether a password is the one that key and salt were made of.

    It takes as long if there are none, since there is no such user.
    """
    derived = _derive(password, _NOBODY if salt is None else salt)
    return hmac.compare_digest(derived, key or b"")


def _derive(password: str, salt: bytes) -> bytes:
    # A lone surrogate cannot be a part of a password, but must not be an error either.
    return hashlib.pbkdf2_hmac(
        "sha256", password.encode("utf-8", "surrogatepass"), salt, _ITERATIONS, _KEY_SIZE
    )
