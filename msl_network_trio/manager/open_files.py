"""The number of files, and so of connections, that this process may have open."""

from __future__ import annotations

import math
import sys

_WANTED = 65_536
"""Open files that the Manager's command asks for, up to the hard limit of the system."""


def open_files_limit() -> float:
    """Return the maximum number of open files of this process; infinite if the system does not tell."""
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
