"""Blocking client that is linked with one Service and has its attributes; may be used from any thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from msl_network_trio import callbacks
from msl_network_trio.client.client import client_session
from msl_network_trio.client.linked_client import LinkedClient as AsyncLinkedClient
from msl_network_trio.client.linked_client import linked_state
from msl_network_trio.client.remote_method import check_assignable, private_attribute
from msl_network_trio.client.session import SessionLink
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.portal.background_thread import current_portal
from msl_network_trio.portal.interrupts import uninterrupted
from msl_network_trio.portal.portal import Portal
from msl_network_trio.portal.waiting import check_may_wait
from msl_network_trio.sync.client import REMOVED, Client, missing_attribute
from msl_network_trio.sync.handlers import ThreadHandler, call_in_threads
from msl_network_trio.sync.link import BlockingMethod, Link, Lock, ServiceProperties, request
from msl_network_trio.sync.prompts import prompts_for_threads
from msl_network_trio.sync.wrapped import Entering, blocking, portal_of, unwrap


class _GuardedMethod(BlockingMethod):
    """A method of a Service that calls the ``service_error_handler`` if it fails."""

    __slots__ = ("_owner",)

    def __init__(self, owner: LinkedClient, link: SessionLink, name: str) -> None:
        super().__init__(link, name)
        self._owner = owner

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Request it; if the call fails, the `service_error_handler` is called first."""
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
        service_name: Name of the Service.
        **kwargs: Arguments of `connect`; others are ignored, as by `filter_client_connect_kwargs`, which is
            logged as a warning. The name is that of the class if none is given, and the timeout includes
            waiting for the Service.
    """

    _wrapped_async: AsyncLinkedClient
    _portal: Portal

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        check_may_wait(type(self).__name__)
        kwargs.setdefault("name", type(self).__name__)
        hide_secrets(kwargs)
        kwargs["prompts"] = prompts_for_threads(kwargs.get("prompts"))
        call_in_threads(kwargs)
        self._portal = current_portal()
        self._wrapped_async = AsyncLinkedClient(service_name, **kwargs)
        handler = self.notification_handler
        if getattr(handler, "__func__", None) is not LinkedClient.notification_handler:
            self.notification_handler = handler
        # First, in case an exception interrupts this thread as soon as it is open.
        _disconnect_when_forgotten(self)
        self._portal.open(_open, AsyncLinkedClient.disconnect, self._wrapped_async)

    # ---- requests to the Service ----

    def __getattr__(self, name: str) -> _GuardedMethod:
        wrapped = self.__dict__.get("_wrapped_async")
        if name.startswith("_"):
            raise private_attribute(self, name)
        if wrapped is None:
            raise AttributeError(missing_attribute(type(self), name))
        if name in REMOVED and name not in wrapped.service_attributes:
            raise AttributeError(missing_attribute(type(self), name))
        return _GuardedMethod(self, linked_state(wrapped).require_link_state(name), name)

    def _request(
        self, attribute: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        try:
            link = linked_state(self._wrapped_async).require_link(attribute).sync
            return request(link, attribute, list(args), kwargs, timeout=timeout)
        except Exception:
            self.service_error_handler()
            raise

    def service_error_handler(self) -> Any:
        """Do nothing; called when a call of the Service has failed, before the exception is raised.

        Override it to clean up on this side; the Service continues. It may disconnect.
        """

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Request the Service to shut down; see `Link.shutdown_service`."""
        link = linked_state(self._wrapped_async).require_link("shutdown_service").sync
        result = link.shutdown_service(*args, timeout=timeout, **kwargs)
        self._link = None
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Do nothing; assign a function, or override it, to handle notifications as `Link` does."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "notification_handler" and "_wrapped_async" in self.__dict__:
            self._wrapped_async.notification_handler = ThreadHandler.of(value)
        elif type(self) in {LinkedClient, LinkedClientView} and not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)

    # ---- the link ----

    def acquire_lock(self, shared: bool = False, timeout: float | None = None, *, wait: bool = False) -> Lock:
        """Acquire a lock on the Service; see `Link.acquire_lock`."""
        return (
            linked_state(self._wrapped_async)
            .require_link("acquire_lock")
            .sync.acquire_lock(shared, timeout, wait=wait)
        )

    release_lock = blocking(AsyncLinkedClient.release_lock)

    def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `Link.unlink`."""
        if self._link is not None:
            self._portal.call(self._wrapped_async.unlink, timeout)

    # ---- the client ----

    admin_request = blocking(AsyncLinkedClient.admin_request)
    identities = blocking(AsyncLinkedClient.identities)

    def identity(self) -> dict[str, str]:
        """Return the identity of this client; see `Client.identity`."""
        return self._wrapped_async.identity()

    def is_connected(self) -> bool:
        """Return whether requests can be made; see `Client.is_connected`."""
        client = self._client
        return client is not None and client.is_connected()

    def spawn(self, name: str = "LinkedClient") -> LinkedClient:
        """Make another client, of this class and not a subclass, that is linked with the same Service.

        Args:
            name: Name of the new client.
        """
        wrapped = self._portal.open(_open, AsyncLinkedClient.disconnect, self._wrapped_async.spawn(name))
        client = _view(LinkedClient, wrapped)
        _disconnect_when_forgotten(client)
        return client

    def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager; see `Client.disconnect`. May be called again."""
        client = linked_state(self._wrapped_async).client
        if client is None:
            return
        if client_session(client).is_over:
            linked_state(self._wrapped_async).closed()
        else:
            self._portal.call(self._wrapped_async.disconnect, timeout)

    __enter__ = Entering(weakref.ref)

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    # ---- properties ----

    # Subclasses read these two, some of them before they call our __init__, and some assign None.

    @property
    def _client(self) -> Client | None:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped_async")
        return None if wrapped is None or wrapped.client is None else wrapped.client.sync

    @_client.setter
    def _client(self, client: Client | None) -> None:
        if "_wrapped_async" in self.__dict__:
            linked_state(self._wrapped_async).client = None if client is None else unwrap(client)

    @property
    def _link(self) -> Link | None:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped_async")
        return None if wrapped is None or wrapped.link is None else wrapped.link.sync

    @_link.setter
    def _link(self, link: Link | None) -> None:
        if "_wrapped_async" in self.__dict__:
            linked_state(self._wrapped_async).link = None if link is None else unwrap(link)

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
        return self._wrapped_async.name

    @property
    def port(self) -> int:
        """See `Client.port`."""
        return self._wrapped_async.port

    @property
    def address_manager(self) -> str:
        """See `Client.address_manager`."""
        return self._wrapped_async.address_manager

    def __dir__(self) -> list[str]:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped_async")
        attributes = wrapped.service_attributes if wrapped is not None and _is_open(wrapped) else {}
        return sorted({*super().__dir__(), *filter(str.isidentifier, attributes)})

    def __repr__(self) -> str:
        wrapped: AsyncLinkedClient | None = self.__dict__.get("_wrapped_async")
        return repr(wrapped) if wrapped is not None and _is_open(wrapped) else object.__repr__(self)


