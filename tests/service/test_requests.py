"""Requests and replies, over memory and over sockets."""

from __future__ import annotations

import functools
import json
import logging
import math
import threading

import pytest
import trio

from msl_network_trio import Service
from msl_network_trio.service.state import state_of

from .peer import CLIENT, running

pytestmark = pytest.mark.parametrize("carrier", ["memory", "tcp"])


class Temperature:
    def __init__(self, kelvin):
        self.kelvin = kelvin

    def to_json(self):
        if self.kelvin < 0:
            raise ValueError("too cold")
        return {"kelvin": self.kelvin}


class Everything(Service):
    constant = 42
    nothing = None
    computer = staticmethod(functools.partial(max, 1))

    def __init__(self, **kwargs):
        super().__init__(name="Service", **kwargs)
        self.own = [1, 2]
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.async_gate = trio.Event()

    @property
    def prop(self):
        return threading.current_thread() is threading.main_thread()

    @property
    def computed(self):
        return functools.partial(max, 1)

    @property
    def broken(self):
        raise ZeroDivisionError("no")

    def echo(self, *args, **kwargs):
        return [args, kwargs]

    async def async_echo(self, *args, **kwargs):
        await trio.lowlevel.checkpoint()
        return [args, kwargs]

    async def at_once(self, x):
        return x

    @staticmethod
    def static(x):
        return x

    def passed_on(self, x):
        return self.at_once(x)

    def temperature(self, kelvin):
        return Temperature(kelvin)

    async def async_temperature(self, kelvin):
        return Temperature(kelvin)

    def unserializable(self):
        return {1}

    async def async_unserializable(self):
        return {1}

    def fail(self, text):
        raise ValueError(text)

    async def async_fail(self, text):
        await trio.lowlevel.checkpoint()
        raise ValueError(text)

    def exit(self):
        raise SystemExit(3)

    async def async_exit(self):
        raise SystemExit(3)

    def wait(self, result=None):
        self.entered.release()
        self.gate.wait()
        return result

    async def async_wait(self, result=None):
        await self.async_gate.wait()
        return result

    def thread(self):
        return [threading.current_thread().name, threading.current_thread().daemon]

    def who(self):
        request = self.request
        return [request.attribute, request.requester, request.uid]

    async def async_who(self):
        await trio.lowlevel.checkpoint()
        return Everything.who(self)

    async def child_who(self):
        found = []

        async def child():
            found.extend(Everything.who(self))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        return found

    def text(self, size):
        return "x" * size

    async def async_text(self, size):
        return "x" * size


@pytest.fixture
def service() -> Everything:
    service = Everything()
    yield service
    service.gate.set()


ECHOES = ["echo", "async_echo"]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize(
    "value", [1, "é\u2028", None, [1, {"a": None}], 2**100, math.nan, math.inf, -0.0, "\n"]
)
async def test_values_come_back_exactly(service, carrier, echo, value):
    async with running(service, carrier) as peer:
        assert repr(await peer.call(echo, value, x=value)) == repr([[value], {"x": value}])


@pytest.mark.parametrize(
    ("attribute", "args", "result"),
    [
        ("constant", (), 42),
        ("constant", (1, 2), 42),
        ("nothing", (), None),
        ("own", (), [1, 2]),
        ("prop", (), False),
        ("static", (5,), 5),
        ("computer", (5,), 5),
        ("computed", (5,), 5),
        ("at_once", (5,), 5),
        ("passed_on", (5,), 5),
        ("temperature", (5,), {"kelvin": 5}),
        ("async_temperature", (5,), {"kelvin": 5}),
        ("name", (), "Service"),
        ("max_clients", (), -1),
        ("address_manager", (), "localhost:1875"),
        ("set_logging_level", ("silly",), False),
    ],
)
async def test_every_kind_of_attribute_can_be_requested(service, carrier, attribute, args, result):
    async with running(service, carrier) as peer:
        assert await peer.call(attribute, *args) == result


