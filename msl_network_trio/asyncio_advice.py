"""Advice in exceptions that are raised because user code uses asyncio where Trio runs.

Services and handlers that were written for msl-network 1.0.0, which runs asyncio, run on Trio here. The
errors of asyncio ("no running event loop") and of Trio (about awaitables of asyncio) name no replacement.
`explain` adds it; it is called wherever an exception of user code is reported. The functions may be called
from any thread and do not import asyncio.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Final

_WAY_OUT: Final = (
    "or call asyncio.run(...) in a worker thread (in a plain method of a Service, or by "
    "trio.to_thread.run_sync)"
)
_GENERAL: Final = (
    "Trio runs here, not asyncio: use trio.sleep, trio.Event, trio.open_nursery or trio.to_thread.run_sync; "
) + _WAY_OUT

_TASKS: Final = "a nursery (trio.open_nursery(), or self.nursery in a Service)"
_INSTEAD: Final = {
    "Barrier": "trio.Event",
    "BoundedSemaphore": "trio.Semaphore",
    "Condition": "trio.Condition",
    "Event": "trio.Event",
    "LifoQueue": "trio.open_memory_channel",
    "Lock": "trio.Lock",
    "PriorityQueue": "trio.open_memory_channel",
    "Queue": "trio.open_memory_channel",
    "Semaphore": "trio.Semaphore",
    "TaskGroup": _TASKS,
    "as_completed": _TASKS,
    "create_subprocess_exec": "trio.run_process",
    "create_subprocess_shell": "trio.run_process",
    "create_task": _TASKS,
    "ensure_future": _TASKS,
    "gather": _TASKS,
    "open_connection": "trio.open_tcp_stream",
    "open_unix_connection": "trio.open_unix_socket",
    "shield": "trio.CancelScope(shield=True)",
    "sleep": "trio.sleep",
    "start_server": "trio.serve_tcp",
    "timeout": "trio.fail_after",
    "to_thread": "trio.to_thread.run_sync",
    "wait": _TASKS,
    "wait_for": "trio.fail_after",
}
"""Replacements for functions and classes of asyncio, by name."""

_AWAIT: Final = (
    'Trio runs here, not asyncio: return the value itself, by "return await ..." in an async method for '
    "Trio, or by result() of a Future of concurrent.futures; "
) + _WAY_OUT
_RETURN: Final = {
    "async_generator": "Trio runs here, not asyncio: return a list, or emit each value as a notification"
}
"""Advice by the class of a returned object that has no JSON form."""

_A_COROUTINE: Final = "Trio was expecting an async function, but instead it got a coroutine object"
_CALL: Final = (
    "Trio runs here, not asyncio: pass the async function and its arguments, start_soon(f, x), not f(x)"
)

_OF_TRIO: Final = (
    "trio.run received unrecognized yield message",
    "Trio got unexpected",
    "Trio was expecting an async function",
)
"""Beginnings of Trio's error messages about awaitables of other libraries."""

_NO_RESULT: Final = re.compile(r"\b(async_generator|coroutine|Future|Task|_GatheringFuture)\b")
"""Matches the class of an awaitable in the message of the error that it has no JSON form."""

_LONGEST_CHAIN: Final = 100
"""Maximum number of causes and group members of an exception that are examined."""

_LOOP_RUNS: Final = frozenset({"asyncio.base_events", "asyncio.runners"})
"""Modules whose frames show that an asyncio event loop was running."""


def explain(error: BaseException) -> str:
    """Add advice to an exception that was raised because no asyncio event loop runs.

    Args:
        error: Any exception. The first such exception among `error`, its causes and the members of its groups
            is modified.

    Returns:
        The advice if it was added to another exception than `error`; else an empty string.
    """
    for each in _chain(error):
        if advice := _advice(each):
            first_line, *_ = str(each).splitlines()
            each.args = (f"{first_line.rstrip('.')}. {advice}",)
            return "" if each is error else advice
    return ""


