"""A link with a Service: its methods as methods."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import trio

from msl_network_trio import arguments
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.notifications import HandlerRunner, NotificationStream, StartTask
from msl_network_trio.client.signatures import parse_signature
from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.exceptions import LinkBroken, NetworkError, PrivateAttribute, ProtocolError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import NotificationBatch
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    from msl_network_trio.client.client import Client
    from msl_network_trio.sync.link import Link as BlockingLink

logger = get_logger(__name__)


M = TypeVar("M", bound="RemoteMethod")


class HasServiceAttributes(Protocol):
    """An object that knows the identity of a Service."""

    @property
    def service_name(self) -> str:
        """See `Link.service_name`."""

    @property
    def service_attributes(self) -> dict[str, Any]:
        """See `Link.service_attributes`."""


class RemoteMethod:
    """A method of a Service, ready to be called: ``await link.add(1, 2)``."""

    __slots__ = ("_link", "_name")

    def __init_subclass__(cls) -> None:
        # The docstring of a class would hide what is told of the method.
        cls.__doc__ = RemoteMethod.__doc__  # type: ignore[method-assign]

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name

    @trio.lowlevel.enable_ki_protection
    def __call__(
        self, /, *args: Any, timeout: float | None = None, asynchronous: bool = False, **kwargs: Any
    ) -> Any:
        """Request it from the Service.

        Args:
            *args: Go to the Service.
            timeout: How many seconds to wait for the reply; see `Link.request`.
            asynchronous: Whether to return at once.
            **kwargs: Go to the Service. A method that has arguments of the names of the two above is reached
                by `Link.request`.

        Returns:
            A coroutine that returns the result; with ``asynchronous=True`` a `Reply`, and the request is
            on its way already.
        """
        link = self._link
        client = link._client
        if client is None:
            client = link._linked(self._name)  # which raises
        connection = client._connection
        if asynchronous:
            arguments.flag("asynchronous", asynchronous)
            return connection.start(link._service_name, self._name, args, kwargs, timeout)
        return connection.request(link._service_name, self._name, args, kwargs, timeout)

    @property
    def __signature__(self) -> inspect.Signature:
        """What the identity of the Service tells of the arguments."""
        signature = parse_signature(self._link.service_attributes.get(self._name))
        if signature is None:
            raise AttributeError("__signature__")
        return signature

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """What the identity of the Service tells."""
        return f"{self!r}, requested from a Service of MSL-Network."

    @property
    def __name__(self) -> str:
        """The name of the attribute."""
        return self._name

    def __repr__(self) -> str:
        signature = self._link.service_attributes.get(self._name, "")
        if signature != "" and not (isinstance(signature, str) and signature.startswith("(")):
            signature = f" = {signature!r}"  # a constant or a property
        return visible(f"<{self._link.service_name}.{self._name}{signature}>")


class MethodCache:
    """Keeps those methods of a Service that have been used where Python finds them by itself.

    To ask `__getattr__` for one takes longer than to make the request.
    """

    @property
    @abstractmethod
    def service_attributes(self) -> dict[str, Any]:
        """The attributes of the Service; others are not kept, since there is no end to what can be tried."""

    def _keep(self, name: str, method: M) -> M:
        if name in self.service_attributes:
            self.__dict__[name] = method
        return method

    def _drop_methods(self) -> None:
        """Have `__getattr__` asked again, since the link is broken."""
        for name in self.service_attributes:
            if isinstance(self.__dict__.get(name), RemoteMethod):
                self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is to have: methods of its own."""
        return {name: value for name, value in self.__dict__.items() if not isinstance(value, RemoteMethod)}


