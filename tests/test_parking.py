"""Tests of `msl_network_trio.parking`: parked tasks are resumed, with a reusable outcome."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import outcome
import trio
import trio.testing

from msl_network_trio.parking import RESUME


async def test_a_parked_task_goes_on_as_often_as_it_is_told_to(nursery: trio.Nursery):
    values: list[object] = []

    async def park() -> None:
        for _ in range(3):
            values.append(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED))

    nursery.start_soon(park)
    for count in range(1, 4):
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        trio.lowlevel.reschedule(task, RESUME)
        await trio.testing.wait_all_tasks_blocked()
        assert values == [None] * count


async def test_it_is_an_outcome_like_any_other():
    assert isinstance(RESUME, outcome.Outcome)
    received: list[object] = []

    def generator() -> Generator[str, None, None]:
        received.append((yield "first"))
        yield "second"

    async def async_generator() -> AsyncGenerator[str, None]:
        received.append((yield "first"))
        yield "second"

    sync = generator()
    assert next(sync) == "first"
    assert RESUME.send(sync) == "second"
    asynchronous = async_generator()
    assert await anext(asynchronous) == "first"
    assert await RESUME.asend(asynchronous) == "second"
    await asynchronous.aclose()
    assert received == [None, None]
