"""What was measured, as a text for people and as JSON."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

_PACKAGES = ("msl-network-trio", "msl-network", "trio", "msgspec", "orjson", "attrs")
_NUMBER = 8


class Case(Protocol):
    """What was measured of one thing, and the goals for it."""

    @property
    def name(self) -> str:
        """The name of the case, as ``--only`` knows it."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of groups of cases to which it belongs, for ``--only``."""

    @property
    def title(self) -> str:
        """The name of the case for people."""

    @property
    def pinned(self) -> bool:
        """Whether the processes share one CPU."""

    @property
    def goals(self) -> dict[str, float | None]:
        """What the ratio is to be, by the name of the goal, from the least to the greatest."""

    @property
    def seconds(self) -> dict[str, list[float]]:
        """The time of one call in each round: ours and that of the reference."""

    @property
    def ratios(self) -> list[float]:
        """How many times faster than the reference we were, round by round."""

    @property
    def median(self) -> float:
        """The median of the ratios."""


def environment() -> dict[str, str]:
    """Return what the ratios depend on, whatever is measured."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{load}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def as_text(cases: Sequence[Case], facts: dict[str, str], compared: str) -> str:
    """Return the table: the facts above it, the goals below it.

    Args:
        cases: What was measured, at least one case; all have the same names of goals.
        facts: What the ratios depend on.
        compared: What of msl-network 1.0.0 we are compared with.
    """
    lines = [f"{key:<10}{value}" for key, value in facts.items()]
    width = max(len(_title(case)) for case in cases) + 1
    rounds = len(cases[0].ratios)
    lines += [
        "",
        f"How many times faster than {compared} of msl-network 1.0.0: the time of its call divided by the",
        f"time of ours, of {rounds} rounds in which they took turns.",
        "",
        _row(width, "", "min", "median", "max"),
    ]
    lines += [
        _row(width, _title(case), *(map(_number, (min(case.ratios), case.median, max(case.ratios)))))
        for case in cases
    ]
    lines += ["", "The goals, and the median beside them:", "", _row(width, "", *cases[0].goals, "median")]
    lines += [
        _row(width, _title(case), *map(_number, case.goals.values()), _number(case.median))
        + f"  {_verdict(case)}"
        for case in cases
    ]
    if any(case.pinned for case in cases):
        lines += ["", f"* pinned: {facts['pinned']}"]
    return "\n".join(lines)


def _row(width: int, title: str, *cells: str) -> str:
    return f"{title:<{width}}" + "".join(f"{cell:>{_NUMBER}}" for cell in cells)


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _title(case: Case) -> str:
    return f"{case.title} *" if case.pinned else case.title


def _verdict(case: Case) -> str:
    goals = {name: goal for name, goal in case.goals.items() if goal is not None}
    reached = [name for name, goal in goals.items() if case.median >= goal]
    if not reached:
        return f"below the {next(iter(goals))}"
    return "above the floor" if reached[-1] == "floor" else f"{reached[-1]} reached"


def as_json(cases: Sequence[Case], facts: dict[str, str]) -> dict[str, Any]:
    """Return everything that was measured; times are in seconds and mean nothing outside this run."""
    return {
        "environment": facts,
        "cases": [
            {
                "name": case.name,
                "title": case.title,
                **case.goals,
                "ratios": case.ratios,
                "median": case.median,
                "seconds_per_call": case.seconds,
            }
            for case in cases
        ],
    }
