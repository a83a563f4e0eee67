"""Notification streams and handlers: bounded, in order, dropped notifications are counted.

The reader, in the Trio thread, puts notifications into mailboxes; it never waits and runs no code of the
user. A handler runs in a task of its own, or takes notifications itself in a thread (`BatchHandler`), without
a lock: see `Mailbox`. If a handler or stream falls behind, the oldest notifications are dropped.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec
import trio

from msl_network_trio import callbacks
from msl_network_trio.client.mailboxes import Mailbox, Mailboxes
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import Gap, Notification, NotificationBatch

logger = get_logger(__name__)

StartTask = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a callback task; see `CallbackTasks.start`."""

if TYPE_CHECKING:
    import typing_extensions  # which every type checker knows; `TypeVar` has a default from Python 3.13 on

    Item_co = typing_extensions.TypeVar(
        "Item_co", bound=Notification | Gap, covariant=True, default=Notification
    )
else:
    Item_co = TypeVar("Item_co", covariant=True)
"""An element of a stream: a `Notification`, or with ``gaps=True`` a `Gap`, too."""


class NotificationStream(Generic[Item_co]):
    """An async iterator over the notifications of one Service; `Link.notifications` makes it.

    Entered with ``async with``, it is subscribed until the end of the block, and yields `Notification`
    objects. The iteration ends when the link is unlinked; when the connection or the Service is lost, it
    raises. If the client reconnects, it continues instead, with a `Gap`.

    Args:
        service: Name of the Service.
        subscribers: The streams of the link, to which it adds itself.
        mailboxes: The mailboxes of the client.
        max_buffer_size: See `Mailbox`.
        gaps: Whether to yield gaps, too. Otherwise each is the `Notification.gap` of the one behind it.
        on_enter: Called with the stream when it is entered.
    """

    def __init__(
        self,
        service: str,
        subscribers: set[NotificationStream[Any]],
        mailboxes: Mailboxes,
        max_buffer_size: float | None,
        *,
        gaps: bool = False,
        on_enter: Callable[[NotificationStream[Any]], object] | None = None,
    ) -> None:
        self._subscribers = subscribers
        self._on_enter = on_enter
        self._yields_gaps = gaps
        self._subscribed = 0.0
        self._mailboxes = mailboxes
        self._mailbox = Mailbox(service, mailboxes, max_buffer_size)
        self._error: NetworkError | None = None
        self.put = self._mailbox.put
        """Add notifications; for the reader."""

    @property
    def dropped(self) -> int:
        """Number of notifications that were dropped, the oldest first, because the loop fell behind."""
        return self._mailbox.dropped

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        self._subscribed = time.time()
        self._subscribers.add(self)
        self._mailboxes.add(self._mailbox)
        if self._on_enter is not None:
            self._on_enter(self)
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

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Item_co:
        mailbox = self._mailbox
        queue = mailbox.queue
        if queue and not mailbox.gaps:  # what wait() does, without the call: there may be thousands
            await trio.lowlevel.checkpoint_if_cancelled()
            return queue.popleft()  # type: ignore[return-value]  # every stream yields notifications
        if await mailbox.wait(for_gaps=self._yields_gaps):
            gap = mailbox.take_gap() if mailbox.gaps else None
            if gap is None:
                return queue.popleft()  # type: ignore[return-value]
            if self._yields_gaps:
                return gap  # type: ignore[return-value]  # as its type says
            return msgspec.structs.replace(queue.popleft(), gap=gap)  # type: ignore[return-value]
        if self._error is not None:
            raise self._error.with_traceback(None)
        raise StopAsyncIteration

    def put_gap(self, gap: Gap) -> None:
        """Add a gap; for the reader. It begins with the subscription at the earliest."""
        if gap.since < self._subscribed:
            gap = msgspec.structs.replace(gap, since=min(self._subscribed, gap.until))
        self._mailbox.put_gap(gap)

    @trio.lowlevel.enable_ki_protection
    def end(self, error: NetworkError | None) -> None:
        """End the iteration.

        Args:
            error: The loss of the connection or of the Service; None: the link was unlinked.
        """
        self._error = error
        self._mailboxes.remove(self._mailbox)
        self._mailbox.end(drop=error is None)


