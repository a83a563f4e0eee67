"""Session of a client: everything that belongs to the client rather than to one connection.

A `Session` owns the settings, the credentials, the links, the locks, the notification mailboxes, the callback
tasks and the current connection. `Client`, `Link`, their blocking forms and their methods hold no connection:
they ask the session for the current one at each call. `Session.run` is a loop over connections: with a policy
of reconnection (`Reconnect`) it replaces one that is lost.

All of it runs in the Trio thread. Other threads read `Session.connection`, `Session.calls` and the attributes
of a `LinkState`, each in one step, and need no lock for that.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import trio

from msl_network_trio import callbacks
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.callback_queue import CallbackQueue
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.locks import Locks
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.notifications import HandlerRunner, NotificationStream, StartTask
from msl_network_trio.client.persistent_requests import Owner as RequestsOwner
from msl_network_trio.client.persistent_requests import PersistentRequests, Requests
from msl_network_trio.client.presence import Presence, is_service_identity, link_request
from msl_network_trio.client.states import States
from msl_network_trio.client.statistics import ErrorCounts, Statistics, collect
from msl_network_trio.client.task_requests import GOODBYE_TIMEOUT, TaskRequests
from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.connect import DialedConnection, dial
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.dialing.retrying import Outage, dial_again, dial_first
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import (
    ConnectionLost,
    LinkBroken,
    ManagerError,
    NetworkError,
    ProtocolError,
    ReplyTimeout,
    ServiceLost,
    Unanswered,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import Gap, ManagerNotice, NotificationBatch
from msl_network_trio.protocol.traffic import Traffic
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


class ThreadForms(Protocol):
    """Maker of the requests of threads; implemented by the blocking API."""

    def over(self, connection: Connection, before: ThreadCalls | None) -> ThreadCalls:
        """Return the requests over a connection.

        Args:
            connection: The connection.
            before: The requests over the connection that it replaces; None: it is the first one.
        """

    def persistent(self, persistent: PersistentRequests) -> ThreadCalls:
        """Return the requests that outlive connections, for those of tasks."""


class LinkState:
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
        session: Session,
        service_name: str,
        identity: Mapping[str, Any],
        idempotent: Collection[str] = (),
    ) -> None:
        self.session: Session | None = session
        self.persistent = session.persistent_requests(self, idempotent)
        self.route: Requests | None = None
        self.thread_route: ThreadCalls | None = None
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

    def require_route(self, name: str) -> Requests:
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

    def require_thread_route(self, name: str) -> ThreadCalls:
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

    def lock_requests(self, session: Session) -> Requests:
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


class Session:
    """A client's settings, links, locks, callback tasks and its current connection.

    `open` makes the first connection. Then `run` runs until the end.

    Args:
        settings: The arguments of `connect`.

    Attributes:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.
        connect_seconds: Seconds that connecting took, without those in which a person was asked.
        connection: The current connection, or the last one.
        requests: Makes requests of tasks to the Manager.
        states: The state of the client.
        closed: Set at the end, when every request is settled and there will be no further connection.
        finished: Set when `run` has returned.
        reconnections: Number of connections that have replaced a lost one.
        calls: Requests of threads over the current connection; see `share`.
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
        "_connected_at",
        "_dialing",
        "_end_reason",
        "_is_closing",
        "_late_replies",
        "_loss",
        "_outage",
        "_persistent",
        "_thread_forms",
        "_traffic",
        "_unlinking",
        "callback_tasks",
        "calls",
        "client",
        "closed",
        "connect_seconds",
        "connection",
        "credentials",
        "errors",
        "finished",
        "linked",
        "links",
        "locks",
        "mailboxes",
        "presence",
        "reconnections",
        "requests",
        "settings",
        "states",
    )

    calls: ThreadCalls
    connection: Connection

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.credentials = settings.credentials()
        self.connect_seconds = 0.0
        self.closed = trio.Event()
        self.finished = trio.Event()
        self.reconnections = 0
        self._is_closing = False
        self._dialing: trio.CancelScope | None = None
        """Scope of the tries to connect; None: there are none at the moment."""
        self._loss: ConnectionLost | None = None
        """The reason for the end of a connection that is to be replaced; None: there is none."""
        self._connected_at = 0.0
        """Time of the last connection, by Trio's clock."""
        self._outage = Outage()
        self._end_reason: ConnectionLost | None = None
        self._traffic: Traffic | None = None
        """The counters of all connections; None: there was none."""
        self._thread_forms: ThreadForms | None = None
        """Makes the requests of threads; None: no thread uses the client."""
        self.errors = ErrorCounts()
        self._persistent = self.persistent_requests(self, {"identity", "link"})
        self.links: list[LinkState] = []
        self.linked: Counter[str] = Counter()
        self._unlinking: Counter[LinkState] = Counter()
        """Number of tasks that are unlinking each link."""
        self.mailboxes = Mailboxes(settings.max_unhandled)
        self.callback_tasks = CallbackTasks()
        self._late_replies = (
            None
            if settings.on_late_reply is None
            else CallbackQueue(self.callback_tasks, settings.on_late_reply, "the handler of late replies")
        )
        self.states = States(settings.reconnect, self.callback_tasks)
        self.client: Any = None
        self.locks = Locks(self)
        self.presence = Presence(self)

    def __repr__(self) -> str:
        name, manager = self.settings.name, self.settings.manager
        connection: Connection | None = getattr(self, "connection", None)
        if connection is None:
            return visible(f"<{name} manager={manager} connecting>")
        if connection.is_open:
            return visible(f"<{name} manager={manager} port={connection.port}>")
        if self.states.state == "away":
            return visible(f"<{name} manager={manager} reconnecting>")
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
        return self.portal.is_inherited or self.closed.is_set()

    @property
    def end_error(self) -> ConnectionLost | None:
        """A new error with the reason for the end of the session; None: it has not ended."""
        return None if self._end_reason is None else copied(self._end_reason)

    # ---- from the beginning to the end ----

    @trio.lowlevel.enable_ki_protection
    async def open(self) -> None:
        """Make the first connection; see `dial` and, for a client that reconnects, `dial_first`."""
        settings, policy, credentials = self.settings, self.settings.reconnect, self.credentials
        if policy is None:
            dialed = await dial(settings, credentials, self._new_protocol())
            self.connect_seconds = dialed.seconds
        else:
            began = trio.current_time()
            attempt = partial(self._dial, credentials)
            dialed = await dial_first(settings, policy, credentials, attempt, on_failure=self._log_failure)
            self.connect_seconds = trio.current_time() - began - credentials.seconds_asked
        self._adopt(dialed)

    def close(self) -> None:
        """Close a session whose `run` was never started."""
        self._is_closing = True
        self.connection.close()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run connections until the session ends, shielded from cancellation; `disconnect` ends it.

        It returns when the callback tasks have ended as well: handlers still get what was received.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                self.callback_tasks.nursery = nursery
                await self.connection.run()
                while self._loss is not None:
                    assert self.settings.reconnect is not None
                    await self._replace(self.settings.reconnect, self._loss)
                nursery.cancel_scope.cancel()
        finally:
            self.callback_tasks.nursery = None
            self.finished.set()

    @trio.lowlevel.enable_ki_protection
    async def run_in_background(self) -> None:
        """Do what `run` does; when cancelled, disconnect first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            try:
                await self.finished.wait()
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
            self._is_closing = True
            if self._dialing is not None:
                self._dialing.cancel()
            await self.connection.disconnect(seconds)
        finally:
            with trio.CancelScope(shield=True):
                await self.closed.wait()
            self.callback_tasks.cancel(but=trio.lowlevel.current_task())

    # ---- connections ----

    def _new_protocol(self) -> ClientProtocol:
        """Return the protocol for a further connection."""
        protocol = new_protocol(self.settings, self._traffic)
        self._traffic = protocol.traffic
        return protocol

    def _adopt(self, dialed: DialedConnection[ClientProtocol]) -> None:
        """Make a connection of what was dialed the current one."""
        settings = self.settings
        self.connection = Connection(
            dialed.transport,
            dialed.protocol,
            self,
            request_timeout=settings.request_timeout,
            max_unsent=settings.max_unsent,
            probe_after=settings.probe_after,
            probe_every=settings.probe_every,
            unresponsive_after=settings.unresponsive_after,
        )
        self._connected_at = trio.current_time()
        for event in dialed.early:
            if isinstance(event, ManagerNotice):
                self.take_notice(event)
        if self._thread_forms is not None:
            self.calls = self._thread_forms.over(self.connection, self.calls)
        if self._persistent is not None:
            self._persistent.resume(self.connection.requests)
        self.requests: PersistentRequests | TaskRequests = self._persistent or self.connection.requests

    async def _dial(self, credentials: Credentials, settings: Settings) -> DialedConnection[ClientProtocol]:
        """Try to connect, until the Manager has answered a request."""
        protocol = self._new_protocol()
        return await dial(settings, credentials, protocol, confirm=protocol)

    def _log_failure(self, error: Exception) -> None:
        logger.info("%s cannot connect yet: %s", self.settings.name, error)

    @trio.lowlevel.enable_ki_protection
    async def _replace(self, policy: Reconnect, reason: ConnectionLost) -> None:
        """Replace the connection, and run the new one until it ends.

        Args:
            policy: The policy of reconnection.
            reason: The reason for the end of the last connection.
        """
        attempt = partial(self._dial, self.credentials.unattended())
        self._outage.begin(self._connected_at)
        dialed: DialedConnection[ClientProtocol] | None = None
        error: ConnectionLost | None = None
        with trio.CancelScope() as self._dialing:
            if self._is_closing:
                self._dialing.cancel()
            try:
                dialed = await dial_again(
                    self.settings,
                    policy,
                    attempt,
                    self._outage,
                    reason=reason,
                    on_failure=self._log_failure,
                )
            except ConnectionLost as failure:
                error = failure
        self._dialing = self._loss = None
        if self._is_closing:  # perhaps since a moment ago, when there was a connection already
            if dialed is not None:
                dialed.transport.close()
            self._end(ConnectionLost(f"Disconnected from Manager[{self.settings.manager}]"))
            return
        if dialed is None:
            assert error is not None
            logger.error("%s", error)
            self._end(error)
            return
        self._adopt(dialed)
        self.reconnections += 1
        logger.warning("%s is connected again", self)
        self.states.change("connected")
        self.presence.connection_restored()
        await self.connection.run()

    # ---- threads ----

    def share(self, forms: ThreadForms) -> None:
        """Let threads use the client from now on; in the Trio thread."""
        if self._thread_forms is None:
            self.calls = forms.over(self.connection, None)
            self._thread_forms = forms

    def thread_calls(self, persistent: PersistentRequests | None) -> ThreadCalls:
        """Return the requests of threads for those of tasks; None: over the only connection."""
        assert self._thread_forms is not None  # there is a blocking form of the client
        return self.calls if persistent is None else self._thread_forms.persistent(persistent)

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
        return collect(self.connection.protocol, self.errors, self.mailboxes, self.reconnections)

    @trio.lowlevel.enable_ki_protection
    def take_notice(self, notice: ManagerNotice) -> None:
        """Take a notice of the Manager about Services."""
        self.presence.take_notice(notice)

    # ---- for the presence of Services ----

    @property
    def is_reconnecting(self) -> bool:
        """Whether lost connections and links are restored."""
        return self.settings.reconnect is not None and not self.closed.is_set()

    def holds_lock(self, service: str) -> bool:
        """Return whether the client holds a lock on a Service."""
        return self.locks.is_held(service)

    @trio.lowlevel.enable_ki_protection
    def service_lost(self, service: str, reason: NetworkError) -> None:
        """Take the loss of a Service, before the links with it are lost."""
        self.locks.lose(service, reason)

    @property
    def _will_reconnect(self) -> bool:
        """Whether a connection that ends is replaced."""
        return self.settings.reconnect is not None and not self._is_closing and not self.portal.is_inherited

    @trio.lowlevel.enable_ki_protection
    def connection_ending(self, reason: ConnectionLost) -> None:
        """Cancel the bodies that hold locks, before a request in them raises."""
        self.locks.lose_all(reason, is_final=not self._will_reconnect)

    @trio.lowlevel.enable_ki_protection
    def connection_ended(self, reason: ConnectionLost) -> None:
        """Prepare for a further connection, or end the session."""
        if not self._will_reconnect:
            self._end(reason)
            return
        logger.warning("%s; reconnecting", reason)
        self._loss = reason
        self.states.change("away", reason)
        if self._persistent is not None:
            self._persistent.pause(reason)
        self.presence.connection_lost(reason)

    def _end(self, reason: ConnectionLost) -> None:
        """End everything: requests, notifications and callback tasks, after the shutdown handler."""
        self.locks.lose_all(reason, is_final=True)
        if self._persistent is not None:
            self._persistent.end(reason)
        for link in self.links:
            if link.persistent is not None:
                link.persistent.end(reason)
            if link.lost is None or self.is_reconnecting:
                link.end_notifications(copied(reason), log=not self._is_closing)
        self._end_reason = reason
        self.closed.set()
        handler = None if self.client is None else vars(self.client).get("shutdown_handler")
        if handler is not None:

            async def call_handler() -> None:
                await callbacks.call(handler, (), {}, "the shutdown handler")

            self.callback_tasks.start_final(call_handler, GOODBYE_TIMEOUT)
        self.states.change("closed", None if self._is_closing else reason, final_seconds=GOODBYE_TIMEOUT)

    def persistent_requests(
        self, owner: RequestsOwner, idempotent: Collection[str] = ()
    ) -> PersistentRequests | None:
        """Return the requests of a link or of the session that outlive connections; None: these do not."""
        policy, timeout = self.settings.reconnect, self.settings.request_timeout
        if policy is None:
            return None
        seconds = math.inf if timeout is None else timeout
        return PersistentRequests(
            owner,
            seconds,
            self.errors,
            idempotent=idempotent,
            waits=policy.while_away == "wait",
            keep_calls=self.settings.on_late_reply is not None,
        )

    async def connected(self, attribute: str, timeout: float | None) -> tuple[TaskRequests, float | None]:
        """Wait for a connection if the client reconnects.

        Args:
            attribute: Name of the attribute that is to be requested from the Manager, for errors.
            timeout: Seconds to wait; None: the default.

        Returns:
            The requests over it, and the seconds that are left of the timeout.
        """
        if self._persistent is None:
            return self.connection.requests, timeout
        seconds = self.connection.requests.seconds(timeout)
        deadline = math.inf if seconds == math.inf else trio.current_time() + seconds
        requests = await self._persistent.wait(MANAGER, attribute, deadline, seconds)
        return requests, seconds if seconds == math.inf else max(0.0, deadline - trio.current_time())

    def service_refused(self, error: ServiceLost) -> None:
        """Do nothing: the Manager refuses no requests to itself like those to a Service."""

    @trio.lowlevel.enable_ki_protection
    def lock_changed(self, service: str) -> None:
        """Let requests to a Service raise while a lost lock on it has not been let go; see `Locks.lose`."""
        for link in self.links:
            if link.service_name == service:
                link.choose_routes()

    # ---- links ----

    @trio.lowlevel.enable_ki_protection
    async def link(self, service: str, timeout: float | None, idempotent: Collection[str] = ()) -> LinkState:
        """Link with a Service; see `Client.link`."""
        self.linked[service] += 1
        connection = self.connection
        try:
            answer = await self.requests.request(
                MANAGER,
                "link",
                (service,),
                timeout=timeout,
                linking=service,
                kind=link_request(service, self.presence),
            )
            link = LinkState(self, service, _service_identity(service, answer), idempotent)
        except BaseException as error:
            if not self._release(service) and not isinstance(error, ManagerError):
                # The Manager may have made the link all the same, and would keep the place occupied.
                self.connection.requests.post("unlink", service)
            raise
        self.links.append(link)
        self.lock_changed(service)  # a lock on it may have been lost over another link
        if link.persistent is not None:
            if self.connection is connection and connection.is_open:
                link.persistent.resume(connection.requests)
            else:  # the connection that has the link may have been replaced before this task was scheduled
                link.lose(self._loss or ConnectionLost("The connection was lost"))
                self.presence.ask_soon(service)
        return link

    @trio.lowlevel.enable_ki_protection
    async def unlink(self, link: LinkState, timeout: float | None) -> None:
        """Unlink from a Service; see `Client.unlink`."""
        if link.persistent is not None and link.persistent.is_away:
            self.forget(link)  # it is not made again
            return
        connection = self.connection
        self._unlinking[link] += 1
        try:
            await connection.requests.request(MANAGER, "unlink", (link.service_name,), timeout=timeout)
        except ManagerError:
            is_restored = link.persistent is not None and link.lost is not None
            if self._unlinking[link] == 1 and link in self.links and not is_restored:
                raise  # else another task is unlinking it, or has done so
        except ConnectionLost:
            if link.persistent is None:
                raise  # else the link has ended with the connection, and is not made again
        except (trio.Cancelled, KeyboardInterrupt, ReplyTimeout) as error:
            # The Manager may have unlinked, so the link is broken. In case it has not, ask it again.
            if getattr(error, "may_have_run", True) and not self.forget(link):
                self.connection.requests.post("unlink", link.service_name)
            raise
        finally:
            self._unlinking -= Counter([link])
        if not self.forget(link) and self.connection is not connection:
            self.connection.requests.post("unlink", link.service_name)  # it may have been made again

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


def copied(reason: ConnectionLost) -> ConnectionLost:
    """Return an error of the same text and cause, to be raised elsewhere."""
    error = ConnectionLost(str(reason))
    error.__cause__ = reason.__cause__
    return error


@trio.lowlevel.enable_ki_protection
async def open_session(settings: Settings) -> Session:
    """Connect to a Manager; see `dial_first` for what it raises."""
    session = Session(settings)
    await session.open()
    return session