async def test_the_identity_can_be_requested(service, carrier):
    async with running(service, carrier) as peer:
        assert await peer.call("identity") == service.identity()


@pytest.mark.parametrize(
    ("attribute", "args", "message", "innermost"),
    [
        ("fail", ("bad",), "ValueError: bad", "in fail"),
        ("async_fail", ("two\nlines",), "ValueError: two\nlines", "in async_fail"),
        ("broken", (), "ZeroDivisionError: no", "in broken"),
        ("exit", (), "SystemExit: 3", "in exit"),
        ("async_exit", (), "SystemExit: 3", "in async_exit"),
        ("temperature", (-1,), "ValueError: too cold", "in to_json"),
    ],
)
async def test_an_exception_is_answered_with_the_traceback_of_the_user(
    service, carrier, attribute, args, message, innermost
):
    async with running(service, carrier) as peer:
        answer = await peer.fail(attribute, *args)
        assert answer["message"] == message
        assert answer["traceback"][0] == "Traceback (most recent call last):"
        assert message.endswith(answer["traceback"][-1].removeprefix("ValueError: "))
        frames = [line for line in answer["traceback"] if line.startswith("  File")]
        assert frames[-1].endswith(innermost)
        assert __file__ in frames[0], "frames of ours come first"
        assert await peer.call("at_once", 1) == 1


@pytest.mark.parametrize(
    ("attribute", "args", "message"),
    [
        ("nope", (), "AttributeError: 'Everything' object has no attribute 'nope'"),
        ("_private", (), "PermissionError: Cannot request a private attribute"),
        ("__init__", (), "PermissionError: Cannot request a private attribute"),
        (
            "start",
            (),
            "PermissionError: Cannot request 'start', which is for the program that runs the Service",
        ),
        ("unserializable", (), "TypeError: Object of type set is not JSON serializable"),
        ("async_unserializable", (), "TypeError: Object of type set is not JSON serializable"),
        ("at_once", (), "TypeError: Everything.at_once() missing 1 required positional argument: 'x'"),
        ("static", (), "TypeError: Everything.static() missing 1 required positional argument: 'x'"),
        ("echo", ("\ud800",), "ValueError: 'utf-8' codec can't encode character"),
    ],
)
async def test_what_is_not_the_methods_fault_has_no_traceback(service, carrier, attribute, args, message):
    async with running(service, carrier) as peer:
        answer = await peer.fail(attribute, *args)
        assert answer["message"].startswith(message) or "surrogates" in answer["message"]
        assert answer["traceback"] == []


async def test_a_request_that_makes_no_sense_is_answered_and_ends_nothing(service, carrier, caplog):
    async with running(service, carrier) as peer:
        await peer.transport.send_all(b"garbage\r\n\r\n[]\n")
        await peer.send(attribute="echo", args=5, uid="u", requester=CLIENT)
        answer = await peer.answer()
        assert (answer["uid"], answer["error"]) == ("u", True)
        assert await peer.call("at_once", 1) == 1
    assert "garbage" in caplog.text


async def test_async_methods_run_beside_each_other(service, carrier):
    async with running(service, carrier) as peer:
        uids = [await peer.request("async_wait", number) for number in range(300)]
        assert await peer.call("at_once", 1) == 1
        service.async_gate.set()
        answers = [await peer.answer() for _ in uids]
        assert {answer["uid"]: answer["result"] for answer in answers} == dict(
            zip(uids, range(300), strict=True)
        )
        assert await peer.call("async_echo") == [[], {}]


async def test_plain_methods_run_beside_each_other_up_to_max_workers(carrier):
    service = Everything(max_workers=3)
    async with running(service, carrier) as peer:
        for number in range(5):
            await peer.request("wait", number)
        for _ in range(3):
            await trio.to_thread.run_sync(service.entered.acquire)
        assert await peer.call("at_once", 1) == 1
        assert not service.entered.acquire(blocking=False)
        service.gate.set()
        assert {(await peer.answer())["result"] for _ in range(5)} == set(range(5))


