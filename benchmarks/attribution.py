"""Attribution of the client's CPU time per call: the share of Trio, and of each part of this package.

No kernel and no other process take part: a minimal Manager answers in memory, and its own time is subtracted.
The parts are measured separately, each many times; the minimum counts. The remainder is the time between the
parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import get_clock_info, perf_counter, process_time
from typing import Any, Final

import trio

from benchmarks.clients import asynchronous
from benchmarks.clients.ours import together
from benchmarks.servers.fake_conversation import HELLO, answer
from benchmarks.tasks import SERVICE, Run
from msl_network_trio import Link, connect
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from msl_network_trio.transport.base import Stream

_CALLS: Final = 2000
_IN_FLIGHT: Final = 100
_REPETITIONS: Final = 30

_clock: Final = process_time if get_clock_info("process_time").resolution < 1e-6 else perf_counter
"""Excludes other work on the machine; not all platforms have CPU time of sufficient resolution."""


@dataclass(frozen=True)
class Part:
    """A part of a call."""

    what: str
    seconds: float
    """Seconds per call."""


class _InMemory(Stream):
    """A Manager in memory that answers at once.

    Attributes:
        seconds: Seconds spent on creating answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._answers: list[bytes | memoryview] = [HELLO]
        self._reader: trio.lowlevel.Task | None = None
        self._ended = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        began = _clock()
        for line in bytes(data).splitlines():
            self._ended = not answer(line, self._answers) or self._ended
        self.seconds += _clock() - began
        self._wake()
        return len(data)

    def _wake(self) -> None:
        if self._reader is not None:
            task, self._reader = self._reader, None
            trio.lowlevel.reschedule(task)

    async def wait_send(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        while not self._answers and not self._ended:
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget)
        data = b"".join(self._answers)
        self._answers.clear()
        return data

    def _forget(self, _: Any) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def send_eof(self) -> None:
        self._ended = True
        self._wake()

    def close(self) -> None:
        self.send_eof()


class _TrioAlone:
    """Replacement for a link: tasks that are parked, and woken in a batch by another task."""

    def __init__(self) -> None:
        self._parked: list[trio.lowlevel.Task] = []
        self._waker: trio.lowlevel.Task | None = None

    async def add(self, first: int, second: int, /) -> int:
        self._parked.append(trio.lowlevel.current_task())
        if self._waker is not None:
            task, self._waker = self._waker, None
            trio.lowlevel.reschedule(task)
        await trio.lowlevel.wait_task_rescheduled(self._never)
        return first + second

    async def echo(self, value: Any, /) -> Any:
        return value

    def _never(self, _: Any) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.SUCCEEDED

    async def wake(self) -> None:
        while True:
            if not self._parked:  # the first tasks would run alone otherwise
                self._waker = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._never)
            parked = self._parked
            self._parked = []
            for task in parked:
                trio.lowlevel.reschedule(task)


async def _least(load: Callable[[], Awaitable[object]], off: Callable[[], float] = lambda: 0.0) -> float:
    """Return the minimum seconds per call, without the time of the Manager."""
    least = float("inf")
    for _ in range(_REPETITIONS):
        before, began = off(), _clock()
        await load()
        least = min(least, _clock() - began - (off() - before))
    return least / _CALLS


def _least_of(prepare: Callable[[], Any], work: Callable[[Any], object]) -> float:
    """Return the minimum seconds per call of a part that handles all calls in flight together."""
    least = float("inf")
    for _ in range(10 * _REPETITIONS):
        prepared = prepare()
        began = _clock()
        work(prepared)
        least = min(least, _clock() - began)
    return least / _IN_FLIGHT


async def _handles(link: Link) -> None:
    window: deque[Any] = deque()
    for number in range(_CALLS):
        if len(window) == _IN_FLIGHT:
            await window.popleft()
        window.append(link.add(number, 1, asynchronous=True))
    while window:
        await window.popleft()


def _flight(caller: asynchronous.Caller) -> Callable[[], Awaitable[object]]:
    return lambda: asynchronous.flight([caller], Run("flight", _CALLS), _IN_FLIGHT, together)


async def _checks() -> None:
    for _ in range(_CALLS):
        await trio.lowlevel.checkpoint_if_cancelled()


class _Protocol:
    """Run the protocol code of a request and its reply."""

    def __init__(self) -> None:
        self._protocol = ClientProtocol({"type": "client", "name": "one"}, "localhost:1875")
        self._protocol.receive(HELLO)
        self._protocol.take()

    def make(self, _: object = None) -> list[Request]:
        make = self._protocol.make
        return [make(Request, SERVICE, "add", (number, 1), {}) for number in range(_IN_FLIGHT)]

    def write(self, requests: list[Request]) -> bytes:
        for request in requests:
            self._protocol.request(request)
        return self._protocol.take()

    def written(self) -> bytes:
        answers: list[bytes | memoryview] = []
        for line in self.write(self.make()).splitlines():
            answer(line, answers)
        return b"".join(answers)

    def parts(self) -> list[Part]:
        making = _least_of(lambda: None, self.make)
        writing = _least_of(self.make, self.write)
        reading = _least_of(self.written, self._protocol.receive)
        return [
            Part("to make the request, of which most is to encode it", making),
            Part("to queue it and to give it out", writing),
            Part("to decode the reply and to find whose it is", reading),
        ]


async def _attribute() -> dict[str, tuple[float, list[Part]]]:
    alone = _TrioAlone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alone.wake)
        trios = await _least(_flight(alone))
        nursery.cancel_scope.cancel()
    check = Part("to look whether the task is cancelled", await _least(_checks))
    parts = _Protocol().parts()
    transport = _InMemory()

    async def dial() -> Stream:
        return transport

    async with connect(transport=dial, probe_after=None) as client, client.link(SERVICE) as link:
        flight = await _least(_flight(link), lambda: transport.seconds)
        handles = await _least(partial(_handles, link), lambda: transport.seconds)
    twice = Part(f"{check.what}, when it is made and when it is awaited", 2 * check.seconds)
    return {
        "a call of 100 tasks in flight": (
            flight,
            [Part("Trio: to park a task, to wake it, to run on", trios), check, *parts],
        ),
        "a handle of 100 in flight": (handles, [twice, *parts]),
    }


def attribute() -> dict[str, list[tuple[str, float]]]:
    """Measure each load, which takes some seconds, and return the parts of a call with their shares.

    The shares are fractions of the client's CPU time for such a call. The last part is the remainder.
    """
    found = {}
    for load, (whole, parts) in trio.run(_attribute).items():
        rest = Part("what lies between: coroutines, objects, to tell who waits", whole)
        shares = [(part.what, part.seconds / whole) for part in parts]
        found[load] = [*shares, (rest.what, 1 - sum(share for _, share in shares))]
    return found