class BatchHandler(ABC):
    """A notification handler that takes all queued notifications itself."""

    @abstractmethod
    async def handle(self, runner: HandlerRunner) -> None:
        """Handle what `HandlerRunner.take` returns until it returns None."""


def gap_handler(handler: Any) -> Callable[[Gap], Any] | None:
    """Return the method ``on_gap`` of a handler, or of the object whose method it is; None if it has none.

    For the object of a bound method its class decides: a `Link` has every attribute, as one of the Service.
    """
    method: Callable[[Gap], Any] | None = getattr(handler, "on_gap", None)
    owner = getattr(handler, "__self__", None)
    if method is None and callable(getattr(type(owner), "on_gap", None)):
        method = owner.on_gap  # type: ignore[union-attr]  # as its class has it
    return method if callable(method) else None


class HandlerRunner:
    """Calls the notification handler of a link, in order, one call at a time, in a task of its own.

    Args:
        service: Name of the Service.
        mailboxes: The mailboxes of the client.

    Attributes:
        attributes: Attributes of the link. ``notification_handler`` is the current handler; if it is missing
            or None, there is none.
    """

    def __init__(self, service: str, mailboxes: Mailboxes) -> None:
        self._service = service
        self.attributes: Mapping[str, Any] = {}
        self._mailboxes = mailboxes
        self._mailbox = Mailbox(service, mailboxes)
        self._logged = 0
        self._started = False
        self._ended = False
        self._is_late = False
        """Whether threads do not wait for the handler, since it exceeded the timeout."""
        self._last: Any = None
        """Handler of the last call."""
        self.add_waiter = self._mailbox.add_waiter
        self.remove_waiter = self._mailbox.remove_waiter
        mailboxes.add_handler(service, self)

    # ---- for the reader ----

    @trio.lowlevel.enable_ki_protection
    def put(self, batch: NotificationBatch, start: StartTask) -> None:
        """Add notifications for the handler, if there is one.

        Args:
            batch: The notifications.
            start: Starts a callback task.
        """
        mailbox = self._mailbox
        if self.attributes.get("notification_handler") is None:
            mailbox.skip(batch)
            return
        mailbox.put(batch)
        if not self._started:
            self._start_once(start)
        if mailbox.dropped > 2 * self._logged:  # at 1, 3, 7, 15, ...
            self._logged = mailbox.dropped
            logger.warning(
                "the notification handler for %r falls behind: %d notifications dropped so far",
                self._service,
                self._logged,
            )

    @trio.lowlevel.enable_ki_protection
    def put_gap(self, gap: Gap, start: StartTask) -> None:
        """Add a gap for the handler, if it has a method for that; arguments as in `put`."""
        if gap_handler(self.attributes.get("notification_handler")) is not None:
            self._mailbox.put_gap(gap)
            self._start_once(start)

    @property
    def has_handler(self) -> bool:
        """Whether there is a handler."""
        return self.attributes.get("notification_handler") is not None

    @trio.lowlevel.enable_ki_protection
    def end(self, error: NetworkError | None, *, log: bool = True) -> None:
        """Accept no more notifications.

        Args:
            error: The loss of the connection or of the Service; what is in the mailbox is still handled.
                None: the link was unlinked, and it is not.
            log: Whether to log the loss if there is a handler.
        """
        if error is not None and log and self.has_handler and not self._mailbox.has_ended:
            logger.warning(
                "the notification handler for %r will not be called any more: %s", self._service, error
            )
        self._mailboxes.remove_handler(self._service, self)
        self._mailboxes.remove(self._mailbox)
        self._mailbox.end(drop=error is None)

    def _start_once(self, start: StartTask) -> None:
        if not self._started:
            self._started = True
            self._mailboxes.add(self._mailbox)
            start(self._run)

    # ---- for threads that wait for the handler ----

    def is_behind(self, last: int) -> bool:
        """Return whether a thread may have to wait until notifications up to this number are handled."""
        mailbox = self._mailbox
        return (
            mailbox.may_hold(last)
            and not self._is_late
            and (mailbox.at_work or self.attributes.get("notification_handler") is not None)
        )

    def give_up_on(self, last: int, seconds: float) -> None:
        """Make threads wait no longer until the handler has caught up, and log that.

        Args:
            last: Number of the last notification that a thread has waited for.
            seconds: Seconds that it has waited.
        """
        # In one step, since several threads may time out at the same moment.
        was_late, self._is_late = self._is_late, True
        if not self._mailbox.may_hold(last):
            self._is_late = False  # it caught up at the last moment
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
            while await mailbox.wait(for_gaps=True):
                mailbox.at_work = True
                try:
                    result = self._handle_one() if mailbox.gaps else self._handle()
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
        """Call the handler for everything in the mailbox; Ctrl-C may interrupt it.

        Returns:
            What a call has returned and may have to be awaited before the next call; else None.
        """
        mailbox, attributes = self._mailbox, self.attributes
        queue, last = mailbox.queue, None
        while queue:  # without further calls: there may be thousands
            handler = attributes.get("notification_handler")  # the user may change it at any time
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

    @trio.lowlevel.disable_ki_protection
    def _handle_one(self) -> Any:
        """Call the handler for what is next, while there is a gap behind it; returns as `_handle`."""
        mailbox = self._mailbox
        self._last = handler = self.attributes.get("notification_handler")
        if isinstance(handler, BatchHandler):
            return handler.handle(self)
        gap = mailbox.take_gap()
        if gap is not None:
            on_gap = gap_handler(handler)
            return None if on_gap is None else on_gap(gap)
        notification = mailbox.queue.popleft()
        if mailbox.waiters:
            mailbox.release_waiters()
        return None if handler is None else handler(*notification.args, **notification.kwargs)

    # ---- for handlers that take the notifications themselves, in their thread ----

    def take(self, handler: BatchHandler) -> Notification | None:
        """Return the next notification; None if the mailbox is empty, or another handler was set.

        Args:
            handler: The handler that takes it.
        """
        mailbox = self._mailbox
        if not self._ended and self.attributes.get("notification_handler") is handler:
            mailbox.at_work = True
            queue = mailbox.queue
            while True:
                is_empty = not queue  # before the gaps: a gap is put before the notifications behind it
                if mailbox.gaps and (gap := mailbox.take_gap()) is not None:
                    self._handle_gap(gap, handler)
                elif is_empty:
                    self._rest()
                    return None
                else:
                    try:
                        notification = queue.popleft()
                    except IndexError:  # it was dropped at this moment
                        continue
                    if mailbox.waiters:
                        mailbox.release_waiters()
                    return notification
        return None

    def _handle_gap(self, gap: Gap, handler: BatchHandler) -> None:
        """Call the method of a handler for a gap, in its thread."""
        on_gap = gap_handler(handler)
        if on_gap is not None:
            try:
                on_gap(gap)
            except BaseException as error:  # noqa: BLE001 - it is logged
                self.report(error, handler)

    def report(self, error: BaseException, handler: Any) -> None:
        """Log an exception that a handler has raised."""
        callbacks.report(error, handler, f"the notification handler for {self._service!r}:")

    def _rest(self) -> None:
        """Note that the handler has returned for everything in the mailbox."""
        mailbox = self._mailbox
        mailbox.at_work = False
        self._is_late = False
        if mailbox.waiters:
            mailbox.release_waiters()