async def test_one_worker_serialises_methods_and_properties_do_not_wait_for_them(carrier):
    service = Everything(max_workers=1)
    async with running(service, carrier) as peer:
        first = await peer.request("wait", 1)
        second = await peer.request("thread")
        assert await peer.call("prop") is False
        assert await peer.call("own") == [1, 2]
        assert await peer.call("async_echo") == [[], {}]
        service.gate.set()
        assert [(await peer.answer())["uid"] for _ in range(2)] == [first, second]


class Progress(Service):
    """A Service with slow properties, and with callables that are looked up like properties."""

    def __init__(self):
        ignored = ["entered", "gates", "later", "running", "slow"]
        super().__init__(name="Service", max_workers=1, ignore_attributes=ignored)
        self.gates = {name: threading.Event() for name in ("method", "property")}
        self.entered = threading.Semaphore(0)
        self.running = set()
        self.most = 0

    def pass_gate(self, name):
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        self.entered.release()
        self.gates[name].wait()
        self.running.discard(name)
        return name

    def method(self):
        return self.pass_gate("method")

    @property
    def slow(self):
        return self.pass_gate("property")

    @property
    def quick(self):
        return len(self.running)

    @property
    def later(self):
        return self.eventually()

    async def eventually(self):
        return "later"

    def __getattr__(self, name):
        if name.startswith("made_up"):
            return lambda *args: [name, *args, threading.current_thread().name]
        raise AttributeError(name)


async def test_a_property_that_takes_long_holds_up_no_method(carrier):
    service = Progress()
    async with running(service, carrier) as peer:
        first = await peer.request("slow")
        await trio.to_thread.run_sync(service.entered.acquire)
        second = await peer.request("quick")
        service.gates["method"].set()
        for _ in range(20):  # prompt, so that threads read requests themselves
            assert await peer.call("method") == "method"
        service.gates["property"].set()
        assert [(await peer.answer())["uid"] for _ in range(2)] == [first, second]
        assert await peer.call("quick") == 0
        assert await peer.call("later") == "later"
    assert service.most == 2


async def test_methods_that_are_made_up_wait_for_methods_also_when_they_are_new(carrier):
    service = Progress()
    async with running(service, carrier) as peer:
        for name in ("made_up", "made_up", "made_up_too"):
            assert await peer.call(name, 1) == [name, 1, "Service-1"]
        first = await peer.request("method")
        await trio.to_thread.run_sync(service.entered.acquire)
        waiting = [await peer.request(name, 2) for name in ("made_up", "made_up_new")]
        assert await peer.call("quick") == 1
        service.gates["method"].set()
        answers = [await peer.answer() for _ in range(3)]
    assert answers[0]["uid"] == first
    assert {answer["uid"]: answer["result"][1:] for answer in answers[1:]} == {
        uid: [2, "Service-1"] for uid in waiting
    }


async def test_what_is_looked_up_at_the_end_is_refused(carrier, monkeypatch):
    service = Progress()
    async with running(service, carrier) as peer:
        await peer.request("slow")
        await trio.to_thread.run_sync(service.entered.acquire)
        uid = await peer.request("made_up")
        assert await peer.call("eventually") == "later"
        state_of(service).stop()
        answer = await peer.answer()
        assert answer["uid"] == uid
        assert "has ended before 'made_up' did" in answer["message"]
        service.gates["property"].set()
        assert (await peer.answer())["result"] == "property"
        await peer.expect_goodbye()
        await peer.ended.wait()


async def test_threads_are_started_when_they_are_needed_and_never_keep_a_program_from_ending(carrier):
    service = Everything(max_workers=4)
    name = f"Lazy-{carrier}"  # the thread of another carrier may not have ended yet

    def names():
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(name)]

    async with running(service, carrier, name=name) as peer:
        assert names() == []
        for _ in range(10):
            assert await peer.call("thread") == [f"{name}-1", True]
        assert names() == [f"{name}-1"]


