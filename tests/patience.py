"""The time limit of tests for events that must happen, in real time."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 90.0
"""Maximum seconds to wait for an event that must happen: long, since a busy machine is slow.

Only a test that fails waits that long. Limits that are part of what a test checks have values of their own.
"""
