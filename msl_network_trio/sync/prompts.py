"""Prompts that ask in the thread that waits for the answer, which Ctrl-C interrupts there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from msl_network_trio.dialing.prompts import Prompts, TerminalPrompts
from msl_network_trio.dialing.trust import Certificate
from msl_network_trio.portal.loop_call import in_calling_thread


class _Terminal(TerminalPrompts):
    """Asks on the terminal, in the calling thread."""

    async def _run(self, function: Callable[[str], str], prompt: str) -> str:
        return await in_calling_thread(function, prompt)


class _InCallingThread:
    """Calls plain methods of prompts in the calling thread, and async ones in the event loop.

    Args:
        prompts: The prompts of the user.
    """

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    async def username(self, manager: str) -> Any:
        """See `Prompts.username`."""
        return await _call(self._prompts.username, manager)

    async def password(self, name: str) -> Any:
        """See `Prompts.password`."""
        return await _call(self._prompts.password, name)

    async def trust(self, certificate: Certificate) -> Any:
        """See `Prompts.trust`."""
        return await _call(self._prompts.trust, certificate)


async def _call(prompt: Callable[..., Any], argument: Any) -> Any:
    if inspect.iscoroutinefunction(prompt):
        return await prompt(argument)
    return await in_calling_thread(prompt, argument)


def prompts_for_threads(prompts: Prompts | None) -> Prompts:
    """Return prompts that ask in the thread that calls `connect` or makes an admin request."""
    if prompts is None or type(prompts) is TerminalPrompts:
        return _Terminal()
    return _InCallingThread(prompts)
