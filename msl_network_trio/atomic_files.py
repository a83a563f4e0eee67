"""Atomic file writes: a file is complete or absent however the program ends, and private from its first byte.

All files of this package except logs and the database are written here: under a temporary name in the same
folder, then synchronized to the disk and renamed. Readers see the old or the new file at any moment. The
functions block and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Generator
from pathlib import Path

PRIVATE = 0o600
"""Mode of a file that only its owner may access.

Windows has no such modes; there the permissions of the user's profile folder apply.
"""

PUBLIC = 0o666
"""Mode of a file that all users may read, subject to the umask."""

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""Error numbers of file systems without hard links."""

_NO_FSYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""Error numbers of file systems without fsync, such as some network and FUSE file systems."""

_IN_USE = 0.05, 20
"""Seconds between attempts to replace a file that is open (Windows refuses it), and their maximum number."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path given by the user, with ``~`` expanded to the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises an error if there is none


def write_new(path: Path, data: bytes, *, mode: int) -> bool:
    """Write a file unless it exists.

    Args:
        path: Path of the file. Missing folders are created; those of a `PRIVATE` file are private.
        data: Content.
        mode: `PRIVATE` or `PUBLIC`.

    Returns:
        Whether the file was written. False: it exists, or another process has just created it.

    Raises:
        OSError: The file cannot be written.
    """
    with _temporary(path, data, mode) as temporary:
        try:
            if sys.platform == "win32":
                temporary.rename(path)  # fails if the file exists, unlike on POSIX
            else:
                os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # If two processes get here at the same time, the second one wins, with a complete file.
            if os.path.lexists(path):
                return False
            temporary.replace(path)
    return True


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file, replacing an existing one atomically.

    A symbolic link stays a link, and an existing file keeps its mode unless the new mode is `PRIVATE`.
    Devices, such as a terminal or a pipe, are written to directly.

    Args:
        path: Path of the file. Missing folders are created.
        data: Content.
        mode: `PRIVATE` or `PUBLIC`.

    Raises:
        OSError: The file cannot be written.
    """
    kept = None
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            path.write_bytes(data)
            return
        kept = stat.S_IMODE(status.st_mode) if mode == PUBLIC else None
    path = Path(os.path.realpath(path))
    with _temporary(path, data, mode) as temporary:
        if kept is not None:
            temporary.chmod(kept)
        _move(temporary, path)


def _move(temporary: Path, path: Path) -> None:
    """Rename a temporary file, replacing an existing file."""
    seconds, times = _IN_USE
    for _ in range(times if sys.platform == "win32" else 0):
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Generator[Path]:
    """Write a temporary file in the folder of `path`, and remove it at the end unless it was renamed."""
    path.parent.mkdir(mode=0o700 if mode == PRIVATE else 0o777, parents=True, exist_ok=True)
    # A short name of its own, since the name of `path` may have the maximum length already.
    temporary = path.with_name(f".msl-{os.urandom(8).hex()}.tmp")
    # The mode must apply before the first byte is written.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            # Without fsync, a power cut after the rename can leave an empty file.
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in _NO_FSYNC:
                    raise
        yield temporary
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # the name of the temporary file would mislead
        raise
    finally:
        temporary.unlink(missing_ok=True)
