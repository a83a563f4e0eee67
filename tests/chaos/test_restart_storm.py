"""A small restart storm: nobody with correct credentials is refused, and all come back."""

from __future__ import annotations

import pytest
import trio

from tests.chaos.restart_storm import Storm

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.mark.parametrize("tls", [False, True])
def test_all_come_back_and_none_is_refused(tmp_path, tls):
    # Several times as many as logins that may fail, and all users are one.
    storm = Storm(tmp_path, clients=60, services=15, tls=tls, login=True)
    figures = trio.run(storm.run, 2, 0.3)
    assert len(figures) == 2
    assert [each.rejected for each in figures] == [[], []]
