"""Worker tasks: a leader task reads requests and carries out async methods (leader/followers).

Here is the main path of a request: read, decode, dispatch, carry out, reply. Everything runs in the Trio
thread, so there is no lock.

A task for each request would cost more than most requests do. So one task, the leader, carries out one
request after the other for as long as their methods do not wait for anything. When a method suspends, the
leader becomes the task of that request and a follower is promoted: no request waits for what another one
waits for, as if each had its own task from the beginning. A request for a method that suspended the last time
gets its own task at once (`MethodProfile.suspends`).

| state of a task | kept in   | next state                                                         |
|-----------------|-----------|--------------------------------------------------------------------|
| idle, parked    | `_idle`   | leader or busy, when it is woken; ended, if it is cancelled        |
| leader          | `_leader` | busy, if its method suspends; idle, if there is nothing left to do |
| busy            | `_busy`   | idle, when its method has returned; ended, if `_MAX_IDLE` are idle |

Without the leader the Service needs 1.13 times the CPU time for single requests that follow each other, 1.41
times for many in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import outcome
import trio

from msl_network_trio.callbacks import is_interrupt
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.protocol.service import Event
from msl_network_trio.protocol.service_lines import OutgoingLine, encode_result
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.coroutines import resume
from msl_network_trio.service.current_request import current
from msl_network_trio.service.error_reply import error_reply
from msl_network_trio.service.method_profile import MethodProfile
from msl_network_trio.service.request_reader import RequestReader
from msl_network_trio.signals import pass_on_interrupt

_MAX_IDLE = 100
"""Maximum number of idle tasks that are kept: waking one costs half of what starting one costs."""

_AsyncFunction = Callable[..., Awaitable[Any]]
_Job = tuple[IncomingRequest, _AsyncFunction, MethodProfile]


class _WorkerTask:
    """The state of one worker task.

    Attributes:
        task: The task; None before it has started.
        abort: The abort function of its wait while it is idle.
        job: The job that it is to carry out, and has not started.
        request: The request that it carries out.
    """

    __slots__ = ("abort", "job", "request", "task")

    def __init__(self, idle: list[_WorkerTask]) -> None:
        def abort(_: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
            idle.remove(self)
            return trio.lowlevel.Abort.SUCCEEDED

        self.abort = abort
        self.task: trio.lowlevel.Task | None = None
        self.job: _Job | None = None
        self.request: IncomingRequest | None = None


class WorkerTasks:
    """Reads requests and carries out those for async methods.

    Args:
        service: The object whose methods are requested.
        nursery: The nursery of the tasks.
        send_queue: Sends the replies.
        reader: The request reader.
        dispatch: Submits requests to tasks and threads; returns whether the worker threads read on.
    """

    def __init__(
        self,
        service: object,
        nursery: trio.Nursery,
        send_queue: AnswerQueue,
        reader: RequestReader,
        dispatch: Callable[[Sequence[Event], bool], bool],
    ) -> None:
        self._service = service
        self._nursery = nursery
        self._send_queue = send_queue
        self._reader = reader
        self._dispatch = dispatch
        self._queue: deque[_Job] = deque()
        """The jobs of the leader."""
        self._leader: _WorkerTask | None = None
        """There is a leader while there is a job in the queue, or the leader reads."""
        self._idle: list[_WorkerTask] = []
        self._busy: set[_WorkerTask] = set()
        self._cancelled: list[IncomingRequest] = []
        self._max_idle = _MAX_IDLE
        self._reads = False
        self._has_stopped_reading = trio.Event()
        self._submitted_bytes = self._finished_bytes = 0

    def submit(self, request: IncomingRequest, function: _AsyncFunction, profile: MethodProfile) -> None:
        """Queue a request for the leader; for a method that suspended the last time, see `submit_apart`."""
        if profile.suspends:
            self.submit_apart(request, function, profile)
        else:
            self._submitted_bytes += request.size
            self._queue.append((request, function, profile))
            if self._leader is None:
                self._leader = self._wake()

    def submit_apart(
        self, request: IncomingRequest, function: _AsyncFunction, profile: MethodProfile
    ) -> None:
        """Wake a task that carries out this request only."""
        self._submitted_bytes += request.size
        worker = self._wake()
        worker.job = (request, function, profile)
        worker.request = request
        self._busy.add(worker)

    def abandon(self) -> None:
        """Drop the requests that have not been started, and end idle tasks, since the connection is lost."""
        self._queue.clear()
        self._max_idle = 0
        for worker in self._idle:
            assert worker.task is not None
            trio.lowlevel.reschedule(worker.task, RESUME)
        self._idle.clear()

    async def read(self) -> None:
        """Let the leader read requests, and wait until it stops: at their end, or if it is cancelled."""
        self._reads = True
        if self._leader is None:
            self._leader = self._wake()
        await self._has_stopped_reading.wait()

    @property
    def waiting(self) -> int:
        """The number of bytes of the requests that are queued or in progress."""
        return self._submitted_bytes - self._finished_bytes

    @property
    def is_quiet(self) -> bool:
        """Whether no request is queued or in progress."""
        return not self._busy and not self._queue

    @property
    def unanswered(self) -> list[IncomingRequest]:
        """The requests without a reply: cancelled ones, those still in progress, and those in the queue."""
        running = [worker.request for worker in self._busy if worker.request is not None]
        return [*self._cancelled, *running, *(job[0] for job in self._queue)]

    # ---- the tasks ----

    @trio.lowlevel.enable_ki_protection
    async def _work(self, worker: _WorkerTask) -> None:
        """Carry out a job, lead, and wait for the next one."""
        worker.task = trio.lowlevel.current_task()
        try:
            while True:
                if worker.job is not None:
                    self._send_queue.add(await self._carry_out(worker, *worker.job))
                if self._leader is worker:
                    await self._lead(worker)
                self._flush()
                if len(self._idle) >= self._max_idle:
                    return
                self._idle.append(worker)
                await trio.lowlevel.wait_task_rescheduled(worker.abort)
        finally:
            self._busy.discard(worker)
            self._resign(worker)
            self._send_queue.done(worker)

    async def _lead(self, worker: _WorkerTask) -> None:
        """Read requests and carry them out, until another task has become the leader.

        Replies to requests that arrived together are sent together. The reading is `RequestReader.read`,
        inline.
        """
        jobs, send_queue, reader = self._queue, self._send_queue, self._reader
        transport, protocol = reader.transport, reader.protocol
        while self._leader is worker:
            if jobs:
                send_queue.add(await self._carry_out(worker, *jobs.popleft()))
                continue
            if not self._reads:
                self._leader = None
                return
            if self._busy:
                send_queue.flush_soon()
            else:
                send_queue.flush()
            is_open = False
            try:
                if reader.credit <= 0 or send_queue.unsent > send_queue.max_unsent:
                    await reader.wait_for_room()
                if data := await transport.receive():
                    reader.credit -= len(data)
                    is_lent = self._dispatch(protocol.receive(data), True)
                    data = b""  # not kept while a method waits
                    if is_lent:
                        await reader.wait_until_returned()
                    is_open = protocol.broken is None
                if not is_open:
                    reader.end()
            except Exception as error:  # noqa: BLE001 - it is reported
                reader.end(error)
            finally:
                if not is_open:
                    self._reads = False
                    self._has_stopped_reading.set()

    async def _carry_out(
        self, worker: _WorkerTask, request: IncomingRequest, function: _AsyncFunction, profile: MethodProfile
    ) -> OutgoingLine:
        """Carry out a request and return the reply."""
        send_queue = self._send_queue
        worker.request, worker.job = request, None
        self._busy.add(worker)
        current.set((self._service, request))
        try:
            coro = _unprotected(function, request)
            send_queue.will_be_flushed = True  # its notifications are sent with the reply, unless it suspends
            try:
                message = coro.send(None)
            except StopIteration as stop:
                reply = encode_result(request, stop.value)
                profile.suspends = False
            else:
                send_queue.will_be_flushed = False
                profile.suspends = True
                self._resign(worker)
                if send_queue.unsent:
                    send_queue.flush_soon()
                reply = encode_result(request, await resume(coro, message))
        except trio.Cancelled:
            send_queue.will_be_flushed = False
            self._cancelled.append(request)
            raise
        except BaseException as error:  # noqa: BLE001 - the client must get a reply
            reply = error_reply(request, error)
            if is_interrupt(error):
                pass_on_interrupt()  # to the main task, since this one is protected
        send_queue.will_be_flushed = False
        self._finished_bytes += request.size
        request.args, request.kwargs = [], {}  # may be large, and the task may keep the request for long
        worker.request = None
        self._busy.discard(worker)
        return reply

    def _flush(self) -> None:
        """Send the replies; while other tasks are at work, the last of them does so for all."""
        if self._busy or self._queue:
            self._send_queue.flush_soon()
        else:
            self._send_queue.flush()

    def _wake(self) -> _WorkerTask:
        """Wake an idle task, or start one."""
        worker = self._idle.pop() if self._idle else _WorkerTask(self._idle)
        if worker.task is None:
            self._nursery.start_soon(self._work, worker)
        else:
            trio.lowlevel.reschedule(worker.task, RESUME)
        return worker

    def _resign(self, worker: _WorkerTask) -> None:
        """Promote a follower if the worker is the leader and there is something to lead."""
        if self._leader is worker:
            self._leader = self._wake() if self._queue or self._reads else None


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: _AsyncFunction, request: IncomingRequest) -> Any:
    return await function(*request.args, **request.kwargs)
