"""Tests of the cases of `tests.failures` with our client only."""

from __future__ import annotations

import pytest
import trio

from tests.failures import CASES, USER, Notes, Scene, arguments_of
from tests.interop.reference import Manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("name", CASES)
async def test_what_goes_wrong_is_told_and_ends_nothing_else(start, name: str):
    manager: Manager = start(users=(USER,), host="localhost")
    service = manager.start_service()
    notes = Notes()
    with trio.fail_after(PATIENCE):
        await CASES[name].ours(Scene(arguments_of(manager), service.kill, notes))
    assert notes.outcomes
    assert None not in notes.outcomes.values()  # no step is left open
