"""Event loop of asyncio programs: the fastest one that is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any


def fastest() -> tuple[str, Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Return the name of the loop, and a function that runs a coroutine on it."""
    try:
        import uvloop
    except ImportError:
        return "asyncio", asyncio.run
    return f"uvloop {version('uvloop')}", uvloop.run


async def together(functions: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run async functions concurrently."""
    await asyncio.gather(*(function() for function in functions))
