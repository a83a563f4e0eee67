"""Look-up of requested attributes: the rules of access, and the way to carry a request out.

A client may request the public attributes of a Service, with these exceptions:

- Names that begin with an underscore are refused, as in msl-network.
- `PROGRAM_ONLY`, the methods that run the Service, are for its program: they are refused, also where a
  subclass overrides them. `NOT_IN_REFERENCE`, names that msl-network does not have, are refused unless a
  subclass defines them.
- `name`, `max_clients`, `address_manager`, `port`, `loop_thread_id`, `identity` and `set_logging_level` can
  be requested, as in msl-network.

Nothing that may take long runs in the Trio thread: a property, or another attribute that has to be computed,
is looked up in a worker thread of the pool for properties. If it is callable, the call goes to the pool for
methods.
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
"""Names that no request can reach."""

NOT_IN_REFERENCE: Final = frozenset({"nursery", "request", "run"})
"""Names that a request reaches only if a subclass defines them, as a driver for msl-network may."""

UNLISTED: Final = frozenset({"address_manager", "identity", "loop_thread_id", "max_clients", "name", "port"})
"""Names that can be requested and are not in the identity."""

_GUARDED: Final = PROGRAM_ONLY | NOT_IN_REFERENCE
_BASE: Final = "msl_network_trio.service.service"
_MISSING: Final = object()


class How(Enum):
    """The ways to carry out a request."""

    VALUE = auto()
    """Reply with the value that was found."""

    TASK = auto()
    """Call the async function in a task."""

    THREAD = auto()
    """Call the plain function in a worker thread."""

    UNKNOWN = auto()
    """Look the attribute up in a worker thread; if it is callable, call it as for THREAD."""


_TASK: Final = How.TASK
_THREAD: Final = How.THREAD


def look_up(service: object, name: str) -> tuple[How, Any]:
    """Return the way to carry out a request, and the value or the function.

    Args:
        service: The Service.
        name: The name of the requested attribute.

    Raises:
        PermissionError: Clients may not request the attribute.
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
        # Nearly all requests are for methods of the class, so this comes first.
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
    """Return whether a call gives a coroutine, as far as that is known without a call."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & CO_COROUTINE)
    if isinstance(function, type):
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def is_public(service: object, name: str) -> bool:
    """Return whether a request may reach a name that does not begin with an underscore."""
    return name not in PROGRAM_ONLY and not (name in NOT_IN_REFERENCE and _is_of_base(service, name))


def _is_of_base(service: object, name: str) -> bool:
    if name in service.__dict__:
        return False
    for each in type(service).__mro__:
        if name in vars(each):
            return each.__module__ == _BASE
    raise AttributeError(name)
