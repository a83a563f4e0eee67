"""The tasks in which the async methods of a Service run."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio

from msl_network_trio.client.user_code import is_interrupt
from msl_network_trio.protocol.service import Call, encode_result
from msl_network_trio.service.outlet import Outlet
from msl_network_trio.service.requests import current
from msl_network_trio.service.threads import failed

_IDLE = 100
"""How many tasks to keep for the next requests: to wake one costs half of what it costs to start one."""


class _Worker:
    """One task, and what it is doing."""

    __slots__ = ("abort", "call", "function", "task")

    def __init__(self, idle: list[_Worker]) -> None:
        def abort(_: Callable[[], outcome.Error]) -> trio.lowlevel.Abort:
            idle.remove(self)
            return trio.lowlevel.Abort.SUCCEEDED

        self.abort = abort
        self.task: trio.lowlevel.Task | None = None
        self.call: Call | None = None
        self.function: Callable[..., Awaitable[Any]] | None = None


class WorkerTasks:
    """Carries out requests in tasks.

    Args:
        service: Whose requests.
        nursery: Where the tasks run.
        outlet: Where the answers go.
    """

    def __init__(self, service: object, nursery: trio.Nursery, outlet: Outlet) -> None:
        self._service = service
        self._nursery = nursery
        self._outlet = outlet
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._cancelled: list[Call] = []
        self._submitted = self._done = 0

    def submit(self, call: Call, function: Callable[..., Awaitable[Any]]) -> None:
        """Have a request carried out.

        Args:
            call: The request.
            function: An async function.
        """
        self._submitted += call.size
        worker = self._idle.pop() if self._idle else _Worker(self._idle)
        worker.call, worker.function = call, function
        self._busy.add(worker)
        if worker.task is None:
            self._nursery.start_soon(self._work, worker)
        else:
            trio.lowlevel.reschedule(worker.task)

    @property
    def waiting(self) -> int:
        """How many bytes the requests have that are not done with."""
        return self._submitted - self._done

    @property
    def running(self) -> list[Call]:
        """The requests that are being carried out."""
        return [worker.call for worker in self._busy if worker.call is not None]

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do."""
        return not self._busy

    @property
    def unanswered(self) -> list[Call]:
        """The requests that have no answer, since they were cancelled or go on in spite of that."""
        return [*self._cancelled, *self.running]

    @trio.lowlevel.enable_ki_protection
    async def _work(self, worker: _Worker) -> None:
        worker.task = trio.lowlevel.current_task()
        outlet = self._outlet
        try:
            while True:
                call, function = worker.call, worker.function
                assert call is not None
                assert function is not None
                current.set((self._service, call))
                try:
                    line = encode_result(call, await _unprotected(function, call))
                except trio.Cancelled:
                    self._cancelled.append(call)
                    raise
                except BaseException as error:  # noqa: BLE001 - the client has to be told
                    line = failed(call, error)
                    if is_interrupt(error):
                        signal.raise_signal(signal.SIGINT)  # we are protected, so it goes to the main task
                self._done += call.size
                call.forget()
                worker.call = worker.function = function = None
                self._busy.remove(worker)
                outlet.add(line)
                del line
                # The last of those that came together sends what all of them have answered.
                if self._busy:
                    outlet.flush_soon()
                else:
                    outlet.flush()
                if len(self._idle) >= _IDLE:
                    return
                self._idle.append(worker)
                await trio.lowlevel.wait_task_rescheduled(worker.abort)
        finally:
            self._busy.discard(worker)
            outlet.done(worker)


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[..., Awaitable[Any]], call: Call) -> Any:
    return await function(*call.args, **call.kwargs)
