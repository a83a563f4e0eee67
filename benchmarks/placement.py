"""Placement of processes on CPUs."""

from __future__ import annotations

import os
from typing import Final

import psutil

ALLOWED: Final[frozenset[int]] = frozenset(
    psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else ()
)
"""CPUs that this process may use; empty where that cannot be chosen, as on macOS."""


def one_cpu() -> int | None:
    """Return the CPU for processes that share one; None if that cannot be chosen here."""
    return min(ALLOWED, default=None)


def pin(pid: int, cpu: int | None) -> None:
    """Run a process with all its threads on one CPU; None: on any CPU that this process may use.

    Threads that are started later inherit the setting.
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
            pass  # the process or thread has just ended
