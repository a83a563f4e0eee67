"""The tasks in which the async methods of a Service run."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final

import outcome
import trio

from msl_network_trio.callbacks import is_interrupt
from msl_network_trio.parking import RESUME
from msl_network_trio.protocol.service import IncomingRequest, OutgoingLine, encode_result
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.current_request import current
from msl_network_trio.service.threads import failed
from msl_network_trio.signals import pass_on_interrupt

_IDLE = 100
"""How many tasks to keep for the next requests: to wake one costs half of what it costs to start one."""

_REMEMBERED = 1000
"""Of how many names at the most to remember that their functions wait."""

_Function = Callable[..., Awaitable[Any]]


class _WorkerTask:
    """One task, and what it is doing."""

    __slots__ = ("abort", "call", "function", "task")

    def __init__(self, idle: list[_WorkerTask]) -> None:
        def abort(_: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
            idle.remove(self)
            return trio.lowlevel.Abort.SUCCEEDED

        self.abort = abort
        self.task: trio.lowlevel.Task | None = None
        self.call: IncomingRequest | None = None
        self.function: _Function | None = None
        """If it is to carry out `call`, and has not begun to."""


class WorkerTasks:
    """Carries out requests in tasks.

    A task for each costs more than most requests do themselves. So one task, the leader, carries out one
    request after the other, for as long as their functions do not wait for anything. When one does, the
    leader becomes the task of that request, and another one goes on: no request ever waits for what another
    one waits for, just as if each had its own task from the beginning. That is what requests get whose
    function has waited the last time.

    For the same reason it is the leader that reads requests, see `read_with`.

    Args:
        service: Whose requests.
        nursery: Where the tasks run.
        answers: Where the answers go.
    """

    def __init__(self, service: object, nursery: trio.Nursery, answers: AnswerQueue) -> None:
        self._service = service
        self._nursery = nursery
        self._answers = answers
        self._queue: deque[tuple[IncomingRequest, _Function]] = deque()
        """What the leader is to carry out."""
        self._leader: _WorkerTask | None = None
        """There is one if there is something in the queue."""
        self._waits: set[str] = set()
        """What was requested and had a function that waited."""
        self._idle: list[_WorkerTask] = []
        self._busy: set[_WorkerTask] = set()
        self._cancelled: list[IncomingRequest] = []
        self._read: Callable[[], Awaitable[bool]] | None = None
        self._read_no_more = trio.Event()
        self._submitted = self._done = 0

    def submit(self, call: IncomingRequest, function: Callable[..., Awaitable[Any]]) -> None:
        """Have a request carried out that has just been read.

        Args:
            call: The request.
            function: An async function.
        """
        if call.attribute in self._waits:
            self.submit_apart(call, function)
        else:
            self._submitted += call.size
            self._queue.append((call, function))
            if self._leader is None:
                self._leader = self._wake()

    def submit_apart(self, call: IncomingRequest, function: Callable[..., Awaitable[Any]]) -> None:
        """Have a request carried out in a task that does nothing else meanwhile; see `submit`."""
        self._submitted += call.size
        worker = self._wake()
        worker.call, worker.function = call, function
        self._busy.add(worker)

    async def read_with(self, read: Callable[[], Awaitable[bool]]) -> None:
        """Have the leader read requests whenever there is none to carry out.

        This waits until there are no more, or until the tasks are cancelled, which this task need not be.

        Args:
            read: Waits for requests and submits them; returns False if there will be no more.
        """
        self._read = read
        if self._leader is None:
            self._leader = self._wake()
        await self._read_no_more.wait()

    @property
    def waiting(self) -> int:
        """How many bytes the requests have that are not done with."""
        return self._submitted - self._done

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do."""
        return not self._busy and not self._queue

    @property
    def unanswered(self) -> list[IncomingRequest]:
        """The requests that have no answer, since they were cancelled or go on in spite of that."""
        running = [worker.call for worker in self._busy if worker.call is not None]
        return [*self._cancelled, *running, *(call for call, _ in self._queue)]

    def _wake(self) -> _WorkerTask:
        """Have a task look what there is to do."""
        worker = self._idle.pop() if self._idle else _WorkerTask(self._idle)
        if worker.task is None:
            self._nursery.start_soon(self._work, worker)
        else:
            trio.lowlevel.reschedule(worker.task, RESUME)
        return worker

    def _resign(self, worker: _WorkerTask) -> None:
        """Have somebody else be the leader, if this one is it."""
        if self._leader is worker:
            self._leader = self._wake() if self._queue or self._read is not None else None

    @trio.lowlevel.enable_ki_protection
    async def _work(self, worker: _WorkerTask) -> None:
        worker.task = trio.lowlevel.current_task()
        answers, queue = self._answers, self._queue
        try:
            while True:
                if worker.call is not None and worker.function is not None:
                    answers.add(await self._carry_out(worker, worker.call, worker.function))
                while self._leader is worker:
                    if queue:
                        answers.add(await self._carry_out(worker, *queue.popleft()))
                    elif self._read is not None:
                        self._flush()
                        await self._read_more(self._read)
                    else:
                        self._leader = None
                self._flush()
                if len(self._idle) >= _IDLE:
                    return
                self._idle.append(worker)
                await trio.lowlevel.wait_task_rescheduled(worker.abort)
        finally:
            self._busy.discard(worker)
            self._resign(worker)
            answers.done(worker)

    def _flush(self) -> None:
        """Send what has been answered: the last of those that came together does so for all of them."""
        if self._busy or self._queue:
            self._answers.flush_soon()
        else:
            self._answers.flush()

    async def _read_more(self, read: Callable[[], Awaitable[bool]]) -> None:
        more = False
        try:
            more = await read()
        finally:
            if not more:
                self._read = None
                self._read_no_more.set()

    async def _carry_out(
        self, worker: _WorkerTask, call: IncomingRequest, function: _Function
    ) -> OutgoingLine:
        """Carry out a request and return the answer."""
        answers = self._answers
        worker.call, worker.function = call, None
        self._busy.add(worker)
        current.set((self._service, call))
        try:
            coro = _unprotected(function, call)
            answers.will_be_flushed = True  # what it emits goes with its answer, unless it waits
            try:
                message = coro.send(None)
            except StopIteration as stop:
                line = encode_result(call, stop.value)
                self._waits.discard(call.attribute)
            else:
                answers.will_be_flushed = False
                self._remember(call.attribute)
                self._resign(worker)
                if answers.unsent:
                    answers.flush_soon()
                line = encode_result(call, await _resume(coro, message))
        except trio.Cancelled:
            answers.will_be_flushed = False
            self._cancelled.append(call)
            raise
        except BaseException as error:  # noqa: BLE001 - the client has to be told
            line = failed(call, error)
            if is_interrupt(error):
                pass_on_interrupt()  # we are protected, so it goes to the main task
        answers.will_be_flushed = False
        self._done += call.size
        call.forget()
        worker.call = None
        self._busy.discard(worker)
        return line

    def _remember(self, name: str) -> None:
        if len(self._waits) >= _REMEMBERED:
            self._waits.clear()  # clients can ask a Service for any names, if it has a __getattr__
        self._waits.add(name)


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[..., Awaitable[Any]], call: IncomingRequest) -> Any:
    return await function(*call.args, **call.kwargs)


def _message(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Return what an async function of Trio yields to it first."""
    coro = function(*args)
    message = coro.send(None)
    coro.close()
    return message


_OF_TRIO: Final = frozenset(
    {
        type(_message(trio.lowlevel.cancel_shielded_checkpoint)),
        type(_message(trio.lowlevel.wait_task_rescheduled, print)),
    }
)
"""The classes of what Trio understands."""


def _with_repr(message: Any) -> Any:
    """Return what Trio is to be told instead of a message that is not its own.

    It raises a TypeError in the coroutine that quotes the message. It must be able to: an exception in
    ``__repr__`` would end all of Trio.
    """
    try:
        repr(message)
    except Exception:  # noqa: BLE001 - it is code of the user
        return f"<{type(message).__name__} object>"
    return message


@coroutine
def _resume(coro: Coroutine[Any, Any, Any], message: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has said what it waits for first, and tell Trio just that."""
    try:
        while True:
            try:
                value = yield message if type(message) in _OF_TRIO else _with_repr(message)
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine
                message = coro.throw(error)
            else:
                message = coro.send(value)
    except StopIteration as stop:
        return stop.value
