"""Tests of the schedule of faults."""

from __future__ import annotations

import pytest

from tests.chaos.schedule import CONTENT, HANDSHAKE_BYTES, HANDSHAKE_UNITS, DirectionSchedule, Schedule


def faults(seed: int, number: int):
    return [[each.next() for _ in range(20)] for each in Schedule(seed).connection(number)]


def test_the_same_seed_gives_the_same_faults():
    assert faults(1, 1) == faults(1, 1)
    assert faults(1, 1) != faults(2, 1)
    assert faults(1, 1) != faults(1, 2)
    assert faults(1, 1)[0] != faults(1, 1)[1]
    first, second = Schedule(1).processes(), Schedule(1).processes()
    assert first.random() == second.random()


@pytest.mark.parametrize(("by_line", "start"), [(True, HANDSHAKE_UNITS), (False, HANDSHAKE_BYTES)])
def test_no_content_changes_in_the_handshake(by_line, start):
    for number in range(50):
        schedule = DirectionSchedule(Schedule(number).processes(), by_line, 1.0 if by_line else 100.0)
        passed = 0
        for _ in range(20):
            fault = schedule.next()
            passed += fault.after
            assert fault.after >= 1
            assert fault.kind not in CONTENT or passed > start