def check_task(task: object) -> None:
    """Raise a TypeError with advice if a task is neither an async function nor a coroutine."""
    if isinstance(task, Coroutine) or (callable(task) and not inspect.isasyncgenfunction(task)):
        return
    raise TypeError(_foreign_task(task))


def _foreign_task(task: object) -> str:
    text = f"A task is an async function or a coroutine, not {task!r}: "
    if hasattr(task, "_asyncio_future_blocking"):  # how asyncio itself recognizes its Futures and Tasks
        return text + "pass the async function itself, not a Future or Task of asyncio. " + _GENERAL
    if hasattr(task, "__aiter__") or inspect.isasyncgenfunction(task):
        return (
            text + "pass an async function with the loop (async for) in it, which Trio runs and not asyncio"
        )
    return text + "pass an async function that awaits it, which Trio runs and not asyncio"


def forget_event_loop() -> None:
    """Unset the asyncio event loop of the current thread before it runs Trio.

    Up to Python 3.13 asyncio creates an event loop in the main thread on request, and accepts tasks that then
    never run, without an error. (``Service.start`` of msl-network 1.0.0 leaves a closed loop behind.)
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is None:  # noqa: SLF001 - what is public raises
        asyncio.set_event_loop(None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all exceptions that its traceback shows: causes, contexts, members of groups."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo and len(seen) < _LONGEST_CHAIN:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))
        if isinstance(each, BaseExceptionGroup):
            todo.extend(each.exceptions)


def _advice(error: BaseException) -> str:
    """Return the advice for one exception; empty if it has another reason or contains the advice already."""
    text = error.args[0] if error.args else None
    if not isinstance(text, str) or "not asyncio:" in text or _runs_asyncio(error.__traceback__):
        return ""
    if type(error) is TypeError and text.startswith(_A_COROUTINE):
        return _CALL
    if _is_for_lack_of_a_loop(error, text):
        return _instead(error.__traceback__)
    if type(error) is TypeError and "JSON" in text and (result := _NO_RESULT.search(text)) is not None:
        return _RETURN.get(result[1], _AWAIT)
    return ""


def _is_for_lack_of_a_loop(error: BaseException, text: str) -> bool:
    kind = type(error)
    if kind is RuntimeError:
        if text == "no running event loop" or text.startswith("There is no current event loop in thread"):
            return True
        return text.endswith("is bound to a different event loop") and _is_of_asyncio(error.__traceback__)
    if kind is AttributeError:
        # An Event, Lock or Queue that has to wait looks up the running loop, which is None.
        return error.obj is None and _is_of_asyncio(error.__traceback__)  # type: ignore[attr-defined]
    return kind is TypeError and text.startswith(_OF_TRIO)


def _instead(frames: TracebackType | None) -> str:
    """Return the advice for the asyncio function that was called."""
    for frame in _frames(frames):
        if _module(frame).startswith("asyncio."):
            name = frame.tb_frame.f_code.co_qualname.partition(".")[0]
            name = "timeout" if name == "Timeout" else name
            if name in _INSTEAD:
                return (
                    f"Trio runs here, not asyncio: instead of asyncio.{name} use {_INSTEAD[name]}; {_WAY_OUT}"
                )
    return _GENERAL


def _runs_asyncio(frames: TracebackType | None) -> bool:
    return any(_module(frame) in _LOOP_RUNS for frame in _frames(frames))


def _is_of_asyncio(frames: TracebackType | None) -> bool:
    """Return whether the innermost frame belongs to asyncio."""
    modules = [_module(frame) for frame in _frames(frames)]
    return bool(modules) and modules[-1].startswith("asyncio.")


def _frames(frames: TracebackType | None) -> Iterator[TracebackType]:
    while frames is not None:
        yield frames
        frames = frames.tb_next


def _module(frame: TracebackType) -> str:
    name = frame.tb_frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""
