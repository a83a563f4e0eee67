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
from collections.abc import Collection
from typing import Any, Protocol

import trio

from msl_network_trio import callbacks
from msl_network_trio.callbacks import CallbackTasks
from msl_network_trio.client.callback_queue import CallbackQueue
from msl_network_trio.client.connecting import Connecting, Dialed
from msl_network_trio.client.connection import Connection
from msl_network_trio.client.link_state import LinkState
from msl_network_trio.client.links import Links
from msl_network_trio.client.locks import Locks
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.persistent_requests import Owner as RequestsOwner
from msl_network_trio.client.persistent_requests import PersistentRequests
from msl_network_trio.client.presence import Presence
from msl_network_trio.client.request_route import RequestRoute
from msl_network_trio.client.states import States
from msl_network_trio.client.statistics import ErrorCounts, Statistics, collect
from msl_network_trio.client.task_requests import GOODBYE_TIMEOUT, TaskRequests
from msl_network_trio.constants import MANAGER
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import (
    ConnectionLost,
    NetworkError,
    ServiceLost,
)
from msl_network_trio.logger import get_logger
from msl_network_trio.portal.portal import Portal
from msl_network_trio.protocol.late_replies import LateReply
from msl_network_trio.protocol.messages import ManagerNotice, NotificationBatch
from msl_network_trio.visible import visible

logger = get_logger(__name__)


class ThreadForms(Protocol):
    """Maker of the requests of threads; implemented by the blocking API."""

    def over(self, connection: Connection, before: RequestRoute | None) -> RequestRoute:
        """Return the requests over a connection.

        Args:
            connection: The connection.
            before: The requests over the connection that it replaces; None: it is the first one.
        """

    def persistent(self, persistent: PersistentRequests) -> RequestRoute:
        """Return the requests that outlive connections, for those of tasks."""


class Session:
    """A client's settings, links, locks, callback tasks and its current connection.

    `open` makes the first connection. Then `run` runs until the end.

    Args:
        settings: The arguments of `connect`.

    Attributes:
        settings: The arguments of `connect`.
        credentials: Answers the Manager's questions.
        connection: The current connection, or the last one.
        requests: Makes requests of tasks to the Manager.
        states: The state of the client.
        closed: Set at the end, when every request is settled and there will be no further connection.
        finished: Set when `run` has returned.
        reconnections: Number of connections that have replaced a lost one.
        calls: Requests of threads over the current connection; see `share`.
        links: The links that are not broken.
        locks: The locks of the client.
        presence: Watches the Services of the links.
        mailboxes: The notifications that are not handled yet.
        callback_tasks: Runs notification handlers and the shutdown handler.
        errors: Counts the errors that callers get.
        client: The `Client`, which sets this. Its attribute ``shutdown_handler`` is called at the end.
    """

    __slots__ = (
        "__weakref__",
        "_connecting",
        "_end_reason",
        "_is_closing",
        "_late_replies",
        "_loss",
        "_persistent",
        "_thread_forms",
        "callback_tasks",
        "calls",
        "client",
        "closed",
        "connection",
        "credentials",
        "errors",
        "finished",
        "links",
        "locks",
        "mailboxes",
        "presence",
        "reconnections",
        "requests",
        "settings",
        "states",
    )

    calls: RequestRoute
    connection: Connection

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.credentials = settings.credentials()
        self._connecting = Connecting(settings, self.credentials)
        self.closed = trio.Event()
        self.finished = trio.Event()
        self.reconnections = 0
        self._is_closing = False
        self._loss: ConnectionLost | None = None
        """The reason for the end of a connection that is to be replaced; None: there is none."""
        self._end_reason: ConnectionLost | None = None
        self._thread_forms: ThreadForms | None = None
        """Makes the requests of threads; None: no thread uses the client."""
        self.errors = ErrorCounts()
        self._persistent = self.persistent_requests(self, {"identity", "link"})
        self.links: Links[Session] = Links(self)
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
    def connect_seconds(self) -> float:
        """Seconds that the first connection took, without those in which a person was asked."""
        return self._connecting.seconds

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
        """Make the first connection; see `Connecting.first` for what it raises."""
        self._adopt(await self._connecting.first())

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
                try:
                    await self.connection.run()
                    while self._loss is not None:
                        assert self.settings.reconnect is not None
                        await self._replace(self.settings.reconnect, self._loss)
                except BaseException as error:
                    self._fail(error)
                    if not isinstance(error, Exception):
                        raise
                nursery.cancel_scope.cancel()
        finally:
            self.callback_tasks.nursery = None
            self.finished.set()

    def _fail(self, error: BaseException) -> None:
        """End the session because of an internal error or an interrupt: no caller may wait forever."""
        is_internal = isinstance(error, Exception)
        what = "failed" if is_internal else "was interrupted"
        text = f"The client of Manager[{self.settings.manager}] {what}: {error!r}"
        if is_internal:
            logger.error("%s", text, exc_info=error)
        if not self.closed.is_set():
            self._end(ConnectionLost(text))
        if not self.connection.closed.is_set():
            self.connection.close()  # its task was not started

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
            self._connecting.cancel()
            await self.connection.disconnect(seconds)
        finally:
            with trio.CancelScope(shield=True):
                await self.closed.wait()
            self.callback_tasks.cancel(but=trio.lowlevel.current_task())

    # ---- connections ----

    def _adopt(self, dialed: Dialed) -> None:
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
        for event in dialed.early:
            if isinstance(event, ManagerNotice):
                self.take_notice(event)
        if self._thread_forms is not None:
            self.calls = self._thread_forms.over(self.connection, self.calls)
        if self._persistent is not None:
            self._persistent.resume(self.connection.requests)
        self.requests: PersistentRequests | TaskRequests = self._persistent or self.connection.requests

    @trio.lowlevel.enable_ki_protection
    async def _replace(self, policy: Reconnect, reason: ConnectionLost) -> None:
        """Replace the connection, and run the new one until it ends.

        Args:
            policy: The policy of reconnection.
            reason: The reason for the end of the last connection.
        """
        try:
            dialed = await self._connecting.again(policy, reason)
        except ConnectionLost as error:
            self._loss = None
            if not self._is_closing:
                logger.error("%s", error)  # noqa: TRY400 - the cause is in its text
            self._end(error)
            return
        self._loss = None
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

    def thread_calls(self, persistent: PersistentRequests | None) -> RequestRoute:
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
        return self.is_reconnecting and not self._is_closing and not self.portal.is_inherited

    @trio.lowlevel.enable_ki_protection
    def connection_ending(self, reason: ConnectionLost) -> None:
        """Cancel the bodies that hold locks, before a request in them raises."""
        self.locks.lose_all(reason, is_final=not self._will_reconnect)

    @trio.lowlevel.enable_ki_protection
    def connection_ended(self, reason: ConnectionLost) -> None:
        """Prepare for a further connection, or end the session, unless it has ended."""
        if self.closed.is_set():
            return
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


SessionLink = LinkState[Session]
"""State of a link of a session."""
