"""Tests of lines typed on a terminal, as with ``openssl s_client``: both Managers understand the same."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interop.conftest import USERS
from tests.interop.reference import Manager, start_manager

pytestmark = pytest.mark.interop

SESSION: list[tuple[str, int]] = [
    ("identity", 1),
    ("link Echo", 1),
    ("Echo add 1 2", 1),
    ("Echo echo 1 true none 'a b' word x=2 y=[1,2] z=\"two words\"", 1),
    ('"Echo" const', 1),
    ("Echo fail boom", 1),
    ("Echo _private", 1),
    ("Echo notify 5 a=1", 2),
    ("Nope nope", 1),
    ("Manager link Nope", 1),
    ("Manager acquire_lock Echo shared=false", 1),
    ("Manager release_lock Echo", 1),
    ("Manager unlink Echo", 1),
    ("hello", 1),
    ("Manager users_table.usernames", 1),
    ("alice", 1),
    ("pw-a", 1),
    ("Manager users_table.is_admin bob", 1),
    ("Manager users_table.is_admin username=alice", 1),
    ("Manager nope", 1),
    ("exit", 0),
]
"""The typed lines, and the number of lines in the answer."""

HANDSHAKES = {
    "none": ({}, ["client Me and Myself"]),
    "password": ({"auth_password": "se cret"}, ["se cret", "client Me and Myself"]),
    "login": ({"auth_login": True}, ["bob", "pw-b", "client Me and Myself"]),
}


class Terminal:
    """A connection at which lines are typed.

    Args:
        manager: The Manager.
        ending: What the Return key sends.
    """

    def __init__(self, manager: Manager, ending: str) -> None:
        sock = socket.create_connection(("127.0.0.1", manager.port), 20)
        if manager.tls:
            context = ssl.create_default_context(cafile=str(manager.certificate))
            sock = context.wrap_socket(sock, server_hostname="localhost")
        self._sock = sock
        self._file = sock.makefile("rb")
        self._ending = ending

    def type(self, text: str) -> None:
        self._sock.sendall(f"{text}{self._ending}".encode())

    def line(self) -> dict[str, Any]:
        line = self._file.readline()
        assert line.endswith(b"\r\n") or b'"requester"' in line, line
        return json.loads(line)

    def close(self) -> bytes:
        """Wait for the end."""
        rest = self._file.read()
        self._file.close()
        self._sock.close()
        return rest


@contextmanager
def manager_of(
    kind: str, tmp_path, options: dict[str, Any], *, tls: bool = False, service: str = "Echo"
) -> Iterator[Manager]:
    manager = start_manager(tmp_path / kind, tls=tls, ours=kind == "ours", users=USERS, **options)
    try:
        if service:
            manager.start_service(service)
        yield manager
    finally:
        manager.end()


def meaning(line: dict[str, Any], port: int) -> str:
    """Return a line without the parts that differ between Managers: ports, tracebacks, the Manager's name."""
    line = {key: value for key, value in line.items() if key != "traceback"}
    text = json.dumps(line, sort_keys=True).replace(str(port), "PORT")
    return re.sub(r"(:)\d{4,5}\b", r"\1N", text)


@pytest.mark.parametrize(
    ("authentication", "tls", "ending"),
    [
        pytest.param("none", False, "\r\n", marks=pytest.mark.slow),
        ("password", True, "\n"),
        ("login", False, "\n"),
    ],
)
def test_a_session_has_the_same_answers(tmp_path, authentication, tls, ending):
    options, handshake = HANDSHAKES[authentication]
    heard: dict[str, list[str]] = {}
    for kind in ("reference", "ours"):
        with manager_of(kind, tmp_path, options, tls=tls) as manager:
            terminal = Terminal(manager, ending)
            heard[kind] = []
            for text in handshake:
                heard[kind].append(meaning(terminal.line(), manager.port))
                terminal.type(text)
            for text, count in SESSION:
                terminal.type(text)
                answers = [meaning(terminal.line(), manager.port) for _ in range(count)]
                heard[kind] += [f"{text} -> {answer}" for answer in answers]
            assert terminal.close() == b""
    for ours, theirs in zip(heard["ours"], heard["reference"], strict=True):
        assert ours == theirs


def test_a_wrong_login_has_the_same_answer(tmp_path):
    heard = {}
    for kind in ("reference", "ours"):
        with manager_of(kind, tmp_path, {"auth_login": True}, service="") as manager:
            heard[kind] = []
            for typed in (["zed"], ["alice", "guess"]):
                terminal = Terminal(manager, "\n")
                for text in typed:
                    heard[kind].append(meaning(terminal.line(), manager.port))
                    terminal.type(text)
                heard[kind].append(meaning(terminal.line(), manager.port))
                assert terminal.close() == b""
    assert heard["ours"] == heard["reference"]


def test_who_types_confuses_no_one_who_does_not(tmp_path):
    with manager_of("ours", tmp_path, {}) as manager:
        person, program = Terminal(manager, "\n"), Terminal(manager, "\r\n")
        for terminal, name in ((person, "Person"), (program, "Program")):
            assert terminal.line()["attribute"] == "identity"
            terminal.type(f"client {name}")
        program.type(
            json.dumps(
                {"service": "Manager", "attribute": "link", "args": ["Echo"], "kwargs": {}, "uid": "1"}
            )
        )
        assert program.line()["uid"] == "1"
        for number in range(50):
            person.type(f"Echo echo {number}")
            person.type("nonsense")
            request = {
                "service": "Echo",
                "attribute": "add",
                "args": [number, 1],
                "kwargs": {},
                "uid": f"n{number}",
            }
            program.type(json.dumps({**request, "error": False}))
            answer = program.line()
            assert (answer["uid"], answer["result"]) == (f"n{number}", number + 1)
            told = sorted((person.line() for _ in range(2)), key=lambda line: line["error"])
            assert told[0]["result"] == [[number], {}]
            assert told[1]["message"].startswith("JSONDecodeError")
        for terminal in (person, program):
            terminal.type("disconnect")
            assert terminal.close() == b""
