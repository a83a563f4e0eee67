"""Coalescing: a notification waits for the answer that follows it, so that both are sent at once.

A plain method that emits a notification usually returns at once. To have the Trio thread send the
notification would then cost more than the request itself, and the answer would mostly have taken it along
before. Without coalescing, a Service whose methods emit needs 1.69 times the CPU time.

A method may also emit something and then run for long. So a notification is delayed only if the method
returned promptly the last time (`MethodProfile.replies_at_once`), and only while the task
`AnswerQueue.flush_delayed` sends what is left behind, every `MAX_DELAY` seconds.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final, Protocol

from msl_network_trio.service.method_profile import MethodProfile

MAX_DELAY: Final = 0.005
"""Maximum seconds for which a notification waits for the answer of its method."""


class Emitter(Protocol):
    """A thread that carries out requests."""

    request: Any
    """The request that is not answered yet; None: there is none."""

    profile: MethodProfile
    """The profile of the requested method."""

    emitted: float
    """Time of the first notification of the request, by `time.perf_counter`; 0: it has emitted none."""


class Coalescing:
    """The state of the coalescing of one connection; it needs the mutex of the send queue.

    Attributes:
        has_timer: Whether a task sends delayed notifications that are left behind.
        was_useful: Whether a method has returned promptly after a notification since this was set to False.
    """

    __slots__ = ("has_timer", "was_useful")

    def __init__(self) -> None:
        self.has_timer = False
        self.was_useful = False

    def may_delay(self, emitter: Emitter) -> bool:
        """Note that a method has emitted a notification, and return whether to delay it until the answer."""
        if emitter.request is None:
            return False  # emitted between two requests, by the garbage collector for example
        if not emitter.emitted:
            emitter.emitted = perf_counter()
        return self.has_timer and emitter.profile.replies_at_once

    def answered(self, emitter: Emitter) -> None:
        """Note that a method that has emitted notifications has returned."""
        seconds, emitter.emitted = perf_counter() - emitter.emitted, 0.0
        emitter.profile.replies_at_once = seconds <= MAX_DELAY
        if seconds <= MAX_DELAY:
            self.was_useful = True
