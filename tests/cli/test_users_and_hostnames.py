"""Tests of the commands ``user`` and ``hostname``, with databases in files."""

from __future__ import annotations

import getpass
import io
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from msl_network_trio.__main__ import main
from msl_network_trio.cli import console
from msl_network_trio.constants import database_file
from msl_network_trio.manager import tables
from msl_network_trio.manager.tables import Database
from tests.cli.test_command_line import ESCAPE, Terminal, complete, usage_error


@pytest.fixture(autouse=True)
def no_terminal(home, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def typing(monkeypatch):
    """Simulate a terminal at which these passwords are typed."""

    def type_these(*passwords: str) -> list[str]:
        left = list(passwords)
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(getpass, "getpass", lambda prompt: left.pop(0))
        return left

    return type_these


def run(line: str, *more: str) -> int:
    return main([*line.split(), *more])


def fails(capsys, line: str, *more: str) -> str:
    capsys.readouterr()
    assert run(line, *more) == 1
    return capsys.readouterr().err


def users(path=None) -> list[tuple[str, bool]]:
    with Database(path) as database:
        return database.users.users()


def has_password(name: str, password: str) -> bool:
    with Database() as database:
        return database.users.is_password_valid(name, password)


# ---- user ----


@pytest.mark.parametrize(("action", "said"), [("add", "added"), ("insert", "inserted")])
def test_a_user_is_added_to_the_default_database_which_nobody_else_can_read(home, capsys, action, said):
    assert run(f"user {action} j.doe --password a good password") == 0
    assert capsys.readouterr().out == f"j.doe has been {said}\n"
    assert users() == [("j.doe", False)]
    assert has_password("j.doe", "a good password")
    assert database_file() == home / "manager.sqlite3"
    if sys.platform != "win32":
        assert stat.S_IMODE(database_file().stat().st_mode) == 0o600


def test_a_password_comes_from_the_first_line_of_a_file(tmp_path):
    (tmp_path / "password.txt").write_text("se cret \nrest")
    assert run("user add a.smith --admin --password", str(tmp_path / "password.txt")) == 0
    assert users() == [("a.smith", True)]
    assert has_password("a.smith", "se cret")


@pytest.mark.parametrize("line", ["user add a.smith --admin", "user add a.smith --admin --password"])
def test_a_password_is_asked_for_twice(typing, line, capsys):
    left = typing("geheim", "geheim")
    assert run(line) == 0
    assert left == []
    assert has_password("a.smith", "geheim")
    assert "geheim" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("typed", "text"),
    [(["a", "b"], "The two passwords are different"), ([""], "The password of a.smith is empty")],
)
def test_what_is_typed_wrong_adds_nobody(typing, typed, text, capsys):
    typing(*typed)
    assert text in fails(capsys, "user add a.smith")
    assert users() == []


def test_without_a_terminal_nobody_is_asked(capsys):
    assert "there is no terminal" in fails(capsys, "user add a.smith")
    assert users() == []


def test_a_user_who_exists_is_told_before_a_password_is_asked_for(typing, capsys):
    run("user add j.doe --password a")
    left = typing("b", "b")
    assert fails(capsys, "user add j.doe") == "error: A user with the name 'j.doe' already exists\n"
    assert "'zed'. This user is not in the table" in fails(capsys, "user update zed --password")
    assert len(left) == 2


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("user add", "The username is missing: add USERNAME"),
        ("user remove", "The username is missing"),
        ("user add lab:1 --password a", 'A username cannot end with ":<integer>"'),
        ("user remove zed", "Cannot delete 'zed'. This user is not in the table."),
        ("user update zed --admin", "Cannot update 'zed'. This user is not in the table."),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_status_1(capsys, line, text):
    error = fails(capsys, line)
    assert text in error
    assert error.count("\n") == 1


def test_a_user_is_updated_as_by_msl_network(capsys):
    run("user add j.doe --password a")
    assert run("user update j.doe --admin") == 0
    assert users() == [("j.doe", True)]
    assert has_password("j.doe", "a")
    assert run("user update j.doe --password b c") == 0  # without --admin
    assert users() == [("j.doe", False)]
    assert has_password("j.doe", "b c")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "j.doe has been updated, and is an administrator",
        "j.doe has been updated, and is no administrator",
    ]


@pytest.mark.parametrize(("action", "said"), [("remove", "removed"), ("delete", "deleted")])
def test_a_user_is_removed(capsys, action, said):
    run("user add j.doe --password a")
    assert run(f"user {action} j.doe") == 0
    assert capsys.readouterr().out.splitlines()[1] == f"j.doe has been {said}"
    assert users() == []


