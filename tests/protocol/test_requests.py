"""Requests: their phases and their outcomes."""

from __future__ import annotations

import pytest

from msl_network_trio.exceptions import ReplyTimeout
from msl_network_trio.protocol.requests import SETTLED, WRITTEN, Request


def test_a_request_shows_where_it_is():
    request = Request("Echo", "add", "1", b"{}")
    assert repr(request) == "<Request Echo.add not written>"
    assert not request.may_have_run
    request.phase, request.sequence = WRITTEN, 1
    assert repr(request) == "<Request Echo.add written>"
    assert request.may_have_run
    request.phase = SETTLED
    assert repr(request) == "<Request Echo.add settled>"
    request.wake()  # of the base class: nobody waits


def test_a_request_that_is_settled_has_a_result_or_raises_its_error_once():
    request = Request("Echo", "add", "1", b"{}")
    request.result = 3
    assert request.outcome() == 3
    failed = Request("Echo", "add", "2", b"{}")
    failed.error = error = ReplyTimeout(
        "too late", service="Echo", attribute="add", seconds=1, may_have_run=True
    )
    with pytest.raises(ReplyTimeout) as raised:
        failed.outcome()
    assert raised.value is error
    assert failed.error is None  # else the two would keep each other
