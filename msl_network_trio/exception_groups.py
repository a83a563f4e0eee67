"""Unwrapping of Ctrl-C from the exception groups of internal nurseries.

The nurseries of this package are an implementation detail, so KeyboardInterrupt and SystemExit leave them in
no group. The functions run in the Trio thread and need no lock.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import trio


def plain(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first KeyboardInterrupt or SystemExit in a group, or the group itself if there is none.

    The usual ``except KeyboardInterrupt`` does not catch a group.
    """
    for leaf in leaves(group):
        if isinstance(leaf, KeyboardInterrupt | SystemExit):
            return leaf
    return group


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the exceptions in a group and its nested groups, in order."""
    found: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += leaves(error)
        else:
            found.append(error)
    return found


def single(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the only exception of a group, or else the result of `plain`."""
    return group.exceptions[0] if len(group.exceptions) == 1 else plain(group)


def raise_failure(failure: BaseException | None) -> None:
    """Raise an exception, without a reference to it in this frame; no effect if it is None."""
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


@trio.lowlevel.enable_ki_protection
async def leave_nursery(manager: AbstractAsyncContextManager[trio.Nursery, Any]) -> None:
    """Leave a nursery that was entered without ``async with``.

    The body's exception is not passed to the nursery, so that it propagates unchanged, in no group.

    Args:
        manager: The return value of `trio.open_nursery`.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while the nursery was being left.
        BaseExceptionGroup: Exceptions of the nursery's tasks.
    """
    try:
        await manager.__aexit__(None, None, None)
    except BaseExceptionGroup as group:
        error = plain(group)
        if error is group:
            raise
        raise error from None
