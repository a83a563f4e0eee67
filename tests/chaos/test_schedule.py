"""Tests of the schedule of faults."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.chaos.schedule import CONTENT, HANDSHAKE_BYTES, HANDSHAKE_UNITS, DirectionSchedule, Schedule
from tests.chaos.world import World


def faults(seed: int, number: int):
    return [[each.next() for _ in range(20)] for each in Schedule(seed).connection(number)]


def test_the_same_seed_gives_the_same_faults():
    assert faults(1, 1) == faults(1, 1)
    assert faults(1, 1) != faults(2, 1)
    assert faults(1, 1) != faults(1, 2)
    assert faults(1, 1)[0] != faults(1, 1)[1]
    first, second = Schedule(1).processes, Schedule(1).processes
    assert first.random() == second.random()


async def test_each_storm_has_faults_of_its_own(autojump_clock):
    faults: list[tuple[str, float]] = []

    async def stop(name: str, seconds: float) -> None:
        faults.append((f"stop {name}", seconds))

    world: Any = SimpleNamespace(
        names=("Alpha", "Beta"),
        schedule=Schedule(1),
        kill_manager=partial(stop, "Manager"),
        stop_manager=partial(stop, "Manager"),
        kill_service=lambda name: faults.append((f"kill {name}", 0.0)),
        stop_service=stop,
        counts=Counter(),
        proxy=SimpleNamespace(reset_all=lambda: None),
    )
    storms = []
    for _ in range(2):
        with trio.move_on_after(100):
            await World.harass_processes(world)
        storms.append(list(faults))
        faults.clear()
    assert len(storms[0]) > 10
    assert storms[0] != storms[1]


@pytest.mark.parametrize(("by_line", "start"), [(True, HANDSHAKE_UNITS), (False, HANDSHAKE_BYTES)])
def test_no_content_changes_in_the_handshake(by_line, start):
    for number in range(50):
        schedule = DirectionSchedule(Schedule(number).processes, by_line, 1.0 if by_line else 100.0)
        passed = 0
        for _ in range(20):
            fault = schedule.next()
            passed += fault.after
            assert fault.after >= 1
            assert fault.kind not in CONTENT or passed > start
