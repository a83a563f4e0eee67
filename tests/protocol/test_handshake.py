"""The handshake, which is the same for clients and Services."""

from __future__ import annotations

import json

import pytest

from msl_network_trio import exceptions as exc
from msl_network_trio.protocol import codec
from msl_network_trio.protocol.framing import LineBuffer
from msl_network_trio.protocol.handshake import Handshake, question, quote, sendable
from msl_network_trio.protocol.messages import Connected, Question, ReceivedLine

MANAGER = "Manager[vm:1875]"
IDENTITY = {"type": "service", "name": "S", "attributes": {}}


def received(handshake: Handshake, **fields: object) -> Question | Connected:
    line = json.dumps({"requester": MANAGER, "error": False, "uid": "", **fields}).encode()
    return handshake.receive(line, codec.decode(line))


@pytest.fixture
def handshake() -> Handshake:
    return Handshake(IDENTITY, "localhost:1875")


def test_it_is_over_when_the_manager_has_asked_for_the_identity(handshake):
    assert not handshake.is_over
    assert handshake.awaits == "the Manager asked for our identity"
    assert received(handshake, attribute="identity", args=[]) == Connected(MANAGER)
    assert handshake.is_over
    assert handshake.awaits == "the Manager accepted our identity"
    assert handshake.manager_name == MANAGER
    assert json.loads(handshake.identity_line) == {
        "error": False,
        "requester": None,
        "result": IDENTITY,
        "uid": "",
    }


@pytest.mark.parametrize(
    ("attribute", "args", "expected"),
    [
        ("username", [MANAGER], Question("username", MANAGER)),
        ("password", [MANAGER], Question("password", MANAGER, wants_manager_password=True)),
        ("password", ["alice"], Question("password", "alice")),
        ("password", ["Manager"], Question("password", "Manager")),
        ("password", [], Question("password", "")),
        ("password", [5], Question("password", "")),
        ("password", "alice", Question("password", "")),
    ],
)
def test_a_question_tells_what_is_asked_for_and_for_whom(handshake, attribute, args, expected):
    assert received(handshake, attribute=attribute, args=args) == expected
    assert not handshake.is_over


def test_a_question_without_a_kind_is_one_about_nothing():
    assert question(ReceivedLine()) == Question("", "")


def test_an_answer_goes_to_the_manager_by_its_name(handshake):
    received(handshake, attribute="username", args=[MANAGER])
    answer = json.loads(handshake.answer("alice"))
    assert answer == {"error": False, "requester": MANAGER, "result": "alice", "uid": ""}


def test_an_answer_to_a_manager_without_a_name_goes_to_nobody(handshake):
    received(handshake, attribute="username", args=[], requester=None)
    assert json.loads(handshake.answer("alice"))["requester"] is None


def test_an_empty_answer_is_refused_until_the_handshake_is_over(handshake):
    with pytest.raises(exc.AuthenticationError, match="empty"):
        handshake.answer("")
    received(handshake, attribute="identity")
    assert json.loads(handshake.answer(""))["result"] == ""


@pytest.mark.parametrize(
    ("message", "text"),
    [("NameError: A 'S' service is already running", "already running"), ("", "refused to connect")],
)
def test_a_rejection_is_raised_with_what_the_manager_says(handshake, message, text):
    with pytest.raises(exc.AuthenticationError, match=text):
        received(handshake, error=True, message=message, result=None)
    assert not handshake.is_over


def test_what_is_not_part_of_a_handshake_is_quoted(handshake):
    with pytest.raises(exc.HandshakeError, match="not part of a handshake.*link.*is it a Manager"):
        received(handshake, attribute="link", args=[])


def test_the_end_of_the_stream_before_the_end_of_the_handshake_is_no_connection(handshake):
    lines = LineBuffer()
    lines.feed(b"HTTP/1.1 400")
    error = handshake.eof(lines)
    assert isinstance(error, exc.ConnectError)
    assert str(error) == (
        "Manager[localhost:1875] closed the connection in the middle of a line that begins with "
        "'HTTP/1.1 400' before the handshake was over; is it a Manager?"
    )


def test_the_end_of_the_stream_later_on_says_why_if_the_manager_did(handshake):
    received(handshake, attribute="identity")
    assert isinstance(handshake.eof(LineBuffer()), exc.ConnectionLost)
    assert str(handshake.eof(LineBuffer())) == "Manager[localhost:1875] closed the connection"
    assert str(handshake.eof(LineBuffer(), "no")) == "Manager[localhost:1875] closed the connection: no"
    told = str(handshake.eof(LineBuffer(), close_reason="code 1001"))
    assert told == "Manager[localhost:1875] closed the connection (code 1001)"


def test_a_name_that_cannot_be_sent_is_made_one_that_can():
    assert sendable("a\ud800b") == "a?b"


def test_a_quote_is_short_and_safe_to_show():
    assert quote(b"\xff\x1b[31m") == repr("\\xff\x1b[31m")
    assert len(quote(b"x" * 1000)) == 82
