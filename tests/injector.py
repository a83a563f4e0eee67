"""An injector that raises an exception at the n-th step of a thread in this package.

Steps are function entries, lines and the instructions after calls. The interpreter raises the exceptions of signal handlers, and
those from other threads (``PyThreadState_SetAsyncExc``), at function entries, at backward jumps and after calls that C carries out.
When a function in Python returns to the one in Python that called it, it raises none: that is no step. An `Injector` tries one step
after the other.
"""

from __future__ import annotations

import dis
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any, Self, TypeVar

R = TypeVar("R")

EVERY_STEP = bool(os.environ.get("EVERY_STEP"))
"""Whether tests take all steps, as in ``nox -s interrupts``, instead of a sample."""

TRACES_OPCODES = sys.version_info[:2] != (3, 12)
"""Whether the instructions after calls are steps: tracing them crashes other threads of CPython 3.12."""

FOLDER = os.sep + "msl_network_trio" + os.sep


class Injector:
    """A context manager that calls a function at the n-th step of the current thread.

    Args:
        number: Number of the step, from 1; 0: only count steps.
        function: The function; it may raise.
        files: Parts of the names of the files whose steps are counted.
        counts: Returns True while steps are counted; None: always.

    Attributes:
        where: The place at which the function was called; None: there were fewer steps.
        steps: Number of steps so far.
    """

    def __init__(
        self,
        number: int,
        function: Callable[[], object],
        files: tuple[str, ...] = (FOLDER,),
        counts: Callable[[], bool] | None = None,
    ) -> None:
        self.where: str | None = None
        self.steps = 0
        self._number = number
        self._function = function
        self._files = files
        self._counts = counts
        self._calls: dict[FrameType, int] = {}
        """Offset in each frame of its last call of a function in Python, without C in between."""

    def __enter__(self) -> Self:
        sys.settrace(self._at_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self._calls.clear()

    def _at_call(self, frame: FrameType, event: str, _: Any) -> Any:
        caller = frame.f_back
        if caller is not None and caller.f_trace_opcodes and not _is_called_by_c(frame.f_code, caller):
            self._calls[caller] = caller.f_lasti
        if not any(file in frame.f_code.co_filename for file in self._files):
            return None
        frame.f_trace_opcodes = TRACES_OPCODES
        self._step(frame, "entering")
        return self._in_function

    def _in_function(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" or (event == "opcode" and self._is_after_call_by_c(frame)):
            self._step(frame, event)
        return self._in_function

    def _is_after_call_by_c(self, frame: FrameType) -> bool:
        offset = _calls_before(frame.f_code).get(frame.f_lasti)
        return offset is not None and not offset <= self._calls.pop(frame, -1) < frame.f_lasti

    def _step(self, frame: FrameType, event: str) -> None:
        if self._counts is not None and not self._counts():
            return
        self.steps += 1
        if self.steps == self._number:
            code = frame.f_code
            name = code.co_filename.rsplit(os.sep, 1)[-1]
            self.where = f"{name}:{frame.f_lineno} ({event}) in {code.co_qualname}"
            sys.settrace(None)
            self._function()


def isolated(function: Callable[..., R]) -> Callable[..., R]:
    """Return a function that is called in a generator, which has its own exception state.

    An exception of a trace function, at the last line of an ``except`` block for example, may leave the
    exception of the block in the thread's state, as the context of exceptions in later tests.
    """

    def call(*args: Any) -> R:
        def generator() -> Iterator[R]:
            yield function(*args)

        return next(generator())

    return call


def _is_called_by_c(code: CodeType, caller: FrameType) -> bool:
    """Return whether C called a function: a type, a `functools.partial` or a builtin function."""
    if sys.version_info < (3, 13):
        # A call without C in between has moved the caller to the cache behind its instruction.
        return caller.f_lasti in _instructions(caller.f_code)
    # Nothing shows it here. Functions that C calls mostly have a special name or are generators.
    is_special = code.co_name.startswith("__") and code.co_name.endswith("__")
    return is_special or bool(code.co_flags & inspect.CO_GENERATOR)


@cache
def _instructions(code: CodeType) -> dict[int, str]:
    """Return the names of instructions by their offsets."""
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


@cache
def _calls_before(code: CodeType) -> dict[int, int]:
    """Return the offsets of calls, by those of the instructions after them."""
    names = _instructions(code)
    return {after: offset for offset, after in pairwise(names) if names[offset].startswith("CALL")}


def numbers(count: Callable[[], int], sample: int) -> Iterator[int]:
    """Return the steps at which to raise: all, or a sample in the default run.

    Args:
        count: Returns the number of steps.
        sample: Size of the sample, which is spread evenly.
    """
    steps = count()
    assert steps > sample, "there are hardly any steps: this does not test what it should"
    if EVERY_STEP:
        return iter(range(1, steps + 1))
    return iter(sorted({1 + round(index * (steps - 1) / (sample - 1)) for index in range(sample)}))
