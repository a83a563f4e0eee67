"""Notifications: from the reader to whoever wants them, bounded, in order, counted.

The reader never waits and runs no code of the user. It puts notifications into mailboxes; when one is full
the oldest of its notifications is dropped and counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import trio

from msl_network_trio import callbacks
from msl_network_trio.client.mailboxes import Mailbox, Mailboxes
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import Notification, NotificationBatch

logger = get_logger(__name__)

StartTask = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task that the connection owns."""


class NotificationStream:
    """The notifications of one Service, to be iterated; `Link.notifications` makes it.

    It is subscribed from where it is entered with ``async with`` to the end of the block, and gives
    `Notification` objects. The iteration ends when the link is unlinked; when the connection is lost, it
    raises.

    Args:
        service: The name of the Service.
        subscribers: Where the link keeps its streams.
        mailboxes: The connection's.
        max_buffer_size: See `Mailbox`.
    """

    def __init__(
        self,
        service: str,
        subscribers: set[NotificationStream],
        mailboxes: Mailboxes,
        max_buffer_size: float | None,
    ) -> None:
        self._subscribers = subscribers
        self._mailboxes = mailboxes
        self._mailbox = Mailbox(service, mailboxes, max_buffer_size)
        self._error: NetworkError | None = None
        self.put = self._mailbox.put
        """Adds notifications, for the reader."""

    @property
    def dropped(self) -> int:
        """How many notifications were lost, the oldest first, because the consumer was too slow."""
        return self._mailbox.dropped

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> NotificationStream:
        self._subscribers.add(self)
        self._mailboxes.add(self._mailbox)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._subscribers.discard(self)
        self._mailboxes.remove(self._mailbox)
        self._mailbox.end(drop=True)

    def __aiter__(self) -> NotificationStream:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Notification:
        if self._mailbox.queue:  # what wait() does, without the call: they may come by the thousand
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._mailbox.queue.popleft()
        if await self._mailbox.wait():
            return self._mailbox.queue.popleft()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    @trio.lowlevel.enable_ki_protection
    def end(self, error: NetworkError | None) -> None:
        """Let no more come, because the connection was lost or, without an error, the link was unlinked."""
        self._error = error
        self._mailboxes.remove(self._mailbox)
        self._mailbox.end(drop=error is None)


class BatchHandler(ABC):
    """A notification handler that takes the notifications itself, as many as there are."""

    @abstractmethod
    async def handle(self, runner: HandlerRunner) -> None:
        """Handle what `HandlerRunner.take` returns until it returns None."""


