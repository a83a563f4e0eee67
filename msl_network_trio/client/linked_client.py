"""A client that is linked with one Service, and looks like the Service."""

from __future__ import annotations

import difflib
import math
from collections.abc import Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs
import trio

from msl_network_trio import callbacks
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.client import Client, ClientContext, filter_client_connect_kwargs
from msl_network_trio.client.identities import checked_registry
from msl_network_trio.client.link import Link, RemoteMethod, check_assignable, private_attribute
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectionLost, ConnectTimeout, LinkBroken, ManagerError
from msl_network_trio.hidden import hide_secrets
from msl_network_trio.logger import get_logger
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    from msl_network_trio.sync.linked_client import LinkedClient as BlockingLinkedClient

logger = get_logger(__name__)

T = TypeVar("T")

_POLL_INTERVAL = 0.1
"""How many seconds to wait before looking again whether the Service has come."""

_DISCONNECT_TIMEOUT = 10.0
"""How many seconds a `LinkedClient.disconnect` of the user's may take at the end of a scope."""


class _CoroutineMethod:
    """A method of coroutines until the client is open, and from then on the Service's of that name.

    What can be awaited is a coroutine to Trio, and coroutines have methods with everyday names.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, client: LinkedClient | None, owner: type) -> Any:
        if client is None:
            return self
        if client._last_link is None:
            return getattr(client._context, self._name)
        return client.__getattr__(self._name)


class _GuardedMethod(RemoteMethod):
    """A method of a Service that tells its client when it fails."""

    __slots__ = ("_owner",)

    def __init__(self, owner: LinkedClient, link: Link, name: str) -> None:
        super().__init__(link, name)
        self._owner = owner

    @trio.lowlevel.enable_ki_protection
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """See `RemoteMethod`; if an awaited call fails, the `service_error_handler` is called first."""
        if kwargs.get("asynchronous"):
            return super().__call__(*args, **kwargs)
        self._link._linked(self._name)
        return self._owner._guarded(super().__call__, args, kwargs)


@attrs.define(eq=False, slots=False, repr=False, init=False)
class LinkedClient:
    """A new client that has a link with a Service; its methods are those of the Service.

    Await it, and disconnect yourself; or enter it with ``async with``, which disconnects at the end of the
    block::

        async with LinkedClient("BasicMath", host="lab-3") as math:
            print(await math.add(1, 2))

    Opening it waits for the Service to appear. It can be subclassed, with an ``__init__`` and methods of its
    own. Attributes that are not listed here are the Service's, as with `Link`.

    Args:
        service_name: The name of the Service.
        **kwargs: Arguments of `connect`; others are ignored, as by `filter_client_connect_kwargs`, which is
            logged as a warning. The name is that of the class if none is given, and the timeout covers
            waiting for the Service too.
    """

    _service_name: str
    _settings: Settings
    _client: Client | None = attrs.field(default=None, init=False)
    _link: Link | None = attrs.field(default=None, init=False)
    _last_client: Client | None = attrs.field(default=None, init=False)
    """The client, also after it has disconnected."""
    _last_link: Link | None = attrs.field(default=None, init=False)
    """The link, also after it was broken."""
    _early_notification_handler: Callable[..., Any] | None = attrs.field(default=None, init=False)
    """The notification handler that was assigned before there was a link."""
    _sync: BlockingLinkedClient | None = attrs.field(default=None, init=False)

    def __init__(self, service_name: str, **kwargs: Any) -> None:
        kwargs.setdefault("name", type(self).__name__)
        hide_secrets(kwargs)
        _warn_of_ignored(type(self).__name__, kwargs)
        self.__attrs_init__(service_name, Settings(**filter_client_connect_kwargs(**kwargs)))
        self._context = _LinkedClientContext(self)

    # ---- opening ----

    send = _CoroutineMethod()
    throw = _CoroutineMethod()
    close = _CoroutineMethod()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._context.__await__()  # type: ignore[return-value]

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        await self._context.__aenter__()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._context.__aexit__(exception_type, exception, traceback)

    @trio.lowlevel.enable_ki_protection
    async def _attach(self, client: Client) -> None:
        """Link with the Service, when it has come; connecting has used up some of the time."""
        timeout = client._settings.timeout
        seconds = math.inf if timeout is None else timeout - client._connection.connect_seconds
        link = None
        with trio.move_on_after(max(0, seconds)):
            link = await self._link_when_it_is_there(client)
        if link is None:
            raise ConnectTimeout(f"The {self._service_name!r} service is not available")
        self._client = self._last_client = client
        self._link = self._last_link = link
        if self._early_notification_handler is not None:
            link.notification_handler = self._early_notification_handler
        elif type(self).notification_handler is not LinkedClient.notification_handler:
            link.notification_handler = self.notification_handler

        self._warn_of_hidden_names(link)

    async def _link_when_it_is_there(self, client: Client) -> Link:
        while True:
            registry = checked_registry(await client.identities(timeout=math.inf))
            if self._service_name in registry["services"]:
                try:
                    return await client.link(self._service_name, timeout=math.inf)
                except ManagerError as error:
                    if error.type_name != "KeyError":  # else it has gone again
                        raise
            await trio.sleep(_POLL_INTERVAL)

    def _warn_of_hidden_names(self, link: Link) -> None:
        """Name the attributes of the Service that only this class hides, beyond those that `Link` does."""
        ours = {name for name in dir(type(self)) if not name.startswith("_")}
        hidden = ours.intersection(link.service_attributes) - {*dir(Link), "send", "throw", "close"}
        if hidden:
            logger.warning(
                "the %r Service has attributes that %s hides: %s; reach them with request()",
                self._service_name,
                type(self).__name__,
                ", ".join(sorted(hidden)),
            )

    # ---- requests to the Service ----

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("_"):
            raise private_attribute(self, name)
        return _GuardedMethod(self, self._linked(name), name)

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        attribute: str,
        args: list[Any] | tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """See `Link.request`."""
        link = self._linked(attribute)
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
        """Called when an awaited call of a method of the Service has failed, before the exception is raised.

        Override it, with a plain or an async method, to clean up on this side; the Service goes on. What it
        raises is logged, and does not replace the exception.
        """

    @trio.lowlevel.enable_ki_protection
    async def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """See `Link.shutdown_service`."""
        result = await self._linked("shutdown_service").shutdown_service(*args, timeout=timeout, **kwargs)
        self._link = None
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None = attrs.field(init=False)
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Does nothing; assign a function, or override it, to handle notifications as `Link` says."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "notification_handler":
            # A subclass has attributes of its own.
            if type(self) is LinkedClient and not name.startswith("_") and self._last_link is not None:
                check_assignable(self, self, name, value)
            object.__setattr__(self, name, value)
        elif self._last_link is None:
            self._early_notification_handler = value  # for the link that is to come
        else:
            self._linked(name).notification_handler = value

    def notifications(self, max_buffer_size: float | None = None) -> NotificationStream:
        """See `Link.notifications`."""
        return self._linked("notifications").notifications(max_buffer_size)

    # ---- the link ----

    def acquire_lock(
        self, shared: bool = False, timeout: float | None = None, *, wait: bool = False
    ) -> AwaitableContext[list[str]]:
        """See `Link.acquire_lock`."""
        return self._linked("acquire_lock").acquire_lock(shared, timeout, wait=wait)

    @trio.lowlevel.enable_ki_protection
    async def release_lock(self, timeout: float | None = None) -> list[str]:
        """See `Link.release_lock`."""
        return await self._linked("release_lock").release_lock(timeout)

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, timeout: float | None = None) -> None:
        """See `Link.unlink`."""
        if self._link is not None:
            await self._link.unlink(timeout)
            self._link = None

    # ---- the client ----

    @trio.lowlevel.enable_ki_protection
    async def admin_request(self, /, attrib: str, *args: Any, **kwargs: Any) -> Any:
        """See `Client.admin_request`."""
        return await self._connected().admin_request(attrib, *args, **kwargs)

    def identity(self) -> dict[str, str]:
        """See `Client.identity`."""
        return self._connected().identity()

    @trio.lowlevel.enable_ki_protection
    async def identities(
        self, *, as_string: bool = False, indent: int = 2, timeout: float | None = None
    ) -> Any:
        """See `Client.identities`."""
        return await self._connected().identities(as_string=as_string, indent=indent, timeout=timeout)

    def is_connected(self) -> bool:
        """See `Client.is_connected`."""
        return self._client is not None and self._client.is_connected()

    def spawn(self, name: str = "LinkedClient") -> LinkedClient:
        """Make another client, of this class and not a subclass, that is linked with the same Service.

        Args:
            name: The name of the new client, which is to be awaited or entered.
        """
        client = LinkedClient(self._service_name, name=name)
        client._settings = attrs.evolve(self._settings, name=name)
        return client

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """See `Client.disconnect`. Disconnecting again does no harm."""
        client = self._client
        if client is not None:
            try:
                await client.disconnect(timeout)
            finally:
                if not client.is_connected():  # it is if the timeout was none
                    self._client = None
                    self._link = None

    # ---- who and where ----

    @property
    def sync(self) -> BlockingLinkedClient:
        """The same client for threads: the methods of `msl_network_trio.sync`, which block.

        Raises:
            LinkBroken: It is not open yet.
        """
        if self._sync is None:
            from msl_network_trio.sync.linked_client import LinkedClientView

            self._sync = LinkedClientView._of(self)
        return self._sync

    @property
    def client(self) -> Client | None:
        """The client; None once `disconnect` was called, or the scope has ended."""
        return self._client

    @property
    def link(self) -> Link | None:
        """The link; None if it is broken."""
        return None if self._link is None or self._link._client is None else self._link

    @property
    def name(self) -> str:
        """See `Client.name`."""
        return self._settings.name

    @property
    def port(self) -> int:
        """See `Client.port`."""
        return self._opened(self._last_client).port

    @property
    def address_manager(self) -> str:
        """See `Client.address_manager`."""
        return self._opened(self._last_client).address_manager

    @property
    def service_name(self) -> str:
        """See `Link.service_name`."""
        return self._service_name

    @property
    def service_address(self) -> str:
        """See `Link.service_address`."""
        return self._opened(self._last_link).service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        """See `Link.service_attributes`."""
        return self._opened(self._last_link).service_attributes

    @property
    def service_language(self) -> str:
        """See `Link.service_language`."""
        return self._opened(self._last_link).service_language

    @property
    def service_max_clients(self) -> int:
        """See `Link.service_max_clients`."""
        return self._opened(self._last_link).service_max_clients

    @property
    def service_os(self) -> str:
        """See `Link.service_os`."""
        return self._opened(self._last_link).service_os

    def __dir__(self) -> list[str]:
        attributes = {} if self._last_link is None else self._last_link.service_attributes
        return sorted({*super().__dir__(), *filter(str.isidentifier, attributes)})

    def __repr__(self) -> str:
        if "_settings" not in self.__dict__:
            return object.__repr__(self)  # it was not made, since an argument was wrong
        if self._last_link is None:
            return visible(
                f"<{self.name} for {self._service_name!r}: await it, or enter it with 'async with'>"
            )
        service = f"{self._service_name}[{self.service_address}]"
        if self.link is None:
            return visible(f"<Un-Linked[name={self.name}] from {service}>")
        return visible(f"<Link[name={self.name}] with {service} at Manager[{self.address_manager}]>")

    def _opened(self, thing: T | None) -> T:
        if thing is None:
            raise LinkBroken(f"{self!r} is not open yet")
        return thing

    def _linked(self, name: str) -> Link:
        self._opened(self._last_link)
        link = self.link
        if link is None:
            raise LinkBroken(f"Cannot access {name!r} since the link has been broken")
        return link

    def _connected(self) -> Client:
        self._opened(self._last_client)
        if self._client is None:
            raise ConnectionLost("The LinkedClient has been disconnected")
        return self._client


_MANAGER_ARGUMENTS: Final = frozenset(
    {
        "auth_hostname",
        "auth_login",
        "auth_password",
        "database",
        "key_file",
        "key_file_password",
        "log_file",
        "log_level",
    }
)
"""What programs that run a Manager, too, have in the same dictionary."""


def _warn_of_ignored(what: str, kwargs: Mapping[str, Any]) -> None:
    """Log which keyword arguments are none of `connect`: one that is misspelt would have no effect."""
    accepted = [field.name for field in attrs.fields(Settings)]
    for name in sorted(kwargs.keys() - {*accepted, *_MANAGER_ARGUMENTS}):
        meant = difflib.get_close_matches(name, accepted, 1)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        logger.warning("%s ignores the argument %r, which connect() has not%s", what, name, hint)


def dropped(link: Link | LinkedClient) -> int:
    """Return the number of notifications of its Service that a client has lost; see `Client.dropped`.

    This is a function, since a method would hide one of the Service.

    Args:
        link: A link, or a linked client.

    Raises:
        LinkBroken: The linked client is not open yet.
    """
    link = link if isinstance(link, Link) else link._opened(link._last_link)
    return link._mailboxes.dropped[link.service_name]


class _LinkedClientContext(AwaitableContext[LinkedClient]):
    """Opens a `LinkedClient`."""

    def __init__(self, owner: LinkedClient) -> None:
        self._owner = owner
        super().__init__(type(owner).__name__)

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> LinkedClient:
        client = await ClientContext(self._owner._settings)
        try:
            await self._owner._attach(client)
        except BaseException:
            with trio.CancelScope(shield=True):
                await client.disconnect()
            raise
        return self._owner

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> LinkedClient:
        self._scope = ClientContext(self._owner._settings)
        client = await self._scope.__aenter__()
        try:
            await self._owner._attach(client)
        except BaseException:
            await self._scope.__aexit__(None, None, None)
            raise
        return self._owner

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        owner = self._owner
        try:
            if type(owner).disconnect is not LinkedClient.disconnect:
                with trio.move_on_after(_DISCONNECT_TIMEOUT, shield=True):
                    await callbacks.call(owner.disconnect, (), {}, "the method")
        finally:
            owner._client = None
            owner._link = None
            await self._scope.__aexit__(None, None, None)