@attrs.define(eq=False, slots=False, repr=False)
class Link(MethodCache):
    """A link between a client and a Service; `Client.link` makes it.

    Every attribute that is not listed here is a method (or a property) of the Service: ``await
    link.add(1, 2)``. Names that begin with an underscore are never the Service's, since every Service
    refuses them.
    """

    _client: Client | None
    _service_name: str
    _service_identity: Mapping[str, Any]
    _mailboxes: Mailboxes = attrs.field(factory=Mailboxes)
    _streams: set[NotificationStream] = attrs.field(factory=set, init=False)
    _handler_runner: HandlerRunner = attrs.field(init=False)
    _sync: BlockingLink | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._handler_runner = HandlerRunner(self._service_name, self.__dict__, self._mailboxes)
        hidden = sorted(_OWN_NAMES.intersection(self.service_attributes))
        if hidden:
            logger.warning(
                "the %r Service has attributes that Link hides: %s; reach them with request()",
                self._service_name,
                ", ".join(hidden),
            )

    @property
    def sync(self) -> BlockingLink:
        """The same link for threads: the methods of `msl_network_trio.sync`, which block.

        Raises:
            LinkBroken: This link was unlinked.
        """
        if self._sync is None:
            from msl_network_trio.sync.link import Link as BlockingLink

            self._sync = BlockingLink(self._linked("sync").sync, self)
        return self._sync

    # ---- requests ----

    @trio.lowlevel.enable_ki_protection
    async def request(
        self,
        attribute: str,
        args: list[Any] | tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Request an attribute of the Service, whatever its name and its arguments are called.

        Args:
            attribute: The method to call, or the property to read.
            args: The positional arguments.
            kwargs: The keyword arguments.
            timeout: How many seconds to wait for the reply; None: the ``request_timeout`` of `connect`;
                ``math.inf``: no limit.

        Returns:
            What the method returns, as JSON brings it: tuples and arrays come back as lists.

        Raises:
            RemoteError: The Service raised an exception.
            ServiceLost: The Service is not connected any more.
            ReplyTimeout: No reply in time.
            ConnectionLost: The connection to the Manager has ended.
            LinkBroken: This link was unlinked.
            TypeError: An argument has no JSON form; nothing was sent.
            ValueError: An argument cannot be sent; nothing was sent.
        """
        connection = self._linked(attribute)._connection
        return await connection.request(self._service_name, attribute, checked_args(args), kwargs, timeout)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> RemoteMethod:
        # Only for names that are not ours. Those of Python's own protocols, and our private ones on a
        # half-built object, must fail here: copying a link must not call the Service.
        if name.startswith("_"):
            raise private_attribute(self, name)
        self._linked(name)
        return self._keep(name, RemoteMethod(self, name))

    @trio.lowlevel.enable_ki_protection
    async def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Ask the Service to shut down, which it must implement, and break the link.

        Args:
            *args: Go to the Service's ``shutdown_service``.
            timeout: How many seconds to wait for the reply.
            **kwargs: Go to the Service's ``shutdown_service``.

        Returns:
            What the Service's ``shutdown_service`` returns.
        """
        client = self._linked(SHUTDOWN_SERVICE)
        result = await self.request(SHUTDOWN_SERVICE, args, kwargs, timeout=timeout)
        client._forget(self)
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None = attrs.field(init=False)
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Does nothing; assign a function to be called for every notification of the Service.

            ``link.notification_handler = function`` works at any time, with a plain function, an async one or
            a bound method (`types.MethodType`). It is called in the order of the notifications, one after
            the other, in a task of its own, so it may take its time and may use the link. An exception in it
            is logged, and ends nothing. If it is so slow that too many bytes wait (``max_unhandled`` of
            `connect`), the oldest notifications are dropped, which is logged too. A plain function runs in
            the event loop, so it must not block.

            Args:
                *args: What the Service emitted.
                **kwargs: What the Service emitted.
            """

    def notifications(self, max_buffer_size: float | None = None) -> NotificationStream:
        """Iterate over the notifications of the Service.

        ``async with link.notifications() as stream:`` subscribes; ``async for notification in stream:`` gives
        what has come since. Any number of streams may be open at a time.

        Args:
            max_buffer_size: Maximum number of notifications that wait for the loop. If there are more, the
                oldest are dropped, and counted in ``stream.dropped``. None: a maximum of bytes instead, the
                ``max_unhandled`` of `connect`. ``math.inf``: no limit.

        Raises:
            ValueError: The size is less than 1.
            LinkBroken: This link was unlinked.
        """
        self._linked("notifications")
        return NotificationStream(self._service_name, self._streams, self._mailboxes, max_buffer_size)

    @trio.lowlevel.enable_ki_protection
    def _notify(self, batch: NotificationBatch, start: StartTask) -> None:
        """Give notifications to everybody who wants them; called by the reader."""
        for stream in self._streams:
            stream.put(batch)
        self._handler_runner.put(batch, start)

    @trio.lowlevel.enable_ki_protection
    def _end_notifications(self, error: NetworkError | None) -> None:
        """Let no more come, because the connection was lost or, without an error, the link was broken."""
        for stream in self._streams:
            stream.end(error)
        self._handler_runner.end(drop=error is None)

    # ---- locks ----

    def acquire_lock(
        self, shared: bool = False, timeout: float | None = None, *, wait: bool = False
    ) -> AwaitableContext[list[str]]:
        """Acquire a lock on the Service: nobody else can link with it until all locks are released.

        Await it, and release it yourself; or enter it with ``async with``, which releases it at the end of
        the block. A Manager keeps one lock for a client and a Service: it excludes other clients, not other
        tasks of this one, and only the last scope of this client that holds it sends the release.

        Args:
            shared: Whether others that are linked already may stay so, and lock as well. An exclusive lock
                is granted to the only client that is linked.
            timeout: How many seconds to wait for the Manager's reply; with `wait`, for the lock.
            wait: Whether to try again while the Manager refuses an exclusive lock because of the links of
                other clients. A Manager cannot be waited on, so it is asked, at most once a second.

        Returns:
            The names of the clients that are linked with the Service, in any order.

        Raises:
            ManagerError: The lock is refused.
            ReplyTimeout: No reply, or with `wait` no lock, in time.
        """
        return LockContext(self, shared, timeout, wait)

    @trio.lowlevel.enable_ki_protection
    async def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock of this client on the Service, at once, whatever scopes hold it.

        Args:
            timeout: How many seconds to wait for the Manager's reply.

        Returns:
            The names of the clients that still have a lock on the Service.
        """
        client = self._linked("release_lock")
        return await client._locks.release(self._service_name, timeout)

    # ---- the link itself ----

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; every further request through this link raises `LinkBroken`.

        A Manager keeps one link for a client and a Service: other links of this client with the same
        Service get no notifications any more. Unlinking again does no harm.

        Args:
            timeout: How many seconds to wait for the Manager's reply.
        """
        if self._client is not None:
            await self._client.unlink(self, timeout=timeout)

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Do what `unlink` does."""
        await self.unlink(timeout=timeout)

    @trio.lowlevel.enable_ki_protection
    def _break(self) -> None:
        """Let no more requests be made."""
        self._client = None
        self._drop_methods()
        if self._sync is not None:
            self._sync._drop_methods()

    def _linked(self, name: str) -> Client:
        if self._client is None:
            raise LinkBroken(f"Cannot access {name!r} since the link has been broken")
        return self._client

    # ---- what the identity of the Service tells ----

    @property
    def service_name(self) -> str:
        """The name of the Service."""
        return self._service_name

    @property
    def service_address(self) -> str:
        """The address of the Service, ``host:port``, as the Manager sees it."""
        return str(self._service_identity["address"])

    @property
    def service_attributes(self) -> dict[str, Any]:
        """The attributes of the Service: the signatures of methods, the values of others."""
        attributes: dict[str, Any] = self._service_identity["attributes"]
        return attributes

    @property
    def service_language(self) -> str:
        """The programming language of the Service."""
        return str(self._service_identity.get("language", "unknown"))

    @property
    def service_max_clients(self) -> int:
        """How many clients may be linked with the Service; 0 and less: no limit."""
        return int(self._service_identity.get("max_clients", -1))

    @property
    def service_os(self) -> str:
        """The operating system of the Service."""
        return str(self._service_identity.get("os", "unknown"))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self.service_attributes)})

    def __repr__(self) -> str:
        if self._client is None:
            return visible(f"<Un-Linked from {self._service_name}[{self.service_address}]>")
        return visible(
            f"<Link with {self._service_name}[{self.service_address}] "
            f"at Manager[{self._client.address_manager}]>"
        )


