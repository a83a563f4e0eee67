"""How much many hold together, and who goes if it is too much."""

from __future__ import annotations

import pytest

from msl_network_trio.limits.quota import Quota


def holdings(most: int | None) -> tuple[Quota[str], list[str]]:
    """Return what holders are counted in whose names begin with their hosts, and the list of those who go."""
    gone: list[str] = []
    return Quota(most, lambda holder: holder.split("/")[0], gone.append), gone


def test_of_the_host_that_holds_most_who_holds_most_goes():
    held, gone = holdings(1000)
    for holder, size in (("10.0.0.1/a", 400), ("10.0.0.2/b", 300), ("10.0.0.2/c", 290)):
        held.update(holder, size)
    assert (gone, held.size) == ([], 990)
    held.update("10.0.0.3/d", 11)
    assert (gone, held.size) == (["10.0.0.2/b"], 701)


def test_as_many_go_as_is_needed():
    held, gone = holdings(1000)
    for number in range(10):
        held.update(f"2001:db8::{number}/x", 100)
    held.update("10.0.0.1/a", 250)
    assert len(gone) == 3
    assert held.size == 950


def test_who_holds_too_much_goes_also_alone():
    held, gone = holdings(1000)
    held.update("10.0.0.1/a", 1001)
    assert (gone, held.size) == (["10.0.0.1/a"], 0)


@pytest.mark.parametrize("let_go", [lambda held: held.release("h/a"), lambda held: held.update("h/a", 0)])
def test_what_is_held_no_more_does_not_count(let_go):
    held, gone = holdings(1000)
    for _ in range(10):
        held.update("h/a", 500)
        held.update("h/a", 900)
        let_go(held)
        let_go(held)
        assert (held.size, held._sizes) == (0, {})
    assert gone == []


def test_without_a_limit_nobody_goes():
    held, gone = holdings(None)
    held.update("h/a", 10**12)
    assert gone == []
