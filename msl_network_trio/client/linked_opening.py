"""Opening of a LinkedClient, and its guarded methods; belongs to the Trio thread."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from msl_network_trio import callbacks
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.client import Client, ClientContext, client_session
from msl_network_trio.client.link import Link
from msl_network_trio.client.linked_state import LinkedState
from msl_network_trio.client.remote_method import RemoteMethod
from msl_network_trio.client.session import SessionLink
from msl_network_trio.exceptions import ConnectTimeout, ManagerError

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0
"""Seconds between requests for the link while the Service is not there: the first, doubled up to the last."""

_DISCONNECT_TIMEOUT = 10.0
"""Maximum seconds that an overridden `LinkedClient.disconnect` may take at the end of a scope."""

_LAST_REQUEST = 0.1
"""Seconds before the deadline of the last request for the link."""

Guard = Callable[
    [Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any]],
    Awaitable[Any],
]
"""Calls a function with arguments, and the ``service_error_handler`` if it fails."""


class GuardedMethod(RemoteMethod):
    """A method of a Service that calls the ``service_error_handler`` if it fails."""

    __slots__ = ("_guard",)

    def __init__(self, guard: Guard, link: SessionLink, name: str) -> None:
        super().__init__(link, name)
        self._guard = guard

    @trio.lowlevel.enable_ki_protection
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Request it; if an awaited call fails, the `service_error_handler` is called first."""
        if kwargs.get("asynchronous"):
            return super().__call__(*args, **kwargs)
        self._link.require_session(self._name)
        return self._guard(super().__call__, args, kwargs)


class HasDisconnect(Protocol):
    """A `LinkedClient`."""

    async def disconnect(self, timeout: float | None = None) -> None:
        """See `LinkedClient.disconnect`."""


class LinkedClientContext(AwaitableContext[Any]):
    """Opens a `LinkedClient`.

    Args:
        owner: The linked client.
        state: Its state.
        attach: Takes the client and the link.
        overrides_disconnect: Whether the class of the owner overrides ``disconnect``, which is then called at
            the end of a scope.
    """

    def __init__(
        self,
        owner: HasDisconnect,
        state: LinkedState,
        attach: Callable[[Client, Link], None],
        *,
        overrides_disconnect: bool,
    ) -> None:
        self._owner = owner
        self._state = state
        self._attach = attach
        self._overrides_disconnect = overrides_disconnect
        super().__init__(type(owner).__name__)

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> Any:
        client = await ClientContext(self._state.settings)
        try:
            self._attach(client, await self._link(client))
        except BaseException:
            with trio.CancelScope(shield=True):
                await client.disconnect()
            raise
        return self._owner

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> Any:
        self._scope = ClientContext(self._state.settings)
        client = await self._scope.__aenter__()
        try:
            self._attach(client, await self._link(client))
        except BaseException:
            await self._scope.__aexit__(None, None, None)
            raise
        return self._owner

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        try:
            if self._overrides_disconnect:
                with trio.move_on_after(_DISCONNECT_TIMEOUT, shield=True):
                    await callbacks.call(self._owner.disconnect, (), {}, "the method")
        finally:
            self._state.closed()
            await self._scope.__aexit__(None, None, None)

    @trio.lowlevel.enable_ki_protection
    async def _link(self, client: Client) -> Link:
        """Link with the Service, in what connecting has left of the timeout."""
        session = client_session(client)
        timeout = session.settings.timeout
        seconds = math.inf if timeout is None else timeout - session.connect_seconds
        with trio.move_on_after(max(0, seconds)) as scope:
            return await self._wait_for_link(client, scope.deadline)
        raise ConnectTimeout(f"The {self._state.service_name!r} service is not available")

    async def _wait_for_link(self, client: Client, deadline: float) -> Link:
        """Wait until the Service is there, and link with it; the last request is just before the deadline."""
        state, delay = self._state, _FIRST_DELAY
        while True:
            try:
                return await client.link(state.service_name, timeout=math.inf, idempotent=state.idempotent)
            except ManagerError as error:
                if error.type_name != "KeyError":  # else the Service is not there yet
                    raise
            left = deadline - trio.current_time() - _LAST_REQUEST
            await trio.sleep(min(delay, left) if left > _FIRST_DELAY / 2 else delay)
            delay = min(2 * delay, _LONGEST_DELAY)
