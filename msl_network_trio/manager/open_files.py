"""The number of files, and so of connections, that this process may have open."""

from __future__ import annotations

import math
import sys

_WANTED = 65_536
"""How many a Manager that is a program of its own asks for, if the system lets it have so many."""


def open_files_limit() -> float:
    """Return how many files this process may have open; infinite if the system does not say."""
    if sys.platform == "win32":
        return math.inf  # sockets are no files there
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def raise_open_files_limit() -> None:
    """Allow this process as many open files as the system lets it have, within reason."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass  # a system with a lower limit that it does not tell, such as macOS
