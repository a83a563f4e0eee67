"""Passwords given directly or as the path of a file. Blocking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.hidden import Hidden, reveal


def joined(value: str | Sequence[str] | Hidden) -> str:
    """Return a password or path; several words are joined by spaces."""
    words = reveal(value)
    return words if isinstance(words, str) else " ".join(words)


def read_secret(value: str | Sequence[str] | Hidden, what: str, error: type[NetworkError]) -> str:
    """Return a password, which may be in a file.

    As in msl-network 1.0.0: if the value is the path of a file, the password is its first line without
    surrounding white space; otherwise the value itself.

    Args:
        value: The password or the path of its file; several words are joined by spaces.
        what: The description of the password for errors.
        error: The class of the errors.

    Raises:
        error: The file cannot be read, or the password is empty.
    """
    text = joined(value)
    # Not Path.is_file(), which raises an error for a password that is too long for a path.
    if not os.path.isfile(text):  # noqa: PTH113
        if not text:
            raise error(f"{what} is empty")
        return text
    try:
        # Editors on Windows may write a byte order mark, which is not part of the password.
        with Path(text).open(encoding="utf-8-sig") as file:
            secret = file.readline().strip()
    except OSError as reason:
        raise error(f"{what} cannot be read from the file {text} ({reason.strerror or reason})") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{what} cannot be read from the file {text}, which is not UTF-8") from reason
    if not secret:
        raise error(f"{what} is empty: the first line of the file {text} holds nothing")
    return secret
