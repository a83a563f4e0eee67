"""The rules of a Service's side of the protocol, one by one, without a network."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio import exceptions as exc
from msl_network_trio.protocol import service_lines as module
from msl_network_trio.protocol.handshake import HANDSHAKE_LINE_LIMIT
from msl_network_trio.protocol.incoming_requests import IncomingRequest
from msl_network_trio.protocol.messages import Connected, Question
from msl_network_trio.protocol.service import Refused, ServiceProtocol
from msl_network_trio.protocol.service_lines import (
    LARGE,
    encode_error,
    encode_notification,
    encode_result,
    notification_end,
    traceback_lines,
)
from tests.protocol.lines import MANAGER, ask, line

IDENTITY = {"type": "service", "name": "S", "attributes": {"add": "(x, y)"}, "max_clients": -1}
US = "S[vm:50123]"
CLIENT = "C[vm:50124]"


def request(attribute: object = "add", *args: object, **more: object) -> bytes:
    fields = {"args": args, "attribute": attribute, "error": False, "kwargs": {}, "service": "S", "uid": "1"}
    return line(**{**fields, "requester": CLIENT, **more})


class Peer:
    """A protocol that is registered, and what it wrote."""

    def __init__(self, *, read_limit: int | None = None, connected: bool = True) -> None:
        self.protocol = ServiceProtocol(IDENTITY, "localhost:1875", read_limit)
        if connected:
            self.receive(ask("identity"))
            _, barrier = self.written()
            self.receive(line(error=False, requester=US, result=True, uid=barrier["uid"]))

    def receive(self, *data: bytes) -> list[Any]:
        return list(self.protocol.receive(b"".join(data)))

    def written(self) -> list[dict[str, Any]]:
        data = self.protocol.take()
        assert not data or data.endswith(b"}\n")
        return [json.loads(text) for text in data.splitlines()]


@pytest.fixture
def peer() -> Peer:
    return Peer()


def joined(answer: bytes | tuple[bytes, ...]) -> bytes:
    return answer if isinstance(answer, bytes) else b"".join(answer)


def decoded(answer: bytes | tuple[bytes, ...]) -> dict[str, Any]:
    data = joined(answer)
    assert data.endswith(b"}\r\n")
    assert data.count(b"\n") == 1
    return json.loads(data)


# ---- handshake ----


def test_behind_the_identity_goes_a_request_that_tells_whether_it_was_accepted():
    peer = Peer(connected=False)
    assert peer.protocol.awaits == "the Manager asked for our identity"
    assert peer.receive(ask("identity")) == []
    identity, barrier = peer.written()
    assert identity == {"error": False, "requester": None, "result": IDENTITY, "uid": ""}
    assert barrier.keys() == {"args", "attribute", "error", "kwargs", "service", "uid"}
    assert (barrier["service"], barrier["attribute"], barrier["kwargs"]) == ("Manager", "unlink", {})
    assert barrier["uid"] in barrier["args"][0]
    assert not peer.protocol.is_connected
    assert peer.protocol.awaits == "the Manager accepted our identity"
    assert peer.receive(line(error=False, requester=US, result=True, uid=barrier["uid"])) == [
        Connected(MANAGER)
    ]
    assert peer.protocol.is_connected
    assert peer.protocol.network_name == US
    assert peer.written() == []


def test_a_request_may_come_before_the_answer():
    peer = Peer(connected=False)
    peer.receive(ask("identity"))
    _, barrier = peer.written()
    call, connected = peer.receive(
        request(), line(error=False, requester=US, result=True, uid=barrier["uid"])
    )
    assert call.attribute == "add"
    assert connected == Connected(MANAGER)


def test_questions_are_answered_by_the_user():
    peer = Peer(connected=False)
    assert peer.receive(ask("password", MANAGER)) == [Question("password", MANAGER, True)]
    peer.protocol.answer("secret")
    assert peer.written() == [{"error": False, "requester": MANAGER, "result": "secret", "uid": ""}]


@pytest.mark.parametrize("when", ["before the identity", "after the identity"])
def test_a_rejection_says_what_the_manager_says(when):
    peer = Peer(connected=False)
    if when == "after the identity":
        peer.receive(ask("identity"))
    text = "NameError: A 'S' service is already running on the Manager"
    rejection = line(error=True, message=text, requester=MANAGER, result=None, traceback=[], uid="")
    assert peer.receive(rejection, request()) == []
    assert isinstance(peer.protocol.broken, exc.AuthenticationError)
    assert str(peer.protocol.broken) == text
    assert peer.receive(request()) == []


@pytest.mark.parametrize(("again", "seconds"), [({"again": 1.5}, 1.5), ({"again": "soon"}, None), ({}, None)])
@pytest.mark.parametrize("when", ["before the identity", "after the identity", "connected"])
def test_an_error_of_the_manager_may_contain_the_seconds_after_which_to_try_again(when, again, seconds):
    peer = Peer(connected=when == "connected")
    if when == "after the identity":
        peer.receive(ask("identity"))
    text = f"ConnectionAbortedError: {MANAGER} is shutting down"
    peer.receive(line(error=True, message=text, requester=MANAGER, result=None, uid="", **again))
    ended = peer.protocol.broken or peer.protocol.receive_eof()
    assert isinstance(ended, exc.ConnectionLost if when == "connected" else exc.AuthenticationError)
    assert ended.retry_after == seconds
    assert text in str(ended)


def test_the_answer_to_a_ping_is_no_event(peer):
    ping = json.loads(peer.protocol.ping())
    assert (ping["service"], ping["attribute"]) == ("Manager", "unlink")
    assert peer.receive(line(error=False, requester="X[vm:1]", result=False, uid=ping["uid"])) == []
    assert peer.protocol.network_name == US


def test_a_rejection_without_words_has_some():
    peer = Peer(connected=False)
    peer.receive(ask("identity"))
    peer.receive(line(error=True, requester=MANAGER, result=None, uid=""))
    assert "refused" in str(peer.protocol.broken)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH\r\n", request(), b"[]\n"])
def test_who_does_not_speak_as_a_manager_is_none(data):
    peer = Peer(connected=False)
    assert peer.receive(b"\r\n", data) == []
    assert isinstance(peer.protocol.broken, exc.HandshakeError)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"])
def test_a_long_line_ends_the_handshake(end):
    peer = Peer(connected=False)
    peer.receive(b"x" * (HANDSHAKE_LINE_LIMIT + 1) + end)
    assert isinstance(peer.protocol.broken, exc.HandshakeError)


@pytest.mark.parametrize("limit", [100, None])
def test_the_read_limit_counts_after_the_handshake(limit):
    peer = Peer(connected=False, read_limit=limit)
    peer.receive(b"x" * 150)
    assert (peer.protocol.broken is None) == (limit is None)


def refused(events: list[Any], uid: str, text: str) -> None:
    """See that there is one event, which tells the requester why its request is not carried out."""
    (event,) = events
    assert isinstance(event, Refused)
    answer = json.loads(event.answer)
    assert (answer["uid"], answer["requester"], answer["error"]) == (uid, CLIENT, True)
    assert text in answer["message"]


@pytest.mark.parametrize("size", [1, 7, 499, 5000], ids=lambda size: f"{size} bytes at a time")
def test_a_request_that_is_longer_than_the_read_limit_is_refused_and_the_next_one_is_not(size):
    peer = Peer(read_limit=500)
    assert len(peer.receive(request("add", "x" * 100))) == 1
    data = request(uid="a") + request("add", "x" * 500, [[2]], uid="b") + request(uid="c")
    events = [e for at in range(0, len(data), size) for e in peer.receive(data[at : at + size])]
    assert [bytes(event.uid) for event in events if isinstance(event, IncomingRequest)] == [b'"a"', b'"c"']
    refused([event for event in events if isinstance(event, Refused)], "b", "500 bytes, the read_limit")
    assert peer.protocol.broken is None


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 600,
        b'{"error":true,"message":"%b","requester":"M","uid":""}' % (b"x" * 600),
        b'{"attribute":"a","args":["%b"],"requester":"C","uid":["u"]}' % (b"x" * 600),
        b'{"attribute":"a","args":["%b"],"requester":"C","uid":"\\ud800"}' % (b"x" * 600),
        b'{"attribute":"%b","requester":"C","uid":"u"}' % (b"x" * 70_000),
    ],
    ids=["no JSON", "no request", "uid no text", "uid no Unicode", "all of it is long"],
)
def test_a_long_line_that_nobody_can_be_told_of_is_logged_and_skipped(data, caplog):
    peer = Peer(read_limit=500)
    (call,) = peer.receive(data, b"\r\n", request())
    assert isinstance(call, IncomingRequest)
    assert "a line of more than 500 bytes" in caplog.text
    assert peer.protocol.broken is None


DEEP = b"[" * 100_000 + b"]" * 100_000
UNDECODABLE = {
    "too deep": DEEP,
    "too deep after NaN": b"[NaN," + DEEP + b"]",
    "too many digits": b"1" * 5000,
    "too many digits after NaN": b"[NaN," + b"1" * 5000 + b"]",
    "no UTF-8": b'"\xff"',
    "no UTF-8 after NaN": b'[NaN,"\xff"]',
    "half of a surrogate pair in UTF-8": b'"\xed\xa0\x80"',
}


@pytest.mark.parametrize("value", UNDECODABLE.values(), ids=UNDECODABLE)
@pytest.mark.parametrize(
    "form",
    [
        b'{"args":[%b],"attribute":"add","service":"S","uid":"b","requester":"%b"}\r\n',
        b'{"uid":"x","uid":"b","args":[{"uid":"x"},%b],"attribute":"add","requester":"x","requester":"%b"}\n',
        b'{"\\u0075id":"\\u0062","kwargs":{"uid":"x","y":%b},"attribute":"add","requester":"%b"}\n',
    ],
    ids=["usual", "fields twice", "escapes"],
)
def test_a_request_that_cannot_be_decoded_is_refused_under_its_own_uid(form, value):
    peer = Peer()
    first, second, third = peer.receive(request(uid="a"), form % (value, CLIENT.encode()), request(uid="c"))
    assert (bytes(first.uid), bytes(third.uid)) == (b'"a"', b'"c"')
    refused([second], "b", "cannot be decoded")


def test_a_request_that_cannot_be_decoded_and_has_the_uid_of_notifications_gets_no_answer(peer, caplog):
    form = b'{"args":[%b],"attribute":"add","uid":"notification","requester":"C"}\n'
    assert peer.receive(form % DEEP, form % UNDECODABLE["too many digits"]) == []
    assert caplog.text.count("without answer") == 2


def test_the_manager_has_the_name_that_it_gives_itself(peer):
    assert peer.protocol.manager_name == MANAGER


def test_a_uid_that_is_no_text_may_be_nan(peer):
    (event,) = peer.receive(b'{"args":5,"attribute":"add","uid":NaN,"requester":"C"}\n')
    assert isinstance(event, Refused)


def test_the_goodbye_has_all_fields_and_our_network_name(peer):
    goodbye = json.loads(peer.protocol.goodbye())
    assert goodbye.pop("uid")
    assert goodbye == {
        "args": [],
        "attribute": "__disconnect__",
        "error": False,
        "kwargs": {},
        "service": US,
    }


def test_the_end_of_the_stream(peer):
    assert isinstance(Peer(connected=False).protocol.receive_eof(), exc.ConnectError)
    assert isinstance(peer.protocol.receive_eof(), exc.ConnectionLost)


# ---- requests ----


def test_a_request_tells_what_is_wanted(peer):
    data = request("add", 1, 2.5, None, [1, {"a": "é"}], kwargs={"x": "\u2028"}, uid="u-1")
    (call,) = peer.receive(data)
    assert (call.attribute, call.args, call.kwargs) == (
        "add",
        [1, 2.5, None, [1, {"a": "é"}]],
        {"x": "\u2028"},
    )
    assert bytes(call.uid) == b'"u-1"'
    assert bytes(call.requester) == json.dumps(CLIENT).encode()
    assert call.size == len(data) - 1


@pytest.mark.parametrize("uid", ["1", "", "é\u2028", 'a"b\\c', 17, None, 1.5, 2**70, ["x"], {"a": None}])
def test_uid_and_requester_go_back_as_they_came(peer, uid):
    (call,) = peer.receive(request(uid=uid, requester=f"{CLIENT} {uid}"))
    answer = decoded(encode_result(call, 3))
    assert answer == {"error": False, "requester": f"{CLIENT} {uid}", "result": 3, "uid": uid}
    assert type(answer["uid"]) is type(uid)


def test_fields_may_be_missing(peer):
    (call,) = peer.receive(b'{"attribute": "add"}\n')
    assert (call.args, call.kwargs) == ([], {})
    assert decoded(encode_result(call, 1)) == {"error": False, "requester": None, "result": 1, "uid": ""}


def test_fields_of_other_names_do_not_count(peer):
    (call,) = peer.receive(request(more=1, **{" ": 10**9}))
    assert call.size < 1000
    (call,) = peer.receive(request(**{" ": "no number"}))
    assert call.size < 1000


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**200, -(2**200), 1e400, "\ud800", "\\", '"', 10**19]
)
def test_values_are_exact(peer, value):
    (call,) = peer.receive(request("add", value, kwargs={"x": [value]}))
    assert repr(call.args) == repr([value])
    assert repr(call.kwargs) == repr({"x": [value]})


def test_a_number_that_is_too_large_for_floats_is_infinite(peer):
    (call,) = peer.receive(request("add", "@").replace(b'"@"', b"1e400"))
    assert call.args == [math.inf]


def test_lines_are_split_and_joined_at_will(peer):
    data = request("a") + request("b") + request("c")
    calls = [call for byte in data for call in peer.receive(bytes([byte]))]
    assert [call.attribute for call in calls] == ["a", "b", "c"]


def test_the_arguments_can_be_forgotten(peer):
    (call,) = peer.receive(request("add", 1, kwargs={"x": 2}))
    call.forget()
    assert (call.attribute, call.args, call.kwargs) == ("add", [], {})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"attribute": 5}, "TypeError: The 'attribute' of a request must be a str, not int"),
        ({"attribute": None}, "TypeError: The 'attribute' of a request must be a str, not NoneType"),
        ({"args": {"a": 1}}, "TypeError: The 'args' of a request must be a list, not dict"),
        ({"args": None}, "TypeError: The 'args' of a request must be a list, not NoneType"),
        ({"kwargs": [1]}, "TypeError: The 'kwargs' of a request must be a dict, not list"),
        ({"error": True}, "ValueError: A request is no error"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(peer, fields, text, caplog):
    refused, call = peer.receive(request(**fields), request())
    assert isinstance(refused, Refused)
    assert decoded(refused.answer) == {
        "error": True,
        "message": text,
        "requester": CLIENT,
        "result": None,
        "traceback": [],
        "uid": "1",
    }
    assert isinstance(call, IncomingRequest)
    assert text.partition(": ")[2] in caplog.text


@pytest.mark.parametrize("broken", [b'[1, "\xff"]', b"[1e99999999999x]", b"[" * 100_000])
def test_a_request_that_cannot_be_decoded_is_refused_if_it_says_by_whom(peer, broken, caplog):
    head = b'{"uid": "7", "requester": "C[vm:1]", "attribute": "add", "args": '
    events = peer.receive(head + broken + b"}\r\n", request())
    assert isinstance(events[-1], IncomingRequest)
    assert peer.protocol.broken is None
    if len(events) == 2:
        answer = decoded(events[0].answer)
        assert (answer["uid"], answer["requester"], answer["error"]) == ("7", "C[vm:1]", True)
    assert caplog.records


def test_an_integer_with_too_many_digits_is_refused(peer):
    (refused,) = peer.receive(request("add", "@").replace(b'"@"', b"9" * 5000))
    assert "ValueError" in decoded(refused.answer)["message"]
    assert decoded(refused.answer)["uid"] == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\xff\xfe",
        b"[1, 2]",
        b"5",
        b'"text"',
        b"null",
        b'{"uid": "1", "requester": "\xff", "x": [NaN]}',
    ],
)
def test_a_line_that_nobody_can_read_is_logged_and_ends_nothing(peer, data, caplog):
    assert len(peer.receive(data + b"\r\n", request())) == 1
    assert peer.protocol.broken is None
    assert "an unreadable line" in caplog.text


def test_empty_lines_are_nothing(peer, caplog):
    assert peer.receive(b"\r\n\n") == []
    assert not caplog.records


@pytest.mark.parametrize("uid", [b'"notification"', b'"\\u006eotification"'])
def test_a_request_that_pretends_to_be_a_notification_is_not_carried_out(peer, uid, caplog):
    # An answer with that uid would make a Manager of msl-network close the connection.
    assert peer.receive(request(uid="@").replace(b'"@"', uid)) == []
    assert "notification" in caplog.text


def test_what_cannot_be_sent_back_is_not(peer):
    (call,) = peer.receive(request(uid="\ud800"))
    assert decoded(encode_result(call, 1))["uid"] is None


@pytest.mark.parametrize("field", ["uid", "requester"])
def test_text_that_is_no_unicode_does_not_go_back(peer, field, caplog):
    data = request(**{field: "@"}).replace(b'"@"', b'"\xff"')
    assert peer.receive(data) == []
    assert "an unreadable line" in caplog.text


# ---- lines of the Manager itself ----


def test_an_error_of_the_manager_is_logged_and_explains_the_end(peer, caplog):
    assert (
        peer.receive(line(error=True, message="JSONDecodeError: x", requester=US, result=None, uid="")) == []
    )
    assert "JSONDecodeError: x" in caplog.text
    assert peer.protocol.broken is None
    assert str(peer.protocol.receive_eof()).endswith("JSONDecodeError: x")


@pytest.mark.parametrize("fields", [{"uid": "nobody's", "result": 1}, {"result": 1}, {}])
def test_what_nobody_asked_for_is_dropped(peer, fields, caplog):
    with caplog.at_level(logging.WARNING):
        assert peer.receive(line(error=False, requester=US, **fields)) == []
    assert "an unexpected line" in caplog.text


def test_an_answer_to_nobody_does_not_register_us():
    peer = Peer(connected=False)
    peer.receive(ask("identity"))
    _, barrier = peer.written()
    assert peer.receive(line(error=False, requester=None, result=True, uid=barrier["uid"])) == []
    assert not peer.protocol.is_connected


# ---- answers ----

REQUEST = IncomingRequest("add", uid=module.msgspec.Raw(b'"1"'), requester=module.msgspec.Raw(b'"C[vm:1]"'))

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)


@given(values)
def test_a_result_is_sent_exactly(value):
    answer = decoded(encode_result(REQUEST, value))
    assert repr(answer["result"]) == repr(value)
    del answer["result"]
    assert answer == {"error": False, "requester": "C[vm:1]", "uid": "1"}


@given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3), st.text(min_size=1))
def test_a_notification_is_sent_exactly(args, kwargs, name):
    notification = decoded(encode_notification(args, kwargs, notification_end(name)))
    assert repr(notification.pop("result")) == repr([args, kwargs])
    assert notification == {"error": False, "service": name, "uid": "notification"}


def test_a_large_result_is_not_copied():
    text = "x" * LARGE
    pieces = encode_result(REQUEST, text)
    assert isinstance(pieces, tuple)
    assert [len(piece) > LARGE for piece in pieces] == [False, True, False]
    assert decoded(pieces)["result"] == text


def test_a_large_notification_is_not_copied():
    text = "x" * LARGE
    pieces = encode_notification((text,), {}, notification_end("S"))
    assert isinstance(pieces, tuple)
    assert decoded(pieces)["result"] == [[text], {}]


@pytest.mark.parametrize(("value", "error"), [({1, 2}, TypeError), ("\ud800", ValueError)])
def test_what_has_no_json_form_is_an_error_without_a_past(value, error):
    with pytest.raises(error) as caught:
        encode_result(REQUEST, value)
    assert caught.value.__context__ is None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def caught(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def fail() -> None:
    raise ValueError("bad")


def test_an_error_has_its_type_text_and_traceback():
    answer = decoded(encode_error(REQUEST, caught(fail)))
    lines = answer.pop("traceback")
    assert answer == {
        "error": True,
        "message": "ValueError: bad",
        "requester": "C[vm:1]",
        "result": None,
        "uid": "1",
    }
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: bad"
    assert any("in fail" in text for text in lines)
    assert any("in caught" in text for text in lines)


def test_frames_that_are_not_the_users_are_left_out():
    error = caught(fail)
    assert not any("caught" in text for text in traceback_lines(error, (f"{__name__}x", __name__)))
    assert traceback_lines(error, (__name__,)) == []
    assert traceback_lines(ValueError("never raised")) == []


def test_frames_of_code_without_a_module_are_kept():
    error = caught(lambda: exec("1 / 0", {"__name__": None}))
    assert traceback_lines(error, (__name__,))[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("two\nlines"), "ValueError: two\nlines"),
        (ValueError("\ud800"), "ValueError: ?"),
        (Unprintable(), "Unprintable: <its text cannot be made>"),
        (ValueError(), "ValueError: "),
    ],
)
def test_every_exception_can_be_told(error, text):
    assert decoded(encode_error(REQUEST, error))["message"] == text


def test_advice_goes_behind_the_text_of_an_exception():
    message = decoded(encode_error(REQUEST, OSError("no"), advice="do that"))["message"]
    assert message == "OSError: no (do that)"


def test_a_traceback_with_text_that_cannot_be_sent_is_sent():
    def complain() -> None:
        raise ValueError("\ud800 and\nmore")

    assert decoded(encode_error(REQUEST, caught(complain)))["traceback"][-2:] == ["ValueError: ? and", "more"]


# ---- values that cannot be sent ----


def test_an_error_of_a_result_says_that_it_is_the_result():
    with pytest.raises(TypeError, match=r"its dtype is int64, and values .* \(the result of 'read'\)$"):
        encode_result(IncomingRequest("read"), np.ma.array([1, 2], mask=[0, 1], dtype="int64"))
    with pytest.raises(TypeError, match="^Object of type set is not JSON serializable$"):
        encode_result(IncomingRequest("read"), {1})


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ((1, np.ma.masked), {}, "argument 2 of 'emit_notification'"),
        ((1,), {"x": np.complex64(1)}, "keyword argument 'x' of 'emit_notification'"),
    ],
)
def test_an_error_of_a_notification_says_which_argument_it_is(args, kwargs, where):
    with pytest.raises(TypeError, match=f"its dtype is .* \\({where}\\)$"):
        encode_notification(args, kwargs, notification_end("S"))


def test_an_error_of_all_of_a_notification_comes_out_as_it_is():
    class OnceBroken:
        calls = 0

        def to_json(self):
            self.calls += 1
            return {1} if self.calls <= 2 else 1  # both the fast and the exact path call it

    with pytest.raises(TypeError, match="^Object of type set is not JSON serializable$"):
        encode_notification((OnceBroken(),), {}, notification_end("S"))


# ---- a request by itself, for threads ----


def test_a_request_by_itself_can_be_looked_at_first_and_nothing_changes():
    peer = Peer(read_limit=500)
    data = request("add", 1, "ä")
    call = peer.protocol.only_request(data)
    assert call == peer.protocol.only_request(data)
    assert peer.receive(data) == [call]
    assert call is not None
    assert (call.attribute, call.args, call.size) == ("add", [1, "ä"], len(data) - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        request()[:-1],
        request() + request(),
        request() + b"{",
        request(uid="notification"),
        request("add", "x" * 500),
        request().replace(b'"C[', b'"\xff'),
        line(error=True, message="no", requester=MANAGER, uid=""),
    ],
)
def test_what_is_anything_else_is_for_receive(data: bytes):
    assert Peer(read_limit=500).protocol.only_request(data) is None


def test_in_the_midst_of_a_line_or_a_handshake_or_behind_the_end_nothing_is_a_request_by_itself():
    protocol = Peer(connected=False).protocol
    assert protocol.only_request(request()) is None
    protocol.broken = exc.ConnectionLost("gone")
    assert protocol.only_request(request()) is None
    peer = Peer(read_limit=500)
    peer.receive(b"{")
    assert peer.protocol.only_request(request()) is None
    peer.receive(b"x" * 600)
    assert peer.protocol.only_request(request()) is None
