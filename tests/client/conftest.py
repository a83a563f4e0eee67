"""Fixtures of the client: tests run over a connection in memory, and over WebSocket where that may differ."""

import pytest

from tests.client.peer import network

__all__ = ["network"]

_ALSO_BY_WEBSOCKET = {"test_requests", "test_notifications", "test_locks", "test_awaitable_context"}
"""Modules that run over WebSocket, too. Others test signatures and arguments, or faults in the bytes of TCP."""

_OF_BYTES = {
    # depends on how much of a line the kernel accepts
    "test_a_caller_cancelled_before_its_line_is_begun_is_not_written",
    "test_a_large_request_is_not_overtaken_for_ever_by_small_ones",
    "test_waiting_for_room_raises_when_the_connection_is_lost",
    # half a line is not a WebSocket message
    "test_half_a_line_and_the_end_is_a_lost_connection_that_says_so",
    "test_a_line_without_end_is_bounded_by_the_read_limit",
    # data sent immediately before a close
    "test_a_closed_nursery_leaves_nothing_open",
    # the message of the operating system
    "test_handles_fail_when_the_connection_is_lost",
}
"""Tests whose result differs over WebSocket; tests/transport covers these."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these modules over both transports."""
    if "carrier" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        both = name in _ALSO_BY_WEBSOCKET and metafunc.function.__name__ not in _OF_BYTES
        metafunc.parametrize("carrier", ["tcp", "websocket"] if both else ["tcp"])
