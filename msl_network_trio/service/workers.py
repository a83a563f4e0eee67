"""Workers of a Service: the tasks of its methods, and its worker threads.

They outlive the connections of the Service. When one is lost, the requests in progress go on to their end,
and count towards ``max_workers`` until then: one instrument must never be used by two methods at once.
Their replies are dropped, since the requester has been answered by the Manager. Requests that have not been
started are dropped as well.

Runs in the Trio thread.
"""

from __future__ import annotations

import trio

from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.tasks import WorkerTasks
from msl_network_trio.service.threads import Handoff, WorkerThreads


class Workers:
    """The tasks and threads that carry out requests.

    Args:
        service: The object whose attributes are requested.
        name: The name of the Service, the prefix of the names of the threads.
        nursery: The nursery of the tasks.
        max_workers: Maximum number of worker threads for methods, and again for properties.

    Attributes:
        nursery: See above.
        methods: The threads that call plain methods.
        properties: The threads that read properties.
    """

    def __init__(self, service: object, name: str, nursery: trio.Nursery, max_workers: int) -> None:
        self.nursery = nursery
        self.methods = WorkerThreads(service, name, max_workers, call_soon=self._call_soon)
        self.properties = WorkerThreads(
            service, f"{name}-property", max_workers, call_soon=self._call_soon, looks_up=True
        )
        self._token = trio.lowlevel.current_trio_token()
        self._lost: list[WorkerTasks] = []
        """The tasks of lost connections that carry out requests."""
        self._has_changed = trio.Event()
        self._send_queue: AnswerQueue | None = None
        self._has_stopped = False

    def attach(self, send_queue: AnswerQueue | None) -> None:
        """Set the send queue whose waiting tasks wake when a request of a lost connection has ended."""
        self._send_queue = send_queue

    def abandon(self, tasks: WorkerTasks) -> None:
        """Drop the requests of a lost connection that have not been started.

        Args:
            tasks: The tasks of the connection.
        """
        self._send_queue = None
        for request in (*self.methods.withdraw(), *self.properties.withdraw()):
            request.forget()
        tasks.abandon()
        self._lost = [each for each in (*self._lost, tasks) if not each.is_quiet]

    def may_go_on(self, tasks: WorkerTasks) -> bool:
        """Return whether a request of a lost connection may start a task now, which the end waits for.

        Args:
            tasks: The tasks of the connection.
        """
        if self._has_stopped:
            return False
        if tasks not in self._lost:
            self._lost.append(tasks)
        return True

    def on_late(self) -> None:
        """Note that a request of a lost connection has ended."""
        self._has_changed.set()
        if self._send_queue is not None:
            self._send_queue.wake_waiting()

    @property
    def is_quiet(self) -> bool:
        """Whether the threads are idle, and no task carries out a request of a lost connection."""
        return (
            self.methods.is_quiet and self.properties.is_quiet and all(tasks.is_quiet for tasks in self._lost)
        )

    def stop(self) -> list[IncomingRequest]:
        """End the threads after their requests in progress; return the requests that were not started."""
        self._has_stopped = True
        return [*self.properties.stop(), *self.methods.stop()]

    async def end(self, seconds: float) -> None:
        """Wait until requests in progress have ended, if there is no connection that has waited for them.

        Args:
            seconds: The timeout.
        """
        if not self._has_stopped:
            self.stop()
            with trio.move_on_after(seconds):
                while not self.is_quiet:
                    self._has_changed = trio.Event()
                    await self._has_changed.wait()

    def _call_soon(self, handoff: Handoff) -> None:
        """Schedule a handoff in the Trio thread; called in worker threads."""
        try:
            self._token.run_sync_soon(handoff)
        except trio.RunFinishedError:
            handoff.drop()  # the connection has ended, and so has the client's wait
