"""Tests of typed lines, compared with msl-network 1.0.0."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msl.network.utils import parse_terminal_input

from msl_network_trio.constants import DISCONNECT_REQUEST
from msl_network_trio.protocol.manager import typed_lines as terminal
from tests.protocol.network import Network, notification, raw, read, reply, request

SAME = [
    "identity",
    "Identity",
    "disconnect",
    "EXIT",
    "__disconnect__",
    "link Echo",
    "LINK Echo",
    'link "My Service"',
    "link My Service",
    "Echo echo",
    "Echo echo 1",
    "Echo echo 1 2.5 -3 1e3",
    "Echo echo 1 x=2",
    "Echo echo x=2",
    "Echo echo x = 2",
    'Echo echo x="two words" y=1',
    'Echo echo "two words" word',
    "Echo echo 'two words'",
    "Echo echo true False NULL none",
    "Echo echo [1,2,3] (4,5)",
    "Echo echo x=[1,2] y=None",
    '"My Service" add 1 2',
    "'My Service' add 1 2",
    '"My Service" "add" 1',
    "Manager acquire_lock Echo shared=true",
    "Manager users_table.usernames",
    "Manager unlink Echo",
    "  Echo   echo   1  ",
    "Echo echo é\N{PARTY POPPER}",
    "Echo echo 9007199254740993",
]


@pytest.mark.parametrize("text", SAME)
def test_it_means_what_it_means_to_msl_network(text):
    assert terminal.request(text.strip()) == parse_terminal_input(text)


@pytest.mark.parametrize(
    "text", ["", "Echo", "hello", '"My Service"', "link", "identity of", "disconnect now"]
)
def test_a_line_that_is_no_request(text):
    expected = None if text in {"", "Echo", "hello", '"My Service"', "link"} else text.split()
    found = terminal.request(text)
    assert (found and [found["service"], found["attribute"]]) == expected


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("Echo echo x=1 2", [2], {"x": 1}),
        ("Echo echo xx x=2", ["xx"], {"x": 2}),  # msl-network loses the first one
        ("Echo echo [1, 2] {'a': [1, 2]} 3", [[1, 2], {"a": [1, 2]}, 3], {}),
        ('Echo echo x={"a": true, "b": "]"}', [], {"x": {"a": True, "b": "]"}}),
        ("Echo echo it's", ["it's"], {}),
        ("Echo echo [1, 2", ["[1,", 2], {}),
        ('Echo echo "open', ["open"], {}),
        ("Echo echo x=", ["x="], {}),
        ("Echo echo 1=2", ["1=2"], {}),
        ("Echo echo __import__('os')", ["__import__('os')"], {}),
    ],
)
def test_what_is_different_from_msl_network(text, args, kwargs):
    found = terminal.request(text)
    assert (found["args"], found["kwargs"]) == (args, kwargs)


def test_a_service_whose_name_begins_like_a_word_can_be_asked():
    assert terminal.request("Linker add 1")["service"] == "Linker"
    assert terminal.request("ClientList show")["service"] == "ClientList"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("client", "Client"),
        ("Client  Me", "Me"),
        ('client "Me and Myself"', "Me and Myself"),
        ("clients", None),
    ],
)
def test_who_somebody_is(text, name):
    found = terminal.identity(text)
    assert (found and found["name"]) == name
    if name:
        assert parse_terminal_input(text).items() >= found.items()


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b'{"service": "Echo"', b"[1, 2", b"Echo echo \0", b"\x16\x03\x01\x00\xa5", b"a b " * 2000],
)
def test_what_nobody_has_typed(line):
    assert terminal.typed(line) is None


def test_what_somebody_has_typed():
    assert terminal.typed(b"Echo\techo 1 \r") == "Echo\techo 1"
    assert terminal.typed("Echo é".encode()) == "Echo é"


@pytest.mark.parametrize(
    "repeated", ["[ ", "[", "( {", "a= ", "a=[ ", '"', "'x", "=", " ", "[ ]", "9", "[[1]] "]
)
def test_no_line_takes_long(repeated):
    text = ("Echo echo " + repeated * 4096)[:4096]
    start = time.thread_time()
    terminal.request(text)
    assert time.thread_time() - start < 0.1


@given(st.text(max_size=60))
def test_whatever_is_typed_is_understood_or_not_but_no_error(text):
    terminal.identity(text)
    found = terminal.request(text)
    assert found is None or (isinstance(found["service"], str) and isinstance(found["args"], list))


# ---- at a Manager ----


def test_what_is_typed_has_the_manager_warn_nobody():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fields = terminal.request(r"Echo echo 1if '\d'")
    assert fields is not None
    assert fields["args"] == ["1if", r"\d"]
    assert warned == []


def test_a_session_at_a_terminal():
    network = Network()
    echo, person = network.peer("Echo", "service"), network.connect()
    raw(person)
    network.send(person, b"client Me")
    assert person.name == "Me[vm:2]"
    assert read(person) == []
    network.send(person, b"identity", b"link Echo", b'Echo echo 1 x=2 y="a b"')
    identity, link = read(person)
    assert (identity["uid"], identity["result"]["clients"].keys()) == ("", {person.name})
    assert link["result"] == echo.info
    [asked] = read(echo)
    assert asked == {
        **request("Echo", "echo", 1, x=2, y="a b", uid=""),
        "args": [1],
        "requester": person.name,
    }
    network.send(echo, reply(asked, [1, 2]), notification("Echo", 5))
    answer, emitted = read(person)
    assert (answer["result"], emitted["result"]) == ([1, 2], [[5], {}])
    network.send(person, b"Nope nope", b"Manager link Nope", b"exit", b"Echo echo")
    nope, link = read(person)
    assert "the 'Nope' Service is not connected" in nope["message"]
    assert "the 'Nope' service does not exist" in link["message"]
    assert person.close_reason
    assert read(echo) == []


def test_two_requests_typed_one_after_the_other_both_get_their_answers():
    network = Network()
    echo, person = network.peer("Echo", "service"), network.peer()
    network.send(person, b"Echo echo 1", b"Echo echo 2")
    first, second = read(echo)
    network.send(echo, reply(second, "b"), reply(first, "a"))
    assert [line["result"] for line in read(person)] == ["b", "a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", "JSONDecodeError: Expecting value"),
        (b"Echo echo {1,2}", "TypeError: Object of type set is not JSON serializable"),
        (b'Echo echo "\\ud800"', "ValueError"),
        (b"Echo echo b'x'", "TypeError: Object of type bytes is not JSON serializable"),
        (b'{"service": "Echo", "attribute": echo}', "JSONDecodeError"),
    ],
)
def test_what_cannot_be_understood_is_answered_and_reaches_nobody(line, message):
    network = Network()
    echo, person = network.peer("Echo", "service"), network.peer()
    network.send(person, line, b"Echo echo 1")
    [answer] = read(person)
    assert answer["message"].startswith(message) or "Unicode" in answer["message"]
    assert (answer["error"], answer["uid"]) == (True, "")
    assert [asked["args"] for asked in read(echo)] == [[1]]


def test_a_broken_line_with_a_uid_is_no_typing():
    network = Network()
    echo, client = network.peer("Echo", "service"), network.peer()
    network.send(client, b'{"uid": "7"} Echo echo 1')
    [answer] = read(client)
    assert answer["message"].startswith("JSONDecodeError")
    assert read(echo) == []


def test_the_password_of_the_manager_is_typed():
    network = Network(password="12 34")
    person = network.connect()
    raw(person)
    network.send(person, b"12 34 \r", b"client")
    assert [line["attribute"] for line in read(person)] == ["identity"]
    assert person.name == "Client[vm:1]"


def test_goodbye_has_its_own_word():
    assert terminal.request("exit")["attribute"] == DISCONNECT_REQUEST


def test_so_many_arguments_and_no_more_are_read():
    network = Network()
    echo, person = network.peer("Echo", "service"), network.peer("Me")
    network.send(person, b"Echo echo" + b" 1" * 99 + b" x=1", b"Echo echo" + b" 'a'" * 101)
    [line] = read(echo)
    assert (len(line["args"]), line["kwargs"]) == (99, {"x": 1})
    assert read(person)[0]["message"].startswith("JSONDecodeError")


def test_others_have_their_turn_after_each_line_that_was_typed():
    network = Network()
    echo, person = network.peer("Echo", "service"), network.peer("Me")
    network.protocol.receive(person, b"Echo echo 1\nEcho echo 2\n")
    assert [line["args"] for line in read(echo)] == [[1]]
    network.protocol.receive(person, b"Echo echo 3\n")
    network.protocol.receive_more(person)
    network.protocol.receive_more(person)
    assert [line["args"] for line in read(echo)] == [[2], [3]]
    network.protocol.receive(person, b"Echo echo 4\n")
    assert [line["args"] for line in read(echo)] == [[4]]
    assert person.pending_lines == []
