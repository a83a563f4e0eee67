"""Blocking link with a Service, whose attributes it has as methods; may be used from any thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, overload

from msl_network_trio import arguments
from msl_network_trio.client.link import Link as AsyncLink
from msl_network_trio.client.link import link_state
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.client.linked_client import dropped as async_dropped
from msl_network_trio.client.linked_client import statistics as async_statistics
from msl_network_trio.client.lock_context import note_lost
from msl_network_trio.client.locks import Grant, Locks
from msl_network_trio.client.notifications import Item_co, NotificationStream
from msl_network_trio.client.remote_method import (
    MethodCache,
    RemoteMethod,
    check_assignable,
    checked_args,
    private_attribute,
)
from msl_network_trio.client.statistics import Statistics
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.messages import Gap, Notification
from msl_network_trio.sync.handlers import ThreadHandler
from msl_network_trio.sync.wrapped import Entering, blocking, named, portal_of, unwrap


class BlockingMethod(RemoteMethod):
    """A method of a Service, ready to be called: ``link.add(1, 2)``."""

    __slots__ = ()

    def __call__(
        self, /, *args: Any, timeout: float | None = None, asynchronous: bool = False, **kwargs: Any
    ) -> Any:
        """Request the attribute from the Service; see `RemoteMethod`.

        Returns:
            The result; with ``asynchronous=True`` a `concurrent.futures.Future`.
        """
        link = self._link
        route = link.thread_route or link.require_thread_route(self._name)
        if asynchronous:
            arguments.flag("asynchronous", asynchronous)
            return route.start(link.service_name, self._name, args, kwargs, timeout)
        return route.request(link.service_name, self._name, args, kwargs, timeout)


class ServiceProperties:
    """Properties from the identity of a Service, of a link or of a linked client."""

    _wrapped_async: AsyncLink | AsyncLinkedClient

    @property
    def service_name(self) -> str:
        """Name of the Service."""
        return self._wrapped_async.service_name

    @property
    def service_address(self) -> str:
        """Address of the Service, ``host:port``, as the Manager sees it."""
        return self._wrapped_async.service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        """Attributes of the Service: signatures of methods, values of others."""
        return self._wrapped_async.service_attributes

    @property
    def service_language(self) -> str:
        """Programming language of the Service."""
        return self._wrapped_async.service_language

    @property
    def service_max_clients(self) -> int:
        """Maximum number of clients that may be linked with the Service; 0 and less: no limit."""
        return self._wrapped_async.service_max_clients

    @property
    def service_os(self) -> str:
        """Operating system of the Service."""
        return self._wrapped_async.service_os


class Link(ServiceProperties, MethodCache):
    """A link between a client and a Service; `Client.link` makes it.

    Every attribute that is not listed here is a method of the Service, or a property of it, which is read by
    calling it: ``link.add(1, 2)``, ``link.pi()``. Entered with ``with``, it unlinks at the end of the block.

    Args:
        client: The blocking form of the client.
        wrapped: The link of the async API, not broken.
    """

    _wrapped_async: AsyncLink

    def __init__(self, client: Any, wrapped: AsyncLink) -> None:
        self._owner = client
        self._wrapped_async = wrapped
        self._link = state = link_state(wrapped)
        self._portal: Portal = state.require_session("sync").portal
        state.on_break.append(self._drop_methods)

    @property
    def _client(self) -> Any:
        """The client, as in msl-network 1.0.0; None if the link is broken."""
        return None if self._link.session is None else self._owner

    # ---- requests ----

    def __getattr__(self, name: str) -> BlockingMethod:
        if name.startswith("_"):
            raise private_attribute(self, name)
        self._link.require_session(name)
        return self._keep(name, BlockingMethod(self._link, name))

    def _request(
        self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        route = self._link.require_thread_route(attribute)
        return route.request(self._link.service_name, attribute, args, kwargs, timeout)

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Request the Service to shut down; see `msl_network_trio.Link.shutdown_service`."""
        session = self._link.require_session("shutdown_service")
        self._link.ends_service = True
        try:
            # In this thread, which waits until handlers have returned for what the Service has emitted.
            result = self._request("shutdown_service", args, kwargs, timeout)
        except BaseException:
            self._link.ends_service = False
            raise
        self._portal.do(partial(session.links.forget, self._link))
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Do nothing; assign a function to be called for every notification of the Service.

            ``link.notification_handler = function`` works at any time, also with a bound method
            (`types.MethodType`). It is called in the order of the notifications, one at a time, always in the
            same thread, so it may take its time and may use the link. An exception in it is logged, and ends
            nothing. If it falls behind by too many bytes (``max_unhandled`` of `connect`), the oldest
            notifications are dropped, which is logged too.

            A call, or the ``result()`` of a Future, returns when the handlers of its client for the Service
            have returned for every notification that was received before the reply. It waits for 5 seconds
            at most, and no longer than its ``timeout``; then a warning is logged, and no call waits for the
            handler again before it has caught up. What a handler or the callback of a Future calls does not
            wait. A handler that waits for a call of another thread makes that call wait for 5 seconds, once.

            If the handler, or the object whose method it is, has a method ``on_gap``, it is called with a
            `Gap`, in order and in the same thread, where notifications may have been lost because the client
            had to reconnect.

            Args:
                *args: Positional arguments that the Service emitted.
                **kwargs: Keyword arguments that the Service emitted.
            """

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)
        if name == "notification_handler":
            self._wrapped_async.notification_handler = ThreadHandler.of(value)

    # ---- locks ----

    def acquire_lock(self, shared: bool = False, timeout: float | None = None, *, wait: bool = False) -> Lock:
        """Acquire a lock on the Service; see `msl_network_trio.Link.acquire_lock`.

        Returns:
            The names of the clients that are linked with the Service, in any order. Entered with ``with``,
            the lock is released at the end of the block.
        """
        self._link.require_session("acquire_lock")

        shared = arguments.flag("shared", shared)
        wait = arguments.flag("wait", wait)

        async def acquire() -> Lock:
            session = self._link.require_session("acquire_lock")
            requests = self._link.lock_requests(session)
            grant = await session.locks.acquire(self.service_name, shared, timeout, wait, requests)
            return Lock(grant, session.locks, self)

        return self._portal.open(named("Link.acquire_lock", acquire), Lock.leave)

    release_lock = blocking(AsyncLink.release_lock)

    # ---- the link itself ----

    def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `msl_network_trio.Link.unlink`."""
        if self._link.session is not None:
            self._portal.call(self._wrapped_async.unlink, timeout)

    def disconnect(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `unlink`."""
        self.unlink(timeout)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        self._portal.end(self._leave)

    async def _leave(self) -> None:
        session = self._link.session
        if session is not None and not session.is_over:
            await session.links.leave(self._link)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self.service_attributes)})

    def __repr__(self) -> str:
        return repr(self._wrapped_async)


class Lock(list[str]):
    """The names of the clients that are linked while a lock is held; ``with`` releases it at the end.

    Args:
        grant: The lock.
        locks: The locks of the client.
        link: The link with the Service that is locked, not broken.
    """

    def __init__(self, grant: Grant, locks: Locks, link: Link) -> None:
        super().__init__(grant.names)
        self._portal = portal_of(link)
        self._held = grant.held
        self._locks: Locks | None = locks

    __enter__ = Entering(weakref.ref)

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._portal.end(self.leave)
        if self._held.is_lost:
            if exception is None:
                raise self._held.error()
            note_lost(exception, self._held.error())

    async def leave(self) -> None:
        """Release the lock, unless that was done or other scopes hold it; in the Trio thread."""
        locks, self._locks = self._locks, None
        if locks is not None:
            await locks.leave(self._held)


class HasRequest(Protocol):
    """A `Link` or a `LinkedClient`."""

    def _request(
        self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, timeout: float | None
    ) -> Any: ...


def request(
    link: HasRequest,
    attribute: str,
    args: list[Any] | tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
) -> Any:
    """Request an attribute of a Service, of any name and with arguments of any names.

    This is a function, since a method would hide one of the Service. It returns and raises what
    `msl_network_trio.Link.request` does.

    Args:
        link: A link, or a linked client.
        attribute: Name of the method to call or of the property to read.
        args: Positional arguments.
        kwargs: Keyword arguments.
        timeout: Seconds to wait for the reply.
    """
    return link._request(attribute, checked_args(args), kwargs, timeout)  # noqa: SLF001 - its function


class Notifications(Generic[Item_co]):
    """An iterator over the notifications of one Service; `notifications` makes it.

    Args:
        stream: The stream of the async API.
        portal: The way into its Trio run.
    """

    def __init__(self, stream: NotificationStream[Item_co], portal: Portal) -> None:
        self._stream = stream
        self._portal = portal

    @property
    def dropped(self) -> int:
        """Number of notifications that were dropped, the oldest first, because the loop fell behind."""
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

    def __next__(self) -> Item_co:
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None


async def _leave(stream: NotificationStream[Item_co]) -> None:
    await stream.__aexit__(None, None, None)


def statistics(link: ServiceProperties) -> Statistics:
    """Return the counters and latencies of the client of a link; see `msl_network_trio.statistics`.

    Args:
        link: A link, or a linked client.
    """
    return async_statistics(unwrap(link))


def dropped(link: ServiceProperties) -> int:
    """Return the number of notifications that were dropped; see `msl_network_trio.dropped`.

    Args:
        link: A link, or a linked client.
    """
    return async_dropped(unwrap(link))


@overload
def notifications(
    link: ServiceProperties, max_buffer_size: float | None = None, *, gaps: Literal[False] = False
) -> Notifications[Notification]: ...


@overload
def notifications(
    link: ServiceProperties, max_buffer_size: float | None = None, *, gaps: bool
) -> Notifications[Notification | Gap]: ...


def notifications(
    link: ServiceProperties, max_buffer_size: float | None = None, *, gaps: bool = False
) -> Any:
    """Iterate over the notifications of a Service.

    ``with notifications(link) as stream:`` subscribes; ``for notification in stream:`` yields what was
    received since. This is a function, since a method would hide one of the Service. See
    `msl_network_trio.Link.notifications`.

    Args:
        link: A link, or a linked client.
        max_buffer_size: See `msl_network_trio.Link.notifications`.
        gaps: Whether to yield a `Gap` where notifications may have been lost; see there, too.
    """
    return Notifications(unwrap(link).notifications(max_buffer_size, gaps=gaps), portal_of(link))
