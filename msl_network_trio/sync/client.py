"""Blocking client of a Manager, and the function that connects one; both may be used from any thread."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from msl_network_trio.client.client import Client as AsyncClient
from msl_network_trio.client.client import client_session
from msl_network_trio.client.client import connect as async_connect
from msl_network_trio.client.link import link_state
from msl_network_trio.client.states import StateStream as AsyncStateStream
from msl_network_trio.client.statistics import Statistics
from msl_network_trio.dialing.reconnect import State, StateChange
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.portal.background_thread import current_portal
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.sync.handlers import ThreadHandler, call_in_threads
from msl_network_trio.sync.link import Link
from msl_network_trio.sync.persistent_calls import BlockingRequests
from msl_network_trio.sync.prompts import prompts_for_threads
from msl_network_trio.sync.wrapped import Entering, blocking, like, named, unwrap
from msl_network_trio.visible import visible

REMOVED = {
    "manager": "identities()",
    "wait": "the result() of a Future, or concurrent.futures.wait()",
    "send_pending_requests": "the result() of a Future; with asynchronous=True a request is sent at once",
    "raise_latest_error": "the exception that the request raises, or the exception() of its Future",
}
"""Attributes that msl-network had in version 0.5 and has not in 1.0, and what replaces them."""


class _Loop:
    """Stand-in for the asyncio event loop of a client of msl-network 1.0.0: the identifier of its thread.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _thread_id(self) -> int | None:
        return self._client.loop_thread_id


class Client:
    """A connection to a Manager; `connect` makes it.

    Its methods may be called from any thread. Entered with ``with``, it disconnects at the end of the block.

    Args:
        wrapped: The client of the async API.
    """

    def __init__(self, wrapped: AsyncClient) -> None:
        self._wrapped_async = wrapped
        self._session = session = client_session(wrapped)
        self._portal: Portal = session.portal
        self._portal.do(partial(session.share, BlockingRequests(session)))

    # ---- properties ----

    @property
    def name(self) -> str:
        """The name that `connect` was given."""
        return self._wrapped_async.name

    @property
    def address_manager(self) -> str:
        """Address of the Manager, ``host:port``, as `connect` was given it."""
        return self._wrapped_async.address_manager

    @property
    def port(self) -> int:
        """Port number on this computer that the connection uses."""
        return self._wrapped_async.port

    @property
    def loop_thread_id(self) -> int | None:
        """Identifier of the thread that runs the event loop; None if the client is disconnected."""
        return self._portal.thread_id if self.is_connected() else None

    # These two are private in msl-network 1.0.0, too, but its own tests use them.

    @property
    def _loop(self) -> _Loop:
        return _Loop(self)

    def _new_request(self, service: str, attribute: str, *args: Any, **kwargs: Any) -> Any:
        timeout = kwargs.pop("timeout", None)
        calls = self._session.calls
        make = calls.start if kwargs.pop("asynchronous", False) else calls.request
        return make(service, attribute, args, kwargs, timeout)

    def __str__(self) -> str:
        return str(self._wrapped_async)

    def __repr__(self) -> str:
        return repr(self._wrapped_async) if self.is_connected() else visible(f"<{self.name} disconnected>")

    def identity(self) -> dict[str, str]:
        """Return the identity of this client, as the Manager has received it."""
        return self._wrapped_async.identity()

    def is_connected(self) -> bool:
        """Return whether requests can be made: neither the Manager nor the client has disconnected."""
        return self._wrapped_async.is_connected() and not self._portal.is_inherited

    @property
    def state(self) -> State:
        """The state; see `msl_network_trio.Client.state`."""
        return "closed" if self._portal.is_inherited else self._wrapped_async.state

    def states(self) -> StateStream:
        """Return an iterator over the changes of the state; see `msl_network_trio.Client.states`."""
        return StateStream(self._wrapped_async, self._portal)

    # ---- requests to the Manager ----

    identities = blocking(AsyncClient.identities)
    admin_request = blocking(AsyncClient.admin_request)

    def link(self, service: str, *, timeout: float | None = None, idempotent: Collection[str] = ()) -> Link:
        """Link with a Service; see `msl_network_trio.Client.link`."""

        async def link() -> Link:
            return (await self._wrapped_async.link(service, timeout=timeout, idempotent=idempotent)).sync

        async def leave(link: Link) -> None:
            await self._session.links.leave(link_state(unwrap(link)))

        return self._portal.open(named("Client.link", link), leave)

    def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink from a Service; see `msl_network_trio.Client.unlink`."""
        # The async API reports that it is not a link.
        wrapped: Any = unwrap(link) if hasattr(link, "_wrapped_async") else link
        self._portal.call(self._wrapped_async.unlink, wrapped, timeout=timeout)

    def dropped(self, service: str) -> int:
        """Return the number of notifications that were dropped; see `msl_network_trio.Client.dropped`."""
        return self._wrapped_async.dropped(service)

    def statistics(self) -> Statistics:
        """Return the counters and latencies of this client; see `msl_network_trio.Client.statistics`."""
        return self._wrapped_async.statistics()

    def spawn(self, name: str = "Client") -> Client:
        """Make another connection with the same arguments; see `msl_network_trio.Client.spawn`."""
        check_may_wait("Client.spawn")
        return self._portal.open(_opened, _disconnect, partial(self._wrapped_async.spawn, name))

    if not TYPE_CHECKING:  # or mypy would accept every misspelt name

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(missing_attribute(type(self), name))

    # ---- the end ----

    def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager; see `msl_network_trio.Client.disconnect`."""
        if not self._session.is_over:
            self._portal.call(self._wrapped_async.disconnect, timeout)

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        shutdown_handler: Callable[[], Any] | None
    else:

        def shutdown_handler(self) -> Any:
            """Do nothing; assign a function to be called, in its own thread, at the end of the connection."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "shutdown_handler":
            self._wrapped_async.shutdown_handler = ThreadHandler.of(value)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        if not self._session.is_over:
            self._portal.end(self._wrapped_async.disconnect)


class StateStream:
    """An iterator over the changes of the state of a client; `Client.states` makes it.

    It yields each `StateChange` since it was made, and ends after the change to ``"closed"``.

    Args:
        client: The client of the async API.
        portal: The way into its Trio run.
    """

    def __init__(self, client: AsyncClient, portal: Portal) -> None:
        self._portal = portal
        self._stream: AsyncStateStream | None = None
        portal.do(partial(self._open, client))

    def _open(self, client: AsyncClient) -> None:
        self._stream = client.states()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StateChange:
        assert self._stream is not None
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None


def missing_attribute(owner: type, name: str) -> str:
    """Return the text of the error for a missing attribute."""
    text = f"{owner.__name__!r} object has no attribute {name!r}"
    if name in REMOVED:
        text += f", which msl-network has not had since version 1.0; use {REMOVED[name]}"
    return text


@like(async_connect)
def connect(**kwargs: Any) -> Client:  # noqa: D103 - it has that of the async API
    check_may_wait("connect")
    hide_secrets(kwargs)
    kwargs["prompts"] = prompts_for_threads(kwargs.get("prompts"))
    call_in_threads(kwargs)
    return current_portal().open(_opened, _disconnect, partial(async_connect, **kwargs))


async def _opened(connect: Callable[[], Awaitable[AsyncClient]]) -> Client:
    """Connect, and make the blocking form, in the Trio thread, where the connection becomes shared."""
    return (await connect()).sync


async def _disconnect(client: Client) -> None:
    await unwrap(client).disconnect()