class LinkedClientView(LinkedClient):
    """The blocking form of a `LinkedClient` of the async API, whose methods may be overridden there."""

    def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Request the Service to shut down; see `Link.shutdown_service`."""
        wrapped = self._wrapped_async
        if type(wrapped).shutdown_service is AsyncLinkedClient.shutdown_service:
            return super().shutdown_service(*args, timeout=timeout, **kwargs)
        return self._portal.call(wrapped.shutdown_service, *args, timeout=timeout, **kwargs)

    def service_error_handler(self) -> None:
        """Call the method of the async API."""
        self._portal.call(
            callbacks.call, self._wrapped_async.service_error_handler, (), {}, "the service error handler"
        )


def linked_client_view(wrapped: AsyncLinkedClient) -> LinkedClient:
    """Return the blocking form of a client that is open.

    Raises:
        LinkBroken: It is not open yet.
    """
    return _view(LinkedClientView, wrapped)


def _view(cls: type[LinkedClient], wrapped: AsyncLinkedClient) -> LinkedClient:
    """Return the blocking form of a client that is open, without a call of ``__init__``, which opens one."""
    client = linked_state(wrapped).require_opened_client()
    _ = client.sync  # its blocking form sets the calls of the session
    portal = client_session(client).portal
    view = cls.__new__(cls)
    vars(view).update(_portal=portal, _wrapped_async=wrapped)
    return view


def _is_open(wrapped: AsyncLinkedClient) -> bool:
    """Return whether a client is open, or was."""
    return linked_state(wrapped).last_link is not None


async def _open(client: AsyncLinkedClient) -> AsyncLinkedClient:
    await client
    # Import now what this needs, since subclasses disconnect in their __del__, at the end of the interpreter,
    # when nothing can be imported.
    _ = linked_state(client).require_link("sync").sync
    return client


def _disconnect_when_forgotten(client: LinkedClient) -> None:
    """Disconnect when there is no reference to this object any more, as in msl-network."""
    wrapped: AsyncLinkedClient = unwrap(client)
    weakref.finalize(client, _disconnect_soon, portal_of(client), wrapped).atexit = False


def _disconnect_soon(portal: Portal, client: AsyncLinkedClient) -> None:
    try:
        # A KeyboardInterrupt could not be raised in a finalizer, so it is deferred.
        uninterrupted(portal.post, _start_disconnecting, client)
    except ConnectionLost:
        pass  # it is


def _start_disconnecting(client: AsyncLinkedClient) -> None:
    try:
        trio.lowlevel.spawn_system_task(client.disconnect)
    except RuntimeError:
        pass  # the Trio run is ending, which disconnects all
