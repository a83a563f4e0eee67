"""What was measured, as a text for people and as JSON."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.runner import Case, pinning_cpu
from benchmarks.workloads import PEERS

_PACKAGES = ("msl-network-trio", "msl-network", "trio", "msgspec", "orjson", "attrs")
_TITLE = 32
_NUMBER = 8


def environment(loop: str) -> dict[str, str]:
    """Return what the ratios depend on.

    Args:
        loop: What the fake Manager ran on.
    """
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    cpu = pinning_cpu()
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{load}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "manager": f"fake, on {loop}",
        "pinned": "not possible here" if cpu is None else f"client and Manager on CPU {cpu}",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def as_text(cases: Sequence[Case], facts: dict[str, str]) -> str:
    """Return the table: the facts above it, the goals below it."""
    lines = [f"{key:<10}{value}" for key, value in facts.items()]
    rounds = len(cases[0].ratios) if cases else 0
    lines += [
        "",
        "How many times faster than the client of msl-network 1.0.0: the time of its call divided by the",
        f"time of ours, of {rounds} rounds in which both took turns.",
        "",
        _row("", "min", "median", "max"),
    ]
    lines += [
        _row(_title(case), *(f"{ratio:.2f}" for ratio in (min(case.ratios), case.median, max(case.ratios))))
        for case in cases
    ]
    lines += ["", "The goals, and the median beside them:", "", _row("", "floor", "target", "median")]
    lines += [
        _row(_title(case), f"{case.goal.floor:.2f}", f"{case.goal.target:.2f}", f"{case.median:.2f}")
        + f"  {_verdict(case)}"
        for case in cases
    ]
    if any(case.workload.pinned for case in cases):
        lines += ["", f"* pinned: {facts['pinned']}"]
    return "\n".join(lines)


def _row(title: str, *numbers: str) -> str:
    return f"{title:<{_TITLE}}" + "".join(f"{number:>{_NUMBER}}" for number in numbers)


def _title(case: Case) -> str:
    return f"{case.title} *" if case.workload.pinned else case.title


def _verdict(case: Case) -> str:
    if case.median < case.goal.floor:
        return "below the floor"
    return "above the floor" if case.median < case.goal.target else "target reached"


def as_json(cases: Sequence[Case], facts: dict[str, str]) -> dict[str, Any]:
    """Return everything that was measured; times are in seconds and mean nothing outside this run."""
    return {
        "environment": facts,
        "cases": [
            {
                "name": case.name,
                "title": case.title,
                "floor": case.goal.floor,
                "target": case.goal.target,
                "ratios": case.ratios,
                "median": case.median,
                "seconds_per_call": {peer: case.seconds[peer] for peer in PEERS},
            }
            for case in cases
        ],
    }