class HandlerRunner:
    """Calls the notification handler of a link, in order, one at a time, in a task of its own.

    Args:
        service: The name of the Service.
        attributes: Those of the link. ``notification_handler`` is the handler of the moment; if it is
            missing or None, there is none.
        mailboxes: The connection's.
    """

    def __init__(self, service: str, attributes: Mapping[str, Any], mailboxes: Mailboxes) -> None:
        self._service = service
        self._attributes = attributes
        self._mailboxes = mailboxes
        self._mailbox = Mailbox(service, mailboxes)
        self._logged = 0
        self._started = False
        self._ended = False
        self._is_late = False
        """Whether threads do not wait for the handler, since it has taken too long."""
        self._last: Any = None
        """The handler that was called last."""
        self.add_waiter = self._mailbox.add_waiter
        self.remove_waiter = self._mailbox.remove_waiter
        mailboxes.add_handler(service, self)

    # ---- for the reader ----

    @trio.lowlevel.enable_ki_protection
    def put(self, batch: NotificationBatch, start: StartTask) -> None:
        """Take notifications for the handler, if there is one.

        Args:
            batch: The notifications.
            start: Starts a task of the connection.
        """
        mailbox = self._mailbox
        if self._attributes.get("notification_handler") is None:
            mailbox.skip(batch)
            return
        mailbox.put(batch)
        if not self._started:
            self._started = True
            self._mailboxes.add(mailbox)
            start(self._run)
        if mailbox.dropped > 2 * self._logged:  # at 1, 3, 7, 15, ...
            self._logged = mailbox.dropped
            logger.warning(
                "the notification handler for %r is too slow: %d notifications dropped so far",
                self._service,
                self._logged,
            )

    @trio.lowlevel.enable_ki_protection
    def end(self, *, drop: bool) -> None:
        """Let no more come; what is there is still handled unless it is dropped."""
        self._mailboxes.remove_handler(self._service, self)
        self._mailboxes.remove(self._mailbox)
        self._mailbox.end(drop=drop)

    # ---- for threads that wait for the handler ----

    def is_behind(self, last: int) -> bool:
        """Return whether a thread may have to wait until notifications up to this number are handled."""
        mailbox = self._mailbox
        return (
            mailbox.may_hold(last)
            and not self._is_late
            and (mailbox.at_work or self._attributes.get("notification_handler") is not None)
        )

    def give_up_on(self, last: int, seconds: float) -> None:
        """Let no thread wait again before the handler has caught up, and log that.

        Args:
            last: The number of the last notification that a thread has waited for.
            seconds: How many seconds it has waited.
        """
        # In one step, since the time of several threads may be over in the same moment.
        was_late, self._is_late = self._is_late, True
        if not self._mailbox.may_hold(last):
            self._is_late = False  # it has caught up in the last moment
        elif not was_late:
            logger.warning(
                "the notification handler for %r has not returned within %.3g seconds, so calls do not wait "
                "for it until it has caught up",
                self._service,
                seconds,
            )

    # ---- the task ----

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        callbacks.in_callback.set(True)
        mailbox = self._mailbox
        try:
            while await mailbox.wait():
                mailbox.at_work = True
                try:
                    result = self._handle()
                    if result is not None:
                        await callbacks.finish(result)
                except trio.Cancelled:
                    raise
                except BaseException as error:  # noqa: BLE001 - it is logged
                    self.report(error, self._last)
                if not mailbox.queue:
                    self._rest()
        finally:
            self._ended = True

    @trio.lowlevel.disable_ki_protection
    def _handle(self) -> Any:
        """Call the handler for all that is there, in which Ctrl-C may interrupt.

        Returns:
            What a call has returned that may have to be awaited, before the others are made; else None.
        """
        mailbox, attributes = self._mailbox, self._attributes
        queue, last = mailbox.queue, None
        while queue:  # without any further call: they may come by the thousand
            handler = attributes.get("notification_handler")  # it may be changed at any time
            if handler is not last:
                self._last = last = handler
                if isinstance(handler, BatchHandler):
                    return handler.handle(self)
            notification = queue.popleft()
            if mailbox.waiters:
                mailbox.release_waiters()
            if handler is not None:
                result = handler(*notification.args, **notification.kwargs)
                if result is not None:
                    return result
        return None

    # ---- for handlers that take the notifications themselves, in their thread ----

    def take(self, handler: BatchHandler) -> Notification | None:
        """Return the next notification; None if there is none at the moment, or another handler is set.

        Args:
            handler: The one that takes it.
        """
        mailbox = self._mailbox
        if not self._ended and self._attributes.get("notification_handler") is handler:
            mailbox.at_work = True
            try:
                notification = mailbox.queue.popleft()
            except IndexError:
                self._rest()
                return None
            if mailbox.waiters:
                mailbox.release_waiters()
            return notification
        return None

    def report(self, error: BaseException, handler: Any) -> None:
        """Log what a handler has raised."""
        callbacks.report(error, handler, f"the notification handler for {self._service!r}:")

    def _rest(self) -> None:
        """Note that the handler has returned for everything that was there."""
        mailbox = self._mailbox
        mailbox.at_work = False
        self._is_late = False
        if mailbox.waiters:
            mailbox.release_waiters()
