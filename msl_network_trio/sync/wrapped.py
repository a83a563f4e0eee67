"""What makes a blocking method of an async one: the same signature, and no rules of its own."""

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
        """See below."""

        def __init__(self, reference: object) -> None: ...

        @overload
        def __get__(self, manager: None, owner: type[M]) -> Callable[[M], M]: ...
        @overload
        def __get__(self, manager: M, owner: type[M]) -> Callable[[], M]: ...
        def __get__(self, manager: M | None, owner: type[M]) -> Any: ...

else:

    class Entering(property):
        """An ``__enter__`` that returns its object, made of ``weakref.ref``.

        ``with`` calls nothing that is written in Python then. So an exception of a signal handler cannot come
        between what has opened the object and the block that closes it.
        """

        def __call__(self, manager: M) -> M:
            """Return the object, for those who look ``__enter__`` up in its class."""
            return manager


def named(name: str, function: F) -> F:
    """Give a function the name that an error is to mention."""
    function.__qualname__ = name
    return function


class Wrapper(Protocol):
    """An object of the blocking API, which has an async one behind it."""

    @property
    def _wrapped(self) -> Any: ...

    @property
    def _portal(self) -> Portal: ...


def blocking(method: Callable[Concatenate[S, P], Awaitable[R]]) -> Callable[Concatenate[Any, P], R]:
    """Return the blocking form of an async method, to be defined under the same name."""

    @wraps(method)
    def call(self: Wrapper, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # By its name, since the object behind may be one of a subclass.
        wrapped: Callable[P, Awaitable[R]] = getattr(self._wrapped, method.__name__)
        return self._portal.call(wrapped, *args, **kwargs)

    call.__signature__ = signature_of(method)  # type: ignore[attr-defined]
    return call


def like(function: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function the parameters of another one, and its documentation."""

    def decorate(decorated: Callable[..., R]) -> Callable[P, R]:
        decorated.__doc__ = function.__doc__
        decorated.__signature__ = signature_of(function)  # type: ignore[attr-defined]
        return decorated

    return decorate


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of an async function as that of its blocking form."""
    signature = inspect.signature(function)
    returns = _AWAITABLE.sub(r"\1", str(signature.return_annotation))
    return signature.replace(return_annotation=returns)
