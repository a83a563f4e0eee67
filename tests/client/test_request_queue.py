"""The send queue of a client: batches, the rest that the kernel does not take, and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from msl_network_trio.client.request_queue import RequestQueue
from msl_network_trio.exceptions import ConnectionLost
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from msl_network_trio.transport.base import Stream, ThreadIO

WHO = b'{"args":[],"attribute":"identity","error":false,"kwargs":{},"requester":"Manager[vm:1]","uid":""}\n'


class Recorder(Stream, ThreadIO):
    """Takes data while there is room, and notes the names of the tasks that send it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.senders: list[str] = []
        self.room = 1_000_000
        self.error: Exception | None = None
        self._made_room = trio.Event()

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.error is not None:
            raise self.error
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        if taken:
            self.sent.append(taken)
            self.senders.append(_who())
        return len(taken)

    @property
    def thread_io(self) -> ThreadIO:
        return self

    def send_in_thread(self, data: bytes, sent: list[int]) -> None:
        sent.append(self.send_nowait(data))

    async def wait_send(self) -> None:
        await self._made_room.wait()
        self._made_room = trio.Event()

    def make_room(self, room: int) -> None:
        self.room += room
        self._made_room.set()

    async def receive(self) -> bytes:
        raise AssertionError("nobody reads here")

    def send_eof(self) -> None:
        raise AssertionError("nobody ends this")

    def close(self) -> None:
        raise AssertionError("nobody closes this")


def _who() -> str:
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return "the event loop"


class Rig:
    """A request queue with its protocol, and a record of what it has called."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.transport = Recorder()
        self.protocol = ClientProtocol(
            {"type": "client", "name": "A", "language": "", "os": ""}, "localhost:1875"
        )
        self.protocol.receive(WHO)
        self.protocol.take()
        self.accepted = 0
        self.started: list[str] = []
        self.error: Exception | None = None
        self._nursery = nursery
        self.queue = RequestQueue(
            self.protocol,
            self.transport,
            1_000_000,
            start=self._start,
            on_error=self._on_error,
            on_accepted=self._on_accepted,
        )

    def _on_error(self, error: Exception) -> None:
        self.error = error

    def _on_accepted(self) -> None:
        self.accepted += 1

    def _start(self, function: Callable[[], Awaitable[None]]) -> None:
        self.started.append(function.__name__)
        self._nursery.start_soon(function, name="the task of the queue")

    def put(self, text: str = "") -> Request:
        request = self.protocol.make(Request, "Echo", "echo", (text,), None)
        assert self.queue.put(request)
        return request

    @property
    def lines(self) -> int:
        """The number of whole lines that were sent."""
        return b"".join(self.transport.sent).count(b"\n")


@pytest.fixture
async def rig(nursery: trio.Nursery):
    return Rig(nursery)


async def test_a_request_that_is_alone_is_sent_at_once(rig: Rig):
    rig.put()
    assert rig.lines == 1


async def test_requests_of_many_tasks_go_out_together(rig: Rig):
    rig.put()

    async def ask() -> None:
        rig.put()

    async with trio.open_nursery() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    assert [data.count(b"\n") for data in rig.transport.sent] == [1, 20]
    assert rig.transport.senders[1] == "the task of the queue"
    assert rig.started == ["run"]


async def test_what_the_peer_does_not_take_is_left_to_the_task_and_stays_in_order(rig: Rig):
    rig.put("first")
    rig.transport.room = 10
    requests = [rig.put(str(number)) for number in range(5)]
    await trio.testing.wait_all_tasks_blocked()
    assert rig.started == ["run"]
    assert rig.queue.is_blocked
    requests.append(rig.put("last"))
    rig.transport.make_room(1_000_000)
    await trio.testing.wait_all_tasks_blocked()
    lines = b"".join(rig.transport.sent).splitlines()
    assert [line.split(b'"')[3] for line in lines] == [b"first", b"0", b"1", b"2", b"3", b"4", b"last"]
    assert [request.sequence for request in requests] == [3, 4, 5, 6, 7, 8]  # the first is our identity
    assert not rig.queue.is_blocked


async def test_more_than_a_chunk_is_left_to_the_task(rig: Rig):
    rig.put()
    with rig.transport.lock:
        for _ in range(3):
            rig.protocol.request(rig.protocol.make(Request, "Echo", "echo", ("x" * 200_000,), None))
    rig.queue.schedule_flush()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.lines == 4
    assert rig.started == ["run"]


async def test_an_error_ends_the_sending_and_what_was_not_sent_is_known(rig: Rig):
    rig.transport.error = ConnectionLost("broken")
    request = rig.put()
    assert rig.error is rig.transport.error
    assert rig.queue.rest_size > 0
    assert request.may_have_run
    rig.put()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.lines == 0


async def test_a_peer_that_accepts_what_had_to_wait_is_noticed(rig: Rig):
    rig.transport.room = 10
    rig.put()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.accepted == 0
    rig.transport.make_room(1_000_000)
    await trio.testing.wait_all_tasks_blocked()
    assert rig.accepted == 1


async def test_drain_returns_when_all_is_sent(rig: Rig, nursery: trio.Nursery):
    rig.put()
    rig.put()
    with trio.fail_after(5):
        await rig.queue.drain()
    assert rig.lines == 2


async def test_what_is_forgotten_before_it_is_sent_is_not_sent(rig: Rig):
    rig.put()
    rig.put()
    rig.protocol.connection_lost(ConnectionLost("lost"))
    rig.queue.discard()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.lines == 1
