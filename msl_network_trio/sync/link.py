"""A link with a Service, for threads: its methods as methods that block."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msl_network_trio import arguments
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.link import (
    MethodCache,
    RemoteMethod,
    check_assignable,
    checked_args,
    private_attribute,
)
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.client.linked_client import dropped as async_dropped
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.messages import Notification
from msl_network_trio.sync.calls import Calls
from msl_network_trio.sync.handlers import ThreadHandler
from msl_network_trio.sync.wrapped import Entering, blocking, named

if TYPE_CHECKING:
    from msl_network_trio.sync.client import Client
    from msl_network_trio.sync.linked_client import LinkedClient


class BlockingMethod(RemoteMethod):
    """A method of a Service, ready to be called: ``link.add(1, 2)``."""

    __slots__ = ("_calls",)

    def __init__(self, link: AsyncLink, name: str, calls: Calls) -> None:
        self._link = link
        self._name = name
        self._calls = calls

    def __call__(
        self, /, *args: Any, timeout: float | None = None, asynchronous: bool = False, **kwargs: Any
    ) -> Any:
        """Request it from the Service; see `RemoteMethod`.

        Returns:
            The result; with ``asynchronous=True`` a `concurrent.futures.Future`.
        """
        link, calls = self._link, self._calls
        if link._client is None:
            link._linked(self._name)  # which raises
        if asynchronous:
            arguments.flag("asynchronous", asynchronous)
            return calls.start(link._service_name, self._name, args, kwargs, timeout)
        return calls.request(link._service_name, self._name, args, kwargs, timeout)


class ServiceProperties:
    """What the identity of a Service tells, of whatever is linked with it."""

    _wrapped: AsyncLink | AsyncLinkedClient

    @property
    def service_name(self) -> str:
        """The name of the Service."""
        return self._wrapped.service_name

    @property
    def service_address(self) -> str:
        """The address of the Service, ``host:port``, as the Manager sees it."""
        return self._wrapped.service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        """The attributes of the Service: the signatures of methods, the values of others."""
        return self._wrapped.service_attributes

    @property
    def service_language(self) -> str:
        """The programming language of the Service."""
        return self._wrapped.service_language

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with the Service; 0 and less: no limit."""
        return self._wrapped.service_max_clients

    @property
    def service_os(self) -> str:
        """The operating system of the Service."""
        return self._wrapped.service_os


