"""Session of a client: everything that belongs to the client rather than to one connection.

A `Session` owns the settings, the credentials, the links, the locks, the notification mailboxes, the callback
tasks and the current connection. `Client`, `Link`, their blocking forms and their methods hold no connection:
they ask the session for the current one at each call. Today a session has one connection; `Session.run` is
the place for a loop that replaces it.

All of it runs in the Trio thread. Other threads read `Session.connection`, `Session.calls` and the attributes
of a `LinkState`, each in one step, and need no lock for that.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import trio

from msl_network_trio import callbacks
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.callback_queue import CallbackQueue
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.locks import Locks
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.notifications import HandlerRunner, NotificationStream, StartTask
from msl_network_trio.client.presence import Presence, is_service_identity, link_request
from msl_network_trio.client.statistics import ErrorCounts, Statistics, collect
from msl_network_trio.client.task_requests import GOODBYE_TIMEOUT
from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.connect import dial
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import (
    ConnectionLost,
    LinkBroken,
    ManagerError,
    NetworkError,
    ProtocolError,
    ReplyTimeout,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import Gap, ManagerNotice, NotificationBatch
from msl_network_trio.protocol.traffic import Traffic
from msl_network_trio.transport.base import Stream
from msl_network_trio.visible import visible

logger = get_logger(__name__)


class ThreadCalls(Protocol):
    """Requests that threads make over the current connection; implemented by the blocking API."""

    def request(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request and wait for its reply; see `TaskRequests.request`."""

    def start(
        self,
        service: str,
        attribute: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request without waiting for its reply; see `TaskRequests.start`."""


class LinkState:
    """State of a link with a Service, shared by `Link`, its blocking form and their methods.

    It is an object of its own, since every public name of a `Link` may be an attribute of the Service.

    Args:
        session: The session that the link belongs to.
        service_name: Name of the Service.
        identity: Identity of the Service, as the Manager has sent it.

    Attributes:
        session: The session; None once the link is broken.
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
        "service_name",
        "session",
        "streams",
        "sure",
    )

    def __init__(self, session: Session, service_name: str, identity: Mapping[str, Any]) -> None:
        self.session: Session | None = session
        self.service_name = service_name
        self.identity = identity
        self.mailboxes = session.mailboxes
        self.streams: set[NotificationStream[Any]] = set()
        self.handler_runner = HandlerRunner(service_name, session.mailboxes)
        self.on_break: list[Callable[[], object]] = []
        self.ends_service = False
        self.lost: NetworkError | None = None
        self.sure = time.time()

    def require_session(self, name: str) -> Session:
        """Return the session.

        Args:
            name: The attribute that is accessed, for the message.

        Raises:
            LinkBroken: The link is broken.
        """
        if self.session is None:
            raise LinkBroken(f"Cannot access {name!r} since the link has been broken")
        return self.session

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
        if self.session is None or not self.session.is_reconnecting:
            self.end_notifications(None if self.ends_service else reason)
            self.streams.clear()  # those of another link with the next instance are not for them

    @trio.lowlevel.enable_ki_protection
    def suspend(self, reason: NetworkError) -> None:
        """Note that the client is not linked for a while; notifications go on after `restore`."""
        self.lost = reason

    @trio.lowlevel.enable_ki_protection
    def restore(self, identity: Mapping[str, Any]) -> None:
        """Note that the client is linked again; marks the gap in the notifications."""
        reason, self.lost = self.lost, None
        since, self.sure = self.sure, time.time()
        self.identity = identity
        if self.session is not None:
            gap = Gap(min(since, self.sure), self.sure, str(reason), self.service_name)
            self.put_gap(gap, self.session.callback_tasks.start)

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
        for notify in self.on_break:
            notify()
        self.end_notifications(None)


