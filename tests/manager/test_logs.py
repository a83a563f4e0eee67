"""Tests of the logging of a Manager program."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import subprocess
import sys

import pytest

from msl_network_trio.manager.logs import level_number, logging_to
from msl_network_trio.protocol.manager.event_log import emit

pytestmark = pytest.mark.usefixtures("home")

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[%s\] lab - Größe\n"


@contextlib.contextmanager
def program():
    """The root logger as a program finds it that has configured nothing; pytest has."""
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], []
    try:
        yield root
    finally:
        root.handlers[:] = before


@pytest.mark.parametrize(
    ("level", "number"),
    [("INFO", 20), ("info", 20), ("warning", 30), ("20", 20), (" 5 ", 5), (20, 20), ("NOTSET", 0)],
)
def test_levels_have_names_and_numbers(level, number):
    assert level_number(level) == number


@pytest.mark.parametrize("level", ["loud", "", "-5", "1.5"])
def test_what_is_no_level_is_an_error_that_names_some(level):
    with pytest.raises(ValueError, match="DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        level_number(level)


def test_messages_go_to_the_console_and_to_a_file_of_the_home_folder(home, capsys):
    with program(), logging_to("INFO", None) as path:
        logging.getLogger("lab").info("Größe")
        logging.getLogger("lab").debug("too small")
    assert path.parent == home / "logs"
    assert re.fullmatch(r"manager-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.log", path.name)
    assert re.fullmatch(LINE % "INFO    ", path.read_text(encoding="utf-8"))
    printed = capsys.readouterr()
    assert re.fullmatch(LINE % "INFO ", printed.out)
    assert printed.err == ""


def test_everything_is_afterwards_as_it_was(tmp_path, capsys):
    with program() as root:
        level = root.level
        with logging_to("DEBUG", tmp_path / "my.log"):
            assert root.level == logging.DEBUG
        assert root.handlers == []
        assert root.level == level
    logging.getLogger("lab").warning("later")
    assert "later" not in (tmp_path / "my.log").read_text()


def test_a_file_that_exists_is_continued(tmp_path):
    path = tmp_path / "logs" / "my.log"
    for text in ("first", "second"):
        with program(), logging_to("INFO", path):
            logging.getLogger("lab").info(text)
    assert re.findall("first|second", path.read_text()) == ["first", "second"]


def test_a_program_with_logging_of_its_own_does_not_see_everything_twice(tmp_path, capsys):
    own = logging.StreamHandler(sys.stdout)
    with program() as root:
        root.addHandler(own)
        with logging_to("INFO", tmp_path / "my.log"):
            logging.getLogger("lab").info("Größe")
        assert root.handlers == [own]
    assert capsys.readouterr().out == "Größe\n"


def test_the_file_says_why_the_program_ended(tmp_path, capsys):
    path = tmp_path / "my.log"
    with pytest.raises(OSError, match="in use"), program(), logging_to("CRITICAL", path):
        raise OSError(98, "Port 1 is in use")
    text = path.read_text()
    assert "[ERROR   ] msl_network_trio.manager.logs - OSError: [Errno 98] Port 1 is in use" in text
    assert "Traceback" in text
    assert capsys.readouterr().out == ""  # whoever sees the console sees the error anyway


def test_a_file_that_cannot_be_written_is_an_error_and_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "my.log", tmp_path):
        with program() as root:
            with pytest.raises(OSError, match=re.escape(str(tmp_path))), logging_to("INFO", path):
                pytest.fail("it began")
            assert root.handlers == []


def test_a_wrong_level_leaves_no_file(home):
    with pytest.raises(ValueError, match="loud"), logging_to("loud", None):
        pytest.fail("it began")
    assert not home.exists()


def test_in_json_each_record_is_an_object_on_a_line_of_its_own(tmp_path, capsys):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path, style="json"):
        logging.getLogger("lab").info("Größe\n%s", 5)
        emit(logging.WARNING, "linked", "%s is linked", "C", peer="C", seconds=1.5, odd=object())
        logging.getLogger("lab").error("lone \ud800")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("lab").exception("failed")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, event, lone, failed = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "INFO", "logger": "lab", "message": "Größe\n5"}
    assert (event["level"], event["event"], event["peer"], event["seconds"]) == (
        "WARNING",
        "linked",
        "C",
        1.5,
    )
    assert event["message"] == "C is linked"
    assert event["odd"].startswith("<object")
    assert "lone" in lone["message"]
    assert failed["exception"].endswith("ValueError: why")


@pytest.mark.parametrize("size", ["1K", "1k", "1024"])
def test_a_log_file_is_begun_anew_when_it_is_large_and_so_many_are_kept(tmp_path, size):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path, rotate=size, keep=2):
        for _ in range(100):
            logging.getLogger("lab").info("x" * 100)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["my.log", "my.log.1", "my.log.2"]
    assert all(file.stat().st_size <= 1024 for file in tmp_path.iterdir())


@pytest.mark.parametrize(("rotate", "seconds"), [("hourly", 3600), ("daily", 86400), ("WEEKLY", 7 * 86400)])
def test_a_log_file_is_begun_anew_when_it_is_time(tmp_path, rotate, seconds):
    with program() as root, logging_to("INFO", tmp_path / "my.log", rotate=rotate, keep=5):
        handler = root.handlers[0]
        assert handler.interval == seconds
        assert handler.backupCount == 5
        logging.getLogger("lab").info("first")
        handler.rolloverAt = 0
        logging.getLogger("lab").info("second")
    old, new = sorted(tmp_path.iterdir(), key=lambda file: file.name != "my.log", reverse=True)
    assert "first" in old.read_text()
    assert "second" in new.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        {"rotate": "sometimes"},
        {"rotate": "0"},
        {"rotate": "-5M"},
        {"rotate": "1K", "keep": 0},
        {"style": "xml"},
    ],
)
def test_what_makes_no_sense_for_a_log_is_an_error_and_changes_nothing(tmp_path, arguments):
    with program() as root:
        with (
            pytest.raises(ValueError, match="neither a size|At least one|text or json"),
            logging_to("INFO", tmp_path / "my.log", **arguments),
        ):
            pytest.fail("it began")
        assert root.handlers == []


def test_importing_configures_nothing():
    code = (
        "import logging, pkgutil, importlib, msl_network_trio.manager as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger().level == logging.WARNING\n"
        "assert logging.getLogger('msl_network_trio').level == logging.NOTSET\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
