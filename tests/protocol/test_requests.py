"""Requests: their lines, their phases and their outcomes."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.exceptions import ConnectionLost, ReplyTimeout
from msl_network_trio.protocol.requests import (
    ABANDONED,
    MADE,
    QUEUED,
    SETTLED,
    WRITTEN,
    Phase,
    Request,
    RequestFactory,
    encode_request,
)
from tests.protocol.json_values import same, standard, values
from tests.protocol.test_client import Peer, refusal, reply


def test_the_repr_of_a_request_shows_its_state():
    request = Request("Echo", "add", "1", b"{}")
    assert repr(request) == "<Request Echo.add not written>"
    assert not request.may_have_run
    request.phase, request.sequence = WRITTEN, 1
    assert repr(request) == "<Request Echo.add written>"
    assert request.may_have_run
    request.phase = SETTLED
    assert repr(request) == "<Request Echo.add settled>"
    request.wake()  # of the base class: it does nothing


def test_a_settled_request_has_a_result_or_raises_its_error_once():
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
    assert failed.error is None  # else the two would form a reference cycle


@pytest.fixture
def peer() -> Peer:
    return Peer()


def made(peer: Peer) -> Request:
    return peer.protocol.make(Request, "Echo", "add", (1,), None)


def queued(peer: Peer) -> Request:
    return peer.request("Echo", "add", 1)


def written(peer: Peer) -> Request:
    return peer.sent("Echo", "add", 1)


def abandoned(peer: Peer) -> Request:
    request = peer.sent("Manager", "port", admin=True)
    peer.protocol.abandon(request)
    return request


def settled(peer: Peer) -> Request:
    request = written(peer)
    peer.receive(reply(request.uid, 3))
    return request


STARTS = {MADE: made, QUEUED: queued, WRITTEN: written, SETTLED: settled, ABANDONED: abandoned}


def add(peer: Peer, request: Request) -> None:
    peer.protocol.request(request)


def take(peer: Peer, request: Request) -> None:
    peer.protocol.take()


def mark_written(peer: Peer, request: Request) -> None:
    outbox = peer.protocol.outbox
    outbox.mark_written([request], outbox.last_sequence)


def answer(peer: Peer, request: Request) -> None:
    peer.receive(reply("" if request.admin else request.uid, 3))


def refuse(peer: Peer, request: Request) -> None:
    peer.receive(refusal("Echo"))


def lose(peer: Peer, request: Request) -> None:
    peer.protocol.connection_lost(ConnectionLost("gone"))


def fail(peer: Peer, request: Request) -> None:
    request.fail(ConnectionLost("gone"))


def abandon(peer: Peer, request: Request) -> None:
    peer.protocol.abandon(request)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (MADE, add, QUEUED),
        (MADE, take, MADE),
        (MADE, mark_written, WRITTEN),
        (MADE, fail, SETTLED),
        (MADE, abandon, ABANDONED),
        (QUEUED, take, WRITTEN),
        (QUEUED, answer, QUEUED),
        (QUEUED, refuse, QUEUED),
        (QUEUED, lose, SETTLED),
        (QUEUED, abandon, ABANDONED),
        (WRITTEN, take, WRITTEN),
        (WRITTEN, answer, SETTLED),
        (WRITTEN, refuse, SETTLED),
        (WRITTEN, lose, SETTLED),
        (WRITTEN, abandon, ABANDONED),
        (SETTLED, mark_written, SETTLED),
        (SETTLED, answer, SETTLED),
        (SETTLED, lose, SETTLED),
        (SETTLED, abandon, SETTLED),
        (ABANDONED, answer, SETTLED),
        (ABANDONED, lose, SETTLED),
        (ABANDONED, fail, SETTLED),
        (ABANDONED, abandon, ABANDONED),
    ],
)
def test_the_phases_of_a_request_follow_the_table(peer, before, event, after):
    request = STARTS[before](peer)
    assert request.phase is before
    event(peer, request)
    assert request.phase is after
    assert (request.settled, request.abandoned) == (after is SETTLED, after is ABANDONED)
    assert request.may_have_run == (request.sequence > 0)


def test_the_table_of_phases_is_that_of_the_docstring():
    rows = re.findall(r"^ *([A-Z, ]+?)  +([A-Z]+)  ", Phase.__doc__, re.MULTILINE)
    documented = {(Phase[old], Phase[new]) for olds, new in rows for old in olds.split(", ")}
    [table] = [
        mark.args[1]
        for mark in test_the_phases_of_a_request_follow_the_table.pytestmark
        if mark.name == "parametrize"
    ]
    assert {(before, after) for before, _, after in table if before is not after} == documented


def test_a_request_that_is_abandoned_while_a_thread_sends_it_counts_as_written(peer):
    request = made(peer)
    abandon(peer, request)
    mark_written(peer, request)
    assert request.phase is ABANDONED
    assert request.may_have_run
    answer(peer, request)
    assert request.phase is SETTLED


def test_a_renewed_request_has_the_line_of_the_first_with_a_uid_of_its_own():
    factory = RequestFactory()
    first = factory.make(Request, "Echo", "add", ("é",), {"y": [2]})
    for _ in range(3_000):  # more than the uids that are made at a time
        renewed = factory.renewed(Request, first, first.data)
        assert (renewed.service, renewed.attribute) == ("Echo", "add")
        assert renewed.uid != first.uid
        assert renewed.data.endswith(b"}\n")
        assert json.loads(renewed.data) == {**json.loads(first.data), "uid": renewed.uid}


# ---- lines ----


def test_a_request_has_all_six_fields_and_ends_with_a_line_end():
    line = encode_request("Echo", "add", (1, 2), {"a": None}, "u1")
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "args": [1, 2],
        "attribute": "add",
        "error": False,
        "kwargs": {"a": None},
        "service": "Echo",
        "uid": "u1",
    }


@given(st.text(), st.text(), st.lists(values), st.dictionaries(st.text(), values))
@example("Echo", 'a"b\\%b', [math.nan, None], {"null": math.inf, "b": "null"})
@example("\u2028", "null", [2**64], {"": [None]})
def test_a_request_is_encoded_as_the_standard_library_would(service, attribute, args, kwargs):
    line = encode_request(service, attribute, args, kwargs, "u1")
    whole = {"args": args, "attribute": attribute, "error": False, "kwargs": kwargs}
    whole |= {"service": service, "uid": "u1"}
    assert same(json.loads(line), json.loads(standard(whole)))


@pytest.mark.parametrize("kwargs", [None, {}])
def test_a_request_without_keyword_arguments_has_an_empty_object(kwargs):
    assert json.loads(encode_request("Echo", "add", (), kwargs, "u1"))["kwargs"] == {}


@pytest.mark.parametrize("names", [("\ud800", "add"), ("Echo", "\ud800")])
def test_a_name_that_is_not_unicode_is_refused(names):
    with pytest.raises(ValueError, match="surrogates"):
        encode_request(*names, (), None, "u1")


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ((np.complex128(1j),), None, "argument 1 of 'set'"),
        ((1, None, [np.ma.masked]), {"x": 1}, "argument 3 of 'set'"),
        ((None,), {"x": 1, "y": {"z": np.ma.masked}}, "keyword argument 'y' of 'set'"),
    ],
)
def test_an_error_of_a_request_says_which_argument_it_is(args, kwargs, where):
    with pytest.raises(TypeError, match=f"its dtype is .* \\({where}\\)$"):
        encode_request("S", "set", args, kwargs, "u")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({1}, TypeError, "Object of type set is not JSON serializable"),
        ("\ud800", ValueError, "'utf-8' codec can't encode character "),
    ],
)
def test_other_errors_keep_their_text_to_its_end(value, kind, text):
    with pytest.raises(kind) as caught:
        encode_request("S", "set", (1, value), None, "u")
    assert re.fullmatch(f"{text}.*" if kind is ValueError else text, str(caught.value))
    assert not hasattr(caught.value, "__notes__")  # pytest would match it, too
