"""Actions of a safe state: what they are, and how they are executed; belongs to the Trio thread.

An action that is a request is made over the connection of the client, or over a spare one if that has ended
or does not answer. It needs no link, since Managers pass on requests of clients that are not linked: neither
a Service with ``max_clients=1`` that still counts the lost connection can refuse it, nor the lock of another
client.

An action is repeated until it is answered, so it may be executed more than once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from msl_network_trio.client.connection import Connection
from msl_network_trio.client.session import Session
from msl_network_trio.client.spare_connection import open_spare_connection
from msl_network_trio.dialing.reconnect import is_final
from msl_network_trio.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    NetworkError,
    PrivateAttribute,
    ReplyTimeout,
    Unanswered,
)
from msl_network_trio.protocol.codec import encode_arguments
from msl_network_trio.visible import visible

ACTIONS_TIMEOUT: Final = 5.0
"""Maximum seconds for all actions together."""

_RETRY_DELAY: Final = 0.1
"""Seconds between two tries of an action."""

_CHECK_AFTER: Final = 0.5
"""Seconds without an answer before the Manager is probed, and timeout of the probe."""

_GOODBYE_TIMEOUT: Final = 1.0
"""Seconds to wait for the Manager at the end of a spare connection."""

Action = str | tuple[Any, ...] | Callable[[], Any]
"""The name of an attribute of the Service, a tuple of it and its arguments, or a function."""


@attrs.frozen(eq=False)
class SafeAction:
    """An action, checked.

    Attributes:
        text: Description, for messages.
        attribute: Attribute of the Service to request; empty: the action is a function.
        args: Arguments of the request.
        function: The function.
    """

    text: str
    attribute: str = ""
    args: tuple[Any, ...] = ()
    function: Callable[[], Any] | None = None


def as_safe_action(action: Action) -> SafeAction:
    """Return an action, checked.

    Raises:
        TypeError: It is no action, or an argument has no JSON form.
        ValueError: An argument cannot be sent.
        PrivateAttribute: It is a private attribute.
    """
    attribute, *args = action if isinstance(action, tuple) and action else (action,)
    if isinstance(attribute, str) and attribute:
        if attribute.startswith("_"):
            raise PrivateAttribute(f"{attribute!r} is private, and no Service executes a private attribute")
        encode_arguments(args, attribute)
        return SafeAction(visible(f"{attribute}({', '.join(map(repr, args))})"), attribute, tuple(args))
    if callable(action):
        return SafeAction(getattr(action, "__qualname__", repr(action)), function=action)
    raise TypeError(
        "An action of a safe state is the name of an attribute of the Service, a tuple of a name and "
        f"arguments, or a function; not {action!r:.80}"
    )


class SafeActions:
    """The execution of the actions of a safe state.

    Args:
        session: The client.
        service: Name of the Service.
        actions: The actions, in the order in which they are executed.
        call: Calls the functions among them, and awaits what they return.
    """

    def __init__(
        self,
        session: Session,
        service: str,
        actions: Sequence[SafeAction],
        call: Callable[[Callable[[], Any]], Awaitable[object]],
    ) -> None:
        self._session = session
        self._service = service
        self._waiting = list(actions)
        self._unsent = [action for action in actions if action.attribute]
        self._call = call
        self._spares: list[Connection] = []
        self._silent: set[Connection] = set()
        """Connections whose Manager does not answer."""

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> list[str]:
        """Execute the actions; return a text for each that has failed.

        If this is cancelled or interrupted, the requests that were not made yet are sent without waiting for
        their answers.
        """
        failures: dict[SafeAction, BaseException] = {}
        deadline = trio.current_time() + ACTIONS_TIMEOUT
        try:
            while self._waiting and trio.current_time() < deadline:
                await self._execute_all(deadline, failures)
        except BaseException:
            self._send_rest()
            raise
        finally:
            with trio.CancelScope(shield=True):
                for connection in self._spares:
                    await connection.disconnect(_GOODBYE_TIMEOUT)
        return [f"{action.text}: {type(error).__name__}: {error}" for action, error in failures.items()]

    async def _execute_all(self, deadline: float, failures: dict[SafeAction, BaseException]) -> None:
        """Execute all actions that have no answer yet once.

        Each has an equal share of the rest of the time, so that one that is not answered does not take the
        time of those behind it.
        """
        waiting = list(self._waiting)
        for number, action in enumerate(waiting):
            share = (deadline - trio.current_time()) / (len(waiting) - number)
            error = await self._execute(action, share)
            if error is not None:
                failures[action] = error
            else:
                failures.pop(action, None)
            if not isinstance(error, Unanswered | ConnectError):
                self._waiting.remove(action)

    async def _execute(self, action: SafeAction, seconds: float) -> Exception | None:
        """Repeat an action until it is answered; return its error, None if it has succeeded."""
        error: Exception = ReplyTimeout(f"No answer within {ACTIONS_TIMEOUT:g} seconds")
        with trio.move_on_after(seconds):
            while True:
                try:
                    if action.function is not None:
                        await self._call(action.function)
                    else:
                        await self._request(action)
                    return None
                except (Unanswered, ConnectError, AuthenticationError) as failure:
                    error = failure
                    if not isinstance(error, Unanswered) and is_final(error, first=False):
                        return error
                except Exception as failure:  # noqa: BLE001 - it is reported
                    return failure
                await trio.sleep(_RETRY_DELAY)
        return error

    async def _request(self, action: SafeAction) -> None:
        """Make the request of an action over a connection that is open.

        Raises:
            NetworkError: No answer, or an error.
        """
        connection = self._open_connection()
        if connection is None:
            connection = await open_spare_connection(self._session)
            self._spares.append(connection)
        if action in self._unsent:
            self._unsent.remove(action)
        reply = connection.requests.start(self._service, action.attribute, action.args, None, math.inf)
        try:
            while True:
                with trio.move_on_after(_CHECK_AFTER):
                    await reply
                    return
                if not await self._answers(connection):
                    self._silent.add(connection)
                    raise ConnectionLost("The Manager does not answer", may_have_run=True)
        finally:
            reply.cancel()

    def _open_connection(self) -> Connection | None:
        """Return the client's connection, or else the last spare one; None: neither is usable."""
        for connection in (self._session.connection, *reversed(self._spares)):
            if connection.is_open and connection not in self._silent:
                return connection
        return None

    async def _answers(self, connection: Connection) -> bool:
        """Return whether the Manager answers on a connection; else a Service is busy with a request."""
        with trio.move_on_after(_CHECK_AFTER):
            try:
                await connection.requests.post("unlink", "")
            except NetworkError:
                pass  # an answer as well, or the end of the connection, which the request reports
            return True
        return False

    def _send_rest(self) -> None:
        """Send the requests that were not made yet."""
        connection = self._open_connection()
        if connection is None:
            return
        with trio.CancelScope(shield=True):  # noqa: ASYNC100 - start() sends nothing for a cancelled task
            for action in self._unsent:
                try:
                    reply = connection.requests.start(self._service, action.attribute, action.args)
                except NetworkError:
                    return
                reply.waiter = trio.Event()  # as if a task waited, so that an error is not logged as unseen
