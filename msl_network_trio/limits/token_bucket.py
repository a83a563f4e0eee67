"""Token bucket: a rate limit that allows bursts. Pure state; the caller passes the time."""

from __future__ import annotations


class TokenBucket:
    """A rate limit that allows bursts.

    Args:
        burst: Maximum number of events at once.
        per_second: Maximum number of events per second in the long run.
        now: The time in seconds, at which the bucket is full.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_when")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._when = now

    def take(self, now: float) -> bool:
        """Take one token, and return whether there was one."""
        self._left = min(self._burst, self._left + (now - self._when) * self._per_second)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
