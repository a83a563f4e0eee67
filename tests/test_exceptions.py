"""Tests of the exceptions: their tree, and pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

import msl_network_trio
from msl_network_trio import exceptions as exc

ERRORS = [
    value for value in vars(exc).values() if isinstance(value, type) and issubclass(value, exc.NetworkError)
]


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (exc.ConnectError, [ConnectionError]),
        (exc.ConnectTimeout, [exc.ConnectError, TimeoutError]),
        (exc.CertificateError, [exc.ConnectError]),
        (exc.CertificateDeclined, [exc.CertificateError, ConnectionRefusedError]),
        (exc.AuthenticationError, [ValueError]),
        (exc.ConnectionLost, [ConnectionAbortedError, ConnectionError]),
        (exc.ReplyTimeout, [TimeoutError]),
        (exc.BacklogFull, [BufferError]),
        (exc.RemoteError, [RuntimeError]),
        (exc.ManagerError, [exc.RemoteError, RuntimeError]),
        (exc.ServiceLost, [RuntimeError]),
        (exc.LockLost, [RuntimeError]),
        (exc.LinkBroken, [AttributeError]),
        (exc.HandshakeError, [exc.ProtocolError, exc.ConnectError]),
        (exc.StreamCorrupted, [exc.ProtocolError, exc.ConnectionLost]),
    ],
)
def test_every_error_is_what_the_reference_raises(error, bases):
    assert issubclass(error, exc.NetworkError)
    for base in bases:
        assert issubclass(error, base)


def test_unanswered_is_the_base_of_all_errors_with_may_have_run_and_of_no_other():
    unanswered = {error for error in ERRORS if issubclass(error, exc.Unanswered)}
    assert unanswered == {
        exc.Unanswered,
        exc.ConnectionLost,
        exc.StreamCorrupted,
        exc.ServiceLost,
        exc.ReplyTimeout,
        exc.BacklogFull,
    }
    assert {error for error in ERRORS if hasattr(error("x"), "may_have_run")} == unanswered


def test_what_an_error_says_if_it_is_not_told_whether_the_request_may_have_run():
    assert [
        error("x").may_have_run
        for error in (exc.Unanswered, exc.ConnectionLost, exc.BacklogFull, exc.ServiceLost, exc.ReplyTimeout)
    ] == [False, False, False, True, True]


def test_every_error_is_exported():
    assert {error.__name__ for error in ERRORS} <= set(msl_network_trio.__all__)


@pytest.mark.parametrize("error_class", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize(
    "travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_every_error_travels_with_all_it_knows(error_class, travel):
    error = error_class("what happened")
    error.add_note("a note")
    for name in (
        "may_have_run",
        "service",
        "attribute",
        "seconds",
        "type_name",
        "traceback_lines",
        "retry_after",
    ):
        if hasattr(error, name):
            setattr(error, name, f"some {name}")
    arrived = travel(error)
    assert type(arrived) is error_class
    assert str(arrived) == "what happened"
    assert arrived.__dict__ == error.__dict__


def test_a_remote_error_from_an_answer_travels():
    error = exc.ManagerError.from_answer(
        "PermissionError: 'Echo' service is locked",
        traceback_lines=("one", "two"),
        manager="h:1",
        service="Manager",
        attribute="link",
    )
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is exc.ManagerError
    assert str(arrived) == str(error)
    assert (arrived.type_name, arrived.traceback_lines) == ("PermissionError", ("one", "two"))
