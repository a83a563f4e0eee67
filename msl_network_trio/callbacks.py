"""Calling functions of the user in the background, where nobody waits for them, and the tasks to do it in."""

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
"""Whether a notification handler, or the callback of a Future, runs: its calls must not wait for handlers.

`trio.to_thread.run_sync` and new tasks inherit it.
"""


@trio.lowlevel.enable_ki_protection
async def call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], what: str
) -> None:
    """Call a plain or async function; an exception in it is logged and ends nothing.

    Ctrl-C in the midst of it reaches the main task, which is where a Trio program expects it.

    Args:
        function: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        what: What the function is, for the log.
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
    """Log what a function has raised; Ctrl-C goes to the main task. Arguments as in `call`."""
    if is_interrupt(error):
        pass_on_interrupt()  # we are protected, so it goes to the main task
    else:
        explain(error)
        logger.error("exception in %s %r", what, function, exc_info=error)


@trio.lowlevel.disable_ki_protection
def unprotected(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function, in which Ctrl-C may interrupt."""
    return function(*args, **kwargs)


@trio.lowlevel.disable_ki_protection
async def finish(result: object) -> None:
    """Await what a function has returned, if it is to be awaited; Ctrl-C may interrupt it."""
    if inspect.isawaitable(result):
        await result


def is_interrupt(error: BaseException) -> bool:
    """Whether it is a Ctrl-C, alone or among others."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


class CallbackTasks:
    """The tasks of a connection that run code of the user.

    They are shielded, as the connection is, from whoever is cancelled: there is one way to end them.

    Attributes:
        nursery: Where the tasks run, to be set by who opens it; None: nothing can be started.
    """

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        self._scopes: dict[trio.lowlevel.Task, trio.CancelScope] = {}
        self._ended = False

    def start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start a task, which `cancel` ends."""
        assert self.nursery is not None
        self.nursery.start_soon(self._run, function)

    def start_last(self, function: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Start a task that has this many seconds, and that nothing else ends."""
        if self.nursery is not None:
            self.nursery.start_soon(self._run_last, function, seconds)

    def cancel(self, *, but: trio.lowlevel.Task | None = None) -> None:
        """Cancel all tasks, and start no more.

        Args:
            but: A task that is not cancelled, since it is the one that calls.
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
    async def _run_last(self, function: Callable[[], Awaitable[None]], seconds: float) -> None:
        with trio.move_on_after(seconds, shield=True):
            await function()
