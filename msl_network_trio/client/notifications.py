"""Notifications: from the reader to whoever wants them, bounded, in order, counted.

The reader never waits and runs no code of the user. It puts notifications into mailboxes; when one is full
the oldest of its notifications is dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import trio

from msl_network_trio.arguments import number
from msl_network_trio.client import user_code
from msl_network_trio.exceptions import NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.messages import Notification

logger = get_logger(__name__)

StartTask = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task that the connection owns."""

MAX_BUFFER_SIZE = 1000
"""How many notifications are kept for somebody who is slower than they come."""


class _Mailbox:
    """Notifications that wait for one consumer."""

    def __init__(self, size: float) -> None:
        self._size = number("max_buffer_size", size)
        if not self._size >= 1:
            raise ValueError(f"max_buffer_size must be a number from 1, or math.inf, not {size!r}")
        self.queue: deque[Notification] = deque()
        self._wanted = trio.lowlevel.ParkingLot()
        self._ended = False
        self.dropped = 0

    @trio.lowlevel.enable_ki_protection
    def put(self, notifications: Sequence[Notification]) -> None:
        queue = self.queue
        queue.extend(notifications)
        while len(queue) > self._size:
            queue.popleft()
            self.dropped += 1
        if self._wanted:
            self._wanted.unpark(count=len(queue))

    @trio.lowlevel.enable_ki_protection
    def end(self, *, drop: bool) -> None:
        """Let no more come; what is there is still given out unless it is dropped."""
        self._ended = True
        if drop:
            self.queue.clear()
        self._wanted.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> bool:
        """Wait until there are some, and return whether there are: if not, there never will be."""
        if self.queue or self._ended:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self.queue:
            if self._ended:
                return False
            await self._wanted.park()
        return True


class NotificationStream:
    """The notifications of one Service, to be iterated; `Link.notifications` makes it.

    It is subscribed from where it is entered with ``async with`` to the end of the block, and gives
    `Notification` objects. The iteration ends when the link is unlinked; when the connection is lost, it
    raises.

    Args:
        subscribers: Where the link keeps its streams.
        max_buffer_size: How many notifications to keep for a consumer that is slower than they come.
    """

    def __init__(self, subscribers: set[NotificationStream], max_buffer_size: float) -> None:
        self._subscribers = subscribers
        self._mailbox = _Mailbox(max_buffer_size)
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
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._subscribers.discard(self)
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
        self._mailbox.end(drop=error is None)


class HandlerRunner:
    """Calls the notification handler of a link, in order, one at a time, in a task of its own.

    Args:
        service: The name of the Service, for the log.
        attributes: Those of the link. ``notification_handler`` is the handler of the moment; if it is
            missing or None, there is none.
    """

    def __init__(self, service: str, attributes: Mapping[str, Any]) -> None:
        self._service = service
        self._attributes = attributes
        self._mailbox = _Mailbox(MAX_BUFFER_SIZE)
        self._logged = 0
        self._started = False
        self._at_work: Callable[..., Any] | None = None
        """The handler that was called last."""

    @trio.lowlevel.enable_ki_protection
    def put(self, notifications: Sequence[Notification], start: StartTask) -> None:
        """Add some, for the reader.

        Args:
            notifications: The notifications.
            start: Starts a task of the connection.
        """
        if self._attributes.get("notification_handler") is None:
            return
        self._mailbox.put(notifications)
        if not self._started:
            self._started = True
            start(self._run)
        if self._mailbox.dropped > 2 * self._logged:  # at 1, 3, 7, 15, ...
            self._logged = self._mailbox.dropped
            logger.warning(
                "the notification handler for %r is too slow: %d notifications dropped so far",
                self._service,
                self._logged,
            )

    @trio.lowlevel.enable_ki_protection
    def end(self, *, drop: bool) -> None:
        """Let no more come; what is there is still handled unless it is dropped."""
        self._mailbox.end(drop=drop)

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        what = f"the notification handler for {self._service!r}:"
        while await self._mailbox.wait():
            try:
                result = self._handle()
                if result is not None:
                    await user_code.finish(result)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - it is logged
                user_code.report(error, self._at_work, what)

    @trio.lowlevel.disable_ki_protection
    def _handle(self) -> Any:
        """Call the handler for all that is there, in which Ctrl-C may interrupt.

        Returns:
            What a call has returned that may have to be awaited, before the others are made; else None.
        """
        queue, attributes = self._mailbox.queue, self._attributes
        while queue:  # without any further call: they may come by the thousand
            notification = queue.popleft()
            handler = attributes.get("notification_handler")  # it may be changed at any time
            if handler is not None:
                self._at_work = handler
                result = handler(*notification.args, **notification.kwargs)
                if result is not None:
                    return result
        return None
