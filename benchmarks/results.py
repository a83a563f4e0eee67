"""Results of a run as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.cases import Measured
from benchmarks.statistics import rows

SCHEMA: Final = 1
"""Version of the file format."""


class UnreadableResults(ValueError):
    """A file does not contain the results of a run of this version."""


@dataclass(frozen=True)
class Skipped:
    """A contestant or case that was not measured."""

    what: str
    why: str


@dataclass
class Results:
    """The results of a run."""

    environment: dict[str, str]
    """Facts about machine and versions."""

    rounds: int
    quick: bool
    pin: str
    command: str
    """Command that repeats the run."""

    cases: list[Measured] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    schema: int = SCHEMA


def merged(runs: Sequence[Results]) -> Results:
    """Return several runs as one; cases in more than one of them are taken from the last.

    Args:
        runs: At least one run; the facts are taken from the last one.
    """
    last = runs[-1]
    # The time of the run differs between runs of the same machine and versions.
    commits = dict.fromkeys(run.environment["commit"] for run in runs if "commit" in run.environment)
    cases = {measured.case.key: measured for run in runs for measured in run.cases}
    skipped = {each.what: each for run in runs for each in run.skipped}
    return Results(
        {**last.environment, **({"commit": ", ".join(commits)} if commits else {})},
        min(run.rounds for run in runs),
        any(run.quick for run in runs),
        last.pin,
        "; ".join(dict.fromkeys(run.command for run in runs)),
        list(cases.values()),
        list(skipped.values()),
    )


def as_json(results: Results) -> dict[str, Any]:
    """Return the JSON object of a run: costs, and the ratios computed from them."""
    value = asdict(results)
    for written, measured in zip(value["cases"], results.cases, strict=True):
        written["key"] = measured.case.key
        written["ratios"] = [
            {
                "one": row.comparison.one,
                "other": row.comparison.other,
                "figure": row.comparison.figure,
                "values": row.values,
                **asdict(row.spread),
            }
            for row in rows(measured)
        ]
    return value


def save(results: Results, path: Path) -> None:
    """Write a run to a file."""
    path.write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Read a run from a file.

    Raises:
        UnreadableResults: The content is not a run of this version.
        OSError: The file cannot be read.
    """
    try:
        results = msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.DecodeError as error:
        raise UnreadableResults(f"{path} does not hold the results of a run: {error}") from None
    if results.schema != SCHEMA:
        raise UnreadableResults(f"{path} has schema {results.schema}; this program reads {SCHEMA}")
    return results
