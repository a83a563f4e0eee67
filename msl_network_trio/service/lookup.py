"""What a request may reach of a Service, and how it is to be carried out.

Clients see the attributes of the object that a program calls its Service, but not all of them:

- Names that begin with an underscore are refused, as in msl-network.
- What runs the Service belongs to its program (`PROGRAM_ONLY`): it is refused, also where a subclass
  overrides it. Names that msl-network does not have (`OURS`) are refused if no subclass defines them.
- `name`, `max_clients`, `address_manager`, `port`, `loop_thread_id`, `identity` and `set_logging_level` can
  be requested, as in msl-network.

Nothing that may take long is done in the Trio thread: a property, or whatever else has to be computed, is
looked up in a worker thread, of which there are some for just that. If it turns out to be a method, it waits
for other methods as they do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum, auto
from inspect import CO_COROUTINE
from types import FunctionType, MethodType
from typing import Any, Final

PROGRAM_ONLY: Final = frozenset(
    {
        "add_tasks",
        "emit_notification",
        "emit_notification_threadsafe",
        "ignore_attributes",
        "shutdown_handler",
        "start",
    }
)
"""What a request can never reach."""

OURS: Final = frozenset({"nursery", "request", "run"})
"""What a request can reach only if a subclass defines it: a Service may have had a method of that name."""

UNLISTED: Final = frozenset({"address_manager", "identity", "loop_thread_id", "max_clients", "name", "port"})
"""What can be requested and is not in the identity."""

_GUARDED: Final = PROGRAM_ONLY | OURS
_BASE: Final = "msl_network_trio.service.service"
_MISSING: Final = object()


class How(Enum):
    """How a request is carried out."""

    VALUE = auto()
    """It is a value: answer with it."""

    TASK = auto()
    """It is an async function: call it in a task."""

    THREAD = auto()
    """It is a plain function: call it in a worker thread."""

    UNKNOWN = auto()
    """Look it up in a worker thread; if it can be called, it is to be called as THREAD is."""


_TASK: Final = How.TASK
_THREAD: Final = How.THREAD


def look_up(service: object, name: str) -> tuple[How, Any]:
    """Find out how to carry out a request.

    Args:
        service: The Service.
        name: The name of the attribute that is requested.

    Returns:
        How, and the value or the function.

    Raises:
        PermissionError: The attribute is none that clients may request.
        AttributeError: There is no such attribute.
    """
    if name[:1] == "_":
        raise PermissionError("Cannot request a private attribute")
    if name in _GUARDED and not is_public(service, name):
        raise PermissionError(f"Cannot request {name!r}, which is for the program that runs the Service")
    found: Any = getattr(type(service), name, _MISSING)
    kind = type(found)
    own = service.__dict__
    if kind is FunctionType and name not in own:
        # What nearly all requests are for, so it is decided with as little as possible.
        return (_TASK if found.__code__.co_flags & CO_COROUTINE else _THREAD), getattr(service, name)
    if name in own and not hasattr(kind, "__set__"):
        found = own[name]
    elif kind is MethodType:
        found = getattr(service, name)
    elif found is _MISSING:
        if hasattr(type(service), "__getattr__"):
            return How.UNKNOWN, None
        found = getattr(service, name)  # raises
    elif hasattr(kind, "__get__") or callable(found):
        return How.UNKNOWN, None
    if not callable(found):
        return How.VALUE, found
    return (How.TASK if is_async(found) else How.THREAD), found


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as far as can be told without calling it."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & CO_COROUTINE)
    if isinstance(function, type):
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def is_public(service: object, name: str) -> bool:
    """Whether a request may reach a name that is not private."""
    return name not in PROGRAM_ONLY and not (name in OURS and _is_of_base(service, name))


def _is_of_base(service: object, name: str) -> bool:
    if name in service.__dict__:
        return False
    for each in type(service).__mro__:
        if name in vars(each):
            return each.__module__ == _BASE
    raise AttributeError(name)
