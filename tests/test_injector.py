"""Steps of the injector, compared with the places at which the interpreter raises."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from tests.injector import TRACES_OPCODES, Injector

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="about CPython"),
    pytest.mark.skipif(not TRACES_OPCODES, reason="without steps after calls"),
]


class Stop(Exception):
    """Raised by a signal handler."""


class Pending:
    """Makes a signal pending: ``PENDING[number]``, after which the interpreter does not look for signals."""

    __getitem__ = _thread.interrupt_main


class Holder:
    @property
    def value(self) -> None:
        PENDING[signal.SIGTERM]


PENDING = Pending()
HOLDER = Holder()


def function(*_: object) -> None:
    PENDING[signal.SIGTERM]


def failing_function() -> None:
    PENDING[signal.SIGTERM]
    raise ValueError


by_partial = partial(function)
ARGUMENTS = (1, 2)


def call() -> None:
    function()


def call_with_arguments_unpacked() -> None:
    function(*ARGUMENTS)


def call_by_partial() -> None:
    by_partial()


def call_after_a_property() -> None:
    HOLDER.value
    threading.get_ident()


def call_after_an_exception() -> None:
    try:
        failing_function()
    except ValueError:
        pass
    threading.get_ident()


class Steps(Injector):
    """An injector that only notes the steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places: list[tuple[str, str]] = []

    def _step(self, frame: FrameType, event: str) -> None:
        self.places.append((event, frame.f_code.co_name))


@pytest.fixture
def raising_handler():
    def handler(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("operation", "raises"),
    [
        (call, False),
        (call_with_arguments_unpacked, sys.version_info < (3, 12)),
        pytest.param(
            call_by_partial,
            True,
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="looks like a direct call"),
        ),
        (call_after_a_property, True),
        (call_after_an_exception, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_steps_after_calls_are_where_the_interpreter_raises(
    raising_handler, operation: Callable[[], None], raises: bool
):
    def look_for_signals() -> None:
        """Do nothing; the interpreter looks for signals at the entry of each function."""

    with pytest.raises(Stop) as caught:
        operation()
        look_for_signals()
    frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert (operation.__name__ in frames) == raises
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which makes no signal pending

    with Steps(0, look_for_signals, files=(__file__,)) as steps:
        operation()
        operation()  # CPython 3.13.0 traces the instructions of a function from its second call on
    assert (("opcode", operation.__name__) in steps.places) == raises
