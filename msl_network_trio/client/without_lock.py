"""Stand-in for the requests to a Service whose lock was lost: it refuses them all.

It takes the place of `TaskRequests` in tasks and of `Calls` in threads. It has no state, and may be
used in any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import trio

from msl_network_trio.exceptions import LockLost


class WithoutLock:
    """Refuses the requests to a Service whose lock was lost.

    Otherwise a program that catches the loss, and goes on, would use the Service without the lock that it
    believes to hold.

    Args:
        error: Makes the error to raise.

    Attributes:
        error: See above.
    """

    __slots__ = ("error", "in_threads")

    def __init__(self, error: Callable[[], LockLost]) -> None:
        self.error = error
        self.in_threads = WithoutLockInThreads(error)
        """The same for requests of threads."""

    async def request(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse a request; see `RequestRoute.request`.

        Raises:
            LockLost: Always.
        """
        # A loop that retries must not starve other tasks.
        await trio.lowlevel.checkpoint()
        raise self.error()

    def start(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse a request; see `RequestRoute.start`.

        Raises:
            LockLost: Always.
        """
        raise self.error()


class WithoutLockInThreads:
    """The same as `WithoutLock`, for requests of threads.

    Args:
        error: Makes the error to raise.
    """

    __slots__ = ("_error",)

    def __init__(self, error: Callable[[], LockLost]) -> None:
        self._error = error

    def request(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse a request; see `RequestRoute.request`.

        Raises:
            LockLost: Always.
        """
        raise self._error()

    start = request
