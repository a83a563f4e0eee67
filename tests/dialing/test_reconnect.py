"""The policy of reconnection: delays, and the errors after which there are no more tries."""

from __future__ import annotations

import pytest

from msl_network_trio.dialing.reconnect import Reconnect, as_reconnect, delay, is_final, retry_after
from msl_network_trio.exceptions import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HandshakeError,
)


def largest(low: float, high: float) -> float:
    return high


def smallest(low: float, high: float) -> float:
    return low


def with_status(status: int | None) -> ConnectError:
    """Return the error of a refused WebSocket, as a dialer wraps it."""
    refusal = ConnectError(f"The server answered with HTTP status {status}")
    refusal.http_status = status
    error = ConnectError("Cannot connect")
    error.__cause__ = refusal
    return error


def asking(error: Exception, seconds: object) -> Exception:
    error.retry_after = seconds  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("elapsed", "longest"), [(0, 0.1), (0.1, 0.1), (0.5, 0.25), (4, 2), (20, 10), (1000, 10)]
)
def test_the_delay_is_random_up_to_half_of_the_elapsed_time_within_limits(elapsed, longest):
    assert delay(Reconnect(), elapsed, draw=largest) == pytest.approx(longest)
    assert delay(Reconnect(), elapsed, draw=smallest) == 0


def test_both_limits_of_the_delay_can_be_set():
    policy = Reconnect(first_delay=1, longest_delay=3)
    assert [delay(policy, elapsed, draw=largest) for elapsed in (0, 4, 60)] == [1, 2, 3]


def test_a_delay_that_the_manager_asks_for_is_the_least_one_and_is_spread():
    error = asking(AuthenticationError("full"), 7)
    assert delay(Reconnect(), 0, error, draw=smallest) == 7
    assert delay(Reconnect(), 0, error, draw=largest) == 10.5
    assert delay(Reconnect(), 100, asking(AuthenticationError("full"), 0), draw=largest) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ConnectError("refused"), None),
        (asking(ConnectionLost("gone"), 2), 2.0),
        (asking(AuthenticationError("full"), 1e9), 3600.0),
        (asking(AuthenticationError("full"), -1), None),
        (asking(AuthenticationError("full"), "soon"), None),
        (
            AuthenticationError(
                "ValueError: Too many logins from h have failed, the next one may begin in 9 s"
            ),
            9.0,
        ),
        (AuthenticationError("ValueError: Too many logins"), None),
    ],
)
def test_the_seconds_to_wait_come_from_the_error_or_its_text(error, seconds):
    assert retry_after(error) == seconds


def test_the_seconds_to_wait_are_found_in_the_cause():
    error = ConnectError("lost in the handshake")
    error.__cause__ = asking(ConnectionLost("gone"), 3)
    assert retry_after(error) == 3


AGAIN = [
    ConnectError("refused"),
    ConnectTimeout("late"),
    ConnectionRefusedError("by a transport of the user"),
    AuthenticationError("ValueError: Too many logins from h have failed, the next one may begin in 9 s"),
    AuthenticationError(
        "ValueError: 9 peers are connected, as many as this Manager allows (max_connections)"
    ),
    AuthenticationError("ConnectionAbortedError: the Manager is shutting down"),
    AuthenticationError("TimeoutError: no answer"),
    AuthenticationError("KeyError: \"the '{args:[nobody' Service is not connected to Manager[vm:1875]\""),
    AuthenticationError("RuntimeError: the Manager could not check it"),
    AuthenticationError("BufferError: full"),
    asking(AuthenticationError("anything"), 1),
    with_status(None),
    *map(with_status, (429, 500, 502, 503, 504)),
]

FINAL = [
    AuthenticationError("ValueError: Wrong login password"),
    AuthenticationError("ValueError: Unregistered user"),
    AuthenticationError("ValueError: the host is not trusted"),
    AuthenticationError("a username is asked for, and there is no terminal to ask"),
    CertificateError("another one"),
    ConnectionLost("the Manager of a transport= function has ended"),
    TypeError("in a prompt"),
    *map(with_status, (301, 401, 403, 404)),
]

FINAL_AT_FIRST = [
    HandshakeError("is it a Manager?"),
    AuthenticationError("KeyError: 'name'"),
    AuthenticationError("TypeError: Unknown connection type 'servic'"),
    with_status(400),  # the request was cut in the network, for example
    AuthenticationError("NameError: A 'x' service is already running on the Manager"),
    AuthenticationError("ValueError: A peer with the name 'x' is already connected"),
    ConnectError("closed the connection: NameError: A 'x' service is already running on the Manager"),
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("error", AGAIN, ids=str)
def test_errors_that_may_pass(error, first):
    assert not is_final(error, first=first)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("error", FINAL, ids=str)
def test_errors_that_do_not_pass(error, first):
    assert is_final(error, first=first)


@pytest.mark.parametrize("error", FINAL_AT_FIRST, ids=str)
def test_errors_that_may_pass_only_once_there_was_a_connection(error):
    assert is_final(error, first=True)
    assert not is_final(error, first=False)


def test_the_argument_is_a_flag_or_a_policy():
    policy = Reconnect(longest_delay=1)
    assert as_reconnect("reconnect", policy) is policy
    assert as_reconnect("reconnect", True) == Reconnect()
    assert as_reconnect("reconnect", False) is None
    assert as_reconnect("reconnect", None) is None
    with pytest.raises(TypeError, match="reconnect must be True, False or a Reconnect, not 'yes'"):
        as_reconnect("reconnect", "yes")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"first_delay": 0}, ValueError, "first_delay must be more than 0 seconds"),
        ({"first_delay": "1"}, TypeError, "first_delay must be a number of seconds"),
        ({"longest_delay": 0.01}, ValueError, "must not be more than longest_delay"),
        ({"give_up_after": -1}, ValueError, "give_up_after must be a number of seconds from 0"),
        ({"while_away": "queue"}, ValueError, "while_away must be 'wait' or 'raise', not 'queue'"),
        ({"on_change": 1}, TypeError, "on_change must be a function or None, not 1"),
    ],
)
def test_arguments_of_the_policy_are_checked(arguments, error, text):
    with pytest.raises(error, match=text):
        Reconnect(**arguments)
