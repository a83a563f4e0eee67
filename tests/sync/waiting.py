"""Waiting in a thread for other threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0
"""Maximum seconds to wait for what must happen; reached only by a test that fails."""


def wait_until(condition: Callable[[], Any]) -> None:
    """Poll until a condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
