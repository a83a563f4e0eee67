"""A client, a Manager and a Service in memory, for programs of steps with a clock that jumps.

`Play` runs a program: a list of steps such as ``("call", "work", None)``, which are the names of its methods
and their arguments. Everything is deterministic, but for the order in which Trio runs tasks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio
import trio.testing

from msl_network_trio import (
    Link,
    NetworkError,
    RemoteError,
    Service,
    ServiceLost,
    Unanswered,
    connect,
)
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.server import Manager
from msl_network_trio.transport.memory import MemoryStream
from tests.chaos.oracle import Oracle, Request, StreamRecord

NUMBER = re.compile(r"n:(\w+):(\d+):(\d+)#")
SERVICE = "Alpha"
SETTLE = 120.0
"""Seconds of the clock after which everything must be back and every request settled."""

Step = tuple[Any, ...]


class Instrument(Service):
    """A Service that counts its calls, and waits in some until it is told to go on."""

    def __init__(self, executed: Counter[int], start_number: int) -> None:
        super().__init__(name=SERVICE)
        self._executed = executed
        self._start_number = start_number
        self._number = 0
        self._go_on = trio.Event()

    def _execute(self, token: str) -> list[str]:
        self._executed[int(token.strip("t#"))] += 1
        return [token, self.name]

    async def work(self, token: str) -> list[str]:
        """Reply at once."""
        return self._execute(token)

    async def read(self, token: str) -> list[str]:
        """Reply at once; may be repeated."""
        return self._execute(token)

    async def fail(self, token: str) -> None:
        """Raise an exception."""
        self._execute(token)
        raise ValueError(token)

    async def hold(self, token: str) -> list[str]:
        """Reply when the play goes on."""
        result = self._execute(token)
        await self._go_on.wait()
        return result

    async def notify(self, token: str) -> list[str]:
        """Emit a notification, and reply."""
        self.emit()
        return self._execute(token)

    def emit(self) -> None:
        """Emit a notification, if connected."""
        self._number += 1
        try:
            self.emit_notification(f"n:{SERVICE}:{self._start_number}:{self._number}#")
        except NetworkError:
            pass  # without reconnection

    def go_on(self) -> None:
        """Let the calls of `hold` reply."""
        self._go_on.set()
        self._go_on = trio.Event()


@attrs.define(eq=False)
class Play:
    """One program of steps.

    Args:
        reconnect: Whether the client and the Service reconnect; else they connect again.
    """

    reconnect: bool
    oracle: Oracle = attrs.field(factory=Oracle)
    executed: Counter[int] = attrs.field(factory=Counter)
    manager: Manager | None = None
    service: Instrument | None = None
    link: Link | None = None
    stream: StreamRecord | None = None
    _starts: int = 0
    _nursery: trio.Nursery = attrs.field(init=False)
    _clients: list[MemoryStream] = attrs.field(factory=list)
    _services: list[MemoryStream] = attrs.field(factory=list)
    _calls: list[trio.CancelScope] = attrs.field(factory=list)
    _manager_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _manager_ended: trio.Event = attrs.field(factory=trio.Event)
    _service_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def _policy(self) -> dict[str, Any]:
        return {"reconnect": True} if self.reconnect else {}

    async def run(self, steps: Sequence[Step]) -> None:
        """Run the steps, then repair everything, and check that everything is back and right."""
        async with trio.open_nursery() as self._nursery:
            await self.start_manager()
            await self.start_service()
            self._nursery.start_soon(self._run_client)
            await self.settle()
            for name, *args in steps:
                await getattr(self, name)(*args)
            await self._end()
            self._nursery.cancel_scope.cancel()
        self.oracle.judge(self.executed)

    async def _end(self) -> None:
        """Repair everything, and check."""
        if self.manager is None:
            await self.start_manager()
        if self.service is None:
            await self.start_service()
        await self.go_on()
        await trio.sleep(SETTLE)
        await self.go_on()  # requests that have waited for the connection
        await trio.sleep(SETTLE)
        for request in self.oracle.requests.values():
            if request.outcome == "open":
                self.oracle.wrong(f"request {request.token} ({request.attribute}) has no outcome")
                request.outcome = "given up"
        assert self.service is not None
        received = self.stream.received if self.stream is not None else 0
        self.service.emit()
        await self.settle()
        if self.stream is None or self.stream.received == received:
            self.oracle.wrong("the stream is not back")
        request = await self._ask("work", 30.0)
        if request is None or request.outcome != "ok":
            self.oracle.wrong(f"the link is not back: {request}")

    # ---- steps: peers ----

    async def settle(self) -> None:
        """Wait until nothing happens any more without the clock."""
        await trio.testing.wait_all_tasks_blocked()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    async def start_manager(self) -> None:
        """Start the Manager."""
        await self._nursery.start(self._run_manager)

    async def _run_manager(self, task_status: trio.TaskStatus[None]) -> None:
        self._manager_ended = trio.Event()
        with trio.CancelScope() as self._manager_scope:
            async with open_manager(in_memory=True) as self.manager:
                task_status.started()
                await trio.sleep_forever()
        self._manager_ended.set()

    async def kill_manager(self) -> None:
        """End the Manager as if its process were killed."""
        self.manager = None
        for stream in (*self._clients, *self._services):
            stream.reset()
        self._manager_scope.cancel()
        await self._manager_ended.wait()

    async def start_service(self) -> None:
        """Start the Service."""
        self._starts += 1
        self.service = Instrument(self.executed, self._starts)
        self._nursery.start_soon(self._run_service, self.service)
        await self.settle()

    async def _run_service(self, service: Instrument) -> None:
        with trio.CancelScope() as self._service_scope:
            while True:
                try:
                    await service.run(
                        transport=self._dialer(self._services), timeout=None, disable_tls=True, **self._policy
                    )
                except (NetworkError, OSError) as error:
                    if self.reconnect:
                        self.oracle.wrong(f"the Service ended: {error!r}")
                        raise
                await trio.sleep(0.1)

    async def kill_service(self) -> None:
        """End the Service as if its process were killed."""
        self.service = None
        for stream in self._services:
            stream.reset()
        self._service_scope.cancel()
        await self.settle()

    async def cut_client(self) -> None:
        """Reset the connection of the client."""
        for stream in self._clients:
            stream.reset()

    async def cut_service(self) -> None:
        """Reset the connection of the Service."""
        for stream in self._services:
            stream.reset()

    def _dialer(self, streams: list[MemoryStream]) -> Callable[[], Awaitable[MemoryStream]]:
        async def dial() -> MemoryStream:
            await trio.lowlevel.checkpoint()
            if self.manager is None:
                raise ConnectionRefusedError("the Manager is down")
            stream = await self.manager.dial()
            streams.append(stream)
            return stream

        return dial

    # ---- steps: the client ----

    async def _run_client(self) -> None:
        while True:
            try:
                async with connect(
                    transport=self._dialer(self._clients),
                    timeout=None if self.reconnect else 10,
                    disable_tls=True,
                    **self._policy,
                ) as client:
                    while client.is_connected() or self.reconnect:
                        await self._use_link(client)
            except (NetworkError, OSError) as error:
                if self.reconnect:
                    self.oracle.wrong(f"the client ended: {error!r}")
                    return
            await trio.sleep(0.2)

    async def _use_link(self, client: Any) -> None:
        """Link, and listen until the stream ends."""
        try:
            async with client.link(SERVICE, timeout=10, idempotent={"read"}) as self.link:
                self.stream = record = self.oracle.stream("client", SERVICE)
                async with self.link.notifications() as stream:
                    async for each in stream:
                        found = NUMBER.fullmatch(each.args[0])
                        assert found is not None
                        record.notification(int(found[2]), int(found[3]), has_gap=each.gap is not None)
        except (Unanswered, RemoteError) as error:
            if self.reconnect and self.stream is not None:
                self.oracle.wrong(f"the stream ended: {error!r}")
            await trio.sleep(0.2)

    async def call(self, attribute: str, timeout: float | None) -> None:
        """Make a request in a task of its own."""
        self._nursery.start_soon(self._ask, attribute, timeout)
        await trio.lowlevel.checkpoint()

    async def _ask(self, attribute: str, timeout: float | None) -> Request | None:
        link = self.link
        if link is None:
            return None
        request = self.oracle.made(SERVICE, attribute, is_idempotent=attribute == "read")
        request.must_answer = self.reconnect and request.is_idempotent and timeout is None
        with trio.CancelScope() as scope:
            self._calls.append(scope)
            try:
                result = await getattr(link, attribute)(f"t{request.token}#", timeout=timeout)
            except Unanswered as error:
                self.oracle.unanswered(request, may_have_run=error.may_have_run)
                if isinstance(error, ServiceLost) and not self.reconnect:
                    return request
            except RemoteError as error:
                self.oracle.remote_error(request, str(error))
            except (NetworkError, OSError) as error:
                self.oracle.given_up(request)
                if self.reconnect:
                    self.oracle.wrong(f"request {request.token} raised {error!r}")
            else:
                self.oracle.ok(request, result)
        if scope.cancelled_caught:
            self.oracle.given_up(request)
        return request

    async def cancel(self) -> None:
        """Cancel the oldest call that was not cancelled yet."""
        if self._calls:
            self._calls.pop(0).cancel()
        await trio.lowlevel.checkpoint()

    async def emit(self) -> None:
        """Let the Service emit a notification."""
        if self.service is not None:
            self.service.emit()
        await trio.lowlevel.checkpoint()

    async def go_on(self) -> None:
        """Let the Service reply to the calls that it holds."""
        if self.service is not None:
            self.service.go_on()
        await trio.lowlevel.checkpoint()


def play(steps: Sequence[Step], *, reconnect: bool) -> list[str]:
    """Run a program in a Trio run with a clock that jumps, and return all contradictions."""
    stage = Play(reconnect)
    trio.run(stage.run, steps, clock=trio.testing.MockClock(autojump_threshold=0))
    return stage.oracle.faults
