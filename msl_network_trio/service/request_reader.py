"""How requests come in: a task reads them, or a worker thread does, see `RequestLease`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from msl_network_trio.constants import SHUTDOWN_SERVICE
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import Event, IncomingRequest, ServiceProtocol, requester_of
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.lookup import How, look_up
from msl_network_trio.service.request_lease import MAX_WAIT, RequestLease
from msl_network_trio.service.threads import Job, WorkerThread
from msl_network_trio.transport.base import Stream

logger = get_logger(__name__)

_IN_THREADS: Final = (How.THREAD, How.UNKNOWN)
"""How requests are carried out that threads may read themselves."""


class RequestReader:
    """Reads requests.

    Args:
        service: Whose requests.
        transport: Where from.
        protocol: What they mean.
        answers: Where the answers go.
        handle: Has requests carried out, in the Trio thread.
        waiting: Tells how many bytes the requests have that are not done with.
        is_idle: Whether no request waits for a thread.
        is_looked_up: Whether the attribute of this name is to be looked up, and most likely not called.

    Attributes:
        lease: Whose turn it is.
    """

    def __init__(
        self,
        service: object,
        transport: Stream,
        protocol: ServiceProtocol,
        answers: AnswerQueue,
        *,
        handle: Callable[[Sequence[Event]], object],
        waiting: Callable[[], int],
        is_idle: Callable[[], bool],
        is_looked_up: Callable[[How, str], bool],
    ) -> None:
        self._service = service
        self._transport = transport
        self._protocol = protocol
        self._answers = answers
        self._handle = handle
        self._waiting = waiting
        self._is_idle = is_idle
        self._is_looked_up = is_looked_up
        self._token = trio.lowlevel.current_trio_token()
        self._io = io = transport.thread_io
        self.lease = RequestLease(
            transport.lock,
            self._call_soon,
            threads_may_receive=io is not None and io.threads_may_receive,
        )
        self._may_lend = True
        self._left: list[bytes] = []
        """What a thread has received and is not processed yet."""
        self._received = 0
        self._look_again_at = 0

    # ---- for the task ----

    async def read(self) -> bool:
        """Wait for requests and have them carried out; False at the end of the stream.

        Afterwards look whether the protocol is broken.

        Raises:
            ConnectionLost: The connection broke.
        """
        if self._is_congested():
            await self._answers.wait_until(lambda: not self._is_congested())
        data = await self._transport.receive()
        if not data:
            return False
        self._received += len(data)
        events = self._protocol.receive(data)
        if self._is_for_threads(events):
            await self._lend(events)
        else:
            self._handle(events)
        return True

    def keep_threads_out(self) -> None:
        """Have no thread read any more; what they have read is handled."""
        self._may_lend = False
        self._take_back()

    def _is_congested(self) -> bool:
        """Whether to read no more requests for now: those that are here take all the room."""
        if self._answers.is_full:
            return True
        if self._received < self._look_again_at:
            return False
        limit = self._answers.max_unsent
        waiting = self._waiting()
        # Before so much more has come there cannot be too much.
        self._look_again_at = self._received + limit - waiting
        return waiting > limit

    def _is_for_threads(self, events: Sequence[Event]) -> bool:
        """Whether threads are to read on, now that this has come."""
        if len(events) != 1 or not self._may_lend:
            return False
        event = events[0]
        return (
            isinstance(event, IncomingRequest)
            and self.lease.is_worth_lending(event.attribute)
            and self._is_idle()
        )

    async def _lend(self, events: Sequence[Event]) -> None:
        lease = self.lease
        try:
            with self._transport.lock:
                lease.lend()
                self._handle(events)
            await lease.wait()
        finally:
            self._take_back()

    def _take_back(self) -> None:
        """Return the read lease to the task, and process what threads have received."""
        self.lease.take_back()
        data = b"".join(self._left)  # to which no thread adds any more
        self._left.clear()
        if data:
            self._received += len(data)
            self._handle(self._protocol.receive(data))

    def _call_soon(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass  # nobody reads any more

    # ---- for threads ----

    def read_in_thread(self, thread: WorkerThread) -> bool:
        """Wait for the next request, and make it the job of the thread if that may carry it out at once.

        False: it is for others, or something else has come, which they will find as well.
        """
        lease, transport, io, left = self.lease, self._transport, self._io, self._left
        if not lease.take(thread, self._is_idle):
            return False
        assert io is not None  # else no thread reads
        # Something is left if an exception has interrupted the thread.
        while left or (not self._is_congested() and io.wait_in_thread(MAX_WAIT)):
            with transport.lock:
                if lease.holder is not thread:
                    return False
                if not left:
                    io.receive_in_thread(left)
                if not left:
                    continue
                is_taken = self._take(thread)
            return is_taken  # noqa: RET504 - an exception behind the call must not leave the lock locked
        lease.give_back(thread)
        return False

    def _take(self, thread: WorkerThread) -> bool:
        left = self._left
        data = left[0] if len(left) == 1 else b"".join(left)
        job = self._job(thread, data)
        if job is None:
            self.lease.give_back(thread)
            return False
        self._received += len(data)
        self.lease.has_read()
        thread.own = job[0]
        try:
            thread.job.append(job)
            left.clear()
        except BaseException:
            if thread.job:
                left.clear()  # else it would be carried out twice
            raise
        return True

    def _job(self, thread: WorkerThread, data: bytes) -> Job | None:
        call = self._protocol.only_request(data)
        if call is None or call.attribute not in self.lease.prompt:
            return None
        try:
            how, what = look_up(self._service, call.attribute)
        except Exception:  # noqa: BLE001 - the task will find the same, and answer
            return None
        if how not in _IN_THREADS or call.attribute == SHUTDOWN_SERVICE:
            return None
        if self._is_looked_up(how, call.attribute) is not thread.looks_up:
            return None  # for another thread: properties must not wait for methods
        if logger.isEnabledFor(logging.DEBUG):
            log_request(call)
        return call, what


def log_request(call: IncomingRequest) -> None:
    """Write into the log what is requested; to be called if that is wanted."""
    logger.debug("%s requested %r", requester_of(call), call.attribute)
