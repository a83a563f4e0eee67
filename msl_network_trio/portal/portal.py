"""Portal: calls from threads into one Trio run; may be used from any thread, without a lock."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import trio

from msl_network_trio.exceptions import ConnectionLost, NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.portal import process
from msl_network_trio.portal.loop_call import LoopCall, run_has_ended
from msl_network_trio.portal.process import park_at_exit
from msl_network_trio.portal.waiting import check_may_wait

logger = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_here: trio.lowlevel.RunVar[Portal] = trio.lowlevel.RunVar("portal")


class Portal:
    """Calls functions in one Trio run, from other threads.

    Args:
        token: Token of the Trio run.

    Attributes:
        thread_id: Identifier of the Trio thread.
    """

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._process = process.this
        self.thread_id = threading.get_ident()
        process.hook_forks()

    @classmethod
    def here(cls) -> Portal:
        """Return the portal of the current Trio run."""
        try:
            return _here.get()
        except LookupError:
            portal = cls(trio.lowlevel.current_trio_token())
            _here.set(portal)
            return portal

    @property
    def is_inherited(self) -> bool:
        """Whether the Trio run belongs to the parent of this forked process."""
        return self._process is not process.this

    def check_own(self) -> None:
        """Check that the Trio run belongs to this process.

        Raises:
            ConnectionLost: It belongs to the parent of this forked process.
        """
        if self._process is not process.this:
            raise ConnectionLost("The connection belongs to the parent of this forked process")

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Schedule a call of a plain function in the Trio thread. An exception in it is logged.

        Raises:
            ConnectionLost: The Trio run has ended.
        """
        self.check_own()
        try:
            self._token.run_sync_soon(_call, function, *args)
        except trio.RunFinishedError:
            park_at_exit()
            raise run_has_ended() from None

    def call(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call an async function in the Trio thread, and return its result.

        From a worker thread of the same Trio run, the task that waits for the thread calls it, and its
        cancellation cancels the function; from other threads a task of its own does.

        Raises:
            RuntimeError: This is a Trio thread.
            KeyboardInterrupt: Ctrl-C was pressed. The function was cancelled.
            trio.Cancelled: The task that waits for this worker thread was cancelled, and so was the function.
            ConnectionLost: The Trio run has ended.
        """
        return self.open(function, None, *args, **kwargs)

    def open(
        self,
        function: Callable[P, Awaitable[R]],
        close: Callable[[R], Awaitable[object]] | None,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call an async function that opens something; see `call`.

        Args:
            function: The function.
            close: Closes what the function has opened, if the thread was interrupted and cannot get it any
                more. It must not raise.
            args: Positional arguments of the function.
            kwargs: Keyword arguments of the function.
        """
        check_may_wait(getattr(function, "__qualname__", repr(function)))
        call = partial(function, *args, **kwargs)
        return trio.from_thread.run(call) if self._is_home() else LoopCall(self, call, close).run()

    def end(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call an async function that ends something; see `call`.

        If an exception interrupts this thread, the function is called in the background.

        Args:
            function: The function. A second call must have no effect.
        """
        try:
            self.call(function)
        except BaseException:
            try:
                self.post(_start, function)
            except ConnectionLost:
                pass  # with the Trio run everything has ended
            raise

    def do(self, function: Callable[[], object]) -> None:
        """Call a plain function in the Trio thread, which may be the calling one; see `call`."""
        if threading.get_ident() == self.thread_id:
            function()
            return

        async def call() -> None:
            function()

        self.call(call)

    def _is_home(self) -> bool:
        """Return whether this is a worker thread of this portal's Trio run."""
        try:
            return trio.from_thread.run_sync(trio.lowlevel.current_trio_token) is self._token
        except RuntimeError:
            return False


def _start(function: Callable[[], Awaitable[object]]) -> None:
    try:
        trio.lowlevel.spawn_system_task(_run_quietly, function)
    except RuntimeError:
        pass  # the Trio run is ending, and with it everything


async def _run_quietly(function: Callable[[], Awaitable[object]]) -> None:
    try:
        await function()
    except NetworkError as error:
        logger.debug("%r failed: %s", function, error)


def _call(function: Callable[..., object], *args: Any) -> None:
    """Call a function, and log an exception, which would end the Trio run and with it all connections."""
    try:
        function(*args)
    except Exception:
        logger.exception("%r failed", function)
