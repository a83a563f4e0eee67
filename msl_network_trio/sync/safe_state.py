"""Safe state of a Service in the blocking API; may be used from any thread."""

from __future__ import annotations

import inspect
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

from msl_network_trio.client.safe_actions import Action, SafeActions
from msl_network_trio.client.safe_state import SafeStateGuard
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.portal.loop_call import LoopCall, in_calling_thread
from msl_network_trio.portal.portal import Portal
from msl_network_trio.sync.link import Link
from msl_network_trio.sync.wrapped import Entering, portal_of, unwrap

if TYPE_CHECKING:
    from msl_network_trio.sync.linked_client import LinkedClient


class SafeState:
    """Context manager that executes actions if its body fails; `safe_state` makes it.

    Args:
        guard: The actions.
        portal: The way into the Trio run of the client.
    """

    def __init__(self, guard: SafeStateGuard, portal: Portal) -> None:
        self._guard = guard
        self._portal = portal
        for action in guard.actions:
            if inspect.iscoroutinefunction(action.function):
                raise TypeError(f"{action.text} is an async function; the blocking API calls plain ones")
        guard.enter()

    __enter__ = Entering(weakref.ref)

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        guard = self._guard
        if not guard.is_due(exception):
            return
        actions = SafeActions(guard.session, guard.service, guard.actions, in_calling_thread)
        try:
            # In a task of its own, also if this is a worker thread whose task is cancelled.
            failures = LoopCall(self._portal, actions.run, None).run()
        except ConnectionLost as error:  # the Trio run has ended
            failures = [f"{action.text}: {error}" for action in guard.actions]
        guard.executed(failures, exception)


def safe_state(link: Link | LinkedClient, *actions: Action, on_lock_lost: bool = True) -> SafeState:
    """Execute actions if the body of ``with`` ends by an exception or Ctrl-C.

    Plain functions among the actions are called in the calling thread. See `msl_network_trio.safe_state`.

    Args:
        link: A link, or a linked client.
        *actions: What to execute, in this order.
        on_lock_lost: Whether to execute them also if the lock on the Service was lost.

    Returns:
        An object to be entered with ``with``.
    """
    return SafeState(SafeStateGuard(unwrap(link), actions, on_lock_lost), portal_of(link))
