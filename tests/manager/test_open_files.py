"""Tests of the limit of open files, and so of connections."""

from __future__ import annotations

import math
import sys

import pytest

from msl_network_trio.manager import open_files
from msl_network_trio.manager.open_files import open_files_limit, raise_open_files_limit

resource = pytest.importorskip("resource", reason="Windows has no such limit")
INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 4096),
        (1024, 1_000_000, 65_536),
        (1024, INFINITY, 65_536),
        (100_000, INFINITY, None),
        (4096, 4096, None),
        (INFINITY, INFINITY, None),
    ],
)
def test_it_is_raised_within_reason(monkeypatch, soft, hard, expected):
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    raise_open_files_limit()
    assert set_to == ([] if expected is None else [(expected, hard)])
    assert open_files_limit() == (math.inf if soft == INFINITY else soft)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_system_that_does_not_raise_it_is_put_up_with(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_open_files_limit()


def test_sockets_of_windows_are_no_files(monkeypatch):
    monkeypatch.setattr(open_files.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    raise_open_files_limit()
    assert open_files_limit() == math.inf
