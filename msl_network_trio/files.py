"""Atomic file writes: a file is complete or absent however the program ends, and private from its first byte.

Everything that is kept is written here: first under another name in the same folder, and renamed when it is
on the disk. At any moment, for any reader, there is the old file or the new one.
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
"""For the file's owner only.

Windows has no such modes; there the user's profile folder is what keeps others out.
"""

PUBLIC = 0o666
"""Readable by all users, as far as the umask allows."""

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})

_NO_FSYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""What file systems say that cannot do it, of which some are on a network, or made by a program."""

_IN_USE = 0.05, 20
"""Seconds between attempts, and their number, to replace a file that is open: Windows refuses that."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user has given, in which ``~`` is the home folder, as it is in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises an error if there is none


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
            # Of two processes that come here in the same moment the second one wins, with a whole file.
            if os.path.lexists(path):
                return False
            temporary.replace(path)
    return True


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that may exist; others see the old one or the new one, and nothing between.

    A link stays a link, and a file that is not `PRIVATE` keeps the mode that it has. What is no file, like a
    terminal or a pipe, is just written to.

    Args:
        path: The file; folders that are missing are made.
        data: What it shall contain.
        mode: `PRIVATE` or `PUBLIC`.

    Raises:
        OSError: It cannot be written.
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
    """Give a file its name, which may be that of another one."""
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
    """Write a file next to another one, which is gone in the end if it was not moved."""
    path.parent.mkdir(mode=0o700 if mode == PRIVATE else 0o777, parents=True, exist_ok=True)
    # Short, since the name of the other one may be as long as a name can be.
    temporary = path.with_name(f".msl-{os.urandom(8).hex()}.tmp")
    # With its mode from the first moment on.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            # After a power cut there must not be a file of the right name with nothing in it.
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in _NO_FSYNC:
                    raise
        yield temporary
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # others need not know of the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)
