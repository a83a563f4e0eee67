"""Link of a client with a Service, whose attributes it has as methods.

A `Link` belongs to the Trio thread. Its state is a `LinkState`, since its public names are the Service's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import trio

from msl_network_trio import arguments
from msl_network_trio.client import views
from msl_network_trio.client.awaitable_context import AwaitableContext
from msl_network_trio.client.lock_context import LockContext
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.client.remote_method import (
    MethodCache,
    RemoteMethod,
    check_assignable,
    checked_args,
    private_attribute,
)
from msl_network_trio.client.session import SessionLink
from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import Gap, Notification
from msl_network_trio.visible import visible

if TYPE_CHECKING:
    import msl_network_trio

logger = get_logger(__name__)


class Link(MethodCache):
    """A link between a client and a Service; `Client.link` makes it.

    Every attribute that is not listed here is a method (or a property) of the Service: ``await
    link.add(1, 2)``. Names that begin with an underscore are never the Service's, since every Service
    refuses them.
    """

    def __init__(self, state: SessionLink) -> None:
        self._state = state
        self._sync: msl_network_trio.sync.Link | None = None
        state.handler_runner.attributes = self.__dict__
        state.on_break.append(self._drop_methods)
        hidden = sorted(_OWN_NAMES.intersection(state.service_attributes))
        if hidden:
            logger.warning(
                "the %r Service has attributes that Link hides: %s; reach them with request()",
                state.service_name,
                ", ".join(hidden),
            )

    @property
    def sync(self) -> msl_network_trio.sync.Link:
        """The same link for threads: the methods of `msl_network_trio.sync`, which block.

        Raises:
            LinkBroken: The link is broken.
        """
        if self._sync is None:
            self._state.require_session("sync")
            self._sync = views.registered().link(self)
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
        """Request an attribute of the Service, of any name and with arguments of any names.

        Args:
            attribute: Name of the method to call or of the property to read.
            args: Positional arguments.
            kwargs: Keyword arguments.
            timeout: Seconds to wait for the reply; None: the ``request_timeout`` of `connect`; ``math.inf``:
                no limit.

        Returns:
            What the method returns, as JSON transfers it: tuples and arrays become lists.

        Raises:
            RemoteError: The Service raised an exception.
            ServiceLost: The Service is not connected any more.
            ReplyTimeout: No reply in time.
            ConnectionLost: The connection to the Manager has ended.
            LinkBroken: The link is broken.
            TypeError: An argument has no JSON form; nothing was sent.
            ValueError: An argument cannot be sent; nothing was sent.
        """
        state = self._state
        route = state.require_route(attribute)
        return await route.request(state.service_name, attribute, checked_args(args), kwargs, timeout)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            check_assignable(self, self, name, value)
        object.__setattr__(self, name, value)
        if name == "notification_handler":
            self._state.handler_changed()

    def __getattr__(self, name: str) -> RemoteMethod:
        # Only for names without an underscore. Those of Python's own protocols, and private ones on a
        # half-built object, must fail here: copying a link must not call the Service.
        if name.startswith("_"):
            raise private_attribute(self, name)
        self._state.require_session(name)
        return self._keep(name, RemoteMethod(self._state, name))

    @trio.lowlevel.enable_ki_protection
    async def shutdown_service(self, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Request the Service to shut down, which it must implement, and break the link.

        Args:
            *args: Positional arguments for the Service's ``shutdown_service``.
            timeout: Seconds to wait for the reply.
            **kwargs: Keyword arguments for the Service's ``shutdown_service``.

        Returns:
            What the Service's ``shutdown_service`` returns.
        """
        state = self._state
        session = state.require_session(SHUTDOWN_SERVICE)
        state.ends_service = True
        try:
            result = await self.request(SHUTDOWN_SERVICE, args, kwargs, timeout=timeout)
        except BaseException:
            state.ends_service = False
            raise
        session.links.forget(state)
        return result

    # ---- notifications ----

    if TYPE_CHECKING:
        # A method that is there to be replaced, which type checkers do not allow.
        notification_handler: Callable[..., Any] | None
    else:

        def notification_handler(self, /, *args: Any, **kwargs: Any) -> Any:
            """Do nothing; assign a function to be called for every notification of the Service.

            ``link.notification_handler = function`` works at any time, with a plain function, an async one or
            a bound method (`types.MethodType`). It is called in the order of the notifications, one at a
            time, in a task of its own, so it may take its time and may use the link. An exception in it is
            logged, and ends nothing. If it falls behind by too many bytes (``max_unhandled`` of `connect`),
            the oldest notifications are dropped, which is logged too. A plain function runs in the event
            loop, so it must not block.

            If the handler, or the object whose method it is, has a method ``on_gap``, it is called with a
            `Gap`, in order, where notifications may have been lost because the client had to reconnect.

            Args:
                *args: Positional arguments that the Service emitted.
                **kwargs: Keyword arguments that the Service emitted.
            """

    @overload
    def notifications(
        self, max_buffer_size: float | None = None, *, gaps: Literal[False] = False
    ) -> NotificationStream[Notification]: ...

    @overload
    def notifications(
        self, max_buffer_size: float | None = None, *, gaps: bool
    ) -> NotificationStream[Notification | Gap]: ...

    def notifications(self, max_buffer_size: float | None = None, *, gaps: bool = False) -> Any:
        """Iterate over the notifications of the Service.

        ``async with link.notifications() as stream:`` subscribes; ``async for notification in stream:``
        yields what was received since. Any number of streams may be open at a time.

        Args:
            max_buffer_size: Maximum number of notifications that wait for the loop. If there are more, the
                oldest are dropped, and counted in ``stream.dropped``. None: a maximum of bytes instead, the
                ``max_unhandled`` of `connect`. ``math.inf``: no limit.
            gaps: Whether to yield a `Gap` where notifications may have been lost, as soon as the link is
                restored. Otherwise it is the `Notification.gap` of the next notification. Gaps occur only if
                the client reconnects; else the loss of the connection or of the Service is raised.

        Raises:
            ValueError: The size is less than 1.
            TypeError: `gaps` is no bool.
            LinkBroken: The link is broken.
        """
        state = self._state
        mailboxes = state.require_session("notifications").mailboxes
        gaps = arguments.flag("gaps", gaps)
        return NotificationStream(
            state.service_name,
            state.streams,
            mailboxes,
            max_buffer_size,
            gaps=gaps,
            on_enter=state.subscribed,
        )

    # ---- locks ----

    def acquire_lock(
        self, shared: bool = False, timeout: float | None = None, *, wait: bool = False
    ) -> AwaitableContext[list[str]]:
        """Acquire a lock on the Service: no other client can link with it until all locks are released.

        Await it, and release it yourself; or enter it with ``async with``, which releases it at the end of
        the block. If the lock is lost meanwhile, with the connection or with the Service, the block is
        cancelled and raises `LockLost`. If a lock that was awaited is lost, requests to the Service raise
        that instead, unsent, until the lock is released or acquired again.

        A Manager keeps one lock for a client and a Service: it excludes other clients, not other
        tasks of this one, and only the last scope of this client that holds it sends the release.

        Args:
            shared: Whether others that are linked already may stay so, and lock as well. An exclusive lock
                is granted to the only client that is linked.
            timeout: Seconds to wait for the Manager's reply; with `wait`, for the lock.
            wait: Whether to try again while the Manager refuses an exclusive lock because of the links of
                other clients. A Manager cannot be waited on, so it is asked, at most once a second.

        Returns:
            The names of the clients that are linked with the Service, in any order.

        Raises:
            ManagerError: The lock is refused.
            ReplyTimeout: No reply, or with `wait` no lock, in time.
            LockLost: At the end of the block: the lock was lost, and the block raised nothing else.
        """
        return LockContext(self._state, f"{type(self).__name__}.acquire_lock", shared, timeout, wait)

    @trio.lowlevel.enable_ki_protection
    async def release_lock(self, timeout: float | None = None) -> list[str]:
        """Release the lock of this client on the Service, at once, also for scopes that hold it.

        Args:
            timeout: Seconds to wait for the Manager's reply.

        Returns:
            The names of the clients that still have a lock on the Service.
        """
        session = self._state.require_session("release_lock")
        return await session.locks.release(self._state.service_name, timeout)

    # ---- the link itself ----

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, timeout: float | None = None) -> None:
        """Unlink from the Service; every further request through this link raises `LinkBroken`.

        A Manager keeps one link for a client and a Service: other links of this client with the same
        Service receive no notifications any more. May be called again.

        Args:
            timeout: Seconds to wait for the Manager's reply.
        """
        session = self._state.session
        if session is not None:
            await session.links.unlink(self._state, timeout)

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Unlink from the Service; see `unlink`."""
        await self.unlink(timeout=timeout)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_state": copy.copy(self._state)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state.on_break = [self._drop_methods]

    # ---- from the identity of the Service ----

    @property
    def service_name(self) -> str:
        """Name of the Service."""
        return self._state.service_name

    @property
    def service_address(self) -> str:
        """Address of the Service, ``host:port``, as the Manager sees it."""
        return self._state.service_address

    @property
    def service_attributes(self) -> dict[str, Any]:
        """Attributes of the Service: signatures of methods, values of others."""
        return self._state.service_attributes

    @property
    def service_language(self) -> str:
        """Programming language of the Service."""
        return str(self._state.identity.get("language", "unknown"))

    @property
    def service_max_clients(self) -> int:
        """Maximum number of clients that may be linked with the Service; 0 and less: no limit."""
        return int(self._state.identity.get("max_clients", -1))

    @property
    def service_os(self) -> str:
        """Operating system of the Service."""
        return str(self._state.identity.get("os", "unknown"))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self.service_attributes)})

    def __repr__(self) -> str:
        session = self._state.session
        if session is None:
            return visible(f"<Un-Linked from {self.service_name}[{self.service_address}]>")
        return visible(
            f"<Link with {self.service_name}[{self.service_address}] at Manager[{session.settings.manager}]>"
        )


_OWN_NAMES = {name for name in vars(Link) if not name.startswith("_")} - {SHUTDOWN_SERVICE}
"""Names that hide attributes of a Service. ``shutdown_service`` calls that of the Service."""


def link_state(link: Link) -> SessionLink:
    """Return the state of a link, for the other classes of the client and of the blocking API."""
    return link._state  # noqa: SLF001 - the one way in
