"""Safe state of a Service: actions that are executed if a body ends by an exception.

`safe_state` is for tasks. `SafeStateGuard` holds what the form for threads needs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import trio

from msl_network_trio import arguments, callbacks
from msl_network_trio.client.link import Link, link_state
from msl_network_trio.client.linked_client import LinkedClient, linked_state
from msl_network_trio.client.locks import HeldLock
from msl_network_trio.client.safe_actions import Action, SafeActions, as_safe_action
from msl_network_trio.exceptions import LockLost
from msl_network_trio.logger import get_logger
from msl_network_trio.visible import visible

logger = get_logger(__name__)


class SafeStateGuard:
    """Decides whether actions are executed at the end of a body, and reports those that have failed.

    Args:
        link: A link, or a linked client.
        actions: The actions.
        on_lock_lost: Whether to execute them if the lock on the Service was lost.

    Attributes:
        session: The client.
        service: Name of the Service.
        actions: The actions, checked.
    """

    def __init__(self, link: Link | LinkedClient, actions: Sequence[Action], on_lock_lost: bool) -> None:
        if isinstance(link, Link):
            state = link_state(link)
        elif isinstance(link, LinkedClient):
            state = linked_state(link).require_link_state("safe_state")
        else:
            raise TypeError(f"link must be a Link or a LinkedClient, not {type(link).__name__}")
        self.session = state.require_session("safe_state")
        self.service = state.service_name
        if not actions:
            raise ValueError("A safe state needs at least one action")
        self.actions = [as_safe_action(action) for action in actions]
        self._on_lock_lost = arguments.flag("on_lock_lost", on_lock_lost)
        self._held: HeldLock | None = None

    def enter(self) -> None:
        """Note which lock the body depends on."""
        self._held = self.session.locks.current(self.service)

    def is_due(self, exception: BaseException | None) -> bool:
        """Return whether to execute the actions after a body that has raised this exception."""
        if exception is None:
            return False
        if self._on_lock_lost or not self._is_lock_lost(exception):
            return True
        logger.warning(
            "the safe state of %r is left to the next holder of the lock, which is lost", self.service
        )
        return False

    def _is_lock_lost(self, exception: BaseException) -> bool:
        if self._held is not None and self._held.is_lost:
            return True
        if isinstance(exception, BaseExceptionGroup):
            return exception.subgroup(LockLost) is not None
        return isinstance(exception, LockLost)

    def executed(self, failures: Sequence[str], exception: BaseException | None) -> None:
        """Report the actions that have failed, in the log and as notes of the exception."""
        if not failures:
            logger.info("the safe state of %r is reached", self.service)
        for failure in failures:
            text = f"The safe state of the {visible(self.service)!r} Service was not reached: {failure}"
            logger.error("%s", text)
            if exception is not None:
                exception.add_note(text)


class SafeState:
    """Async context manager that executes actions if its body fails; `safe_state` makes it."""

    def __init__(self, guard: SafeStateGuard) -> None:
        self._guard = guard

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        self._guard.enter()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        guard = self._guard
        if guard.is_due(exception):
            actions = SafeActions(guard.session, guard.service, guard.actions, _call)
            with trio.CancelScope(shield=True):
                guard.executed(await actions.run(), exception)


async def _call(function: Callable[[], Any]) -> None:
    result = callbacks.unprotected(function, (), {})
    if result is not None:
        await callbacks.finish(result)


def safe_state(link: Link | LinkedClient, *actions: Action, on_lock_lost: bool = True) -> SafeState:
    """Execute actions if the body of ``async with`` ends by an exception, a cancellation or Ctrl-C.

    ::

        async with safe_state(supply, "output_off", ("set_voltage", 0), close_shutter):
            await measure(supply)

    The actions are shielded from cancellation. Requests among them are made over a new connection if the one
    of the client is lost, and without a link, so neither ``max_clients`` nor a lock can refuse them. Each is
    repeated until it is answered or 5 seconds have passed for all together, so it may be executed more than
    once: it must be idempotent. Another Ctrl-C stops waiting; requests that were not sent yet are sent then.

    Actions that failed are logged and added as notes to the exception, which is raised in any case.

    This is a function, since a method would hide one of the Service.

    Args:
        link: A link, or a linked client.
        *actions: What to execute, in this order: the name of an attribute of the Service; a tuple of a name
            and arguments; a function without arguments, plain or async.
        on_lock_lost: Whether to execute them also if the lock on the Service was lost, so that another
            client may hold it already.

    Returns:
        An object to be entered with ``async with``.

    Raises:
        TypeError: An argument is of the wrong type, or has no JSON form.
        ValueError: There is no action, or an argument cannot be sent.
        LinkBroken: The link is broken.
        PrivateAttribute: An action is a private attribute.
    """
    return SafeState(SafeStateGuard(link, actions, on_lock_lost))
