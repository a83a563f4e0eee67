"""The threads in which the plain methods of a Service run, and others in which its properties are read."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Awaitable, Callable
from copy import copy
from time import perf_counter
from typing import Any, Final

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.service import (
    Call,
    OutgoingLine,
    encode_error,
    encode_result,
    requester_of,
    sendable_error,
)
from msl_network_trio.service.outlet import Outlet
from msl_network_trio.service.requests import current
from msl_network_trio.service.turn import PROMPT, Turn
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_NOT_THEIRS = ("msl_network_trio.service.", "msl_network_trio.protocol.", "trio.", "outcome.", "json.")
"""The modules whose frames, above those of a method, nobody wants to see in a traceback."""

_NOTHING_TO_AWAIT: Final = frozenset({type(None), bool, int, float, str, list, tuple, dict})
"""What most methods return."""

Job = tuple[Call, Callable[..., Any] | None]
"""A request, and what to call; None: it has to be looked up."""


def default_max_workers() -> int:
    """How many threads there are at the most if nobody says: as many as `ThreadPoolExecutor` has."""
    return min(32, (os.cpu_count() or 1) + 4)


def failed(call: Call, error: BaseException) -> bytes:
    """Return the answer to a request whose method raised an exception, or returned what cannot be sent."""
    advice = explain(error)
    text = visible(sendable_error(error, advice))
    logger.error("%r, requested by %s: %s", call.attribute, requester_of(call), text)
    return encode_error(call, error, without=_NOT_THEIRS, advice=advice)


class Thread:
    """One thread, and what it is doing."""

    __slots__ = ("began", "call", "done", "done_bytes", "emitted", "looks_up")

    def __init__(self, *, looks_up: bool = False) -> None:
        self.looks_up = looks_up
        """Whether it looks attributes up and calls nothing."""
        self.began = 0.0
        """See `turn.Reader`."""
        self.call: Call | None = None
        self.emitted = 0.0
        """See `Emitter`."""
        self.done = 0
        """How many requests it has done with; one less while it carries out one that it has read itself."""
        self.done_bytes = 0
        """How long their lines were."""

    def take(self, call: Call) -> None:
        """Note that it has read a request itself, which nobody has submitted."""
        self.call = call
        self.done -= 1
        self.done_bytes -= call.size


class WorkerThreads:
    """Carries out requests in threads, which are started when they are needed and stay until the end.

    They are daemon threads: a method that never returns must not keep the program from ending.

    Args:
        service: Whose requests; what has to be looked up is an attribute of it.
        name: The beginning of the names of the threads.
        max_workers: How many threads there may be.
        outlet: Where the answers go.
        on_awaitable: Called, in a worker thread, when a function has returned something to be awaited; who
            awaits it answers the request.
        turn: Says whether a worker thread may read requests, and is told how long methods take.
        read: Reads the next request in a worker thread that has nothing to do; returns None if that is for
            others. Requests that are submitted meanwhile are for other threads.
        on_callable: Called, in a worker thread, when what was looked up can be called; who calls it answers
            the request. None: it is called at once.
    """

    def __init__(
        self,
        service: object,
        name: str,
        max_workers: int,
        outlet: Outlet,
        *,
        on_awaitable: Callable[[Call, Awaitable[Any]], None],
        turn: Turn,
        read: Callable[[Thread], Job | None],
        on_callable: Callable[[Call, Callable[..., Any]], None] | None = None,
    ) -> None:
        self._service = service
        self._name = name
        self._max_workers = max_workers
        self._outlet = outlet
        self._on_awaitable = on_awaitable
        self._turn = turn
        self._read = read
        self._on_callable = on_callable
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[Thread] = []
        self._submitted = self._submitted_bytes = 0

    def submit(self, call: Call, function: Callable[..., Any] | None) -> None:
        """Have a request carried out. To be called in the Trio thread.

        Args:
            call: The request.
            function: What to call; None: it has to be looked up.
        """
        self._submitted += 1
        self._submitted_bytes += call.size
        self._jobs.put((call, function))
        if len(self._threads) < self._max_workers and self._open() > len(self._threads):
            self._start()

    def _open(self) -> int:
        """How many requests are not done with."""
        done = 0
        for thread in self._threads:
            done += thread.done
        return self._submitted - done

    def _start(self) -> None:
        thread = Thread(looks_up=self._on_callable is not None)
        self._threads.append(thread)
        name = f"{self._name}-{len(self._threads)}"
        threading.Thread(target=self._work, args=(thread,), name=name, daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many bytes the requests have that are not done with."""
        return self._submitted_bytes - sum(thread.done_bytes for thread in self._threads)

    @property
    def running(self) -> list[Call]:
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

    def stop(self) -> list[Call]:
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

    def _work(self, thread: Thread) -> None:
        """Carry out requests, each to its end before the next one is begun."""
        get, send, service = self._jobs.get, self._outlet.send, self._service
        turn, read = self._turn, self._read
        prompt = turn.prompt
        self._outlet.enter(thread)
        while (job := (read(thread) if turn.is_aside else None) or get()) is not None:
            call, function = job
            thread.call = call
            current.set((service, call))
            began = thread.began = perf_counter()
            line = self._answer(call, function)
            seconds = perf_counter() - began
            if (seconds > PROMPT) is (call.attribute in prompt):
                turn.note(call.attribute, seconds)
            thread.began = 0.0
            thread.done_bytes += call.size
            thread.done += 1
            if line is None:
                thread.emitted = 0.0
                self._outlet.done(thread)
            else:
                send(line, thread)
            call.forget()
            del job, call, function, line  # the thread may wait for long now
        self._outlet.leave()

    def _answer(self, call: Call, function: Callable[..., Any] | None) -> OutgoingLine | None:
        """Carry out a request and return the answer; None if somebody else will answer."""
        try:
            if function is None:
                result = getattr(self._service, call.attribute)
                if callable(result):
                    if self._on_callable is not None:
                        self._on_callable(copy(call), result)  # a copy, since this one will be forgotten
                        return None
                    result = result(*call.args, **call.kwargs)
            else:
                result = function(*call.args, **call.kwargs)
            # To look for what is not there costs as much as to encode a number.
            if type(result) in _NOTHING_TO_AWAIT or not hasattr(type(result), "__await__"):
                return encode_result(call, result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the client has to be told
            return failed(call, error)
        self._on_awaitable(call, result)
        return None