async def test_a_second_request_does_not_wait_for_the_thread_of_the_first(service, carrier):
    async with running(service, carrier) as peer:
        data = [
            json.dumps(
                {"attribute": name, "args": [], "kwargs": {}, "uid": name, "requester": CLIENT}
            ).encode()
            for name in ("wait", "prop")
        ]
        await peer.transport.send_all(b"\n".join(data) + b"\n")
        assert (await peer.answer())["uid"] == "prop"
        service.gate.set()
        assert (await peer.answer())["uid"] == "wait"


@pytest.mark.parametrize("method", ["who", "async_who", "child_who"])
async def test_a_method_knows_the_request_that_it_serves(service, carrier, method):
    async with running(service, carrier) as peer:
        for _ in range(2):
            uid = await peer.request(method)
            assert (await peer.answer())["result"] == [method, CLIENT, uid]


async def test_requests_beside_each_other_do_not_mix(service, carrier):
    async with running(service, carrier) as peer:
        uids = {await peer.request(method): method for method in ("who", "async_who") * 50}
        while uids:
            answer = await peer.answer()
            assert answer["result"] == [uids.pop(answer["uid"]), CLIENT, answer["uid"]]


async def test_outside_of_a_request_there_is_none(service, carrier):
    with pytest.raises(RuntimeError, match="serves no request"):
        service.request
    other = Everything()
    seen = []

    async def look():
        try:
            other.request
        except RuntimeError as error:
            seen.append(str(error))

    service.at_once = look
    async with running(service, carrier) as peer:
        assert await peer.call("at_once") is None
    assert "serves no request" in seen[0]


async def test_a_uid_that_is_no_text_is_shown_as_one(service, carrier):
    async with running(service, carrier) as peer:
        await peer.send(attribute="who", args=[], kwargs={}, uid=17, requester=CLIENT)
        answer = await peer.answer()
        assert answer["uid"] == 17
        assert answer["result"] == ["who", CLIENT, "17"]


@pytest.mark.parametrize("method", ["text", "async_text"])
@pytest.mark.parametrize("size", [100_000, 131_072, 1_000_000, 5_000_000])
async def test_large_answers_are_whole(service, carrier, method, size):
    async with running(service, carrier) as peer:
        assert await peer.call(method, size) == "x" * size
        assert await peer.call("at_once", 1) == 1


async def test_lines_from_threads_and_tasks_never_mix(service, carrier):
    """Read slowly, so that lines are sent in parts and the sender changes often."""
    sizes = [1, 100, 5000, 300_000, 7, 140_000] * 20
    async with running(service, carrier, capacity=10_000) as peer:

        async def ask():
            for number, size in enumerate(sizes):
                await peer.request(("text", "async_text")[number % 2], size)
                if number % 5 == 0:
                    service.emit_notification(number)

        assert peer.nursery is not None
        peer.nursery.start_soon(ask)
        results, notifications = [], []
        while len(results) < len(sizes):
            line = await peer.answer()
            if line["uid"] == "notification":
                notifications.append(line["result"][0][0])
            else:
                results.append(len(line["result"]))
        assert sorted(results) == sorted(sizes)
        assert notifications == list(range(0, len(sizes), 5))


async def test_requests_are_logged_at_debug_level_only(service, carrier, caplog):
    async with running(service, carrier) as peer:
        with caplog.at_level(logging.INFO, "msl_network_trio"):
            caplog.clear()
            await peer.call("at_once", 1)
            assert not caplog.records
        with caplog.at_level(logging.DEBUG, "msl_network_trio"):
            await peer.call("at_once", 1)
            assert "requested 'at_once'" in caplog.text


async def test_refusals_are_logged(service, carrier, caplog):
    async with running(service, carrier) as peer:
        await peer.fail("_private")
    assert "_private" in caplog.text
    assert CLIENT in caplog.text


@pytest.mark.parametrize("method", ["fail", "async_fail", "nope"])
async def test_failures_are_logged(service, carrier, caplog, method):
    async with running(service, carrier) as peer:
        await peer.fail(method, "bad")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert CLIENT in record.getMessage()
    assert method in record.getMessage()
