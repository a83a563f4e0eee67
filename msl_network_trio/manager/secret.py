"""Passwords that are given as they are, or as the path of a file which holds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msl_network_trio.exceptions import NetworkError
from msl_network_trio.hidden import Hidden, reveal


def joined(value: str | Sequence[str] | Hidden) -> str:
    """Return a password, or the path of its file, that may have been given as several words."""
    words = reveal(value)
    return words if isinstance(words, str) else " ".join(words)


def read_secret(value: str | Sequence[str] | Hidden, what: str, error: type[NetworkError]) -> str:
    """Return a password.

    The rule is that of msl-network 1.0.0: if a file has the name that was given, its first line is the
    password, without the white space around it; else what was given is the password itself.

    Args:
        value: The password or the path of its file; several words are joined by spaces.
        what: What the password is for, as errors shall call it.
        error: The class of the errors.

    Raises:
        error: The file cannot be read, or there is no password.
    """
    text = joined(value)
    # Not Path.is_file(): it raises for a password that is too long to be the name of a file.
    if not os.path.isfile(text):  # noqa: PTH113
        if not text:
            raise error(f"{what} is empty")
        return text
    try:
        # Editors on Windows may put a byte order mark at the beginning, which is not part of the password.
        with Path(text).open(encoding="utf-8-sig") as file:
            secret = file.readline().strip()
    except OSError as reason:
        raise error(f"{what} cannot be read from the file {text} ({reason.strerror or reason})") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{what} cannot be read from the file {text}, which is not UTF-8") from reason
    if not secret:
        raise error(f"{what} is empty: the first line of the file {text} holds nothing")
    return secret
