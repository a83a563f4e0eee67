"""A full disk costs the records that cannot be written, is reported once a minute, and does no other harm."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
from pathlib import Path

import pytest
import trio

from msl_network_trio import connect
from msl_network_trio.manager import logs
from msl_network_trio.manager.database import ManagerDatabase
from msl_network_trio.manager.logs import logging_to
from msl_network_trio.manager.opening import open_manager
from tests.manager.test_logs import program

FULL = "No space left on device"

log = logging.getLogger("lab")


class Disk(io.FileIO):
    """A file on a disk that has so much room."""

    room = 1_000_000

    def write(self, data):
        if not Disk.room:
            raise OSError(errno.ENOSPC, FULL)
        written = super().write(bytes(data)[: Disk.room])
        Disk.room -= written
        return written


class LinesOnDisk(logs._LineFile, Disk):
    pass


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(Disk, "room", 1_000_000)
    monkeypatch.setattr(logs, "_LineFile", LinesOnDisk)
    return Disk


class Clock:
    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1_900_000_000 + self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    return clock


@pytest.mark.parametrize("rotate", [None, "100M", "daily"])
@pytest.mark.parametrize("style", ["text", "json"])
def test_it_is_reported_once_a_minute_and_with_room_again_the_log_goes_on(
    disk, clock, tmp_path, capsys, style, rotate
):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path, style=style, rotate=rotate):
        log.info("first")
        disk.room = 10
        for _ in range(50):
            log.info("lost")
            clock.now += 2
        printed = capsys.readouterr()
        assert printed.err.splitlines() == [
            f"the log cannot be written to {path}: {FULL}; 1 records are lost",
            f"the log cannot be written to {path}: {FULL}; 31 records are lost",
        ]
        assert printed.out.count("lost") == 50  # the console goes on
        disk.room = 1_000_000
        log.info("second")
        log.info("third")
    assert capsys.readouterr().err == ""
    first, torn, *rest = path.read_text(encoding="utf-8").splitlines()
    assert len(torn) == 10
    if style == "json":
        first, *rest = [json.loads(line)["message"] for line in (first, *rest)]
    ends = [line.rpartition(" - ")[2] for line in (first, *rest)]
    assert ends == ["first", "second", "50 records before this one could not be written", "third"]


def test_what_has_room_is_written_and_nothing_is_written_twice(disk, clock, tmp_path, capsys):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path):
        for number in range(30):
            disk.room = 0 if number % 3 else 100_000
            log.info("record %d.", number)
    text = path.read_text(encoding="utf-8")
    assert [number for number in range(30) if text.count(f"record {number}.")] == list(range(0, 30, 3))
    assert text.count("\n") == 10 + 9
    assert text.count("2 records before") == 9


@pytest.mark.parametrize("ruin", ["closed", "none", "full"])
def test_a_console_that_cannot_be_written_to_costs_nothing_else(tmp_path, clock, monkeypatch, ruin):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, FULL)

    path = tmp_path / "my.log"
    out = io.StringIO() if ruin == "closed" else Full()
    monkeypatch.setattr(sys, "stdout", out)
    with program(), logging_to("INFO", path):
        broken = {"closed": io.StringIO(), "none": None, "full": Full()}[ruin]
        monkeypatch.setattr(sys, "stderr", broken)
        if ruin == "closed":
            out.close()
            broken.close()
        for number in range(3):
            log.info("record %d", number)
    assert path.read_text(encoding="utf-8").count("record") == 3


def test_a_mistake_in_a_program_is_shown_once_a_minute(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path):
        for _ in range(10):
            log.info("%d of %d", *[1])
            clock.now += 10
        log.info("afterwards")
    error = capsys.readouterr().err
    assert error.count("TypeError: not enough arguments for format string") == 4  # twice on the console
    assert "afterwards" in path.read_text(encoding="utf-8")


# ---- beginning the file anew ----


@pytest.fixture
def stuck(monkeypatch):
    """The names of files that cannot be renamed."""
    names: set[str] = set()
    for owner, name in [(Path, "replace"), (logs.logging.handlers.os, "rename")]:
        real = getattr(owner, name)

        def move(source, target, real=real):
            if Path(source).name in names:
                raise PermissionError(errno.EACCES, "Permission denied", str(source))
            return real(source, target)

        monkeypatch.setattr(owner, name, move)
    return names


def old_logs(path):
    return {file.name: file.read_text() for file in path.parent.iterdir() if file != path}


def test_if_the_file_cannot_be_begun_anew_it_goes_on_and_no_old_one_is_lost(tmp_path, clock, stuck, capsys):
    path = tmp_path / "my.log"
    for number in (1, 2):
        (tmp_path / f"my.log.{number}").write_text(f"old {number}")
    stuck.add("my.log")
    with program(), logging_to("INFO", path, rotate="1K", keep=3):
        for _ in range(600):
            log.info("x" * 50)
            clock.now += 1
        assert set(old_logs(path).values()) == {"old 1", "old 2"}
        assert path.read_text().count("x" * 50) == 600
        error = capsys.readouterr().err.splitlines()
        assert len(error) in {9, 10}
        why = "Permission denied, when it was to be rotated"
        assert set(error) == {f"the log cannot be written to {path}: {why}; 0 records are lost"}
        stuck.clear()
        clock.now += 60
        log.info("new")
    assert path.read_text().count("\n") == 1
    olds = old_logs(path)
    assert len(olds) == 3
    assert olds["my.log.1"].count("x" * 50) == 600


def test_old_files_move_on_and_the_oldest_is_removed(tmp_path):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path, rotate="1", keep=3):
        for number in range(6):
            log.info("record %d", number)
    texts = [path.read_text(), *(old_logs(path)[f"my.log.{number}"] for number in (1, 2, 3))]
    assert [text.strip()[-1] for text in texts] == ["5", "4", "3", "2"]
    assert len(old_logs(path)) == 3


def test_a_file_that_is_begun_anew_at_times_goes_on_if_it_cannot_be(tmp_path, clock, stuck, capsys):
    path = tmp_path / "my.log"
    stuck.add("my.log")
    with program(), logging_to("INFO", path, rotate="hourly", keep=3):
        log.info("first")
        [handler] = [h for h in logging.getLogger().handlers if isinstance(h, logs._TimeHandler)]
        handler.rolloverAt = 100_000
        for _ in range(10):
            log.info("second")
        assert capsys.readouterr().err.count("Permission denied, when it was to be rotated") == 1
        assert path.read_text().count("second") == 10
        stuck.clear()
        clock.now += 61
        log.info("third")
    assert path.read_text().count("\n") == 1
    assert [text.count("second") for text in old_logs(path).values()] == [10]


def test_a_file_that_was_renamed_is_not_renamed_again_if_something_fails_later(tmp_path, clock, monkeypatch):
    path = tmp_path / "my.log"

    def fail(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    with program(), logging_to("INFO", path, rotate="hourly", keep=3):
        log.info("first")
        [handler] = [h for h in logging.getLogger().handlers if isinstance(h, logs._TimeHandler)]
        monkeypatch.setattr(logs._TimeHandler, "getFilesToDelete", fail)
        handler.rolloverAt = 100_000
        log.info("second")
        clock.now += 61
        log.info("third")
    assert ["first" in text for text in old_logs(path).values()] == [True]
    assert path.read_text().count("\n") == 2


def test_if_the_new_file_cannot_be_opened_the_log_goes_on_when_it_can_be(
    tmp_path, clock, monkeypatch, capsys
):
    path = tmp_path / "my.log"
    with program(), logging_to("INFO", path, rotate="100", keep=3):
        log.info("x" * 100)
        with monkeypatch.context() as patch:

            def fail(self):
                raise OSError(errno.ENOSPC, FULL)

            patch.setattr(logs._FileHandler, "_open", fail)
            for _ in range(5):
                log.info("lost")
        assert capsys.readouterr().err.count(FULL) == 1
        log.info("again")
    assert "again" in path.read_text()
    assert "could not be written" in path.read_text()


# ---- the Manager ----


async def test_a_manager_whose_disk_is_full_serves_on_and_records_later(tmp_path, caplog):
    path = tmp_path / "lab.sqlite3"
    with trio.fail_after(60):
        async with open_manager(in_memory=True, database=path) as manager:
            database = manager._database
            pages = await database.call(lambda db: _pages(db, None))
            await database.call(lambda db: _pages(db, pages))
            kept = 0
            while "database or disk is full" not in caplog.text:
                async with connect(name="x" * 200, **manager.connect_kwargs()) as client:
                    assert await client.identities()
                kept += 1
            for _ in range(3):
                async with connect(**manager.connect_kwargs()) as client:
                    assert await client.identities()
            await database.call(lambda db: _pages(db, 1_000_000))
            while "recorded in the database again, 0 records are lost" not in caplog.text:
                async with connect(**manager.connect_kwargs()) as client:
                    assert await client.identities()
                kept += 1
            await database.write_records()
            rows = await database.call(lambda db: db.connections.connections())
    assert sum(row[-1] == "connected as a client" for row in rows) == kept + 3


async def test_that_records_cannot_be_written_is_logged_once_a_minute(caplog, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(trio, "current_time", lambda: now)
    database = ManagerDatabase(":memory:")
    for _ in range(100):
        database._fail(OSError(FULL))
        now += 2
    assert caplog.messages == [f"connections cannot be recorded in the database: {FULL}"] * 4


def _pages(database, most):
    connection = database.users._connection
    if most is None:
        return connection.execute("PRAGMA page_count").fetchone()[0]
    return connection.execute(f"PRAGMA max_page_count = {most}").fetchone()[0]
