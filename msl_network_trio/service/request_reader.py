"""Reading of requests in worker threads, and the limit for what is read.

The leader (`tasks.WorkerTasks`) reads. While single requests for prompt plain methods follow each other, it
lends the read lease to the worker threads: the thread that has replied reads the next request itself and
carries it out, which saves two switches between threads for each request. The thread leaves to the leader
what it receives besides such requests.

`RequestLease` decides which thread may read; its docstring has the figure of what this saves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.incoming_requests import IncomingRequest, requester_of
from msl_network_trio.protocol.service import Event, ServiceProtocol
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.lookup import How, look_up
from msl_network_trio.service.method_profile import MethodProfiles
from msl_network_trio.service.request_lease import MAX_WAIT, RequestLease
from msl_network_trio.service.threads import Job, WorkerThread
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

_IN_THREADS: Final = (How.THREAD, How.UNKNOWN)
"""The ways to carry out a request for which a worker thread may read it."""


class RequestReader:
    """Reads requests in worker threads, and limits how many bytes of requests the Service holds.

    Args:
        service: The object whose attributes are requested.
        transport: The connection to the Manager.
        protocol: The protocol of the connection.
        send_queue: Sends the replies.
        profiles: The profiles of the attributes.
        dispatch: Submits requests to tasks and threads, in the Trio thread.
        waiting: Returns the number of bytes of the requests that are not finished.
        is_idle: Returns whether no request waits for a worker thread.
        on_end: Called when there are no more requests, with the exception; None: the stream has ended, or the
            protocol is broken.

    Attributes:
        transport: The connection to the Manager.
        protocol: The protocol of the connection.
        lease: The read lease.
        credit: Bytes that may be received before `wait_for_room` has to count again what is held.
        is_paused: Whether reading is paused in `wait_for_room`.
        progress: Number of times that `wait_for_room` has found less data in the send queue: while reading
            is paused, the sign that the Manager accepts data.
    """

    def __init__(
        self,
        service: object,
        transport: Stream,
        protocol: ServiceProtocol,
        send_queue: AnswerQueue,
        profiles: MethodProfiles,
        *,
        dispatch: Callable[[Sequence[Event]], object],
        waiting: Callable[[], int],
        is_idle: Callable[[], bool],
        on_end: Callable[[Exception | None], object],
    ) -> None:
        self.transport = transport
        self.protocol = protocol
        self.credit = 0
        self.is_paused = False
        self.progress = 0
        self._unsent_before = 0
        self._service = service
        self._send_queue = send_queue
        self._profiles = profiles
        self._dispatch = dispatch
        self._waiting = waiting
        self._is_idle = is_idle
        self._on_end = on_end
        self._token = trio.lowlevel.current_trio_token()
        self._io = io = transport.thread_io
        self.lease = RequestLease(
            transport.lock,
            self._call_soon,
            threads_may_receive=io is not None and io.threads_may_receive,
        )
        self._may_lend = True
        self._unprocessed: list[bytes] = []
        """Bytes that a worker thread has received and has not taken as its job."""

    # ---- in the Trio thread ----

    def end(self, error: Exception | None = None) -> None:
        """Report that there are no more requests; see `on_end`."""
        self._on_end(error)

    async def read(self) -> bool:
        """Wait for requests and dispatch them; return False at their end. The leader does the same inline."""
        try:
            await self.wait_for_room()
            if data := await self.transport.receive():
                self.credit -= len(data)
                self._dispatch(self.protocol.receive(data))
                if self.protocol.broken is None:
                    return True
            self.end()
        except Exception as error:  # noqa: BLE001 - it is reported
            self.end(error)
        return False

    async def wait_for_room(self) -> None:
        """Wait while the requests and replies that are held exceed the limit."""
        if self._is_congested():
            self.is_paused = True
            self._unsent_before = self._send_queue.unsent
            try:
                await self._send_queue.wait_until(self._has_room)
            finally:
                self.is_paused = False

    def _has_room(self) -> bool:
        unsent = self._send_queue.unsent
        if unsent < self._unsent_before:
            self.progress += 1
        self._unsent_before = unsent
        # A queue that is closed makes no room any more, as when the connection is lost.
        return self._send_queue.closed or not self._is_congested()

    @property
    def waits_for_methods(self) -> bool:
        """Whether reading is paused until requests in progress are finished, and not by the Manager."""
        return self.is_paused and not self._send_queue.is_full

    def _is_congested(self) -> bool:
        if self._send_queue.is_full:
            return True
        if self.credit > 0:
            return False
        self.credit = self._send_queue.max_unsent - self._waiting()
        return self.credit < 0

    def may_lend(self) -> bool:
        """Return whether to lend the lease when a single request for a prompt method has arrived."""
        return self._may_lend and self.lease.is_worth_lending() and self._is_idle()

    def lend(self, submit: Callable[[], object]) -> None:
        """Lend the read lease to the worker threads; the leader has to await `wait_until_returned` then.

        Args:
            submit: Queues the request that has just arrived. The lock is held meanwhile, so that the request
                cannot wait behind a thread that already reads.
        """
        with self.transport.lock:
            self.lease.lend()
            submit()

    async def wait_until_returned(self) -> None:
        """Wait until the worker threads leave reading to the leader, then process what they have received."""
        try:
            await self.lease.wait()
        finally:
            self._take_back()

    def stop_lending(self) -> None:
        """Let no worker thread read any more; what they have received is processed."""
        self._may_lend = False
        self._take_back()

    def _take_back(self) -> None:
        self.lease.take_back()
        data = b"".join(self._unprocessed)  # no thread adds anything any more
        self._unprocessed.clear()
        if data:
            self.credit -= len(data)
            self._dispatch(self.protocol.receive(data))

    # ---- in worker threads ----

    def read_in_thread(self, thread: WorkerThread) -> bool:
        """Wait for the next request, and make it the job of the thread if that may carry it out at once.

        Returns:
            False: another thread or the leader has to read; the leader processes the received data.
        """
        lease, lock, io, unprocessed = self.lease, self.transport.lock, self._io, self._unprocessed
        if not lease.take(thread, self._is_idle):
            return False
        assert io is not None  # else no thread reads
        # Something is left if an exception has interrupted the thread.
        while unprocessed or (not self._is_congested() and io.wait_in_thread(MAX_WAIT)):
            with lock:
                if lease.holder is not thread:
                    return False
                if not unprocessed:
                    io.receive_in_thread(unprocessed)
                if not unprocessed:
                    continue
                is_taken = self._take(thread)
            return is_taken  # noqa: RET504 - an exception behind the call must not leave the lock locked
        lease.give_back(thread)
        return False

    def _take(self, thread: WorkerThread) -> bool:
        """Make what was received the job of a thread; the lock of the transport is held."""
        unprocessed = self._unprocessed
        data = unprocessed[0] if len(unprocessed) == 1 else b"".join(unprocessed)
        job = self._job(thread, data)
        if job is None:
            self.lease.give_back(thread)
            return False
        self.credit -= len(data)
        self.lease.count_use()
        thread.own_request = job[0]
        try:
            thread.job.append(job)
            unprocessed.clear()
        except BaseException:
            if thread.job:
                unprocessed.clear()  # else it would be carried out twice
            raise
        return True

    def _job(self, thread: WorkerThread, data: bytes) -> Job | None:
        """Return the job in what was received; None unless the thread may carry it out at once."""
        request = self.protocol.only_request(data)
        if request is None:
            return None
        profile = self._profiles.get(request.attribute)
        if profile is None or not profile.is_prompt or request.attribute == SHUTDOWN_SERVICE:
            return None
        try:
            how, function = look_up(self._service, request.attribute)
        except Exception:  # noqa: BLE001 - the leader gets the same, and replies
            return None
        looks_up = how is How.UNKNOWN and not profile.is_callable
        if how not in _IN_THREADS or looks_up is not thread.looks_up:
            return None  # for another pool: properties must not wait for methods
        if logger.isEnabledFor(logging.DEBUG):
            log_request(request)
        assert thread.source is not None  # else it would not read
        return request, function, profile, thread.source

    def _call_soon(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass  # nothing reads any more


def log_request(request: IncomingRequest) -> None:
    """Log a request at DEBUG level; the caller checks that the level is enabled."""
    logger.debug("%s requested %r", requester_of(request), request.attribute)
