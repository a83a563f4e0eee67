"""Raises an exception at the n-th step of what a thread does in this package: function entries, lines, calls.

Python lets signal handlers, and other threads by ``PyThreadState_SetAsyncExc``, raise exceptions between any two
steps. What a real one hits by chance, an `Injector` hits at each place, one after the other.
"""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FrameType
from typing import Any, Self, TypeVar

R = TypeVar("R")

EVERY_STEP = bool(os.environ.get("EVERY_STEP"))
"""Whether tests take all steps and not a sample, as in ``nox -s interrupts``."""

TRACES_OPCODES = sys.version_info[:2] != (3, 12)
"""Whether instructions behind calls are steps, too: tracing them in one thread crashes others of CPython 3.12."""

FOLDER = os.sep + "msl_network_trio" + os.sep


class Injector:
    """Calls a function at the n-th step of the current thread, which may raise.

    Args:
        number: Which step, from 1; 0: none, just count them.
        function: What to call.
        files: Parts of the names of the files whose steps count.
        counts: Whether steps count at the moment; None: always.

    Attributes:
        where: Where the function was called; None: there were fewer steps.
        steps: How many steps there were.
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

    def __enter__(self) -> Self:
        sys.settrace(self._at_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _at_call(self, frame: FrameType, event: str, _: Any) -> Any:
        if not any(file in frame.f_code.co_filename for file in self._files):
            return None
        frame.f_trace_opcodes = TRACES_OPCODES
        self._step(frame, "entering")
        return self._in_function

    def _in_function(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" or (event == "opcode" and frame.f_lasti in _after_calls(frame.f_code)):
            self._step(frame, event)
        return self._in_function

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
    """Have a function called in a generator, which has an exception state of its own.

    What is raised by a trace function, at the last line of an ``except`` block for example, may leave the
    exception of the block in the thread's state: exceptions of later tests would have it as their context.
    """

    def call(*args: Any) -> R:
        def generator() -> Iterator[R]:
            yield function(*args)

        return next(generator())

    return call


@cache
def _after_calls(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions behind calls, where the interpreter looks for signals."""
    offsets = set()
    after_call = False
    for instruction in dis.get_instructions(code):
        if after_call:
            offsets.add(instruction.offset)
        after_call = instruction.opname.startswith("CALL")
    return frozenset(offsets)


def numbers(count: Callable[[], int], sample: int) -> Iterator[int]:
    """Return the steps at which to raise: all, or in the default run a sample.

    Args:
        count: Returns how many steps there are.
        sample: How many to take of them, evenly spread.
    """
    steps = count()
    assert steps > sample, "there are hardly any steps: this does not test what it should"
    if EVERY_STEP:
        return iter(range(1, steps + 1))
    return iter(sorted({1 + round(index * (steps - 1) / (sample - 1)) for index in range(sample)}))
