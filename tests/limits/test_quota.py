"""The quota evicts the largest holder of the busiest host."""

from __future__ import annotations

import pytest

from msl_network_trio.limits.quota import Quota


def make_quota(most: int | None) -> tuple[Quota[str], list[str]]:
    """Return a quota whose holders are named ``host/name``, and the list of those that it evicts."""
    evicted: list[str] = []
    return Quota(most, lambda holder: holder.split("/")[0], evicted.append), evicted


def test_the_largest_holder_of_the_busiest_host_is_evicted():
    quota, evicted = make_quota(1000)
    for holder, size in (("10.0.0.1/a", 400), ("10.0.0.2/b", 300), ("10.0.0.2/c", 290)):
        quota.update(holder, size)
    assert (evicted, quota.size) == ([], 990)
    quota.update("10.0.0.3/d", 11)
    assert (evicted, quota.size) == (["10.0.0.2/b"], 701)


def test_holders_are_evicted_until_the_limit_holds():
    quota, evicted = make_quota(1000)
    for number in range(10):
        quota.update(f"2001:db8::{number}/x", 100)
    quota.update("10.0.0.1/a", 250)
    assert len(evicted) == 3
    assert quota.size == 950


def test_a_single_holder_above_the_limit_is_evicted():
    quota, evicted = make_quota(1000)
    quota.update("10.0.0.1/a", 1001)
    assert (evicted, quota.size) == (["10.0.0.1/a"], 0)


@pytest.mark.parametrize(
    "release", [lambda quota: quota.release("h/a"), lambda quota: quota.update("h/a", 0)]
)
def test_released_bytes_do_not_count(release):
    quota, evicted = make_quota(1000)
    for _ in range(10):
        quota.update("h/a", 500)
        quota.update("h/a", 900)
        release(quota)
        release(quota)
        assert (quota.size, quota._sizes) == (0, {})
    assert evicted == []


def test_without_a_limit_no_holder_is_evicted():
    quota, evicted = make_quota(None)
    quota.update("h/a", 10**12)
    assert evicted == []
