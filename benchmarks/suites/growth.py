"""Curves of costs by requests in flight, connections, and length of a message."""

from __future__ import annotations

from benchmarks.cases import OURS, REFERENCE, Case, Comparison
from benchmarks.suites.client import pair

IN_FLIGHT = (1, 10, 100, 1000, 10_000)
CONNECTIONS = (1, 10, 100, 1000)
BYTES = (1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

CURVES = {
    "in-flight": ("time of a call", "requests in flight"),
    "connections": ("time of a call, two in flight on each connection", "connections of one process"),
    "length": ("time per byte, there and back", "bytes of the message"),
}
"""The curves, with their descriptions."""


def _case(curve: str, title: str, load: str, calls: tuple[int, int], size: int, *, heavy: bool) -> Case:
    return Case(
        "growth",
        f"{curve}-{size}",
        title,
        "tcp",
        pair(load, "tcp", *calls, size=size),
        (Comparison(OURS, REFERENCE),),
        curve=curve,
        x=size,
        heavy=heavy,
    )


def _in_flight(size: int) -> Case:
    calls = (max(5000, 2 * size), max(2000, 2 * size))
    return _case("in-flight", f"{size:,} in flight", "flight", calls, size, heavy=False)


def _connections(size: int) -> Case:
    calls = (max(4000, 4 * size), max(2000, 4 * size))
    return _case("connections", f"{size:,} connections", "connections", calls, size, heavy=size > 100)


def _length(size: int) -> Case:
    calls = max(1, min(500, 10_000_000 // size))
    return _case(
        "length", f"a message of {size:,} bytes", "line", (calls, calls), size, heavy=size > 10_000_000
    )


def cases() -> list[Case]:
    """Return the cases of this suite."""
    return [*map(_in_flight, IN_FLIGHT), *map(_connections, CONNECTIONS), *map(_length, BYTES)]
