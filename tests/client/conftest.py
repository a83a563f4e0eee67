"""The tests of the client run over a connection in memory, and, where that can make a difference, over WebSocket."""

import pytest

from tests.client.peer import network

__all__ = ["network"]

_ALSO_BY_WEBSOCKET = {"test_requests", "test_notifications", "test_locks", "test_awaitable_context"}
"""The others are about signatures and arguments, or put faults into the bytes of TCP."""

_OF_BYTES = {
    # how much the kernel takes of a line before its caller is cancelled, or has to wait
    "test_a_caller_cancelled_before_its_line_is_begun_is_not_written",
    "test_a_large_request_is_not_overtaken_for_ever_by_small_ones",
    "test_who_waits_for_room_is_told_when_the_connection_is_lost",
    # half a line is no message
    "test_half_a_line_and_the_end_is_a_lost_connection_that_says_so",
    "test_a_line_without_end_is_bounded_by_the_read_limit",
    # what is said last before a connection is closed at once
    "test_a_closed_nursery_leaves_nothing_open",
    # the words of the operating system
    "test_handles_fail_when_the_connection_is_lost",
}
"""What is not so, or said otherwise, by WebSocket; tests/transport has what is."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these modules over both."""
    if "carrier" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        both = name in _ALSO_BY_WEBSOCKET and metafunc.function.__name__ not in _OF_BYTES
        metafunc.parametrize("carrier", ["tcp", "websocket"] if both else ["tcp"])