_OWN_NAMES = {name for name in vars(Link) if not name.startswith("_")} - {SHUTDOWN_SERVICE}
"""The names that hide attributes of a Service; one of them is there to call that of the Service."""


def check_assignable(owner: object, link: HasServiceAttributes, name: str, value: object) -> None:
    """Check an assignment to an attribute that is not private.

    Args:
        owner: The object to whose attribute it is assigned.
        link: What the identity of the Service tells.
        name: The name of the attribute.
        value: The value.

    Raises:
        AttributeError: By that name the Service has a value, which would stay as it is.
    """
    told = link.service_attributes.get(name)
    is_value = name in link.service_attributes and not (isinstance(told, str) and told.startswith("("))
    if is_value and not callable(value) and not hasattr(type(owner), name):
        raise AttributeError(
            f"Assigning to {name!r} would not reach the {link.service_name!r} Service, whose value it is: "
            "only the Service can change it, in a method"
        )


def private_attribute(owner: object, name: str) -> AttributeError:
    """Return the error of a name that begins with an underscore, and that is not there."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name.startswith("__") and name.endswith("__"):
        return AttributeError(text)  # Python asks for these, and means no attribute of the Service
    return PrivateAttribute(f"Cannot request a private attribute of a Service: {text}")


def checked_args(args: list[Any] | tuple[Any, ...]) -> list[Any] | tuple[Any, ...]:
    """Return positional arguments if that is what they are.

    Raises:
        TypeError: They are something else: a text, which would become as many arguments as it has letters.
    """
    if not isinstance(args, list | tuple):
        raise TypeError(f"args must be a list or tuple of arguments, not {type(args).__name__}")
    return args


def checked_identity(service: str, identity: Any) -> Mapping[str, Any]:
    """Return the answer to a link request if it is one.

    Raises:
        ProtocolError: It is not the identity of a Service.
    """
    match identity:
        case {"address": str(), "attributes": dict()}:
            return identity  # type: ignore[no-any-return]
    raise ProtocolError(f"The Manager sent no identity of the {service!r} Service: {identity!r:.80}")


class LinkContext(AwaitableContext[Link]):
    """What `Client.link` returns."""

    def __init__(self, client: Client, service: str, timeout: float | None) -> None:
        self._client = client
        self._service = service
        self._timeout = timeout
        self._link: Link | None = None
        super().__init__(f"{type(client).__name__}.link")

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> Link:
        return await self._client._link(self._service, self._timeout)

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> Link:
        self._link = await self._open()
        return self._link

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        assert self._link is not None
        await self._client._leave(self._link)


class LockContext(AwaitableContext[list[str]]):
    """What `Link.acquire_lock` returns."""

    def __init__(self, link: Link, shared: bool, timeout: float | None, wait: bool) -> None:
        self._link = link
        self._shared = arguments.flag("shared", shared)
        self._timeout = timeout
        self._wait = arguments.flag("wait", wait)
        super().__init__(f"{type(link).__name__}.acquire_lock")

    @trio.lowlevel.enable_ki_protection
    async def _open(self) -> list[str]:
        locks = self._link._linked("acquire_lock")._locks
        return await locks.acquire(self._link.service_name, self._shared, self._timeout, self._wait)

    @trio.lowlevel.enable_ki_protection
    async def _enter(self) -> list[str]:
        # Those of the client of now: the link may be broken when the scope ends.
        self._locks = self._link._linked("acquire_lock")._locks
        return await self._open()

    @trio.lowlevel.enable_ki_protection
    async def _exit(self) -> None:
        await self._locks.leave(self._link.service_name)
