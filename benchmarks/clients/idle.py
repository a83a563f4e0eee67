"""What a process holds for each of its connections."""

from __future__ import annotations

import gc

import psutil


class Holdings:
    """Memory and threads of a process, from when this is made.

    Args:
        pid: The process; None: this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._bytes, self._threads = self._now()

    def _now(self) -> tuple[int, int]:
        gc.collect()
        return self._process.memory_info().rss, self._process.num_threads()

    def grown(self, count: int) -> dict[str, float]:
        """Return by how many bytes and threads it has grown for each of so many."""
        memory, threads = self._now()
        # At least a byte, so that there is a ratio.
        return {
            "bytes": max(1, memory - self._bytes) / count,
            "threads": (threads - self._threads) / count,
        }


def opened_first(calls: int) -> int:
    """Return how many connections are opened before, so that what only the first ones need does not count."""
    return max(2, calls // 10)
