"""When a notification may wait for the answer that follows it, so that both are sent at once.

A plain method that emits something has most often done with it, and its answer follows at once. To have the
Trio thread send the notification costs more than all the rest then, and nearly always it finds that the
answer has taken it along already. But a method may also emit something and go on for long. So a notification
waits only if the method that emits it has returned promptly the last time, and only while a task looks every
`MAX_DELAY` seconds whether something has been left behind.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final, Protocol

from msl_network_trio.service.method_profile import MethodProfile

MAX_DELAY: Final = 0.005
"""For how many seconds a notification waits for the answer of its method, at the most."""


class Emitter(Protocol):
    """A thread that carries out requests."""

    request: Any
    """The request that is not answered yet; None: there is none."""

    profile: MethodProfile
    """The profile of the method that was requested."""

    emitted: float
    """When the first notification of this request was emitted, by `time.perf_counter`; 0: none was."""


class Coalescing:
    """What is known about the methods that emit notifications. The caller sees to it that threads take turns.

    Attributes:
        has_timer: Whether a task looks for what has been left behind.
        was_useful: Whether a notification could have waited since this was set to False.
    """

    __slots__ = ("has_timer", "was_useful")

    def __init__(self) -> None:
        self.has_timer = False
        self.was_useful = False

    def may_delay(self, emitter: Emitter) -> bool:
        """Note that a method has emitted a notification, and return whether that can wait for the answer."""
        if emitter.request is None:
            return False  # it comes from between two requests, when Python cleans up for example
        if not emitter.emitted:
            emitter.emitted = perf_counter()
        return self.has_timer and emitter.profile.replies_at_once

    def answered(self, emitter: Emitter) -> None:
        """Note that a method which has emitted notifications has returned."""
        seconds, emitter.emitted = perf_counter() - emitter.emitted, 0.0
        emitter.profile.replies_at_once = seconds <= MAX_DELAY
        if seconds <= MAX_DELAY:
            self.was_useful = True
