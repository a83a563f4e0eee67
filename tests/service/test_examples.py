"""The example Services, without a network."""

from __future__ import annotations

import pytest
import trio

from msl_network_trio.examples.basic_math import BasicMath
from msl_network_trio.examples.echo import Echo
from msl_network_trio.examples.heartbeat import Heartbeat
from msl_network_trio.examples.my_array import MyArray

from .peer import running


async def test_echo():
    async with running(Echo()) as peer:
        assert peer.received[0]["result"]["name"] == "Echo"
        assert await peer.call("echo", 1, "a", x=[None]) == [[1, "a"], {"x": [None]}]


@pytest.mark.parametrize(
    ("attribute", "args", "result"),
    [
        ("euler", (), 2.718281828459045),
        ("pi", (), 3.141592653589793),
        ("add", (1, 2), 3),
        ("subtract", (1, 2), -1),
        ("multiply", (2, 3), 6),
        ("divide", (1, 2), 0.5),
        ("ensure_positive", (1,), True),
        ("power", (3,), 9),
        ("power", (2, 3), 8),
    ],
)
async def test_basic_math(attribute, args, result):
    async with running(BasicMath(pace=0)) as peer:
        assert await peer.call(attribute, *args) == result


async def test_basic_math_fails_as_it_should():
    async with running(BasicMath(pace=0)) as peer:
        assert (await peer.fail("ensure_positive", -1))["message"] == "ValueError: The value is < 0"
        assert (await peer.fail("divide", 1, 0))["message"].startswith("ZeroDivisionError")


def test_basic_math_takes_its_time(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    math = BasicMath(pace=0.5)
    for name in ("add", "subtract", "multiply", "divide", "power"):
        getattr(math, name)(1, 2)
    math.ensure_positive(1)
    assert slept == [0.5, 1.0, 1.5, 2.0, 3.0, 2.5]
    assert BasicMath()._pace == 1.0


async def test_my_array():
    async with running(MyArray()) as peer:
        assert await peer.call("linspace", 0, 1, 3) == [0, 0.5, 1]
        assert len(await peer.call("linspace", -1, 1)) == 100
        assert await peer.call("scalar_multiply", 2, [1, 2.5]) == [2, 5]
        assert "2 or more" in (await peer.fail("linspace", 0, 1, 1))["message"]


async def test_heartbeat(autojump_clock):
    async with running(Heartbeat()) as peer:
        assert [(await peer.answer())["result"] for _ in range(3)] == [[[number], {}] for number in range(3)]
        assert trio.current_time() == 2
        await peer.call("set_heart_rate", 10)
        await peer.call("reset")
        began = trio.current_time()
        assert [(await peer.answer())["result"][0] for _ in range(3)] == [[0], [1], [2]]
        assert trio.current_time() - began == pytest.approx(1 - began % 1 + 0.2, abs=1e-3)
        await peer.call("kill")
        await trio.sleep(5)
        assert "more than 0" in (await peer.fail("set_heart_rate", 0))["message"]


async def test_a_heart_beats_again_in_another_run(autojump_clock):
    service = Heartbeat()
    for _ in range(2):
        async with running(service) as peer:
            assert (await peer.answer())["uid"] == "notification"
            await peer.call("kill")


def test_the_signatures_read_well():
    attributes = BasicMath().identity()["attributes"]
    assert attributes["add"] == "(x: float, y: float) -> float"
    assert MyArray().identity()["attributes"]["linspace"] == (
        "(start: float, stop: float, n: int = 100) -> list[float]"
    )
    assert "add_tasks" not in attributes
