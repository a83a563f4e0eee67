"""Blocking forms of async methods: the same signature, and no rules of their own.

The functions have no state and may be called from any thread.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from msl_network_trio.portal.portal import Portal

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
M = TypeVar("M")
F = TypeVar("F", bound=Callable[..., Any])

_AWAITABLE = re.compile(r"AwaitableContext\[(.*)\]")


if TYPE_CHECKING:

    class Entering:
        """The type of the class below."""

        def __init__(self, reference: object) -> None: ...

        @overload
        def __get__(self, manager: None, owner: type[M]) -> Callable[[M], M]: ...
        @overload
        def __get__(self, manager: M, owner: type[M]) -> Callable[[], M]: ...
        def __get__(self, manager: M | None, owner: type[M]) -> Any: ...

else:

    class Entering(property):
        """An ``__enter__`` that returns its object, made of ``weakref.ref``.

        So ``with`` executes no Python code on entry, and the exception of a signal handler cannot be raised
        between the call that opens the object and the block that closes it.
        """

        def __call__(self, manager: M) -> M:
            """Return the object; for callers that look ``__enter__`` up in its class."""
            return manager


def named(name: str, function: F) -> F:
    """Set the name of a function that errors mention, and return the function."""
    function.__qualname__ = name
    return function


class View(Protocol):
    """A blocking form of an object of the async API.

    Attributes:
        _wrapped_async: The object of the async API.
        _portal: The way into its Trio run.
    """

    _wrapped_async: Any
    _portal: Portal


def unwrap(view: Any) -> Any:
    """Return the object of the async API behind its blocking form."""
    return view._wrapped_async  # noqa: SLF001 - the one way in


def portal_of(view: Any) -> Portal:
    """Return the way into the Trio run of a blocking form."""
    portal: Portal = view._portal  # noqa: SLF001 - the one way in
    return portal


def blocking(method: Callable[Concatenate[S, P], Awaitable[R]]) -> Callable[Concatenate[Any, P], R]:
    """Return the blocking form of an async method, to be defined under the same name."""

    @wraps(method)
    def call(self: View, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # By its name, since the wrapped object may be of a subclass.
        wrapped: Callable[P, Awaitable[R]] = getattr(unwrap(self), method.__name__)
        return portal_of(self).call(wrapped, *args, **kwargs)

    call.__signature__ = signature_of(method)  # type: ignore[attr-defined]
    return call


def like(function: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Return a decorator that gives a function the parameters and the docstring of another one."""

    def decorate(decorated: Callable[..., R]) -> Callable[P, R]:
        decorated.__doc__ = function.__doc__
        decorated.__signature__ = signature_of(function)  # type: ignore[attr-defined]
        return decorated

    return decorate


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of the blocking form of an async function."""
    signature = inspect.signature(function)
    returns = _AWAITABLE.sub(r"\1", str(signature.return_annotation))
    return signature.replace(return_annotation=returns)
