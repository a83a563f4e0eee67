"""Coroutines that are started outside the task in which they may continue.

An async method that waits for nothing is run to its end by one ``send(None)``, with no task of its own. One
that suspends has yielded its first message to Trio by then; `resume` passes that message on and continues the
coroutine as if the current task had started it. In the Trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final

import trio


@coroutine
def resume(coro: Coroutine[Any, Any, Any], message: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine that has suspended, and return its result.

    Args:
        coro: The coroutine.
        message: The message that it has yielded to Trio.
    """
    try:
        while True:
            try:
                value = yield message if type(message) in _OF_TRIO else _with_repr(message)
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine
                message = coro.throw(error)
            else:
                message = coro.send(value)
    except StopIteration as stop:
        return stop.value


def _first_message(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Return what an async function of Trio yields first."""
    coro = function(*args)
    message = coro.send(None)
    coro.close()
    return message


_OF_TRIO: Final = frozenset(
    {
        type(_first_message(trio.lowlevel.cancel_shielded_checkpoint)),
        type(_first_message(trio.lowlevel.wait_task_rescheduled, print)),
    }
)
"""The types of the messages that Trio understands."""


def _with_repr(message: Any) -> Any:
    """Return a message that Trio can quote in the TypeError that it raises for a foreign one.

    An exception in the ``__repr__`` of a message would end all of Trio.
    """
    try:
        repr(message)
    except Exception:  # noqa: BLE001 - it is code of the user
        return f"<{type(message).__name__} object>"
    return message
