"""Token buckets: bursts, and a rate in the long run."""

from __future__ import annotations

from msl_network_trio.limits.token_bucket import TokenBucket


def test_a_bucket_is_refilled_as_time_goes_by_and_to_no_more_than_at_first():
    bucket = TokenBucket(3, 2, 100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(100.6) for _ in range(2)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]
