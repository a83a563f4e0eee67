"""On which CPUs processes run."""

from __future__ import annotations

import os
from typing import Final

import psutil

ALLOWED: Final[frozenset[int]] = frozenset(
    psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else ()
)
"""The CPUs that this process may run on; none where that cannot be chosen, as on macOS."""


def one_cpu() -> int | None:
    """Return the CPU for what is to share one; None if that cannot be chosen here."""
    return min(ALLOWED, default=None)


def pin(pid: int, cpu: int | None) -> None:
    """Run a process, all its threads, on this CPU, or on any that we may use.

    Threads that are started later inherit it.
    """
    if not ALLOWED:
        return
    cpus = ALLOWED if cpu is None else {cpu}
    process = psutil.Process(pid)
    if not hasattr(os, "sched_setaffinity"):
        process.cpu_affinity(list(cpus))
        return
    for thread in process.threads():
        try:
            os.sched_setaffinity(thread.id, cpus)
        except ProcessLookupError:
            pass  # it has just ended