class Link(ServiceProperties, MethodCache):
    """A link between a client and a Service; `Client.link` makes it.

    Every attribute that is not listed here is a method of the Service, or a property of it, which is read by
    calling it: ``link.add(1, 2)``, ``link.pi()``. Entered with ``with``, it unlinks at the end of the block.

    Args:
        client: The client.
        wrapped: The link of the async API that it is the blocking form of.
    """

    _wrapped: AsyncLink

    def __init__(self, client: Client, wrapped: AsyncLink) -> None:
        self._owner = client
        self._calls = client._calls
        self._wrapped = wrapped

    @property
    def _client(self) -> Client | None:
        return None if self._wrapped._client is None else self._owner

    @property
    def _portal(self) -> Portal:
        return self._owner._portal

    # ---- requests ----

    def __getattr__(self, name: str) -> BlockingMethod:
        if name.startswith("_"):
            raise private_attribute(self, name)
        wrapped = self._wrapped
        wrapped._linked(name)
        return self._keep(name, BlockingMethod(wrapped, name, self._calls))

    def _request(
        self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        self._wrapped._linked(attribute)
        return self._calls.request(self.service_name, attribute, args, kwargs, timeout)

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Ask the Service to shut down, and break the link; see `msl_network_trio.Link.shutdown_service`."""
        client = self._wrapped._linked("shutdown_service")
        # In the thread, since handlers get what the Service has emitted before the link is broken.
        result = self._request("shutdown_service", args, kwargs, timeout)
        self._portal.do(partial(client._forget, self._wrapped))
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Does nothing; assign a function to be called for every notification of the Service.

            ``link.notification_handler = function`` works at any time, also with a bound method
            (`types.MethodType`). It is called in the order of the notifications, one after the other, always
            in the same thread, so it may take its time and may use the link. An exception in it is logged,
            and ends nothing. If it is so slow that too many bytes wait (``max_unhandled`` of `connect`), the
            oldest notifications are dropped, which is logged too.

            A call, or the ``result()`` of a Future, returns when the handlers of its client for the Service
            have returned for every notification that was received before the reply. It waits for 5 seconds
            at most, and no longer than its ``timeout``; then a warning is logged, and no call waits for the
            handler again before it has caught up. What a handler or the callback of a Future calls does not
            wait. A handler that waits for a call of another thread makes that call wait for 5 seconds, once.

            Args:
                *args: What the Service emitted.
                **kwargs: What the Service emitted.
            """

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)
        if name == "notification_handler":
            self._wrapped.notification_handler = ThreadHandler.of(value)

    # ---- locks ----

    def acquire_lock(self, shared: bool = False, timeout: float | None = None, *, wait: bool = False) -> Lock:
        """Acquire a lock on the Service; see `msl_network_trio.Link.acquire_lock`.

        Returns:
            The names of the clients that are linked with the Service, in any order. Entered with ``with``,
            the lock is released at the end of the block.
        """
        self._wrapped._linked("acquire_lock")

        async def acquire() -> Lock:
            return Lock(await self._wrapped.acquire_lock(shared, timeout, wait=wait), self)

        return self._portal.open(named("Link.acquire_lock", acquire), Lock._leave)

    release_lock = blocking(AsyncLink.release_lock)

    # ---- the link itself ----

    def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `msl_network_trio.Link.unlink`."""
        if self._client is not None:
            self._portal.call(self._wrapped.unlink, timeout)

    def disconnect(self, timeout: float | None = None) -> None:
        """Do what `unlink` does."""
        self.unlink(timeout)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        self._portal.end(self._leave)

    async def _leave(self) -> None:
        client = self._wrapped._client
        if client is not None and client.is_connected():
            await client._leave(self._wrapped)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self.service_attributes)})

    def __repr__(self) -> str:
        return repr(self._wrapped)


class Lock(list[str]):
    """The names of the clients that are linked while a lock is held; ``with`` releases it at the end.

    Args:
        names: The names.
        link: The link with the Service that is locked.
    """

    def __init__(self, names: list[str], link: Link) -> None:
        super().__init__(names)
        self._link = link
        # Of the client of now: the link may be broken when the block ends.
        self._client = link._wrapped._client

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        self._link._portal.end(self._leave)

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None and client.is_connected():
            await client._locks.leave(self._link.service_name)


def request(
    link: Link | LinkedClient,
    attribute: str,
    args: list[Any] | tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
) -> Any:
    """Request an attribute of a Service, whatever its name and its arguments are called.

    This is a function, since a method would hide one of the Service. For what it returns and raises see
    `msl_network_trio.Link.request`.

    Args:
        link: A link, or a linked client.
        attribute: The method to call, or the property to read.
        args: The positional arguments.
        kwargs: The keyword arguments.
        timeout: How many seconds to wait for the reply.
    """
    return link._request(attribute, checked_args(args), kwargs, timeout)


class Notifications:
    """The notifications of one Service, to be iterated; `notifications` makes it.

    Args:
        stream: The stream of the async API.
        portal: The way to it.
    """

    def __init__(self, stream: NotificationStream, portal: Portal) -> None:
        self._stream = stream
        self._portal = portal

    @property
    def dropped(self) -> int:
        """How many notifications were lost, the oldest first, because the loop was too slow."""
        return self._stream.dropped

    def __enter__(self) -> Self:
        self._portal.open(self._stream.__aenter__, _leave)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._portal.end(partial(self._stream.__aexit__, exception_type, exception, traceback))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Notification:
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None


async def _leave(stream: NotificationStream) -> None:
    await stream.__aexit__(None, None, None)


def dropped(link: Link | LinkedClient) -> int:
    """Return how many notifications were lost; see `msl_network_trio.dropped`.

    Args:
        link: A link, or a linked client.
    """
    return async_dropped(link._wrapped)


def notifications(link: Link | LinkedClient, max_buffer_size: float | None = None) -> Notifications:
    """Iterate over the notifications of a Service.

    ``with notifications(link) as stream:`` subscribes; ``for notification in stream:`` gives what has come
    since. This is a function, since a method would hide one of the Service. See
    `msl_network_trio.Link.notifications`.

    Args:
        link: A link, or a linked client.
        max_buffer_size: See `msl_network_trio.Link.notifications`.
    """
    return Notifications(link._wrapped.notifications(max_buffer_size), link._portal)
