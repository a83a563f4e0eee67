"""``python -m benchmarks compare OLD NEW``: compares the ratios of two runs.

Each ratio was measured within one run; absolute costs are not compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results, table
from benchmarks.statistics import Row

HEADER = ("", "than", "old", "new", "change", "")


@dataclass(frozen=True)
class Change:
    """The change of a comparison."""

    name: str
    other: str
    old: Row
    new: Row

    @property
    def change(self) -> float:
        """Relative increase of the median."""
        old = self.old.spread.median
        return 0.0 if old == 0 else self.new.spread.median / old - 1

    @property
    def verdict(self) -> str:
        """Whether the rounds of both runs overlap, so that the change may be random."""
        old, new = self.old.spread, self.new.spread
        if new.min > old.max:
            return "greater in all rounds"
        if new.max < old.min:
            return "LESS in all rounds"
        return "within the spread"


def changes(old: results.Results, new: results.Results) -> tuple[list[Change], list[str]]:
    """Return the changes of the comparisons in both runs, and the names of those in only one of them."""
    both = []
    for run in (old, new):
        lines = table.lines(run.cases, run.pin)
        both.append(
            {
                (line.key, line.row.comparison.one, line.cells[1], line.row.comparison.figure): line
                for line in lines
            }
        )
    before, after = both
    found = [
        Change(after[key].cells[0], after[key].cells[1], before[key].row, after[key].row)
        for key in after
        if key in before
    ]
    alone = [(before.get(key) or after[key]).cells[0] for key in sorted(before.keys() ^ after.keys())]
    return found, alone


def as_text(found: Sequence[Change], alone: Sequence[str]) -> str:
    """Return the table of the changes."""
    rows = [
        (
            change.name,
            change.other,
            table.number(change.old.spread.median),
            table.number(change.new.spread.median),
            f"{change.change:+.0%}",
            change.verdict,
        )
        for change in found
    ]
    return "\n".join(
        [
            *table.aligned([HEADER, *rows], left=(0, 1, len(HEADER) - 1)),
            *(f"only in one of them: {name}" for name in alone),
        ]
    )


def main(arguments: list[str]) -> int:
    """Compare two runs and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description=__doc__)
    parser.add_argument("old", type=Path, metavar="OLD", help="a file written with --json")
    parser.add_argument("new", type=Path, metavar="NEW", help="a newer file written with --json")
    options = parser.parse_args(arguments)
    try:
        old, new = results.load(options.old), results.load(options.new)
    except (OSError, results.UnreadableResults) as error:
        print(error, file=sys.stderr)
        return 1
    for key in sorted(old.environment.keys() | new.environment.keys()):
        before, after = old.environment.get(key), new.environment.get(key)
        if before != after and key != "date":
            print(f"{key}: {before}\n{' ' * len(key)}  {after}")
    print()
    print(as_text(*changes(old, new)))
    return 0
