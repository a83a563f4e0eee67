"""The threads in which the plain methods of a Service run, and others in which its properties are read.

**Exceptions in threads.** Another thread may inject an exception into one between any two steps of the
interpreter: tools that limit the time of a method do, and may be late. So a thread notes in `WorkerThread`
how far it is with its request, and `WorkerThreads._recover` goes on from there: each request is carried out
once at most and answered once, and the thread goes on. A further exception within the microseconds that this
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

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import (
    IncomingRequest,
    OutgoingLine,
    encode_error,
    encode_result,
    requester_of,
    sendable_error,
)
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.current_request import current
from msl_network_trio.service.request_lease import PROMPT, RequestLease
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_NOT_THEIRS = ("msl_network_trio.service.", "msl_network_trio.protocol.", "trio.", "outcome.", "json.")
"""The modules whose frames, above those of a method, nobody wants to see in a traceback."""

_NOTHING_TO_AWAIT: Final = frozenset({type(None), bool, int, float, str, list, tuple, dict})
"""What most methods return."""

Job = tuple[IncomingRequest, Callable[..., Any] | None]
"""A request, and what to call; None: it has to be looked up."""

_WAIT: Final = (True,)
"""The argument of `queue.SimpleQueue.get`."""


def default_max_workers() -> int:
    """How many threads there are at the most if nobody says: as many as `ThreadPoolExecutor` has."""
    return min(32, (os.cpu_count() or 1) + 4)


def failed(call: IncomingRequest, error: BaseException) -> bytes:
    """Return the answer to a request whose method raised an exception, or returned what cannot be sent."""
    advice = explain(error)
    text = visible(sendable_error(error, advice))
    logger.error("%r, requested by %s: %s", call.attribute, requester_of(call), text)
    return encode_error(call, error, without=_NOT_THEIRS, advice=advice)


class WorkerThread:
    """One thread, and what it is doing."""

    __slots__ = ("began", "begun", "call", "done", "emitted", "job", "line", "looks_up", "own", "passed_on")

    def __init__(self, *, looks_up: bool = False) -> None:
        self.looks_up = looks_up
        """Whether it looks attributes up and calls nothing."""
        self.began = 0.0
        """See `request_lease.Reader`."""
        self.call: IncomingRequest | None = None
        self.emitted = 0.0
        """See `Emitter`."""
        self.job: deque[Job | None] = deque()
        """What it is to do, until it has done it: one request; None: to end."""
        self.own: IncomingRequest | None = None
        """The request, if the thread has read it itself and it was not submitted."""
        self.begun: Job | None = None
        """What it has begun to carry out."""
        self.line: OutgoingLine | None = None
        """The answer."""
        self.passed_on: PassedOn | None = None
        """What others do instead of the answer."""
        self.done: tuple[int, int, Job | None] = (0, 0, None)
        """Number of submitted requests that are finished, bytes of their lines, and the last one."""


class PassedOn:
    """What is to be called in the Trio thread to have a request answered; only the first call counts.

    Args:
        function: The function.
        call: The request.
        what: What it has turned out to be.
    """

    __slots__ = ("_args", "_function")

    def __init__(
        self, function: Callable[[IncomingRequest, Any], None], call: IncomingRequest, what: object
    ) -> None:
        self._function = function
        self._args: tuple[IncomingRequest, Any] | None = (
            copy(call),
            what,
        )  # a copy, since this one will be forgotten

    def __call__(self) -> None:
        """IncomingRequest the function."""
        args, self._args = self._args, None
        if args is not None:
            self._function(*args)

    def drop(self) -> None:
        """Do without; Python is not to complain that it was never awaited."""
        if self._args is not None and isinstance(self._args[1], Coroutine):
            self._args[1].close()


class WorkerThreads:
    """Carries out requests in threads, which are started when they are needed and stay until the end.

    They are daemon threads: a method that never returns must not keep the program from ending.

    Args:
        service: Whose requests; what has to be looked up is an attribute of it.
        name: The beginning of the names of the threads.
        max_workers: How many threads there may be.
        answers: Where the answers go.
        call_soon: Has what is passed on called in the Trio thread.
        on_awaitable: Called in the Trio thread when a function has returned something to be awaited; who
            awaits it answers the request.
        lease: Says whether a worker thread may read requests, and is told how long methods take.
        read: Reads the next request in a worker thread that has nothing to do, and makes it its job; returns
            False if that is for others. Requests that are submitted meanwhile are for other threads.
        on_callable: Called in the Trio thread when what was looked up can be called; who calls it answers
            the request. None: it is called at once.
    """

    def __init__(
        self,
        service: object,
        name: str,
        max_workers: int,
        answers: AnswerQueue,
        *,
        call_soon: Callable[[PassedOn], object],
        on_awaitable: Callable[[IncomingRequest, Awaitable[Any]], None],
        lease: RequestLease,
        read: Callable[[WorkerThread], bool],
        on_callable: Callable[[IncomingRequest, Callable[..., Any]], None] | None = None,
    ) -> None:
        self._service = service
        self._name = name
        self._max_workers = max_workers
        self._answers = answers
        self._call_soon = call_soon
        self._on_awaitable = on_awaitable
        self._lease = lease
        self._read = read
        self._on_callable = on_callable
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[WorkerThread] = []
        self._submitted = self._submitted_bytes = 0

    def submit(self, call: IncomingRequest, function: Callable[..., Any] | None) -> None:
        """Have a request carried out. To be called in the Trio thread.

        Args:
            call: The request.
            function: What to call; None: it has to be looked up.
        """
        self._submitted += 1
        self._submitted_bytes += call.size
        self._jobs.put((call, function))
        if len(self._threads) < self._max_workers and self._open() > len(self._threads):
            try:
                self._start()
            except RuntimeError as error:
                self._do_without_thread(call, error)

    def _do_without_thread(self, call: IncomingRequest, error: RuntimeError) -> None:
        """Leave a request to the threads that are there; raise the error if there are none."""
        if not self._threads:
            self._jobs.get_nowait()  # else it would be carried out later, in addition to the error
            self._submitted -= 1
            self._submitted_bytes -= call.size
            raise error
        logger.warning("%r cannot start a further thread: %s", self._name, error)

    def _open(self) -> int:
        """How many requests are not done with."""
        done = 0
        for thread in self._threads:
            done += thread.done[0]
            if thread.own is not None:
                done -= 1
        return self._submitted - done

    def _start(self) -> None:
        thread = WorkerThread(looks_up=self._on_callable is not None)
        name = f"{self._name}-{len(self._threads) + 1}"
        threading.Thread(target=self._work, args=(thread,), name=name, daemon=True).start()
        self._threads.append(thread)

    @property
    def waiting(self) -> int:
        """How many bytes the requests have that are not done with."""
        waiting = self._submitted_bytes
        for thread in self._threads:
            waiting -= thread.done[1]
            if (own := thread.own) is not None:
                waiting += own.size
        return waiting

    @property
    def running(self) -> list[IncomingRequest]:
        """The requests that are being carried out."""
        return [call for call in (thread.call for thread in self._threads) if call is not None]

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for a thread."""
        return self._jobs.empty()

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do."""
        return self._open() == 0 and not self.running

    def stop(self) -> list[IncomingRequest]:
        """Let the threads end after what they are doing; return the requests that were not begun."""
        calls = []
        try:
            while (job := self._jobs.get_nowait()) is not None:
                calls.append(job[0])
        except queue.Empty:
            pass
        self._submitted -= len(calls)
        self._submitted_bytes -= sum(call.size for call in calls)
        for _ in self._threads:
            self._jobs.put(None)
        return calls

    def _work(self, thread: WorkerThread) -> None:
        """Carry out requests, each to its end before the next one is begun."""
        interruption: BaseException | None = None
        while True:
            try:
                if interruption is not None:
                    self._recover(thread, interruption)
                    interruption = None
                self._work_on(thread)
                break
            except BaseException as error:  # noqa: BLE001 - it was injected
                # The second time it may be its own text that raises.
                text = f"{type(error).__name__} has interrupted the thread"
                interruption = error if interruption is None else RuntimeError(text)
        self._answers.leave()

    def _work_on(self, thread: WorkerThread) -> None:
        get, send, service = self._jobs.get, self._answers.send, self._service
        lease, read = self._lease, self._read
        prompt, jobs = lease.prompt, thread.job
        self._answers.enter(thread)
        while True:
            if not jobs and not (lease.is_lent and read(thread)):
                jobs.extend(map(get, _WAIT))  # in one step, so that no request is lost between two of them
            job = jobs[0]
            if job is None:
                return
            call, function = job
            thread.line = thread.passed_on = None
            thread.call = call
            current.set((service, call))
            began = thread.began = perf_counter()
            thread.begun = job
            line = thread.line = self._answer(thread, call, function)
            seconds = perf_counter() - began
            if (seconds > PROMPT) is (call.attribute in prompt):
                lease.note(call.attribute, seconds)
            self._count(thread, job)
            if line is None:
                self._pass_on(thread)
            else:
                send(line, thread)
            call.forget()
            jobs.clear()
            thread.begun = thread.line = thread.passed_on = None
            del job, call, function, line  # the thread may wait for long now

    def _count(self, thread: WorkerThread, job: Job) -> None:
        """Count a request, unless it is counted; it is as good as answered."""
        thread.began = 0.0
        call = job[0]
        if thread.own is call:
            thread.own = None
            thread.done = (*thread.done[:2], job)
        elif (before := thread.done)[2] is not job:
            thread.done = (before[0] + 1, before[1] + call.size, job)

    def _pass_on(self, thread: WorkerThread) -> None:
        thread.emitted = 0.0
        assert thread.passed_on is not None
        self._call_soon(thread.passed_on)
        self._answers.done(thread)

    def _recover(self, thread: WorkerThread, error: BaseException) -> None:
        """Finish the request during which an exception interrupted the thread; may be interrupted itself."""
        self._answers.mend(thread)
        job = thread.job[0] if thread.job else None
        if job is None:
            thread.own = None
            self._lease.give_back(thread)  # what was read is left to the task
            logger.warning("%r interrupted the thread %r", error, threading.current_thread().name)
            return
        if thread.begun is not job:
            return  # nothing has happened yet
        call = job[0]
        self._count(thread, job)
        if thread.call is not None:
            if thread.passed_on is not None:
                self._pass_on(thread)
            else:
                if thread.line is None:
                    thread.line = failed(call, error)
                self._answers.send(thread.line, thread)
        call.forget()
        thread.job.clear()
        thread.begun = thread.line = thread.passed_on = None

    def _answer(
        self, thread: WorkerThread, call: IncomingRequest, function: Callable[..., Any] | None
    ) -> OutgoingLine | None:
        """Carry out a request and return the answer; None if somebody else will answer."""
        try:
            if function is None:
                result = getattr(self._service, call.attribute)
                if callable(result):
                    if self._on_callable is not None:
                        thread.passed_on = PassedOn(self._on_callable, call, result)
                        return None
                    result = result(*call.args, **call.kwargs)
            else:
                result = function(*call.args, **call.kwargs)
            # To look for what is not there costs as much as to encode a number.
            if type(result) in _NOTHING_TO_AWAIT or not hasattr(type(result), "__await__"):
                return encode_result(call, result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the client has to be told
            return failed(call, error)
        thread.passed_on = PassedOn(self._on_awaitable, call, result)
        return None
