"""Tests of `msl_network_trio.atomic_files`: readers see the old or the new file, and private files stay private."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from msl_network_trio import atomic_files
from msl_network_trio.atomic_files import PRIVATE, PUBLIC, replace, user_path, write_new

posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no such modes of files, nor fork()"
)

OLD, NEW = b"old" * 1000, b"new" * 1000


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """The usual one, whatever the tests are run with."""
    before = os.umask(0o022)
    yield
    os.umask(before)


# ---- what is written ----


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
@pytest.mark.parametrize("write", [write_new, replace])
def test_a_file_is_written_with_its_folders_and_nothing_else(write, mode, tmp_path, umask):
    path = tmp_path / "a" / "b" / "file"
    write(path, NEW, mode=mode)
    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]
    if sys.platform != "win32":
        modes = {PRIVATE: (0o600, 0o700), PUBLIC: (0o644, 0o755)}
        assert (mode_of(path), mode_of(path.parent)) == modes[mode]


def test_write_new_does_not_touch_a_file(tmp_path):
    path = tmp_path / "file"
    assert write_new(path, OLD, mode=PUBLIC)
    assert not write_new(path, NEW, mode=PUBLIC)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_replace_replaces(tmp_path):
    path = tmp_path / "file"
    replace(path, OLD, mode=PUBLIC)
    replace(path, NEW, mode=PUBLIC)
    assert path.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [path]


@posix_only
@pytest.mark.parametrize(("mode", "after"), [(PUBLIC, 0o640), (PRIVATE, 0o600)])
def test_what_is_replaced_keeps_its_mode_unless_it_is_private(mode, after, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(0o640)
    replace(path, NEW, mode=mode)
    assert mode_of(path) == after


@posix_only
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    path, link = tmp_path / "folder" / "file", tmp_path / "link"
    link.symlink_to(path)
    for content in (OLD, NEW):  # the first time it is one to nowhere
        replace(link, content, mode=PUBLIC)
        assert link.is_symlink()
        assert path.read_bytes() == content


@posix_only
def test_what_is_no_file_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    replace(path, NEW, mode=PUBLIC)
    reader.join()
    assert read == [NEW]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("length", [251, 255])
def test_a_name_may_be_as_long_as_names_can_be(length, tmp_path):
    path = tmp_path / ("x" * length)
    assert write_new(path, NEW, mode=PUBLIC)
    replace(path, OLD, mode=PUBLIC)
    assert path.read_bytes() == OLD


def test_a_user_may_write_a_tilde(monkeypatch, tmp_path):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert user_path("~/x/y.crt") == tmp_path / "x" / "y.crt"
    assert user_path(Path("~")) == tmp_path
    assert user_path("x/~/y") == Path("x/~/y")


# ---- faults ----


class FullDisk:
    """A file on a disk on which there is no room after some bytes."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[:300])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def break_down(monkeypatch, step):
    """Let one of the steps of writing a file fail."""

    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if step == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *args: FullDisk(fdopen(*args)))
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif step == "rename":
        monkeypatch.setattr(os, "link", fail)
        monkeypatch.setattr(Path, "rename", fail)
    else:
        monkeypatch.setattr(os, step, fail)


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("write", "step"),
    [(write_new, step) for step in ("open", "write", "fsync", "rename")]
    + [(replace, step) for step in ("open", "write", "fsync", "replace")],
)
def test_a_write_that_fails_leaves_what_there_was_and_nothing_else(
    write, step, exists, tmp_path, monkeypatch
):
    path = tmp_path / "file"
    if exists:
        path.write_bytes(OLD)
    with monkeypatch.context() as patch:
        break_down(patch, step)
        with pytest.raises(OSError, match="file") as raised:
            write(path, NEW, mode=PUBLIC)
    assert raised.value.filename == str(path), "and not that of the temporary file"
    assert list(tmp_path.iterdir()) == ([path] if exists else [])
    assert not exists or path.read_bytes() == OLD


def test_a_file_system_that_has_no_fsync_does_no_harm(tmp_path, monkeypatch):
    def no_fsync(descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", no_fsync)
    assert write_new(tmp_path / "file", NEW, mode=PUBLIC)
    assert (tmp_path / "file").read_bytes() == NEW


@posix_only
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_hard_links_a_file_is_complete_or_not_there_either(number, tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "file"
    looked = []
    move = Path.replace

    def look(self, target):
        looked.append((self.read_bytes(), path.exists()))
        return move(self, target)

    monkeypatch.setattr(Path, "replace", look)
    assert write_new(path, NEW, mode=PUBLIC)
    assert looked == [(NEW, False)]
    assert not write_new(path, OLD, mode=PUBLIC)
    assert path.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("times", [3, 1000])
def test_on_windows_a_file_that_others_read_is_replaced_a_little_later(times, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(atomic_files, "_IN_USE", (0, 20))
    move, tried = Path.replace, []

    def in_use(self, target):
        tried.append(target)
        if len(tried) <= times:
            raise PermissionError(errno.EACCES, "it is being used by another process")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", in_use)
    if times == 3:
        replace(path, NEW, mode=PUBLIC)
        assert path.read_bytes() == NEW
    else:
        with pytest.raises(PermissionError):
            replace(path, NEW, mode=PUBLIC)
        assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


_KILLED = """
import os, sys
from pathlib import Path
from msl_network_trio import atomic_files

OLD, NEW = b"old" * 1000, b"new" * 1000

# Writes in a process of its own, which dies at this line of the module; returns whether it did.
def run_and_die(write, path, number):
    process = os.fork()
    if process == 0:
        lines = 0
        def trace(frame, event, _):
            nonlocal lines
            if frame.f_code.co_filename != atomic_files.__file__:
                return None
            lines += 1
            if lines == number:
                os._exit(9)
            return trace
        sys.settrace(trace)
        write(path, NEW, mode=atomic_files.PRIVATE)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9

path = Path(sys.argv[1], "file")
seen = set()
for write in atomic_files.write_new, atomic_files.replace:
    for old in (None, OLD):
        number = 0
        while True:
            number += 1
            for each in path.parent.iterdir():
                each.unlink()
            if old is not None:
                path.write_bytes(old)
                path.chmod(0o600)
            died = run_and_die(write, path, number)
            found = path.read_bytes() if path.exists() else None
            assert found in (old, NEW), (write, number, found)
            for each in path.parent.iterdir():
                assert each.stat().st_mode & 0o77 == 0, each
            seen.add((write.__name__, old, found))
            if not died:
                break
        assert number > 10, number
assert len(seen) == 7, seen  # of each the old and the new one, but write_new() leaves one that is there
"""


@posix_only
def test_at_whatever_line_a_process_is_killed_there_is_the_old_file_or_the_new_one(tmp_path):
    program = [sys.executable, "-c", _KILLED, str(tmp_path)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stderr


def test_of_many_who_write_a_new_file_at_once_one_succeeds(tmp_path):
    path = tmp_path / "file"
    barrier = threading.Barrier(8)
    written = []

    def write(number):
        barrier.wait()
        if write_new(path, b"%d" % number * 10_000, mode=PUBLIC):
            written.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (number,) = written
    assert path.read_bytes() == b"%d" % number * 10_000
    assert list(tmp_path.iterdir()) == [path]
