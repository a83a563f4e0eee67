"""Async methods: each one that suspends has a task of its own, the others share the leader task."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import trio

from msl_network_trio import Service
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.service import method_profile
from msl_network_trio.service.answer_queue import AnswerQueue
from msl_network_trio.service.method_profile import MethodProfile
from msl_network_trio.service.tasks import WorkerTasks
from msl_network_trio.transport.memory import memory_pair

from .peer import CLIENT, Peer, running


class Tasks(Service):
    """Methods that suspend always, never, or sometimes."""

    def __init__(self) -> None:
        super().__init__(name="Service")
        self.gate = trio.Event()
        self.began: list[str] = []
        self.closed = 0

    async def at_once(self, name):
        self.began.append(name)
        return id(trio.lowlevel.current_task())

    async def wait(self, name):
        self.began.append(name)
        try:
            await self.gate.wait()
        finally:
            self.closed += 1
        return name

    async def two_waits(self, name):
        with trio.move_on_after(0) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        await trio.lowlevel.checkpoint()
        return name

    async def maybe(self, name, wait):
        self.began.append(name)
        if wait:
            await self.gate.wait()
        return name

    async def fail(self, name, wait):
        if wait:
            await trio.lowlevel.checkpoint()
        raise ValueError(name)

    async def catch(self, name):
        try:
            with trio.fail_after(0):
                await trio.sleep_forever()
        except trio.TooSlowError as error:
            return f"{name}: {type(error).__name__}"

    async def who(self, wait):
        if wait:
            await trio.lowlevel.checkpoint()
        return self.request.uid


async def send_together(peer: Peer, *requests: tuple) -> None:
    """Send requests that arrive together; the uid of each is its index."""
    lines = [
        json.dumps({"attribute": name, "args": args, "kwargs": {}, "uid": str(uid), "requester": CLIENT})
        for uid, (name, *args) in enumerate(requests)
    ]
    await peer.transport.send_all(("\n".join(lines) + "\n").encode())


async def answers(peer: Peer, number: int) -> dict[str, dict]:
    return {answer["uid"]: answer for answer in [await peer.answer() for _ in range(number)]}


async def test_methods_that_do_not_wait_share_a_task_and_begin_in_the_order_of_their_requests():
    service = Tasks()
    async with running(service) as peer:
        names = [str(number) for number in range(100)]
        await send_together(peer, *(("at_once", name) for name in names))
        results = await answers(peer, 100)
        assert len({answer["result"] for answer in results.values()}) == 1
        assert service.began == names


async def test_answers_to_requests_that_came_together_are_sent_together():
    sent = []

    class Looks(Service):
        async def look(self):
            return sent.copy()

    async with running(Looks(name="Service")) as peer:
        send = peer.service_end.send_nowait

        def count(data):
            sent.append(bytes(data).count(b"\n"))
            return send(data)

        peer.service_end.send_nowait = count
        await send_together(peer, *[("look",)] * 7)
        await answers(peer, 7)
        assert sent == [7]


@pytest.mark.parametrize("known", [False, True])
async def test_a_method_that_waits_does_not_hold_up_those_behind_it(known):
    service = Tasks()
    async with running(service) as peer:
        if known:
            service.gate.set()
            assert await peer.call("wait", "first") == "first"
            service.gate = trio.Event()
            service.began = []
        await send_together(
            peer, ("at_once", "a"), ("wait", "b"), ("at_once", "c"), ("wait", "d"), ("at_once", "e")
        )
        early = await answers(peer, 3)
        assert early.keys() == {"0", "2", "4"}
        # A method that suspended the last time starts in a task of its own.
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(service.began) == ["a", "b", "c", "d", "e"]
        service.gate.set()
        late = await answers(peer, 2)
        assert {uid: answer["result"] for uid, answer in late.items()} == {"1": "b", "3": "d"}


async def test_what_was_answered_before_a_method_that_waits_is_sent():
    service = Tasks()
    async with running(service) as peer:
        await send_together(peer, ("at_once", "a"), ("wait", "b"))
        assert (await peer.answer())["uid"] == "0"
        service.gate.set()
        assert (await peer.answer())["uid"] == "1"


class Turns(trio.abc.Instrument):
    """An instrument that counts the iterations of the event loop."""

    number = 0

    def before_io_wait(self, timeout):
        self.number += 1


async def test_methods_that_are_known_to_wait_begin_in_the_same_turn():
    turns = Turns()
    gate = trio.Event()
    began = []

    class Waits(Service):
        async def wait(self):
            began.append(turns.number)
            await gate.wait()

    async with running(Waits(name="Service")) as peer:
        gate.set()
        await peer.call("wait")
        gate = trio.Event()
        began.clear()
        trio.lowlevel.add_instrument(turns)
        await send_together(peer, *[("wait",)] * 50)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(turns)
        assert len(began) == 50
        assert len(set(began)) == 1
        gate.set()
        assert len(await answers(peer, 50)) == 50


async def test_a_method_that_waits_no_more_shares_a_task_again():
    service = Tasks()
    async with running(service) as peer:
        service.gate.set()
        for wait in (True, False):
            assert await peer.call("maybe", "x", wait) == "x"
        service.gate = trio.Event()
        service.began = []
        await send_together(peer, ("maybe", "a", False), ("maybe", "b", True), ("maybe", "c", False))
        assert (await answers(peer, 2)).keys() == {"0", "2"}
        assert service.began == ["a", "b", "c"]
        service.gate.set()
        assert (await peer.answer())["uid"] == "1"


@pytest.mark.parametrize("times", [1, 2])
async def test_timeouts_and_several_waits_work_in_a_method(times):
    async with running(Tasks()) as peer:
        for _ in range(times):
            await send_together(peer, ("two_waits", "a"), ("catch", "b"), ("two_waits", "c"))
            results = await answers(peer, 3)
            assert [results[uid]["result"] for uid in "012"] == ["a", "b: TooSlowError", "c"]


async def test_a_failure_costs_no_other_request_anything():
    async with running(Tasks()) as peer:
        await send_together(
            peer, ("fail", "a", False), ("who", False), ("fail", "b", True), ("who", True), ("who", False)
        )
        results = await answers(peer, 5)
        assert [results[uid]["error"] for uid in "01234"] == [True, False, True, False, False]
        assert results["0"]["message"] == "ValueError: a"
        assert results["2"]["message"] == "ValueError: b"
        assert [results[uid]["result"] for uid in "134"] == ["1", "3", "4"]
        for uid in "02":
            lines = results[uid]["traceback"]
            assert lines[0] == "Traceback (most recent call last):"
            assert "test_tasks.py" in lines[1], "the frames above those of the method are left out"


async def test_waiting_for_what_trio_does_not_know_fails_that_request_alone():
    class Foreign:
        def __await__(self):
            yield "what another event loop understands"

    caught = []

    class Waits(Service):
        async def wait(self):
            try:
                await Foreign()
            except TypeError as error:
                caught.append(error)
                raise

        async def add(self, a, b):
            return a + b

    async with running(Waits(name="Service")) as peer:
        for _ in range(2):
            await send_together(peer, ("wait",), ("add", 1, 2))
            results = await answers(peer, 2)
            assert results["0"]["message"].startswith(
                "TypeError: trio.run received unrecognized yield message"
            )
            assert results["1"]["result"] == 3
    assert len(caught) == 2


async def test_requests_that_have_not_begun_are_among_the_unanswered():
    answers = AnswerQueue(memory_pair()[0], 1000, print)
    done = trio.Event()

    async def method():
        done.set()

    async with trio.open_nursery() as nursery:
        reader = SimpleNamespace(transport=None, protocol=None)
        workers = WorkerTasks(None, nursery, answers, reader, None)
        assert workers.is_quiet
        request = IncomingRequest("method")
        workers.submit(request, method, MethodProfile())
        assert workers.unanswered == [request]
        assert not workers.is_quiet
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert workers.unanswered == []
        assert workers.is_quiet
        nursery.cancel_scope.cancel()


async def test_at_the_end_methods_that_wait_are_cancelled_and_everybody_is_answered():
    service = Tasks()
    async with running(service) as peer:
        await send_together(peer, *[("wait", "x")] * 30)
        await trio.testing.wait_all_tasks_blocked()
        peer.scope.cancel()
        results = await answers(peer, 30)
        assert {answer["message"] for answer in results.values()} == {
            "RuntimeError: The 'Service' Service has ended before 'wait' did"
        }
        await peer.expect_goodbye()
    assert service.closed == 30


async def test_requests_that_come_at_the_moment_of_the_end_are_answered():
    service = Tasks()
    async with running(service) as peer:
        # Cancelled in the iteration of the loop in which they arrive: some are queued, none has started.
        await send_together(peer, *[("wait", "x"), ("at_once", "y")] * 10)
        peer.scope.cancel()
        results = await answers(peer, 20)
        assert results.keys() == {str(uid) for uid in range(20)}
        await peer.expect_goodbye()


async def test_the_names_of_methods_that_wait_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(method_profile, "_MAX_PROFILES", 3)

    class Anything(Service):
        def __getattr__(self, name):
            if name.startswith("_"):
                raise AttributeError(name)

            async def method():
                await trio.lowlevel.checkpoint()
                return name

            return method

    async with running(Anything(name="Service")) as peer:
        for number in range(20):
            assert await peer.call(f"name_{number}") == f"name_{number}"


class Emits(Service):
    """Methods that emit notifications."""

    def __init__(self) -> None:
        super().__init__(name="Service")
        self.gate = trio.Event()

    async def at_once(self):
        self.emit_notification(1)

    async def wait(self):
        self.emit_notification(1)
        await self.gate.wait()
        self.emit_notification(2)
        await trio.lowlevel.checkpoint()
        await self.gate.wait()

    async def fail(self):
        raise ValueError

    async def begin(self):
        self.nursery.start_soon(self._later)

    async def _later(self):
        self.emit_notification(3)


async def test_what_a_method_emits_is_sent_together_with_its_answer():
    sent = []
    async with running(Emits()) as peer:
        send = peer.service_end.send_nowait

        def count(data):
            sent.append(bytes(data).count(b"\n"))
            return send(data)

        peer.service_end.send_nowait = count
        await send_together(peer, ("at_once",))
        assert (await peer.answer())["uid"] == "notification"
        assert (await peer.answer())["uid"] == "0"
        assert sent == [2]


@pytest.mark.parametrize("known", [False, True])
async def test_what_a_method_emits_does_not_wait_for_what_the_method_waits_for(known):
    service = Emits()
    async with running(service) as peer:
        for _ in range(1 + known):
            await send_together(peer, ("fail",), ("wait",), ("fail",))
            early = [await peer.answer() for _ in range(3)]
            assert sorted(answer["uid"] for answer in early) == ["0", "2", "notification"]
            service.gate.set()
            assert (await peer.answer())["result"] == [[2], {}]
            assert (await peer.answer())["uid"] == "1"
            service.gate = trio.Event()


@pytest.mark.parametrize("before", ["at_once", "fail"])
async def test_notifications_that_no_request_causes_are_sent(before):
    async with running(Emits()) as peer:
        await send_together(peer, (before,), ("begin",))
        answers = [await peer.answer() for _ in range(3 + (before == "at_once"))]
        assert [answer["result"] for answer in answers if answer["uid"] == "notification"][-1] == [[3], {}]


async def test_the_leader_carries_out_what_it_reads_and_a_follower_reads_when_it_waits():
    receivers, tasks = [], []

    class Tells(Service):
        def __init__(self):
            super().__init__(name="Service")
            self._gate = trio.Event()

        async def at_once(self):
            tasks.append(trio.lowlevel.current_task())

        async def wait(self):
            tasks.append(trio.lowlevel.current_task())
            await self._gate.wait()

        async def open(self):
            tasks.append(trio.lowlevel.current_task())
            self._gate.set()

    async with running(Tells()) as peer:
        receive = peer.service_end.receive

        async def note():
            receivers.append(trio.lowlevel.current_task())
            return await receive()

        peer.service_end.receive = note
        for _ in range(3):
            await peer.call("at_once")
        assert tasks[1:] == receivers[:2]
        assert len(set(tasks)) == 1
        await peer.request("wait")
        await peer.call("open")
        assert tasks[-2] is tasks[0]
        assert tasks[-1] is not tasks[0]
        assert receivers[-1] is tasks[-1]
        await peer.answer()
