"""Exception groups of nurseries that are an implementation detail: Ctrl-C leaves them plain."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import trio


def plain(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the KeyboardInterrupt or SystemExit in a group, or else the group itself.

    Programs end with ``except KeyboardInterrupt``, which does not catch a group.
    """
    for leaf in leaves(group):
        if isinstance(leaf, KeyboardInterrupt | SystemExit):
            return leaf
    return group


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the exceptions in a group and in the groups inside it, in order."""
    found: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += leaves(error)
        else:
            found.append(error)
    return found


@trio.lowlevel.enable_ki_protection
async def leave_nursery(manager: AbstractAsyncContextManager[trio.Nursery, Any]) -> None:
    """Leave a nursery that was entered without ``async with``.

    The body's exception is not passed to the nursery, so that it propagates as it is, in no group.

    Args:
        manager: What `trio.open_nursery` returned.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        BaseExceptionGroup: What a task of the nursery raised.
    """
    try:
        await manager.__aexit__(None, None, None)
    except BaseExceptionGroup as group:
        error = plain(group)
        if error is group:
            raise
        raise error from None
