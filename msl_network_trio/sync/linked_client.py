"""A client that is linked with one Service, and looks like the Service, for threads."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import trio

from msl_network_trio import callbacks
from msl_network_trio.client.link import check_assignable, private_attribute
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.portal.background_thread import current_portal
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.sync.client import REMOVED, Client, dropped
from msl_network_trio.sync.handlers import ThreadHandler
from msl_network_trio.sync.link import BlockingMethod, Link, Lock, ServiceProperties
from msl_network_trio.sync.prompts import prompts_for_threads
from msl_network_trio.sync.wrapped import Entering, blocking


class _GuardedMethod(BlockingMethod):
    """A method of a Service that tells its client when it fails."""

    __slots__ = ("_owner",)

    def __init__(self, owner: LinkedClient, link: Link, name: str) -> None:
        super().__init__(link._wrapped, name, link._calls)
        self._owner = owner

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """See `BlockingMethod`; if the call fails, the `service_error_handler` is called first."""
        try:
            return super().__call__(*args, **kwargs)
        except Exception:
            self._owner.service_error_handler()
            raise


class LinkedClient(ServiceProperties):
    """A new client that has a link with a Service; its methods are those of the Service.

    ::

        math = LinkedClient("BasicMath", host="lab-3")
        print(math.add(1, 2))
        math.disconnect()

    Making it waits for the Service to appear. It can be subclassed, with an ``__init__`` and methods of its
    own. Attributes that are not listed here are the Service's, as with `Link`. Entered with ``with``, it
    disconnects at the end of the block.

    Args:
        service_name: The name of the Service.
        **kwargs: Arguments of `connect`; others are ignored, as by `filter_client_connect_kwargs`, which is
            logged as a warning. The name is that of the class if none is given, and the timeout covers
            waiting for the Service too.
    """

    _wrapped: AsyncLinkedClient
    _portal: Portal

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        check_may_wait(type(self).__name__)
        kwargs.setdefault("name", type(self).__name__)
        hide_secrets(kwargs)
        kwargs["prompts"] = prompts_for_threads(kwargs.get("prompts"))
        self._portal = current_portal()
        self._wrapped = AsyncLinkedClient(service_name, **kwargs)
        handler = self.notification_handler
        if getattr(handler, "__func__", None) is not LinkedClient.notification_handler:
            self.notification_handler = handler
        # First, in case that an exception interrupts this thread as soon as it is open.
        self._disconnect_when_forgotten()
        self._portal.open(_open, AsyncLinkedClient.disconnect, self._wrapped)

    @classmethod
    def _of(cls, wrapped: AsyncLinkedClient) -> Self:
        """Return the blocking form of a client that is open."""
        client = cls.__new__(cls)
        client._portal = wrapped._opened(wrapped._last_client)._connection.portal
        client._wrapped = wrapped
        return client

    def _disconnect_when_forgotten(self) -> None:
        """Leave the network when nobody refers to this object any more, as in msl-network."""
        weakref.finalize(self, _disconnect_soon, self._portal, self._wrapped).atexit = False

    # ---- requests to the Service ----

    def __getattr__(self, name: str) -> _GuardedMethod:
        wrapped = self.__dict__.get("_wrapped")
        if name.startswith("_"):
            raise private_attribute(self, name)
        if wrapped is None:
            raise AttributeError(dropped(type(self), name))
        if name in REMOVED and name not in wrapped.service_attributes:
            raise AttributeError(dropped(type(self), name))
        return _GuardedMethod(self, wrapped._linked(name).sync, name)

    def _request(
        self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        try:
            return self._wrapped._linked(attribute).sync._request(attribute, args, kwargs, timeout)
        except Exception:
            self.service_error_handler()
            raise

    def service_error_handler(self) -> Any:
        """Called when a call of a method of the Service has failed, before the exception is raised.

        Override it to clean up on this side; the Service goes on. It may disconnect.
        """

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """See `Link.shutdown_service`."""
        result = self._wrapped._linked("shutdown_service").sync.shutdown_service(
            *args, timeout=timeout, **kwargs
        )
        self._link = None
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Does nothing; assign a function, or override it, to handle notifications as `Link` says."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "notification_handler" and "_wrapped" in self.__dict__:
            self._wrapped.notification_handler = ThreadHandler.of(value)
        elif type(self) in {LinkedClient, LinkedClientView} and not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)

    # ---- the link ----

    def acquire_lock(self, shared: bool = False, timeout: float | None = None, *, wait: bool = False) -> Lock:
        """See `Link.acquire_lock`."""
        return self._wrapped._linked("acquire_lock").sync.acquire_lock(shared, timeout, wait=wait)

    release_lock = blocking(AsyncLinkedClient.release_lock)

    def unlink(self, timeout: float | None = None) -> None:
        """See `Link.unlink`."""
        if self._link is not None:
            self._portal.call(self._wrapped.unlink, timeout)

    # ---- the client ----

    admin_request = blocking(AsyncLinkedClient.admin_request)
    identities = blocking(AsyncLinkedClient.identities)

    def identity(self) -> dict[str, str]:
        """See `Client.identity`."""
        return self._wrapped.identity()

    def is_connected(self) -> bool:
        """See `Client.is_connected`."""
        client = self._client
        return client is not None and client.is_connected()

    def spawn(self, name: str = "LinkedClient") -> LinkedClient:
        """Make another client, of this class and not a subclass, that is linked with the same Service.

        Args:
            name: The name of the new client.
        """
        wrapped = self._portal.open(_open, AsyncLinkedClient.disconnect, self._wrapped.spawn(name))
        client = LinkedClient._of(wrapped)
        client._disconnect_when_forgotten()
        return client

    def disconnect(self, timeout: float | None = None) -> None:
        """See `Client.disconnect`. Disconnecting again does no harm."""
        client = self._client
        if client is None:
            return
        if client._is_over:
            self._client = self._link = None
        else:
            self._portal.call(self._wrapped.disconnect, timeout)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    # ---- who and where ----

    # Subclasses look at these two, some of them before they call our __init__, and some assign None.

    @property
    def _client(self) -> Client | None:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped")
        return None if wrapped is None or wrapped.client is None else wrapped.client.sync

    @_client.setter
    def _client(self, client: Client | None) -> None:
        if "_wrapped" in self.__dict__:
            self._wrapped._client = None if client is None else client._wrapped

    @property
    def _link(self) -> Link | None:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped")
        return None if wrapped is None or wrapped.link is None else wrapped.link.sync

    @_link.setter
    def _link(self, link: Link | None) -> None:
        if "_wrapped" in self.__dict__:
            self._wrapped._link = None if link is None else link._wrapped

    @property
    def client(self) -> Client | None:
        """The client; None once `disconnect` was called."""
        return self._client

    @property
    def link(self) -> Link | None:
        """The link; None if it is broken."""
        return self._link

    @property
    def name(self) -> str:
        """See `Client.name`."""
        return self._wrapped.name

    @property
    def port(self) -> int:
        """See `Client.port`."""
        return self._wrapped.port

    @property
    def address_manager(self) -> str:
        """See `Client.address_manager`."""
        return self._wrapped.address_manager

    def __dir__(self) -> list[str]:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped")
        attributes = {} if wrapped is None or wrapped._last_link is None else wrapped.service_attributes
        return sorted({*super().__dir__(), *filter(str.isidentifier, attributes)})

    def __repr__(self) -> str:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped")
        return object.__repr__(self) if wrapped is None or wrapped._last_link is None else repr(wrapped)


class LinkedClientView(LinkedClient):
    """The blocking form of a `LinkedClient` of the async API, whose methods may be overridden there."""

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """See `Link.shutdown_service`."""
        wrapped = self._wrapped
        if type(wrapped).shutdown_service is AsyncLinkedClient.shutdown_service:
            return super().shutdown_service(*args, timeout=timeout, **kwargs)
        return self._portal.call(wrapped.shutdown_service, *args, timeout=timeout, **kwargs)

    def service_error_handler(self) -> None:
        """Call that of the async API."""
        self._portal.call(
            callbacks.call, self._wrapped.service_error_handler, (), {}, "the service error handler"
        )


async def _open(client: AsyncLinkedClient) -> AsyncLinkedClient:
    await client
    # Now, since subclasses disconnect in their __del__: when the interpreter ends nothing can be imported.
    _ = client._linked("sync").sync
    return client


def _disconnect_soon(portal: Portal, client: AsyncLinkedClient) -> None:
    try:
        # Nobody can be given a KeyboardInterrupt here, so it must at least not be instead of that.
        uninterrupted(portal.post, _start_disconnecting, client)
    except ConnectionLost:
        pass  # it is


def _start_disconnecting(client: AsyncLinkedClient) -> None:
    try:
        trio.lowlevel.spawn_system_task(client.disconnect)
    except RuntimeError:
        pass  # the Trio run is ending, and disconnects everybody
