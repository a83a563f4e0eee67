"""Objects that can be awaited, or entered with ``async with``."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio

T = TypeVar("T")


class AwaitableContext(Coroutine[Any, Any, T], Generic[T]):
    """An operation to be awaited or entered, once; `connect`, `Client.link` and others return it.

    ``thing = await context`` opens the thing, to be closed by the caller. ``async with context as thing``
    closes it at the end of the block, in any case. For Trio the object is a coroutine, so that
    ``trio.run(connect)`` and ``nursery.start_soon(connect)`` work, and Python warns about one that was
    neither awaited nor entered.

    Args:
        name: Name of the function that returned it, for that warning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._awaited = self._open()
        # So that "coroutine ... was never awaited" names what the user wrote.
        self._awaited.__qualname__ = name  # type: ignore[attr-defined]

    @abstractmethod
    async def _open(self) -> T:
        """Open the thing, to be closed by the caller."""

    @abstractmethod
    async def _enter(self) -> T:
        """Open the thing, to be closed by `_exit`."""

    @abstractmethod
    async def _exit(self) -> None:
        """Close the thing. Raises no exception of its own."""

    def __await__(self) -> Generator[Any, Any, T]:
        return self._awaited.__await__()

    def send(self, value: Any) -> Any:
        """Resume, as a coroutine does."""
        return self._awaited.send(value)

    def throw(self, *exception: Any) -> Any:
        """Raise an exception inside, as in a coroutine."""
        return self._awaited.throw(*exception)

    def close(self) -> None:
        """Close it unused, as a coroutine."""
        self._awaited.close()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        if inspect.getcoroutinestate(self._awaited) != inspect.CORO_CREATED:
            raise RuntimeError(f"{self._name} was used already; each await or 'async with' takes a new one")
        self._awaited.close()
        return await self._enter()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit()

    def __repr__(self) -> str:
        return f"<{self._name}: await it, or enter it with 'async with'>"