class Session:
    """A client's settings, links, locks, callback tasks and its current connection.

    Args:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.
        stream: The stream to the Manager.
        protocol: The protocol, after the handshake.
        connect_seconds: Seconds that connecting took, without those in which a person was asked.

    Attributes:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.
        connect_seconds: See above.
        connection: The current connection.
        calls: Requests of threads over the current connection. Set by the blocking API before it uses them.
        links: The links that are not broken.
        linked: Number of links with each Service, including those that are being made.
        locks: The locks of the client.
        presence: Watches the Services of the links.
        mailboxes: The notifications that are not handled yet.
        callback_tasks: Runs notification handlers and the shutdown handler.
        errors: Counts the errors that callers get.
        client: The `Client`, which sets this. Its attribute ``shutdown_handler`` is called at the end.
    """

    __slots__ = (
        "__weakref__",
        "_late_replies",
        "_unlinking",
        "callback_tasks",
        "calls",
        "client",
        "connect_seconds",
        "connection",
        "credentials",
        "errors",
        "linked",
        "links",
        "locks",
        "mailboxes",
        "presence",
        "settings",
    )

    calls: ThreadCalls

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        stream: Stream,
        protocol: ClientProtocol,
        connect_seconds: float,
    ) -> None:
        self.settings = settings
        self.credentials = credentials
        self.connect_seconds = connect_seconds
        self.links: list[LinkState] = []
        self.linked: Counter[str] = Counter()
        self._unlinking: Counter[LinkState] = Counter()
        """Number of tasks that are unlinking each link."""
        self.mailboxes = Mailboxes(settings.max_unhandled)
        self.callback_tasks = CallbackTasks()
        self.errors = ErrorCounts()
        self._late_replies = (
            None
            if settings.on_late_reply is None
            else CallbackQueue(self.callback_tasks, settings.on_late_reply, "the handler of late replies")
        )
        self.client: Any = None
        self.locks = Locks(self)
        self.presence = Presence(self)
        self.connection = Connection(
            stream,
            protocol,
            self,
            request_timeout=settings.request_timeout,
            max_unsent=settings.max_unsent,
            probe_after=settings.probe_after,
            probe_every=settings.probe_every,
            unresponsive_after=settings.unresponsive_after,
        )

    def __repr__(self) -> str:
        name = self.settings.name
        if self.connection.is_open:
            return visible(f"<{name} manager={self.settings.manager} port={self.connection.port}>")
        return visible(f"<{name} disconnected>")

    def __getstate__(self) -> object:
        raise TypeError(f"{self!r} cannot be copied or pickled, since its connection cannot; see spawn()")

    @property
    def portal(self) -> Portal:
        """The way from threads into the Trio run."""
        return self.connection.portal

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, or belongs to the parent of this forked process."""
        return self.portal.is_inherited or self.connection.closed.is_set()

    @property
    def end_error(self) -> ConnectionLost | None:
        """A new error with the reason for which the client has ended; None: it has not."""
        reason = self.connection.protocol.lost
        return None if reason is None else ConnectionLost(str(reason))

    # ---- from the beginning to the end ----

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the connection until it ends; when cancelled, disconnect first."""
        connection = self.connection
        connection.finished = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                await connection.finished.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await self.disconnect(GOODBYE_TIMEOUT)
                self.callback_tasks.cancel()

    @trio.lowlevel.enable_ki_protection
    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect from the Manager, and cancel the callback tasks; see `Connection.disconnect`.

        The calling task is not cancelled, should it be a callback task.
        """
        seconds = GOODBYE_TIMEOUT if timeout is None else self.connection.requests.seconds(timeout)
        self.locks.forget_all()
        try:
            await self.connection.disconnect(seconds)
        finally:
            self.callback_tasks.cancel(but=trio.lowlevel.current_task())

    # ---- for the connection ----

    @trio.lowlevel.enable_ki_protection
    def take_notifications(self, batch: NotificationBatch) -> None:
        """Pass the notifications of a Service to the links with it."""
        service = batch[0].service
        for link in self.links:
            if link.service_name == service and (link.lost is None or self.is_reconnecting):
                link.take_notifications(batch, self.callback_tasks.start)

    @trio.lowlevel.enable_ki_protection
    def take_late_reply(self, reply: LateReply) -> None:
        """Pass a late reply to the function of the user."""
        if self._late_replies is not None:
            self._late_replies.put(reply)

    def statistics(self) -> Statistics:
        """Return what the client has done so far; in any thread."""
        return collect(self.connection.protocol, self.errors, self.mailboxes, 0)

    @trio.lowlevel.enable_ki_protection
    def take_notice(self, notice: ManagerNotice) -> None:
        """Take a notice of the Manager about Services."""
        self.presence.take_notice(notice)

    # ---- for the presence of Services ----

    @property
    def is_reconnecting(self) -> bool:
        """Whether lost links are restored."""
        return False

    def holds_lock(self, service: str) -> bool:
        """Return whether the client holds a lock on a Service."""
        return self.locks.is_held(service)

    @trio.lowlevel.enable_ki_protection
    def service_lost(self, service: str, reason: NetworkError) -> None:
        """Take the loss of a Service, before the links with it are lost."""
        self.locks.lose(service, reason)

    @trio.lowlevel.enable_ki_protection
    def connection_ending(self, reason: ConnectionLost) -> None:
        """Cancel the bodies that hold locks, before a request in them raises."""
        self.locks.lose_all(reason, is_final=True)

    @trio.lowlevel.enable_ki_protection
    def connection_ended(self, reason: ConnectionLost) -> None:
        """End all notifications, and start the shutdown handler."""
        for link in self.links:
            if link.lost is None:
                link.end_notifications(ConnectionLost(str(reason)), log=not self.connection.is_disconnected)
        handler = None if self.client is None else vars(self.client).get("shutdown_handler")
        if handler is not None:

            async def call_handler() -> None:
                await callbacks.call(handler, (), {}, "the shutdown handler")

            self.callback_tasks.start_final(call_handler, GOODBYE_TIMEOUT)

    @trio.lowlevel.enable_ki_protection
    def lock_changed(self, service: str) -> None:
        """See `HasConnection.lock_changed`."""

    # ---- links ----

    @trio.lowlevel.enable_ki_protection
    async def link(self, service: str, timeout: float | None) -> LinkState:
        """Link with a Service; see `Client.link`."""
        self.linked[service] += 1
        try:
            answer = await self.connection.requests.request(
                MANAGER,
                "link",
                (service,),
                timeout=timeout,
                linking=service,
                kind=link_request(service, self.presence),
            )
            link = LinkState(self, service, _service_identity(service, answer))
        except BaseException as error:
            if not self._release(service) and not isinstance(error, ManagerError):
                # The Manager may have made the link all the same, and would keep the place occupied.
                self.connection.requests.post("unlink", service)
            raise
        self.links.append(link)
        return link

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, link: LinkState, timeout: float | None) -> None:
        """Unlink from a Service; see `Client.unlink`."""
        self._unlinking[link] += 1
        try:
            await self.connection.requests.request(MANAGER, "unlink", (link.service_name,), timeout=timeout)
        except ManagerError:
            if self._unlinking[link] == 1 and link in self.links:
                raise  # else another task is unlinking it, or has done so
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            # The Manager may have unlinked, so the link is broken. In case it has not, ask it again.
            if getattr(error, "may_have_run", True) and not self.forget(link):
                self.connection.requests.post("unlink", link.service_name)
            raise
        finally:
            self._unlinking -= Counter([link])
        self.forget(link)

    @trio.lowlevel.enable_ki_protection
    def forget(self, link: LinkState) -> bool:
        """Break a link without a request, and return whether the client has others with the Service."""
        link.break_link()
        if link not in self.links:
            return True
        self.links.remove(link)
        return self._release(link.service_name)

    @trio.lowlevel.enable_ki_protection
    async def leave(self, link: LinkState) -> None:
        """End the scope of a link; the last scope unlinks. Shielded from cancellation, and raises nothing."""
        if not self.forget(link):
            await self.connection.requests.post_and_wait("unlink", link.service_name)

    @trio.lowlevel.enable_ki_protection
    def _release(self, service: str) -> bool:
        """Decrement the number of links with a Service, and return whether others remain."""
        self.linked[service] -= 1
        if self.linked[service] > 0:
            return True
        del self.linked[service]
        self.locks.forget(service)  # the Manager releases it together with the link
        return False


def _service_identity(service: str, identity: Any) -> Mapping[str, Any]:
    """Return the answer to a link request, checked.

    Raises:
        ProtocolError: It is not the identity of a Service.
    """
    if is_service_identity(identity):
        return identity  # type: ignore[no-any-return]
    raise ProtocolError(f"The Manager sent no identity of the {service!r} Service: {identity!r:.80}")


def new_protocol(settings: Settings, traffic: Traffic | None = None) -> ClientProtocol:
    """Return the protocol of a new connection.

    Args:
        settings: The arguments of `connect`.
        traffic: The counters of the client; None: it is its first connection.
    """
    return ClientProtocol(
        settings.handshake_identity(),
        settings.manager,
        settings.read_limit,
        traffic=traffic,
        keep_calls=settings.on_late_reply is not None,
    )


@trio.lowlevel.enable_ki_protection
async def open_session(settings: Settings) -> Session:
    """Connect to a Manager; see `dial` for what it raises."""
    credentials = settings.credentials()
    protocol = new_protocol(settings)
    dialed = await dial(settings, credentials, protocol)
    return Session(settings, credentials, dialed.transport, protocol, dialed.seconds)
