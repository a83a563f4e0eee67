"""Calling functions of the user in the background, where nobody waits for them."""

from __future__ import annotations

import inspect
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

logger = logging.getLogger(__name__)


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
        await _unprotected(function, args, kwargs)
    except trio.Cancelled:
        raise
    except BaseException as error:
        if _is_interrupt(error):
            signal.raise_signal(signal.SIGINT)  # we are protected, so Trio takes it to the main task
        else:
            logger.exception("exception in %s %r", what, function)


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    result = function(*args, **kwargs)
    if inspect.isawaitable(result):
        await result


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)
