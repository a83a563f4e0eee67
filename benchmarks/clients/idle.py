"""Memory and threads of a process per connection."""

from __future__ import annotations

import gc

import psutil


class Footprint:
    """Memory and threads of a process, since this object was created.

    Args:
        pid: Process id; None: this process.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._bytes, self._threads = self._now()

    def _now(self) -> tuple[int, int]:
        gc.collect()
        return self._process.memory_info().rss, self._process.num_threads()

    def grown(self, count: int) -> dict[str, float]:
        """Return the growth per connection in bytes and threads, for a number of connections."""
        memory, threads = self._now()
        # At least one byte, so that a ratio can be computed.
        return {
            "bytes": max(1, memory - self._bytes) / count,
            "threads": (threads - self._threads) / count,
        }


def opened_first(calls: int) -> int:
    """Return the number of connections that are opened first, so that one-time costs are excluded."""
    return max(2, calls // 10)
