"""Tests that control characters of peers are escaped wherever the package shows them."""

from __future__ import annotations

import json
import logging
import pickle
import re
import unicodedata
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio import RemoteError, Service, connect, exceptions
from msl_network_trio.cli import console, status
from msl_network_trio.client.identities import describe
from msl_network_trio.dialing import prompts
from msl_network_trio.dialing.prompts import TerminalPrompts
from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.manager.logs import logging_to
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.request_errors import departed_error, refused_error
from msl_network_trio.protocol.requests import Request
from msl_network_trio.protocol.service import ServiceProtocol
from msl_network_trio.transport.websocket_frames import Ending
from msl_network_trio.visible import VisibleFormatter, visible, visible_json, visible_lines
from tests.protocol.lines import ask, line

BAD = "bad\x1b]0;owned\x07\x1b[2J\x7f\x9b31m\u202egpj\u2066\u2028\r\nServices [7]:\t\ud800"
"""A name or text with control characters."""

SENT = BAD.removesuffix("\ud800")
"""The same, as a Manager passes it on."""

FORBIDDEN = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def check(text: str, *, lines: int = 1) -> None:
    """Check that a text contains the bad one, escaped, and has a number of lines."""
    assert r"bad\x1b]0;owned\x07\x1b[2J\x7f\x9b31m\u202egpj\u2066\u2028" in text
    assert FORBIDDEN.search(text) is None
    assert len(text.split("\n")) == lines, text
    assert not any(each.startswith("Services [7]") for each in text.split("\n"))


# ---- the rule ----


@given(st.text())
@example(BAD)
@example("plain é \U0001f600 \\x1b")
def test_what_is_shown_is_printable_and_says_all(text: str):
    shown = visible(text)
    assert FORBIDDEN.search(shown) is None
    assert "\n" not in shown
    assert FORBIDDEN.search(visible_lines(text)) is None
    assert visible_lines(text).count("\n") == text.count("\n")
    if FORBIDDEN.search(text) is None:
        assert visible_lines(text) == text
        assert visible(text) == text.replace("\n", "\\n")


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner)))
@example({BAD: BAD})
def test_json_stays_the_same_json(value: Any):
    for indent in (None, 2):
        text = visible_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert FORBIDDEN.search(text) is None
        assert json.loads(text) == value


