"""Tests of the package's loggers, with any configuration of logging."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
from types import SimpleNamespace

import pytest

from msl_network_trio import logger as module
from msl_network_trio.logger import SHOWN_EVERY, Failures, get_logger


class Raising(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error


class Recording(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        self.records.append(record)


class BadText:
    def __str__(self):
        raise ValueError("no text")


@pytest.fixture
def log():
    """A logger with its own handlers only."""
    log = logging.getLogger("msl_network_trio.test_logger")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    yield log
    log.handlers.clear()
    log.filters.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture
def failures(monkeypatch):
    failures = Failures()
    monkeypatch.setattr(module, "failures", failures)
    return failures


@pytest.fixture
def stderr(monkeypatch):
    stderr = io.StringIO()
    # Not sys.stderr, which pytest replaces itself before the test begins.
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stderr))
    return stderr


METHODS = ["debug", "info", "warning", "error", "exception", "log"]


def write(name, text="%s of %s", *args):
    level = (logging.WARNING,) if name == "log" else ()
    getattr(get_logger("msl_network_trio.test_logger"), name)(*level, text, *(args or (1, 2)))


@pytest.mark.parametrize("name", METHODS)
def test_it_writes_what_a_bare_logger_writes(log, name):
    handler = Recording()
    log.addHandler(handler)
    try:
        raise KeyError("k")
    except KeyError:
        write(name)
    (record,) = handler.records
    assert record.getMessage() == "1 of 2"
    assert record.levelname == {"exception": "ERROR", "log": "WARNING"}.get(name, name.upper())
    assert (record.funcName, record.pathname) == ("write", __file__)
    assert bool(record.exc_info) is (name == "exception")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(28, "full"), RecursionError(), MemoryError()])
def test_a_handler_that_raises_costs_nothing(log, failures, stderr, name, error):
    log.addHandler(Raising(error))
    write(name)
    assert failures.count == 1
    assert type(error).__name__ in stderr.getvalue()


def test_a_filter_that_raises_costs_nothing(log, failures, stderr):
    def refuse(record):
        raise ValueError("bad filter")

    log.addFilter(refuse)
    write("info")
    assert failures.count == 1
    assert "bad filter" in stderr.getvalue()


def test_a_handler_whose_handle_error_raises_costs_nothing(log, failures, stderr):
    class Strict(logging.StreamHandler):
        def handleError(self, record):  # noqa: N802 - as logging calls it
            raise sys.exception()

    log.addHandler(Strict())
    write("info", "%s", BadText())
    assert failures.count == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_ends_the_program_is_raised(log, failures, error):
    log.addHandler(Raising(error))
    with pytest.raises(type(error)):
        write("error")
    assert failures.count == 0


class OfTheUser(BaseException):
    pass


def test_in_another_thread_it_is_not(log, failures, stderr):
    raised = []

    def work():
        try:
            write("error")
        except BaseException as error:
            raised.append(error)

    for error in (KeyboardInterrupt(), SystemExit(), OfTheUser()):
        log.handlers.clear()
        log.addHandler(Raising(error))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert raised == []
    assert failures.count == 3


@pytest.mark.parametrize("error", [OfTheUser(), asyncio.CancelledError(), GeneratorExit()])
def test_what_does_not_end_the_program_costs_nothing(log, failures, stderr, error):
    log.addHandler(Raising(error))
    write("error")
    assert failures.count == 1


def test_a_standard_error_that_is_closed_costs_nothing(log, failures, stderr, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr)  # logging itself prints to it
    log.addHandler(logging.StreamHandler(stderr))
    stderr.close()
    write("error")
    assert failures.count == 1


def test_without_standard_error_nothing_is_printed(log, failures, monkeypatch):
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=None))  # as in pythonw on Windows
    log.addHandler(Raising(RuntimeError()))
    write("error")
    assert failures.count == 1


def test_nothing_is_printed_if_logging_is_not_to_raise(log, failures, stderr, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.addHandler(Raising(RuntimeError()))
    write("error")
    assert stderr.getvalue() == ""
    assert failures.count == 1


def test_tracebacks_are_printed_once_in_a_while(log, failures, stderr, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    log.addHandler(Raising(RuntimeError("gone")))
    for _ in range(5):
        write("error")
    assert stderr.getvalue().count("Logging failed in MainThread") == 1
    now += SHOWN_EVERY
    write("error")
    assert stderr.getvalue().count("Logging failed in MainThread") == 2
    assert failures.count == 6


def test_whether_a_level_is_enabled_is_what_logging_says(log):
    ours = get_logger(log.name)
    log.setLevel(logging.WARNING)
    assert [ours.isEnabledFor(level) for level in (logging.INFO, logging.WARNING)] == [False, True]
