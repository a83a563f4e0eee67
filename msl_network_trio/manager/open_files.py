"""The limit on open files, and thereby on connections, of this process."""

from __future__ import annotations

import math
import sys

_WANTED = 65_536
"""Open files that the Manager's command requests, within the hard limit."""


def open_files_limit() -> float:
    """Return the maximum open files of this process; infinite if there is no limit."""
    if sys.platform == "win32":
        return math.inf  # sockets are not files on Windows
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def raise_open_files_limit() -> None:
    """Raise the limit to 65,536 open files, or to the hard limit if that is lower."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass  # macOS has a lower limit that it does not report
