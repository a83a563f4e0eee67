"""Client that is linked with one Service and has its attributes; belongs to the Trio thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import attrs
import trio

from msl_network_trio import arguments, callbacks
from msl_network_trio.client import views
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.client import Client
from msl_network_trio.client.connect_arguments import filter_client_connect_kwargs, warn_of_ignored
from msl_network_trio.client.link import Link, link_state
from msl_network_trio.client.linked_opening import GuardedMethod, LinkedClientContext
from msl_network_trio.client.linked_state import LinkedState
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.client.remote_method import RemoteMethod, check_assignable, private_attribute
from msl_network_trio.client.statistics import Statistics
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import Gap, Notification

if TYPE_CHECKING:
    import msl_network_trio

logger = get_logger(__name__)


class _CoroutineMethod:
    """A method of coroutines until the client is open; from then on the Service's attribute of that name.

    An awaitable is a coroutine for Trio, and coroutines have methods with everyday names.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: LinkedClient | None, owner: type) -> Any:
        if client is None:
            return self
        if linked_state(client).last_link is None:
            return getattr(client._linked_context, self._name)  # noqa: SLF001 - a part of its class
        return client.__getattr__(self._name)


class LinkedClient:
    """A new client that has a link with a Service; its methods are those of the Service.

    Await it, and disconnect yourself; or enter it with ``async with``, which disconnects at the end of the
    block::

        async with LinkedClient("BasicMath", host="lab-3") as math:
            print(await math.add(1, 2))

    Opening it waits for the Service to appear. It can be subclassed, with an ``__init__`` and methods of its
    own. Attributes that are not listed here are the Service's, as with `Link`.

    Args:
        service_name: Name of the Service.
        **kwargs: ``idempotent`` of `Client.link`, and arguments of `connect`. Others are ignored, as by
            `filter_client_connect_kwargs`, which is logged as a warning. The name is that of the class if
            none is given, and the timeout includes waiting for the Service.
    """

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        idempotent = kwargs.pop("idempotent", ())
        kwargs.setdefault("name", type(self).__name__)
        hide_secrets(kwargs)
        warn_of_ignored(type(self).__name__, kwargs)
        self._linked_state = LinkedState(
            service_name,
            Settings(**filter_client_connect_kwargs(**kwargs)),
            arguments.names("idempotent", idempotent),
        )
        self._early_notification_handler: Callable[..., Any] | None = None
        """The notification handler that was assigned before there was a link."""
        self._sync: msl_network_trio.sync.LinkedClient | None = None
        self._linked_context = LinkedClientContext(
            self,
            self._linked_state,
            self._attach,
            overrides_disconnect=type(self).disconnect is not LinkedClient.disconnect,
        )

    # ---- opening ----

    send = _CoroutineMethod()
    throw = _CoroutineMethod()
    close = _CoroutineMethod()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._linked_context.__await__()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        await self._linked_context.__aenter__()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._linked_context.__aexit__(exception_type, exception, traceback)

    def _attach(self, client: Client, link: Link) -> None:
        """Take the client and the link of a LinkedClient that was opened."""
        self._linked_state.opened(client, link)
        if self._early_notification_handler is not None:
            link.notification_handler = self._early_notification_handler
        elif type(self).notification_handler is not LinkedClient.notification_handler:
            link.notification_handler = self.notification_handler
        self._warn_of_hidden_names(link)

    def _warn_of_hidden_names(self, link: Link) -> None:
        """Log the attributes of the Service that this class hides, except those that `Link` hides as well."""
        ours = {name for name in dir(type(self)) if not name.startswith("_")}
        hidden = ours.intersection(link.service_attributes) - {*dir(Link), "send", "throw", "close"}
        if hidden:
            logger.warning(
                "the %r Service has attributes that %s hides: %s; reach them with request()",
                self._linked_state.service_name,
                type(self).__name__,
                ", ".join(sorted(hidden)),
            )

    # ---- requests to the Service ----

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("_"):
            raise private_attribute(self, name)
        return GuardedMethod(self._guarded, self._linked_state.require_link_state(name), name)

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        attribute: str,
        args: list[Any] | tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Request an attribute of the Service; see `Link.request`."""
        link = self._linked_state.require_link(attribute)
        return await self._guarded(link.request, (attribute, args, kwargs), {"timeout": timeout})

    @trio.lowlevel.enable_ki_protection
    async def _guarded(
        self, call: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return await call(*args, **kwargs)
        except Exception:
            await callbacks.call(self.service_error_handler, (), {}, "the service error handler")
            raise

    def service_error_handler(self) -> Any:
        """Do nothing; called when an awaited call of the Service has failed, before the exception is raised.

        Override it, with a plain or an async method, to clean up on this side; the Service continues. An
        exception in it is logged, and does not replace the one of the call.
        """

    @trio.lowlevel.enable_ki_protection
    async def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Request the Service to shut down; see `Link.shutdown_service`."""
        link = self._linked_state.require_link("shutdown_service")
        result = await link.shutdown_service(*args, timeout=timeout, **kwargs)
        self._linked_state.link = None
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Do nothing; assign a function, or override it, to handle notifications as `Link` does."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "notification_handler":
            # A subclass has attributes of its own.
            if (
                type(self) is LinkedClient
                and not name.startswith("_")
                and self._linked_state.last_link is not None
            ):
                check_assignable(self, self, name, value)
            object.__setattr__(self, name, value)
        elif self._linked_state.last_link is None:
            self._early_notification_handler = value
        else:
            self._linked_state.require_link(name).notification_handler = value

    @overload
    def notifications(
        self, max_buffer_size: float | None = None, *, gaps: Literal[False] = False
    ) -> NotificationStream[Notification]: ...

    @overload
    def notifications(
        self, max_buffer_size: float | None = None, *, gaps: bool
    ) -> NotificationStream[Notification | Gap]: ...

    def notifications(self, max_buffer_size: float | None = None, *, gaps: bool = False) -> Any:
        """Iterate over the notifications of the Service; see `Link.notifications`."""
        return self._linked_state.require_link("notifications").notifications(max_buffer_size, gaps=gaps)

    # ---- the link ----

    def acquire_lock(
        self, shared: bool = False, timeout: float | None = None, *, wait: bool = False
    ) -> AwaitableContext[list[str]]:
        """Acquire a lock on the Service; see `Link.acquire_lock`."""
        return self._linked_state.require_link("acquire_lock").acquire_lock(shared, timeout, wait=wait)

    @trio.lowlevel.enable_ki_protection
    async def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock on the Service; see `Link.release_lock`."""
        return await self._linked_state.require_link("release_lock").release_lock(timeout)

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `Link.unlink`."""
        if self._linked_state.link is not None:
            await self._linked_state.link.unlink(timeout)
            self._linked_state.link = None

    # ---- the client ----

    @trio.lowlevel.enable_ki_protection
    async def admin_request(self, /, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """Request an attribute of the Manager; see `Client.admin_request`."""
        return await self._linked_state.require_client().admin_request(attrib, *args, **kwargs)

    def identity(self) -> dict[str, str]:
        """Return the identity of this client; see `Client.identity`."""
        return self._linked_state.require_client().identity()

    @trio.lowlevel.enable_ki_protection
    async def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> Any:
        """Request the identities of everything that is connected; see `Client.identities`."""
        client = self._linked_state.require_client()
        return await client.identities(as_string=as_string, indent=indent, timeout=timeout)

    def is_connected(self) -> bool:
        """Return whether requests can be made; see `Client.is_connected`."""
        return self._linked_state.client is not None and self._linked_state.client.is_connected()

    def spawn(self, name: str = "LinkedClient") -> LinkedClient:
        """Make another client, of this class and not a subclass, that is linked with the same Service.

        Args:
            name: Name of the new client, which is to be awaited or entered.
        """
        state = self._linked_state
        client = LinkedClient(state.service_name, name=name, idempotent=state.idempotent)
        linked_state(client).settings = attrs.evolve(self._linked_state.settings, name=name)
        return client

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager; see `Client.disconnect`. May be called again."""
        client = self._linked_state.client
        if client is not None:
            try:
                await client.disconnect(timeout)
            finally:
                if not client.is_connected():  # it is if the timeout was not valid
                    self._linked_state.closed()

    # ---- properties ----

    @property
    def sync(self) -> msl_network_trio.sync.LinkedClient:
        """The same client for threads: the methods of `msl_network_trio.sync`, which block.

        Raises:
            LinkBroken: It is not open yet.
        """
        if self._sync is None:
            self._sync = views.registered().linked_client(self)
        return self._sync

    @property
    def client(self) -> Client | None:
        """The client; None once `disconnect` was called, or the scope has ended."""
        return self._linked_state.client

    @property
    def link(self) -> Link | None:
        """The link; None if it is broken."""
        return self._linked_state.unbroken_link()

    @property
    def name(self) -> str:
        """See `Client.name`."""
        return self._linked_state.settings.name

    @property
    def port(self) -> int:
        """See `Client.port`."""
        return self._linked_state.require_opened_client().port

    @property
    def address_manager(self) -> str:
        """See `Client.address_manager`."""
        return self._linked_state.require_opened_client().address_manager

    @property
    def service_name(self) -> str:
        """See `Link.service_name`."""
        return self._linked_state.service_name

    @property
    def service_address(self) -> str:
        """See `Link.service_address`."""
        return self._linked_state.require_opened_link().service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        """See `Link.service_attributes`."""
        return self._linked_state.require_opened_link().service_attributes

    @property
    def service_language(self) -> str:
        """See `Link.service_language`."""
        return self._linked_state.require_opened_link().service_language

    @property
    def service_max_clients(self) -> int:
        """See `Link.service_max_clients`."""
        return self._linked_state.require_opened_link().service_max_clients

    @property
    def service_os(self) -> str:
        """See `Link.service_os`."""
        return self._linked_state.require_opened_link().service_os

    def __dir__(self) -> list[str]:
        link = self._linked_state.last_link
        attributes = {} if link is None else link.service_attributes
        return sorted({*super().__dir__(), *filter(str.isidentifier, attributes)})

    def __repr__(self) -> str:
        if "_linked_state" not in self.__dict__:
            return object.__repr__(self)  # it was not made, since an argument was wrong
        return repr(self._linked_state)


def linked_state(client: LinkedClient) -> LinkedState:
    """Return the state of a LinkedClient, for the other classes of the client and of the blocking API."""
    return client._linked_state  # noqa: SLF001 - the one way in


def statistics(link: Link | LinkedClient) -> Statistics:
    """Return what the client of a link has done since it was connected; see `Client.statistics`.

    This is a function, since a method would hide one of the Service.

    Args:
        link: A link, or a linked client, which may be disconnected.

    Raises:
        LinkBroken: The link is broken, or the linked client is not open yet.
    """
    if isinstance(link, Link):
        return link_state(link).require_session("statistics").statistics()
    return linked_state(link).require_opened_client().statistics()


def dropped(link: Link | LinkedClient) -> int:
    """Return the number of notifications of its Service that a client has lost; see `Client.dropped`.

    This is a function, since a method would hide one of the Service.

    Args:
        link: A link, or a linked client.

    Raises:
        LinkBroken: The linked client is not open yet.
    """
    link = link if isinstance(link, Link) else linked_state(link).require_opened_link()
    return link_state(link).mailboxes.dropped[link.service_name]
