"""Waiting in a thread for other threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.patience import PATIENCE


def wait_until(condition: Callable[[], Any]) -> None:
    """Poll until a condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
