"""Profiles of the attributes that clients request, learned from the last request for each.

A profile is a hint. It selects the faster of several ways to carry out a request, all of which are correct
for any method: a method may become slow, async or a plain value at any time. Therefore there is no lock;
every thread that carries out requests reads and sets the flags.
"""

from __future__ import annotations

from typing import Final

PROMPT: Final = 0.001
"""Maximum seconds that a plain method takes to be prompt: ten times the cost of passing it to a thread."""

_MAX_PROFILES: Final = 1000
"""Maximum number of profiles: a Service with a ``__getattr__`` may be asked for any number of names."""


class MethodProfile:
    """The profile of one attribute, from the last requests for it.

    Attributes:
        is_prompt: Whether it returned within `PROMPT` seconds in a worker thread, so that the thread that
            reads a request for it may carry it out at once, see `request_reader`.
        replies_at_once: Whether it returned shortly after it had emitted notifications, so that these may
            wait for its reply, see `coalescing`.
        suspends: Whether it is an async function that waited for something, so that it gets a task of its
            own, see `tasks`.
        is_callable: Whether it had to be looked up in a thread for properties and turned out to be callable,
            so that it goes straight to the threads for methods, see `dispatcher`.
    """

    __slots__ = ("is_callable", "is_prompt", "replies_at_once", "suspends")

    def __init__(self) -> None:
        self.is_prompt = False
        self.replies_at_once = False
        self.suspends = False
        self.is_callable = False


class MethodProfiles(dict[str, MethodProfile]):
    """The profiles by name of the attribute; ``profiles[name]`` creates one that is missing."""

    def __missing__(self, name: str) -> MethodProfile:
        if len(self) >= _MAX_PROFILES:
            self.clear()
        profile = self[name] = MethodProfile()
        return profile
