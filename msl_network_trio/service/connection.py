"""One connection of a Service, from its first request to its end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import trio

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.exception_groups import plain
from msl_network_trio.exceptions import ConnectionLost, NetworkError
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import (
    Event,
    IncomingRequest,
    OutgoingLine,
    Refused,
    ServiceProtocol,
    encode_error,
    encode_notification,
    encode_result,
    notification_end,
)
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.lookup import How, is_async, look_up
from msl_network_trio.service.request_reader import RequestReader, log_request
from msl_network_trio.service.tasks import WorkerTasks
from msl_network_trio.service.threads import PassedOn, WorkerThreads, failed
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

GRACE = 2.0
"""How many seconds methods that are at work may still take at the end."""

GOODBYE = 2.0
"""How many seconds to wait at the end until all is written, and the Manager has closed the connection."""

_DRAIN = 1.0
"""How many seconds to go on reading when nothing can be written any more: the reason may be on its way."""

_REMEMBERED = 1000
"""Maximum number of names to remember of what was looked up and can be called."""

Task = Callable[[], Awaitable[Any]]


class ServiceConnection:
    """Reads requests, has them carried out, and ends in order.

    Args:
        service: The object whose attributes are requested.
        name: The name of the Service.
        transport: The carrier, which is closed at the end.
        protocol: The protocol, connected.
        max_workers: How many worker threads there may be.
        max_unsent: How many bytes of answers may wait to be written, and of requests to be carried out,
            before no more requests are read.

    Attributes:
        nursery: Where tasks of the user run for as long as the connection.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        service: object,
        name: str,
        transport: Stream,
        protocol: ServiceProtocol,
        *,
        max_workers: int,
        max_unsent: int,
    ) -> None:
        self._answers = AnswerQueue(transport, max_unsent, self._cannot_send)
        self._notification_end = notification_end(name)
        self._service = service
        self._name = name
        self._transport = transport
        self._protocol = protocol
        self._token = trio.lowlevel.current_trio_token()
        self._requests = RequestReader(
            service,
            transport,
            protocol,
            self._answers,
            handle=self._handle,
            waiting=lambda: max(self._tasks.waiting, self._threads.waiting, self._lookers.waiting),
            is_idle=lambda: self._threads.is_idle and self._lookers.is_idle,
            is_looked_up=self._is_looked_up,
        )
        self._threads = WorkerThreads(
            service,
            name,
            max_workers,
            self._answers,
            call_soon=self._call_soon,
            on_awaitable=self._await,
            lease=self._requests.lease,
            read=self._requests.read_in_thread,
        )
        # Properties are read beside methods, as attributes are: a client asks how far a method has come.
        self._lookers = WorkerThreads(
            service,
            f"{name}-property",
            max_workers,
            self._answers,
            call_soon=self._call_soon,
            on_awaitable=self._await,
            lease=self._requests.lease,
            read=self._requests.read_in_thread,
            on_callable=self._call_found,
        )
        self._callables: set[str] = set()
        self._tasks: WorkerTasks
        self._reason: ConnectionLost | None = None
        self._over = trio.Event()
        self._refusing = False
        self._said_goodbye = False
        self._reading = trio.CancelScope(shield=True)
        self._writing = trio.CancelScope(shield=True)
        self._looking = trio.CancelScope(shield=True)
        self._has_ended = False
        self._read_to_end = trio.Event()

    # ---- the life of it ----

    @trio.lowlevel.enable_ki_protection
    async def run(self, early: Sequence[Event], tasks: Sequence[Task], started: Callable[[], object]) -> None:
        """Serve until the connection ends, somebody shuts the Service down, or this is cancelled.

        Args:
            early: What has been received already.
            tasks: Async functions to run beside.
            started: Called when everything is running.

        Raises:
            ConnectionLost: The Manager is gone.
            Exception: What a task of the user raised.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._flush_delayed)
                try:
                    await self._serve(nursery, early, tasks, started)
                finally:
                    self._writing.cancel()
                    self._looking.cancel()
                    self._reading.cancel()
        except BaseExceptionGroup as group:
            failure = _single(group)
            explain(failure)
        finally:
            self._answers.close()
            self._transport.end(cut_off=self._answers.unsent > 0)
        _raise(failure)
        if self._reason is not None and not self._said_goodbye:
            raise self._reason

    async def _serve(
        self,
        connection: trio.Nursery,
        early: Sequence[Event],
        tasks: Sequence[Task],
        started: Callable[[], object],
    ) -> None:
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as self.nursery:
                self._tasks = WorkerTasks(self._service, self.nursery, self._answers)
                deadline = None
                try:
                    self._handle(early)
                    connection.start_soon(self._read)
                    for task in tasks:
                        self.nursery.start_soon(task)
                    started()
                    await self._over.wait()
                    if self._reason is None:
                        deadline = trio.current_time() + GRACE
                        await self._settle(deadline)
                finally:
                    self.nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await self._finish(deadline or trio.current_time() + GRACE)
        except BaseExceptionGroup as group:
            failure = _single(group)
        _raise(failure)

    async def _settle(self, deadline: float) -> None:
        """Give methods that are at work a chance to end; what comes in meanwhile is refused."""
        self._refuse_more()
        with trio.move_on_at(deadline):
            await self._answers.wait_until(self._is_quiet)
            await trio.lowlevel.checkpoint()  # a thread may just have handed an awaitable over
            await self._answers.wait_until(self._is_quiet)

    def _is_quiet(self) -> bool:
        return self._threads.is_quiet and self._lookers.is_quiet and self._tasks.is_quiet

    def _refuse_more(self) -> None:
        self._refusing = True
        self._requests.keep_threads_out()
        for call in [*self._lookers.stop(), *self._threads.stop()]:
            self._answers.add(self._refusal(call))
        self._answers.flush()

    async def _finish(self, deadline: float) -> None:
        """Answer everybody, say goodbye, and wait for the Manager to close the connection; bounded."""
        await self._settle(deadline)
        for call in self._running_in_threads:
            logger.warning("%r has ended, and %r is still running in its thread", self._name, call.attribute)
        with trio.move_on_after(GOODBYE):
            if self._reason is None:
                self._said_goodbye = True
                self._answers.close(self._last_words)
                await self._answers.drain()
                await self._read_to_end.wait()

    def _last_words(self) -> list[OutgoingLine]:
        calls = [*self._running_in_threads, *self._tasks.unanswered]
        return [*map(self._refusal, calls), self._protocol.goodbye()]

    @property
    def _running_in_threads(self) -> list[IncomingRequest]:
        return [*self._threads.running, *self._lookers.running]

    def _refusal(self, call: IncomingRequest) -> bytes:
        return encode_error(
            call, RuntimeError(f"The {self._name!r} Service has ended before {call.attribute!r} did")
        )

    def emit(self, args: Any, kwargs: Any) -> None:
        """Emit a notification. Raises as `encode_notification` and `AnswerQueue.emit` do."""
        self._answers.emit(encode_notification(args, kwargs, self._notification_end))

    def stop(self) -> None:
        """End in order: accept no more requests, and give methods that are at work a little time."""
        self._over.set()

    # ---- the connection ----

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        with self._writing:
            await self._answers.run()

    @trio.lowlevel.enable_ki_protection
    async def _flush_delayed(self) -> None:
        with self._looking:
            await self._answers.flush_delayed()

    def _cannot_send(self, error: ConnectionLost) -> None:
        self._fail(self._broken(error))
        # Why may be on its way: what the Manager said before it closed the connection.
        self._reading.deadline = trio.current_time() + _DRAIN

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        """See to it that requests are read, also when the tasks that carry them out are cancelled."""
        try:
            with self._reading:
                await self._tasks.read_with(self._read_more)
                while not self._has_ended:
                    await self._read_more()
        finally:
            self._over.set()
            self._read_to_end.set()

    async def _read_more(self) -> bool:
        """Wait for requests and have them carried out; False if there will be no more."""
        protocol = self._protocol
        try:
            if await self._requests.read():
                if protocol.broken is None:
                    return True
                self._fail(protocol.broken)
            else:
                self._fail(protocol.receive_eof(self._transport.close_reason))
        except ConnectionLost as error:
            self._fail(self._broken(error))
        except Exception as error:
            # A mistake of ours. It must not leave anybody waiting.
            logger.exception("the connection to Manager[%s] failed", protocol.manager)
            self._fail(ConnectionLost(f"The connection to Manager[{protocol.manager}] failed: {error!r}"))
        self._has_ended = True
        return False

    def _fail(self, error: NetworkError) -> None:
        """Remember why the connection ended."""
        self._reason = error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))

    def _broken(self, error: ConnectionLost) -> ConnectionLost:
        """Say which connection it was that broke, which a transport does not know."""
        return ConnectionLost(f"The connection to Manager[{self._protocol.manager}] was lost: {error}")

    # ---- requests ----

    def _handle(self, events: Sequence[Event]) -> None:
        """Have requests carried out, and send at once what can be said at once."""
        debug = logger.isEnabledFor(logging.DEBUG)
        for event in events:
            if isinstance(event, IncomingRequest):
                if debug:
                    log_request(event)
                self._call(event)
            elif isinstance(event, Refused):
                self._answers.add(event.answer)
        self._answers.flush()

    def _call(self, call: IncomingRequest) -> None:
        if self._refusing:
            self._answers.add(self._refusal(call))
            return
        try:
            how, what = look_up(self._service, call.attribute)
            if call.attribute == SHUTDOWN_SERVICE and callable(what):
                self._tasks.submit(call, partial(self._shut_down, what))
            elif how is How.TASK:
                self._tasks.submit(call, what)
            elif how is How.VALUE:
                self._answers.add(encode_result(call, what))
            elif self._is_looked_up(how, call.attribute):
                self._lookers.submit(call, None)
            else:
                self._threads.submit(call, what)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client has to be told
            self._answers.add(failed(call, error))

    def _is_looked_up(self, how: How, name: str) -> bool:
        """Return whether an attribute is to be looked up, and was not found to be a method the last time."""
        return how is How.UNKNOWN and name not in self._callables

    def _call_soon(self, passed_on: PassedOn) -> None:
        """Schedule a call in the Trio thread; in a worker thread."""
        try:
            self._token.run_sync_soon(passed_on)
        except trio.RunFinishedError:
            passed_on.drop()  # the connection has ended, and there is no caller

    def _call_found(self, call: IncomingRequest, function: Callable[..., Any]) -> None:
        """Submit a call of what was looked up."""
        if len(self._callables) >= _REMEMBERED:
            self._callables.clear()  # clients can ask a Service for any names, if it has a __getattr__
        self._callables.add(call.attribute)
        if self._refusing:
            self._answers.add(self._refusal(call))
            self._answers.flush()
        else:
            self._threads.submit(call, function)

    async def _shut_down(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Carry out the request that ends the Service; it must not have to wait for a free worker thread."""
        if is_async(function):
            result = await function(*args, **kwargs)
        else:
            # In a list, since Trio does not let a thread return something that is to be awaited.
            call = partial(function, *args, **kwargs)
            (result,) = await trio.to_thread.run_sync(lambda: [call()], abandon_on_cancel=True)
            if inspect.isawaitable(result):
                result = await result
        self._over.set()  # our task has added the answer before any other one runs
        return result

    def _await(self, call: IncomingRequest, awaitable: Awaitable[Any]) -> None:
        """Have something awaited that a plain method has returned."""

        async def wait(*_: Any, **__: Any) -> Any:
            return await awaitable

        if not self._refusing:
            self._tasks.submit_apart(call, wait)
            return
        _drop(awaitable)
        self._answers.add(self._refusal(call))
        self._answers.flush()


def _drop(awaitable: Awaitable[Any]) -> None:
    """Have Python not complain that it was never awaited."""
    if isinstance(awaitable, Coroutine):
        awaitable.close()


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # which refers to this frame


def _single(group: BaseExceptionGroup[Any]) -> BaseException:
    """Take away what a nursery has wrapped around an exception, if it is just one."""
    return group.exceptions[0] if len(group.exceptions) == 1 else plain(group)
