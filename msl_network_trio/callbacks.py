"""Callbacks: functions of the user that run in the background, and the tasks that run them.

Everything here runs in the Trio thread, except `report` and `in_callback`, which any thread may use.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import trio

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.logger import get_logger
from msl_network_trio.signals import pass_on_interrupt

logger = get_logger(__name__)

in_callback: ContextVar[bool] = ContextVar("in_callback", default=False)
"""Whether a notification handler or the callback of a Future runs, whose calls must not wait for handlers.

`trio.to_thread.run_sync` and new tasks inherit it.
"""


@trio.lowlevel.enable_ki_protection
async def call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], what: str
) -> None:
    """Call a plain or async function, and log an exception in it.

    Ctrl-C during the call is passed on to the main task, where a Trio program expects it.

    Args:
        function: The function.
        args: Positional arguments.
        kwargs: Keyword arguments.
        what: Description of the function, for the log.
    """
    try:
        result = unprotected(function, args, kwargs)
        if result is not None:
            await finish(result)
    except trio.Cancelled:
        raise
    except BaseException as error:  # noqa: BLE001 - it is logged
        report(error, function, what)


def report(error: BaseException, function: Callable[..., Any] | None, what: str) -> None:
    """Log an exception in a function, or pass Ctrl-C on to the main task; arguments as in `call`."""
    if is_interrupt(error):
        pass_on_interrupt()  # this task is protected, so it goes to the main task
    else:
        explain(error)
        logger.error("exception in %s %r", what, function, exc_info=error)


@trio.lowlevel.disable_ki_protection
def unprotected(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function that Ctrl-C may interrupt."""
    return function(*args, **kwargs)


@trio.lowlevel.disable_ki_protection
async def finish(result: object) -> None:
    """Await the result of a function if it is awaitable; Ctrl-C may interrupt it."""
    if inspect.isawaitable(result):
        await result


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception is a Ctrl-C, or a group that contains one."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


class CallbackTasks:
    """Tasks that run callbacks. They are shielded from cancellation: only `cancel` ends them.

    Attributes:
        nursery: Nursery of the tasks, to be set by the task that opens it; None: no task can be started.
    """

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        self._scopes: dict[trio.lowlevel.Task, trio.CancelScope] = {}
        self._ended = False

    def start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start a task that `cancel` ends."""
        assert self.nursery is not None
        self.nursery.start_soon(self._run, function)

    def start_final(self, function: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Start a task that has a timeout in seconds and that `cancel` does not end."""
        if self.nursery is not None:
            self.nursery.start_soon(self._run_final, function, seconds)

    def cancel(self, *, but: trio.lowlevel.Task | None = None) -> None:
        """Cancel all tasks, and start no more.

        Args:
            but: A task that is not cancelled, because it is the caller.
        """
        self._ended = True
        for task, scope in self._scopes.items():
            if task is not but:
                scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, function: Callable[[], Awaitable[None]]) -> None:
        task = trio.lowlevel.current_task()
        with trio.CancelScope(shield=True) as scope:
            if self._ended:
                return
            self._scopes[task] = scope
            try:
                await function()
            finally:
                del self._scopes[task]

    @trio.lowlevel.enable_ki_protection
    async def _run_final(self, function: Callable[[], Awaitable[None]], seconds: float) -> None:
        with trio.move_on_after(seconds, shield=True):
            await function()
