"""Writing files that other processes may be about to write too, and that not everybody may read."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Generator
from pathlib import Path

PRIVATE = 0o600
"""For the file's owner only.

Windows has no such modes; there the user's profile folder is what keeps others out.
"""

PUBLIC = 0o666
"""For everybody, as far as the user's umask allows."""

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


def write_new(path: Path, data: bytes, *, mode: int) -> bool:
    """Write a file that does not exist yet; it is complete as soon as it is there.

    Args:
        path: The file; folders that are missing are made, for their owner only if the file is.
        data: What it shall contain.
        mode: `PRIVATE` or `PUBLIC`.

    Returns:
        Whether it was written. False: it exists, perhaps since another process was faster.

    Raises:
        OSError: It cannot be written.
    """
    with _temporary(path, data, mode) as temporary:
        try:
            if sys.platform == "win32":
                temporary.rename(path)  # which, other than on POSIX, fails if there is such a file
            else:
                os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return _create(path, data, mode)
    return True


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that may exist; others see the old one or the new one, and nothing between.

    Args:
        path: The file; folders that are missing are made.
        data: What it shall contain.
        mode: `PRIVATE` or `PUBLIC`.

    Raises:
        OSError: It cannot be written.
    """
    with _temporary(path, data, mode) as temporary:
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Generator[Path]:
    """Write a file next to another one, which is gone in the end if it was not moved."""
    path.parent.mkdir(mode=0o700 if mode == PRIVATE else 0o777, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _create(temporary, data, mode)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _create(path: Path, data: bytes, mode: int) -> bool:
    """Write a file step by step, with its mode from the first moment on; False: it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        # After a power cut there must not be a file of the right name with nothing in it.
        os.fsync(file.fileno())
    return True
