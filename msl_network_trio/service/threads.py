"""Worker threads: plain methods run in one pool of them, properties are read in another.

Requests enter a pool in the Trio thread (`WorkerThreads.submit`). The replies leave from the worker threads
through the send queue. A worker thread writes only its own `WorkerThread`; the Trio thread reads it without a
lock, so each item of information in it is a single reference.

A pool outlives connections: a method that runs when a connection is lost counts towards the maximum until it
has returned, and objects that belong to one thread (of SQLite or COM) stay usable. A request refers to the
`RequestSource` of its connection, and a thread changes to another one when it gets a request of it.

**Exceptions in threads.** Another thread may inject an exception into a worker thread between any two steps
of the interpreter: tools that limit the time of a method do, and may be late. So a thread records its
progress in `WorkerThread`, and `WorkerThreads._recover` continues from there: each request is carried out at
most once and answered once, and the thread continues. A further exception within the microseconds that this
takes may end the thread.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from time import perf_counter
from typing import Any, Final

import attrs

from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.protocol.service_lines import OutgoingLine, encode_result
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.current_request import current
from msl_network_trio.service.error_reply import error_reply
from msl_network_trio.service.method_profile import PROMPT, MethodProfile
from msl_network_trio.service.request_lease import RequestLease

logger = get_logger(__name__)

_NOT_AWAITABLE: Final = frozenset({type(None), bool, int, float, str, list, tuple, dict})
"""The types that most methods return; no look-up of ``__await__`` is needed for them."""

Job = tuple[IncomingRequest, Callable[..., Any] | None, MethodProfile, "RequestSource"]
"""A request, the function to call (None: the attribute has to be looked up), its profile and its source."""

_BLOCKING: Final = (True,)
"""The argument of `queue.SimpleQueue.get`."""


def default_max_workers() -> int:
    """Return the default for the maximum number of threads, that of `ThreadPoolExecutor`."""
    return min(32, (os.cpu_count() or 1) + 4)


@attrs.frozen(eq=False)
class RequestSource:
    """A connection from which the threads of a pool get requests, and to which their replies go."""

    send_queue: AnswerQueue
    """Sends the replies."""

    lease: RequestLease
    """The read lease, which lets a worker thread read requests."""

    read: Callable[[WorkerThread], bool]
    """Reads the next request in an idle worker thread and makes it the job of that thread.

    Returns False if another thread or task has to read it.
    """

    on_awaitable: Callable[[IncomingRequest, Awaitable[Any]], None]
    """Called in the Trio thread with an awaitable that a function has returned; has to see to the reply."""

    on_callable: Callable[[IncomingRequest, Callable[..., Any]], None]
    """Called in the Trio thread with an attribute that was looked up and is callable.

    It has to see to the reply. Only threads that look attributes up call it.
    """


class WorkerThread:
    """The state of one worker thread. Only the thread itself changes it.

    The progress of a job, and how `WorkerThreads._recover` continues after an exception:

    | progress | `job` | `started` | `reply`, `handoff` | `request` | `_recover`                         |
    |----------|-------|-----------|--------------------|-----------|------------------------------------|
    | waiting  | empty | None      | None               | None      | returns the read lease             |
    | fetched  | a job | None      | None               | any       | nothing; the loop starts the job   |
    | started  | a job | the job   | None               | set       | replies with the exception         |
    | done     | a job | the job   | one is set         | set       | sends the reply, or hands off      |
    | replied  | a job | the job   | one is set         | None      | clears the job                     |

    Attributes:
        looks_up: Whether it looks attributes up and calls nothing.
        source: The source of the present or of the last request; None: there was none.
        job: The present job, at most one; None in it: end the thread. It stays until it is finished.
        own_request: The present request if the thread has read it itself, so that it was never submitted.
        started: The job, from the moment at which it is about to be carried out.
        started_at: See `request_lease.Reader`.
        request: The request that has been started and has no reply yet.
        profile: The profile of that request.
        emitted: See `coalescing.Emitter`.
        reply: The encoded reply.
        handoff: The call that completes the request in the Trio thread instead of a reply.
        finished: The number of submitted requests that are finished, the bytes of their lines, and the last
            job.
    """

    __slots__ = (
        "emitted",
        "finished",
        "handoff",
        "job",
        "looks_up",
        "own_request",
        "profile",
        "reply",
        "request",
        "source",
        "started",
        "started_at",
    )

    def __init__(self, *, looks_up: bool = False) -> None:
        self.looks_up = looks_up
        self.source: RequestSource | None = None
        self.job: deque[Job | None] = deque()
        self.own_request: IncomingRequest | None = None
        self.started: Job | None = None
        self.started_at = 0.0
        self.request: IncomingRequest | None = None
        self.profile = MethodProfile()
        self.emitted = 0.0
        self.reply: OutgoingLine | None = None
        self.handoff: Handoff | None = None
        self.finished: tuple[int, int, Job | None] = (0, 0, None)


class Handoff:
    """A call in the Trio thread that completes a request there; only the first call has an effect.

    Args:
        function: The function to call.
        request: The request. It is copied, since the worker thread discards the arguments of its own.
        result: The result in the worker thread: an awaitable, or a callable attribute.
    """

    __slots__ = ("_args", "_function")

    def __init__(
        self, function: Callable[[IncomingRequest, Any], None], request: IncomingRequest, result: object
    ) -> None:
        self._function = function
        self._args: tuple[IncomingRequest, Any] | None = (copy(request), result)

    def __call__(self) -> None:
        """Call the function."""
        args, self._args = self._args, None
        if args is not None:
            self._function(*args)

    def drop(self) -> None:
        """Close a coroutine that nothing will await, so that Python does not warn of it."""
        if self._args is not None and isinstance(self._args[1], Coroutine):
            self._args[1].close()


class WorkerThreads:
    """A pool of threads that carry out requests; they are started on demand and stay until the end.

    They are daemon threads: a method that never returns must not keep the program from ending.

    Args:
        service: The object whose attributes are requested.
        name: The prefix of the names of the threads.
        max_workers: Maximum number of threads.
        call_soon: Schedules a handoff in the Trio thread.
        looks_up: Whether the threads only look attributes up, and do not call what they find.
    """

    def __init__(
        self,
        service: object,
        name: str,
        max_workers: int,
        *,
        call_soon: Callable[[Handoff], object],
        looks_up: bool = False,
    ) -> None:
        self._service = service
        self._name = name
        self._max_workers = max_workers
        self._call_soon = call_soon
        self._looks_up = looks_up
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[WorkerThread] = []
        self._submitted = self._submitted_bytes = 0

    # ---- in the Trio thread ----

    def submit(
        self,
        request: IncomingRequest,
        function: Callable[..., Any] | None,
        profile: MethodProfile,
        source: RequestSource,
    ) -> None:
        """Queue a request; start another thread if all of them are busy and there may be more.

        Args:
            request: The request.
            function: The function to call; None: the attribute has to be looked up.
            profile: The profile of the attribute.
            source: The connection of the request.

        Raises:
            RuntimeError: There is no thread, and none can be started.
        """
        self._submitted += 1
        self._submitted_bytes += request.size
        self._jobs.put((request, function, profile, source))
        if len(self._threads) < self._max_workers and self._unfinished() > len(self._threads):
            try:
                self._start()
            except RuntimeError as error:
                self._do_without_thread(request, error)

    def _do_without_thread(self, request: IncomingRequest, error: RuntimeError) -> None:
        """Leave a request to the existing threads; raise the error if there are none."""
        if not self._threads:
            self._jobs.get_nowait()  # else it would be carried out later, in addition to the error
            self._submitted -= 1
            self._submitted_bytes -= request.size
            raise error
        logger.warning("%r cannot start a further thread: %s", self._name, error)

    def _unfinished(self) -> int:
        """Return the number of requests that are queued or in progress."""
        finished = 0
        for thread in self._threads:
            finished += thread.finished[0]
            if thread.own_request is not None:
                finished -= 1
        return self._submitted - finished

    def _start(self) -> None:
        thread = WorkerThread(looks_up=self._looks_up)
        name = f"{self._name}-{len(self._threads) + 1}"
        threading.Thread(target=self._work, args=(thread,), name=name, daemon=True).start()
        self._threads.append(thread)

    @property
    def waiting(self) -> int:
        """The number of bytes of the requests that are queued or in progress."""
        waiting = self._submitted_bytes
        for thread in self._threads:
            waiting -= thread.finished[1]
            if (own := thread.own_request) is not None:
                waiting += own.size
        return waiting

    @property
    def running(self) -> list[IncomingRequest]:
        """The requests that are being carried out."""
        return [request for request in (thread.request for thread in self._threads) if request is not None]

    def running_of(self, source: RequestSource) -> list[IncomingRequest]:
        """Return the requests of a source that are being carried out."""
        threads = (thread for thread in self._threads if thread.source is source)
        return [request for request in (thread.request for thread in threads) if request is not None]

    @property
    def is_idle(self) -> bool:
        """Whether no request is queued."""
        return self._jobs.empty()

    @property
    def is_quiet(self) -> bool:
        """Whether no request is queued or in progress."""
        return self._unfinished() == 0 and not self.running

    def stop(self) -> list[IncomingRequest]:
        """End each thread after its request in progress; return the requests that have not been started."""
        requests = self.withdraw()
        for _ in self._threads:
            self._jobs.put(None)
        return requests

    def withdraw(self) -> list[IncomingRequest]:
        """Remove the requests that have not been started, and return them."""
        requests = []
        try:
            while (job := self._jobs.get_nowait()) is not None:
                requests.append(job[0])
        except queue.Empty:
            pass
        self._submitted -= len(requests)
        self._submitted_bytes -= sum(request.size for request in requests)
        return requests

    # ---- in the worker threads ----

    def _work(self, thread: WorkerThread) -> None:
        """Carry out requests until the pool stops; recover from exceptions that are injected."""
        interruption: BaseException | None = None
        while True:
            try:
                if interruption is not None:
                    self._recover(thread, interruption)
                    interruption = None
                while self._work_on(thread):
                    pass
                break
            except BaseException as error:  # noqa: BLE001 - it was injected
                # The second time it may be its own text that raises.
                text = f"{type(error).__name__} has interrupted the thread"
                interruption = error if interruption is None else RuntimeError(text)
        if thread.source is not None:
            thread.source.send_queue.leave()

    def _work_on(self, thread: WorkerThread) -> bool:
        """Carry out requests of one source, each to its end before the next one is started.

        Returns:
            Whether the next job has another source; False: the pool has stopped.
        """
        get, service, jobs = self._jobs.get, self._service, thread.job
        if not jobs and thread.source is None:
            jobs.extend(map(get, _BLOCKING))
        if jobs and jobs[0] is not None:
            thread.source = jobs[0][3]
        source = thread.source
        if source is None:
            return False
        send, lease, read = source.send_queue.send, source.lease, source.read
        source.send_queue.enter(thread)
        while True:
            if not jobs and not (lease.is_lent and read(thread)):
                # In one step of the interpreter: an exception between two would lose the request.
                jobs.extend(map(get, _BLOCKING))
            job = jobs[0]
            if job is None:
                return False
            request, function, profile, wanted = job
            if wanted is not source:
                source.send_queue.leave()
                return True
            thread.reply = thread.handoff = None
            thread.profile = profile
            thread.request = request
            current.set((service, request))
            started_at = thread.started_at = perf_counter()
            thread.started = job
            reply = thread.reply = self._carry_out(thread, source, request, function)
            if (perf_counter() - started_at <= PROMPT) is not profile.is_prompt:
                profile.is_prompt = not profile.is_prompt
            self._count(thread, job)
            if reply is None:
                self._hand_off(thread, source)
            else:
                send(reply, thread)
            request.forget()
            jobs.clear()
            thread.started = thread.reply = thread.handoff = None
            del job, request, function, reply  # so that they are freed while the thread waits

    def _carry_out(
        self,
        thread: WorkerThread,
        source: RequestSource,
        request: IncomingRequest,
        function: Callable[..., Any] | None,
    ) -> OutgoingLine | None:
        """Carry out a request and return the reply; None if `WorkerThread.handoff` completes it."""
        try:
            if function is None:
                result = getattr(self._service, request.attribute)
                if callable(result):
                    if self._looks_up:
                        thread.handoff = Handoff(source.on_callable, request, result)
                        return None
                    result = result(*request.args, **request.kwargs)
            else:
                result = function(*request.args, **request.kwargs)
            # A look-up of what does not exist costs as much as encoding a number.
            if type(result) in _NOT_AWAITABLE or not hasattr(type(result), "__await__"):
                return encode_result(request, result)
        except BaseException as error:  # noqa: BLE001 - the client must get a reply, whatever it is
            return error_reply(request, error)
        thread.handoff = Handoff(source.on_awaitable, request, result)
        return None

    def _count(self, thread: WorkerThread, job: Job) -> None:
        """Count a request as finished, unless it has been counted; its reply follows."""
        thread.started_at = 0.0
        request = job[0]
        if thread.own_request is request:
            thread.own_request = None
            thread.finished = (*thread.finished[:2], job)
        elif (before := thread.finished)[2] is not job:
            thread.finished = (before[0] + 1, before[1] + request.size, job)

    def _hand_off(self, thread: WorkerThread, source: RequestSource) -> None:
        thread.emitted = 0.0
        assert thread.handoff is not None
        self._call_soon(thread.handoff)
        source.send_queue.done(thread)

    def _recover(self, thread: WorkerThread, error: BaseException) -> None:
        """Finish the request that an injected exception interrupted; may be interrupted itself."""
        source = thread.source
        if source is not None:
            source.send_queue.mend(thread)
        job = thread.job[0] if thread.job else None
        if job is None:
            thread.own_request = None
            if source is not None:
                source.lease.give_back(thread)  # the leader task handles what was read
            logger.warning("%r interrupted the thread %r", error, threading.current_thread().name)
            return
        if thread.started is not job:
            return  # nothing has happened yet
        assert source is not None  # that of the job
        request = job[0]
        self._count(thread, job)
        if thread.request is not None:
            if thread.handoff is not None:
                self._hand_off(thread, source)
            else:
                if thread.reply is None:
                    thread.reply = error_reply(request, error)
                source.send_queue.send(thread.reply, thread)
        request.forget()
        thread.job.clear()
        thread.started = thread.reply = thread.handoff = None
