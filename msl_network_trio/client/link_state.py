"""State of a link with a Service: its routes, its notifications, and whether the client is linked.

It belongs to the Trio thread. Other threads read its attributes, each in one step, and need no lock for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import trio

from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.locks import Locks
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.notifications import HandlerRunner, NotificationStream, StartTask
from msl_network_trio.client.persistent_requests import Owner as RequestsOwner
from msl_network_trio.client.persistent_requests import PersistentRequests
from msl_network_trio.client.presence import Presence
from msl_network_trio.client.request_route import RequestRoute
from msl_network_trio.exceptions import ConnectionLost, LinkBroken, NetworkError, ServiceLost, Unanswered
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.messages import Gap, NotificationBatch

logger = get_logger(__name__)


class LinkOwner(Protocol):
    """Owner of links; see `Session`."""

    callback_tasks: CallbackTasks
    connection: Connection
    locks: Locks
    mailboxes: Mailboxes
    presence: Presence

    @property
    def portal(self) -> Portal:
        """The way from threads into the Trio run."""

    @property
    def is_over(self) -> bool:
        """See `Session.is_over`."""

    @property
    def is_reconnecting(self) -> bool:
        """See `Session.is_reconnecting`."""

    @property
    def end_error(self) -> ConnectionLost | None:
        """See `Session.end_error`."""

    def persistent_requests(
        self, owner: RequestsOwner, idempotent: Collection[str] = ()
    ) -> PersistentRequests | None:
        """See `Session.persistent_requests`."""

    def thread_calls(self, persistent: PersistentRequests | None) -> RequestRoute:
        """See `Session.thread_calls`."""


S = TypeVar("S", bound=LinkOwner)


class LinkState(Generic[S]):
    """State of a link with a Service, shared by `Link`, its blocking form and their methods.

    It is an object of its own, since every public name of a `Link` may be an attribute of the Service.

    Args:
        session: The session that the link belongs to.
        service_name: Name of the Service.
        identity: Identity of the Service, as the Manager has sent it.
        idempotent: Names of attributes of the Service whose requests may be executed several times.

    Attributes:
        session: The session; None once the link is broken.
        route: Makes the requests of tasks to the Service; None once the link is broken.
        thread_route: Makes the requests of threads to the Service; None until they are first needed, and once
            the link is broken.
        persistent: The route of a client that reconnects; None: it does not.
        service_name: Name of the Service.
        identity: Identity of the Service.
        mailboxes: The notifications of the client that are not handled yet.
        streams: The open notification streams.
        handler_runner: Calls the notification handler.
        on_break: Functions to call when the link is broken, in the Trio thread.
        ends_service: Whether the user has requested the Service to shut down, so that its loss is no error.
        lost: The reason why the client is not linked with the Service any more; None: it is, as far as known.
        sure: Time of the last sign that it is linked, in seconds since the epoch.
    """

    __slots__ = (
        "ends_service",
        "handler_runner",
        "identity",
        "lost",
        "mailboxes",
        "on_break",
        "persistent",
        "route",
        "service_name",
        "session",
        "streams",
        "sure",
        "thread_route",
    )

    def __init__(
        self,
        session: S,
        service_name: str,
        identity: Mapping[str, Any],
        idempotent: Collection[str] = (),
    ) -> None:
        self.session: S | None = session
        self.persistent = session.persistent_requests(self, idempotent)
        self.route: RequestRoute | None = None
        self.thread_route: RequestRoute | None = None
        self.service_name = service_name
        self.identity = identity
        self.mailboxes = session.mailboxes
        self.streams: set[NotificationStream[Any]] = set()
        self.handler_runner = HandlerRunner(service_name, session.mailboxes)
        self.on_break: list[Callable[[], object]] = []
        self.ends_service = False
        self.lost: NetworkError | None = None
        self.sure = time.time()
        self.choose_routes()

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # The session first, whose error says best why a link cannot be pickled.
        return None, {"session": self.session, **{name: getattr(self, name) for name in self.__slots__}}

    def require_session(self, name: str) -> S:
        """Return the session.

        Args:
            name: The attribute that is accessed, for the message.

        Raises:
            LinkBroken: The link is broken.
        """
        if self.session is None:
            raise LinkBroken(f"Cannot access {name!r} since the link has been broken")
        return self.session

    def require_route(self, name: str) -> RequestRoute:
        """Return the `route`.

        Args:
            name: The attribute that is accessed, for the message.

        Raises:
            LinkBroken: The link is broken.
        """
        if self.route is None:
            self.require_session(name)
        assert self.route is not None
        return self.route

    def require_thread_route(self, name: str) -> RequestRoute:
        """Return the `thread_route`; in any thread. See `require_route`."""
        if self.thread_route is None:
            self.require_session(name).portal.do(partial(self.choose_routes, share=True))
        if self.thread_route is None:  # it has been broken meanwhile
            self.require_session(name)
        assert self.thread_route is not None
        return self.thread_route

    @trio.lowlevel.enable_ki_protection
    def choose_routes(self, *, share: bool = False) -> None:
        """Choose what requests go to; `share`: also those of threads, from now on."""
        session = self.session
        if session is None:
            self.route = self.thread_route = None
            return
        without = session.locks.without_lock(self.service_name)
        self.route = without or self.persistent or session.connection.requests
        if self.persistent is not None:  # requests that it has taken already must not be sent, either
            self.persistent.lock_error = None if without is None else without.error
        if share or self.thread_route is not None:
            self.thread_route = (
                session.thread_calls(self.persistent) if without is None else without.in_threads
            )

    @property
    def service_attributes(self) -> dict[str, Any]:
        """Attributes of the Service: signatures of methods, values of others."""
        attributes: dict[str, Any] = self.identity["attributes"]
        return attributes

    @property
    def service_address(self) -> str:
        """Address of the Service, ``host:port``, as the Manager sees it."""
        return str(self.identity["address"])

    @trio.lowlevel.enable_ki_protection
    def take_notifications(self, batch: NotificationBatch, start: StartTask) -> None:
        """Put notifications into the mailboxes of all streams and of the handler."""
        self.sure = batch[-1].received
        for stream in self.streams:
            stream.put(batch)
        self.handler_runner.put(batch, start)

    @trio.lowlevel.enable_ki_protection
    def put_gap(self, gap: Gap, start: StartTask) -> None:
        """Put a gap into the mailboxes of all streams and of the handler; see `take_notifications`."""
        for stream in self.streams:
            stream.put_gap(gap)
        self.handler_runner.put_gap(gap, start)

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a notification handler or an open stream."""
        return bool(self.streams) or self.handler_runner.has_handler

    @trio.lowlevel.enable_ki_protection
    def subscribed(self, stream: NotificationStream[Any]) -> None:
        """Note that a stream was entered."""
        session = self.session
        if session is None:
            stream.end(None)
        elif self.lost is not None and not session.is_reconnecting:
            self.streams.discard(stream)
            stream.end(self.lost)
        elif session.end_error is not None:
            stream.end(session.end_error)
        else:
            session.presence.look_after()

    def handler_changed(self) -> None:
        """Note that the notification handler was set; in any thread."""
        session = self.session
        if session is None or session.is_over:
            return
        if threading.get_ident() == session.portal.thread_id:
            self._handler_was_set()
            return
        with suppress(ConnectionLost):  # the Trio run has ended
            session.portal.post(self._handler_was_set)

    @trio.lowlevel.enable_ki_protection
    def _handler_was_set(self) -> None:
        if self.session is None:
            return
        if self.lost is None or self.session.is_reconnecting:
            self.session.presence.look_after()
        elif self.handler_runner.has_handler:
            text = "the notification handler for %r will not be called, since the link must be made again: %s"
            logger.warning(text, self.service_name, self.lost)

    @trio.lowlevel.enable_ki_protection
    def lose(self, reason: NetworkError) -> None:
        """Note that the client is not linked any more; ends the notifications unless it reconnects."""
        self.lost = reason
        if self.persistent is not None and isinstance(reason, Unanswered):
            self.persistent.pause(reason)
        if self.session is None or not self.session.is_reconnecting:
            self.end_notifications(None if self.ends_service else reason)
            self.streams.clear()  # those of another link with the next instance are not for them

    @trio.lowlevel.enable_ki_protection
    def suspend(self, reason: ServiceLost) -> None:
        """Note that the client is not linked for a while; notifications go on after `restore`."""
        self.lost = reason
        if self.persistent is not None:
            self.persistent.pause(reason)

    def lock_requests(self, session: S) -> RequestRoute:
        """Return what makes requests for a lock: a client that reconnects waits until it is linked."""
        return self.persistent or session.connection.requests

    @trio.lowlevel.enable_ki_protection
    def restore(self, identity: Mapping[str, Any]) -> None:
        """Note that the client is linked again; marks the gap in the notifications."""
        reason, self.lost = self.lost, None
        since, self.sure = self.sure, time.time()
        self.identity = identity
        if self.session is not None:
            if self.persistent is not None:
                self.persistent.resume(self.session.connection.requests)
            gap = Gap(min(since, self.sure), self.sure, str(reason), self.service_name)
            self.put_gap(gap, self.session.callback_tasks.start)

    @trio.lowlevel.enable_ki_protection
    def service_refused(self, error: ServiceLost) -> None:
        """Take note that the Manager has refused a request, since the Service is not connected."""
        if self.session is not None:
            if self.lost is None:
                self.lose(error)
            self.session.presence.ask_soon(self.service_name)

    @trio.lowlevel.enable_ki_protection
    def end_notifications(self, error: NetworkError | None, *, log: bool = True) -> None:
        """End all streams and the handler.

        Args:
            error: The loss of the connection or of the Service; None: the link was broken.
            log: Whether to log the loss if there is a handler.
        """
        for stream in self.streams:
            stream.end(error)
        self.handler_runner.end(error, log=log)

    def break_link(self) -> None:
        """Refuse further requests, and notify the forms of the link."""
        self.session = None
        self.choose_routes()
        if self.persistent is not None:
            self.persistent.end(ConnectionLost("The link was broken"))
        for notify in self.on_break:
            notify()
        self.end_notifications(None)