def test_users_are_listed_in_columns(capsys, home):
    assert run("user list") == 0
    run("user add j.doe --password a")
    run("user add a.very.long.name --admin --password a")
    capsys.readouterr()
    assert run("user list") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"Users in {home / 'manager.sqlite3'}",
        "",
        "Username         Administrator",
        "================ =============",
        "a.very.long.name True",
        "j.doe            False",
    ]


def test_no_users_are_told(capsys):
    assert run("user list") == 0
    assert capsys.readouterr().out == "There are no users in the database\n"


def test_a_table_on_a_terminal_has_a_frame_and_no_markup(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    console.print_table(["Username", "Administrator"], [["[red]x[/red]", "True"]])
    text = ESCAPE.sub("", terminal.getvalue())
    assert "│ [red]x[/red] │ True" in text


def test_a_database_of_ones_own_is_used_and_the_default_one_is_not_made(tmp_path):
    path = tmp_path / "new" / "lab.sqlite3"
    assert run("user add j.doe --password a --database", str(path)) == 0
    assert users(path) == [("j.doe", False)]
    assert not database_file().exists()


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("this is no database, and long enough to be none\n" * 50)
    error = fails(capsys, "user list --database", str(path))
    assert error == f"error: The database {path} cannot be used: file is not a database\n"
    assert path.read_text().startswith("this is no database")


def test_a_folder_is_no_database(tmp_path, capsys):
    assert "cannot be used" in fails(capsys, "hostname list --database", str(tmp_path))


def test_an_action_that_there_is_not_is_explained(capsys):
    assert "invalid choice: 'promote'" in usage_error(["user", "promote", "j.doe"], capsys)


# ---- hostname ----


def test_this_computer_is_trusted_from_the_beginning(capsys):
    assert run("hostname list") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Trusted devices in {database_file()}\n\nHostnames:\n")
    assert {"localhost", "127.0.0.1", "::1"} <= {line.strip() for line in out.splitlines()}


@pytest.mark.parametrize(("add", "remove"), [("add", "remove"), ("insert", "delete")])
def test_hosts_are_added_and_removed(capsys, add, remove):
    assert run(f"hostname {add} lab-3 lab-4") == 0
    assert run(f"hostname {add} lab-3") == 0  # has no effect
    assert run(f"hostname {remove} lab-4") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [f"{add.title()}ed lab-3", f"{add.title()}ed lab-4"]
    assert out[3:] == [f"{remove.title()}d lab-4"]
    with Database() as database:
        assert "lab-3" in database.hostnames.hostnames()
        assert "lab-4" not in database.hostnames.hostnames()


def test_of_several_hosts_those_that_can_be_removed_are(capsys):
    run("hostname add lab-3 lab-4")
    error = fails(capsys, "hostname remove lab-3 nowhere lab-4")
    assert error == "error: Cannot delete 'nowhere'. This hostname is not in the table.\n"
    with Database() as database:
        assert not {"lab-3", "lab-4"} & set(database.hostnames.hostnames())


@pytest.mark.parametrize("line", ["hostname add", "hostname remove"])
def test_without_a_host_nothing_is_done(capsys, line):
    assert "The name of a host is missing" in fails(capsys, line)
    assert not database_file().exists()


def test_an_empty_name_is_no_host(capsys):
    assert "must not be empty" in fails(capsys, "hostname add", "")


# ---- what may go wrong ----


@pytest.mark.parametrize("line", ["user add a.smith --password a", "hostname add lab-3"])
def test_a_database_that_another_program_keeps_locked_is_told(capsys, monkeypatch, line):
    monkeypatch.setattr(tables, "_BUSY_TIMEOUT", 0.05)
    run("hostname list")
    with closing(sqlite3.connect(database_file(), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # locks out writers, not readers
        error = fails(capsys, line)
    assert error == f"error: The database {database_file()} cannot be used: database is locked\n"


def test_names_are_shown_also_where_their_characters_cannot_be(capfd):
    run("user add Größe --password a")
    command = [sys.executable, "-m", "msl_network_trio", "user", "list"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert rb"Gr\xf6\xdfe" in printed


# ---- completion ----


def test_tab_completes_names_that_there_are_and_makes_no_database(tmp_path, home):
    assert "j.doe" not in complete("msl-network-trio user remove ", tmp_path)
    assert not home.exists()
    run("user add j.doe --password a")
    run("hostname add lab-3")
    assert "j.doe" in complete("msl-network-trio user remove ", tmp_path)
    assert "lab-3" in complete("msl-network-trio hostname remove ", tmp_path)
