"""Dispatcher: carries out each request by a value, in a task, or in a worker thread.

Owns the profiles of the attributes, the request reader and the worker tasks of one connection. The two pools
of worker threads belong to `Workers`: one for plain methods, one for properties, which are read beside
methods as attributes are, so that a client can ask how far a method is. Everything runs in the Trio thread,
so there is no lock.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import trio

from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.protocol.service import Event, Refused, ServiceProtocol
from msl_network_trio.protocol.service_lines import OutgoingLine, encode_error, encode_result
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.error_reply import error_reply
from msl_network_trio.service.lookup import How, is_async, look_up
from msl_network_trio.service.method_profile import MethodProfiles
from msl_network_trio.service.request_reader import RequestReader, log_request
from msl_network_trio.service.tasks import WorkerTasks
from msl_network_trio.service.threads import RequestSource
from msl_network_trio.service.workers import Workers
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)


class Dispatcher:
    """Selects how each request is carried out.

    Args:
        service: The object whose attributes are requested.
        name: The name of the Service.
        transport: The connection to the Manager.
        protocol: The protocol of the connection.
        send_queue: Sends the replies.
        workers: The nursery of the worker tasks, and the worker threads.
        on_shutdown: Called when a client has shut the Service down.
        on_end: See `RequestReader`.

    Attributes:
        reader: The request reader.
        tasks: The worker tasks.
    """

    def __init__(
        self,
        service: object,
        name: str,
        transport: Stream,
        protocol: ServiceProtocol,
        send_queue: AnswerQueue,
        *,
        workers: Workers,
        on_shutdown: Callable[[], object],
        on_end: Callable[[Exception | None], object],
    ) -> None:
        self._service = service
        self._name = name
        self._send_queue = send_queue
        self._on_shutdown = on_shutdown
        self._refuses = False
        self._workers = workers
        self._methods, self._properties = workers.methods, workers.properties
        self._profiles = MethodProfiles()
        self.reader = RequestReader(
            service,
            transport,
            protocol,
            send_queue,
            self._profiles,
            dispatch=self.dispatch,
            waiting=lambda: max(self.tasks.waiting, self._methods.waiting, self._properties.waiting),
            is_idle=lambda: self._methods.is_idle and self._properties.is_idle,
            on_end=on_end,
        )
        self.tasks = WorkerTasks(service, workers.nursery, send_queue, self.reader, self.dispatch)
        self._source = RequestSource(
            send_queue, self.reader.lease, self.reader.read_in_thread, self._await, self._call_found
        )

    # ---- requests ----

    def dispatch(self, events: Sequence[Event], may_lend: bool = False) -> bool:
        """Submit requests to the tasks or threads that carry them out, and send the replies that are known.

        Args:
            events: The received events.
            may_lend: Whether the read lease may be lent to the worker threads.

        Returns:
            Whether it has been lent.
        """
        has_replied = False
        is_logged = logger.isEnabledFor(logging.DEBUG)
        may_lend = may_lend and len(events) == 1
        for event in events:
            if isinstance(event, IncomingRequest):
                if is_logged:
                    log_request(event)
                try:
                    reply = self._start(event, may_lend)
                except Exception as error:  # noqa: BLE001 - the client must get a reply, whatever it is
                    reply = error_reply(event, error)
            elif isinstance(event, Refused):
                reply = event.answer
            else:
                continue
            if reply is not None:
                self._send_queue.add(reply)
                has_replied = True
        if has_replied:
            self._send_queue.flush()
        return self.reader.lease.is_lent

    def _start(self, request: IncomingRequest, may_lend: bool) -> OutgoingLine | None:
        """Submit a request to the tasks or threads that carry it out, or return the reply if it is known."""
        if self._refuses:
            return self._refusal(request)
        how, found = look_up(self._service, request.attribute)
        profile = self._profiles[request.attribute]
        if request.attribute == SHUTDOWN_SERVICE and callable(found):
            self.tasks.submit(request, partial(self._shut_down, found), profile)
        elif how is How.TASK:
            self.tasks.submit(request, found, profile)
        elif how is How.VALUE:
            return encode_result(request, found)
        else:
            is_property = how is How.UNKNOWN and not profile.is_callable
            pool = self._properties if is_property else self._methods
            if may_lend and profile.is_prompt and self.reader.may_lend():
                self.reader.lend(partial(pool.submit, request, found, profile, self._source))
            else:
                pool.submit(request, found, profile, self._source)
        return None

    def _call_found(self, request: IncomingRequest, function: Callable[..., Any]) -> None:
        """Submit a request whose attribute has turned out to be callable."""
        profile = self._profiles[request.attribute]
        profile.is_callable = True
        if self._refuses:
            self._refuse(request)
        else:
            self._methods.submit(request, function, profile, self._source)

    def _await(self, request: IncomingRequest, awaitable: Awaitable[Any]) -> None:
        """Start a task that awaits what a plain method has returned, and replies."""

        async def wait(*_: Any, **__: Any) -> Any:
            return await awaitable

        # A method that runs since before a loss goes on to its end, and the awaitable is a part of it.
        if not self._refuses or self._workers.may_go_on(self.tasks):
            self.tasks.submit_apart(request, wait, self._profiles[request.attribute])
            return
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # so that Python does not warn of it
        self._refuse(request)

    async def _shut_down(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Carry out the request that ends the Service, which must not wait for a free worker thread."""
        if is_async(function):
            result = await function(*args, **kwargs)
        else:
            # In a list, since Trio does not let a thread return something that is to be awaited.
            call = partial(function, *args, **kwargs)
            (result,) = await trio.to_thread.run_sync(lambda: [call()], abandon_on_cancel=True)
            if inspect.isawaitable(result):
                result = await result
        self._on_shutdown()  # the reply is in the send queue before any other task runs
        return result

    # ---- the end ----

    def refuse_more(self) -> None:
        """Refuse the requests that have not been started, and all further ones."""
        self._refuses = True
        self.reader.stop_lending()
        for request in self._workers.stop():
            self._send_queue.add(self._refusal(request))
        self._send_queue.flush()

    def abandon(self) -> None:
        """Drop the requests that have not been started, since the connection is lost."""
        self._refuses = True
        self.reader.stop_lending()
        self._workers.abandon(self.tasks)

    @property
    def is_quiet(self) -> bool:
        """Whether no request is queued or in progress, also none of a lost connection."""
        return self._workers.is_quiet and self.tasks.is_quiet

    @property
    def running_in_threads(self) -> list[IncomingRequest]:
        """The requests that worker threads carry out, also those of lost connections."""
        return [*self._methods.running, *self._properties.running]

    def final_refusals(self) -> list[bytes]:
        """Return the replies to all requests of the connection that are in progress or were cancelled."""
        running = [*self._methods.running_of(self._source), *self._properties.running_of(self._source)]
        return [*map(self._refusal, [*running, *self.tasks.unanswered])]

    def _refuse(self, request: IncomingRequest) -> None:
        self._send_queue.add(self._refusal(request))
        self._send_queue.flush()

    def _refusal(self, request: IncomingRequest) -> bytes:
        text = f"The {self._name!r} Service has ended before {request.attribute!r} did"
        return encode_error(request, RuntimeError(text))
