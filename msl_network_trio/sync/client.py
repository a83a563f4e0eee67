"""A client of a Manager, for threads, and how to connect one."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msl_network_trio.client.client import Client as AsyncClient
from msl_network_trio.client.client import connect as async_connect
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.portal.background_thread import current_portal
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.sync.calls import Calls
from msl_network_trio.sync.handlers import ThreadHandler
from msl_network_trio.sync.link import Link
from msl_network_trio.sync.prompts import prompts_for_threads
from msl_network_trio.sync.wrapped import Entering, blocking, like, named
from msl_network_trio.visible import visible

REMOVED = {
    "manager": "identities()",
    "wait": "the result() of a Future, or concurrent.futures.wait()",
    "send_pending_requests": "the result() of a Future; with asynchronous=True a request is sent at once",
    "raise_latest_error": "the exception that the request raises, or the exception() of its Future",
}
"""What msl-network 0.5 had and 1.0 has not, and what there is instead."""


class _Loop:
    """Stands in for the asyncio event loop of a client of msl-network 1.0.0: the identifier of its thread.

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
        wrapped: The client of the async API that it is the blocking form of.
    """

    def __init__(self, wrapped: AsyncClient) -> None:
        self._wrapped = wrapped
        self._portal: Portal = wrapped._connection.portal
        self._calls = Calls(wrapped._connection)

    # ---- who and where ----

    @property
    def name(self) -> str:
        """The name that `connect` was given."""
        return self._wrapped.name

    @property
    def address_manager(self) -> str:
        """The address of the Manager, ``host:port``, as `connect` was given it."""
        return self._wrapped.address_manager

    @property
    def port(self) -> int:
        """The number of the port on this computer that the connection uses."""
        return self._wrapped.port

    @property
    def loop_thread_id(self) -> int | None:
        """The identifier of the thread that the event loop runs in; None if the client is disconnected."""
        return self._portal.thread_id if self.is_connected() else None

    # These two are private in msl-network 1.0.0, too, but its own tests use them.

    @property
    def _loop(self) -> _Loop:
        return _Loop(self)

    def _new_request(self, service: str, attribute: str, *args: Any, **kwargs: Any) -> Any:
        timeout = kwargs.pop("timeout", None)
        make = self._calls.start if kwargs.pop("asynchronous", False) else self._calls.request
        return make(service, attribute, args, kwargs, timeout)

    def __str__(self) -> str:
        return str(self._wrapped)

    def __repr__(self) -> str:
        return repr(self._wrapped) if self.is_connected() else visible(f"<{self.name} disconnected>")

    def identity(self) -> dict[str, str]:
        """Return what this client tells the Manager about itself."""
        return self._wrapped.identity()

    def is_connected(self) -> bool:
        """Return whether requests can be made: the Manager has not closed the connection, nor have we."""
        return self._wrapped.is_connected() and not self._portal.is_inherited

    # ---- requests to the Manager ----

    identities = blocking(AsyncClient.identities)
    admin_request = blocking(AsyncClient.admin_request)

    def link(self, service: str, *, timeout: float | None = None) -> Link:
        """Link with a Service; see `msl_network_trio.Client.link`."""

        async def link() -> Link:
            return (await self._wrapped.link(service, timeout=timeout)).sync

        async def leave(link: Link) -> None:
            await self._wrapped._leave(link._wrapped)

        return self._portal.open(named("Client.link", link), leave)

    def unlink(self, link: Link, *, timeout: float | None = None) -> None:
        """Unlink from a Service; see `msl_network_trio.Client.unlink`."""
        wrapped: Any = getattr(link, "_wrapped", link)  # that it is no link is for the async API to say
        self._portal.call(self._wrapped.unlink, wrapped, timeout=timeout)

    def dropped(self, service: str) -> int:
        """Return how many notifications were lost; see `msl_network_trio.Client.dropped`."""
        return self._wrapped.dropped(service)

    def spawn(self, name: str = "Client") -> Client:
        """Make another connection with the same arguments; see `msl_network_trio.Client.spawn`."""
        check_may_wait("Client.spawn")
        return self._portal.open(_opened, _disconnect, partial(self._wrapped.spawn, name))

    if not TYPE_CHECKING:  # or mypy would let every misspelt name pass

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(dropped(type(self), name))

    # ---- the end ----

    def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager; see `msl_network_trio.Client.disconnect`."""
        if not self._is_over:
            self._portal.call(self._wrapped.disconnect, timeout)

    @property
    def _is_over(self) -> bool:
        """Whether there is nothing to disconnect any more; perhaps not even a Trio run that would do it."""
        return self._portal.is_inherited or self._wrapped._connection.closed.is_set()

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        shutdown_handler: Callable[[], Any] | None
    else:

        def shutdown_handler(self) -> Any:
            """Does nothing; assign a function to be called, in its own thread, when the connection ended."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "shutdown_handler":
            self._wrapped.shutdown_handler = ThreadHandler.of(value)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        if not self._is_over:
            self._portal.end(self._wrapped.disconnect)


def dropped(owner: type, name: str) -> str:
    """Return what to say about an attribute that is not there."""
    text = f"{owner.__name__!r} object has no attribute {name!r}"
    if name in REMOVED:
        text += f", which msl-network has not had since version 1.0; use {REMOVED[name]}"
    return text


@like(async_connect)
def connect(**kwargs: Any) -> Client:  # noqa: D103 - it has that of the other one
    check_may_wait("connect")
    hide_secrets(kwargs)
    kwargs["prompts"] = prompts_for_threads(kwargs.get("prompts"))
    return current_portal().open(_opened, _disconnect, partial(async_connect, **kwargs))


async def _opened(connect: Callable[[], Awaitable[AsyncClient]]) -> Client:
    """Connect, and make the blocking form in the Trio thread, which has to know that threads come."""
    return (await connect()).sync


async def _disconnect(client: Client) -> None:
    await client._wrapped.disconnect()
