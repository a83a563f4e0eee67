"""Handlers of the blocking API, each called in a thread of its own, so that it may block."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs

from msl_network_trio.callbacks import in_callback
from msl_network_trio.client.notifications import BatchHandler, HandlerRunner, gap_handler
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.portal.job_thread import JobThread


class ThreadHandler(BatchHandler):
    """An async function that calls a plain one in a background thread.

    It is always the same thread, since a handler may keep objects that work only in the thread that made
    them. The thread is started here, since Python starts none when the interpreter is about to end.

    Args:
        function: The plain function.

    Attributes:
        on_gap: Function to call for a gap, in the same thread; None: there is none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.on_gap = gap_handler(function)
        self._thread = JobThread(f"{getattr(function, '__name__', 'handler')} of msl_network_trio")

    @classmethod
    def of(cls, function: Callable[..., Any] | None) -> Any:
        """Return a handler for the async API; async functions and None are returned unchanged."""
        if function is None or inspect.iscoroutinefunction(function):
            return function
        return cls(function)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> None:
        """Call the function, and wait until it returns."""
        await self._thread.call(self._function, *args, **kwargs)

    async def handle(self, runner: HandlerRunner) -> None:
        """Handle all notifications in the mailbox, with one switch of threads."""
        await self._thread.call(self._handle, runner)

    def _handle(self, runner: HandlerRunner) -> None:
        token = in_callback.set(True)
        try:
            while (notification := runner.take(self)) is not None:
                try:
                    self._function(*notification.args, **notification.kwargs)
                except BaseException as error:  # noqa: BLE001 - it is logged
                    runner.report(error, self)
        finally:
            in_callback.reset(token)

    def __repr__(self) -> str:
        return repr(self._function)


def call_in_threads(kwargs: dict[str, Any]) -> None:
    """Replace plain functions among the arguments of `connect` by ones that are called in threads."""
    function, policy = kwargs.get("on_late_reply"), kwargs.get("reconnect")
    if callable(function):
        kwargs["on_late_reply"] = ThreadHandler.of(function)
    if isinstance(policy, Reconnect) and policy.on_change is not None:
        kwargs["reconnect"] = attrs.evolve(policy, on_change=ThreadHandler.of(policy.on_change))