def test_every_character_that_changes_the_direction_is_escaped():
    ours = {chr(code) for code in range(0x110000) if visible(chr(code)) != chr(code)}
    directions = {
        chr(code)
        for code in range(0x110000)
        if unicodedata.bidirectional(chr(code))
        in {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    }
    assert directions <= ours
    assert {
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in {"Cc", "Zl", "Zp"}
    } <= ours
    assert not any(character.isprintable() for character in ours)


# ---- errors ----

ERRORS = [
    error
    for error in vars(exceptions).values()
    if isinstance(error, type) and issubclass(error, exceptions.NetworkError)
]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_shows_its_text_escaped(kind):
    error = kind(f"first\n{SENT}")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert FORBIDDEN.search(str(each)) is None
        assert FORBIDDEN.search(f"{each}") is None
        assert FORBIDDEN.search(repr(each)) is None
        assert str(each).startswith("first\nbad")
    assert error.args == (f"first\n{SENT}",)


def test_a_remote_error_shows_the_lines_of_its_traceback_and_keeps_what_came():
    lines = (
        "Traceback (most recent call last):",
        '  File "a.py", line 1',
        "\t\x1b[31mraise",
        f"ValueError: {SENT}",
    )
    error = RemoteError.from_answer(
        f"ValueError: {SENT}", traceback_lines=lines, manager="lab:1875", service="S", attribute="a"
    )
    assert str(error).split("\n")[2:5] == [lines[0], lines[1], r"\t\x1b[31mraise"]
    assert FORBIDDEN.search(str(error)) is None
    assert error.message == f"ValueError: {SENT}"
    assert error.traceback_lines == lines


def test_a_name_in_a_message_of_a_manager_makes_no_line():
    message = (
        f"PermissionError: {SENT}[h:1] cannot acquire an exclusive lock, there are 2 links with the 'S' service"
        f"\nThe linked Clients are:\n  A[h:2]\n  {SENT}[h:1]"
    )
    for lines in ((), tuple(message.splitlines()), ("Traceback ...", *message.splitlines()), (message,)):
        error = exceptions.ManagerError.from_answer(
            message, traceback_lines=lines, manager="lab:1875", service="Manager", attribute="acquire_lock"
        )
        shown = str(error).split("\n")
        assert not any(each.startswith("Services [7]") for each in shown), shown
        assert shown[-2] == "  A[h:2]"
        assert shown[-3] == "The linked Clients are:"
        assert FORBIDDEN.search(str(error)) is None
        assert error.traceback_lines == lines


# ---- what a Manager says ----


def test_a_rejection():
    protocol = ClientProtocol({"type": "client", "name": "C"}, "lab:1875")
    protocol.receive(line(error=True, message=SENT, requester=f"Manager[{SENT}:1]", uid=""))
    check(str(protocol.broken))
    service = ServiceProtocol({"type": "service", "name": "S"}, "lab:1875")
    service.receive(ask("identity"))
    service.receive(line(error=True, message=SENT, requester="Manager[vm:1]", uid=""))
    check(str(service.broken))


def test_why_a_connection_ended():
    protocol = ClientProtocol({"type": "client", "name": "C"}, "lab:1875")
    protocol.receive(ask("identity"))
    check(str(protocol.receive_eof(SENT)))
    check(str(Ending(1000, SENT)))
    protocol.receive(line(result=[[SENT], {}], service="Manager", uid="notification", error=False))
    check(str(protocol.receive_eof()))


def test_a_service_that_is_not_there_at_a_manager_with_a_bad_name():
    request = Request("S", "a", "1", b"")
    check(str(departed_error(request, f"Manager[{SENT}:1]")))
    check(str(refused_error(request, f"Manager[{SENT}:1]", may_have_run=True)))


@pytest.mark.parametrize("kind", ["username", "password"])
async def test_a_question_at_the_terminal(kind, monkeypatch):
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return "x"

    monkeypatch.setattr(prompts, "_read_line", answer)
    monkeypatch.setattr(prompts.getpass, "getpass", answer)
    with pytest.raises(exceptions.AuthenticationError) as caught:
        await getattr(TerminalPrompts(), kind)(SENT)  # standard input is none here
    check(str(caught.value))
    monkeypatch.setattr(
        "sys.stdin", type("Terminal", (), {"isatty": lambda _: True, "fileno": lambda _: -1})()
    )
    await getattr(TerminalPrompts(), kind)(SENT)
    check(asked[0])


async def test_the_question_of_trust(monkeypatch):
    asked = []
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.setattr(prompts, "_read_line", lambda question: asked.append(question) or "n")
    assert not await TerminalPrompts().trust(Certificate(SENT, 1, b""))
    check(asked[0], lines=asked[0].count("\n") + 1)


def test_who_is_connected():
    told = {"language": SENT, "os": SENT, SENT: SENT}
    identity = {
        "hostname": SENT,
        "port": SENT,
        "attributes": {SENT: SENT},
        "language": SENT,
        "clients": {SENT: told},
        "services": {SENT: {**told, "address": SENT, "attributes": {SENT: SENT, "x": f"({SENT})"}}},
    }
    text = describe(identity, 2)
    check(text, lines=17)
    assert len(re.findall(r"(?m)^ *Services \[", text)) == 1


# ---- everything at once, through a Manager ----


class Bad(Service):
    """A Service with control characters in its texts."""

    reading = SENT

    def fail(self) -> None:
        """Raise an exception with a bad text."""
        raise ValueError(SENT)


async def test_names_and_texts_of_others_wherever_they_are_shown(caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "manager.log"
    with logging_to("DEBUG", path):
        async with open_manager(in_memory=True) as manager, trio.open_nursery() as nursery:
            await nursery.start(partial(Bad(name=SENT).run, **manager.connect_kwargs()))
            arguments = manager.connect_kwargs()
            async with connect(name=SENT, **arguments) as bad, connect(**arguments) as client:
                link = await client.link(SENT)
                await bad.link(SENT)
                for thing in (bad, link, link.fail, link.reading, link.sync, bad.sync):
                    check(repr(thing))
                check(str(bad))
                check(link.fail.__doc__ or "")
                assert FORBIDDEN.search("".join(dir(link))) is None
                check(
                    await client.identities(as_string=True),
                    lines=(await client.identities(as_string=True)).count("\n") + 1,
                )
                for call in (link.fail, partial(link.acquire_lock, shared=False)):
                    with pytest.raises(RemoteError) as caught:
                        await call()
                    assert FORBIDDEN.search(str(caught.value)) is None
                    assert "Services [7]" in str(caught.value)
                # Texts for clients of msl-network, which show them unescaped, are escaped too.
                assert FORBIDDEN.search(caught.value.message.replace("\n", "")) is None
            nursery.cancel_scope.cancel()
    for record in caplog.records:
        assert FORBIDDEN.search(record.getMessage()) is None, record
        assert "\nServices" not in record.getMessage(), record
    text = path.read_text("utf-8")
    assert r"\x1b" in text
    assert FORBIDDEN.search(text) is None


# ---- logs and the command line ----


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_log_of_a_manager_has_also_what_others_log_escaped(style, tmp_path):
    path = tmp_path / "log"
    with logging_to("INFO", path, style=style):
        try:
            raise ValueError(SENT)
        except ValueError:
            logging.getLogger("somebody.else").exception("it says %s", SENT)
    text = path.read_text("utf-8")
    assert FORBIDDEN.search(text) is None
    assert "Traceback (most recent call last):" in text
    if style == "json":
        [fields] = map(json.loads, text.splitlines())
        assert fields["message"] == f"it says {SENT}"


def test_a_formatter_keeps_the_lines_of_a_traceback():
    try:
        raise ValueError(SENT)
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "", 0, "failed", (), (type(error), error, error.__traceback__)
        )
    text = VisibleFormatter("%(message)s").format(record)
    assert text.startswith("failed\nTraceback (most recent call last):\n")
    assert FORBIDDEN.search(text) is None


def test_tables_and_errors_of_commands(capsys):
    console.print_table([SENT, "x"], [[SENT, "1"]])
    check(capsys.readouterr().out, lines=4)
    console.print_error(f"first\n{SENT}")
    text = capsys.readouterr().err
    assert text.startswith("error: first\nbad")
    assert FORBIDDEN.search(text) is None


async def test_the_command_status(capsys):
    async with open_manager(in_memory=True) as manager:
        told = manager.status()
    told["manager"] = SENT
    told["services"] = {SENT: {"uptime": 1, "links": 1, "locks": 0, "backlog": 0}}
    told["backlog"]["peer"] = SENT
    status._show(told)
    assert FORBIDDEN.search(capsys.readouterr().out) is None
