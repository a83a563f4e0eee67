"""What the costs of rounds come to: paired ratios, their spread, and whether a goal is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from benchmarks.cases import Comparison, Goals, Measured


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of the rounds."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Row:
    """What one comparison came to."""

    comparison: Comparison
    values: list[float]
    """Round by round: ratios, or costs if the cost itself counts."""

    spread: Spread

    @property
    def verdicts(self) -> list[tuple[str, float, bool, float]]:
        """Of each goal: its name, what it asks for, whether the median meets it, and the `gap`."""
        return verdicts(self.comparison.goals, self.spread.median, at_most=self.comparison.difference)


def percentile(values: Sequence[float], hundredths: float) -> float:
    """Return the value that this share of the values does not exceed.

    Args:
        values: At least one.
        hundredths: The share, from 0 to 100.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * hundredths / 100))]


def average(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the averages of costs that were measured several times, of at least once, figure by figure."""
    return {name: fmean(each[name] for each in figures) for name in figures[0]}


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(min(values), median(values), max(values))


def paired_ratios(costs: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return, round by round, how many times the one cost is in the other.

    Raises:
        ValueError: They are not of the same rounds.
        ZeroDivisionError: The one costs nothing.
    """
    return [other / cost for cost, other in zip(costs, others, strict=True)]


def gap(asked: float, value: float) -> float:
    """Return by what part of what was asked for the value is more (positive) or less than it."""
    return value - asked if asked == 0 else value / asked - 1


def verdicts(goals: Goals, value: float, *, at_most: bool = False) -> list[tuple[str, float, bool, float]]:
    """Return of each goal: its name, what it asks for, whether the value meets it, and the `gap`."""
    return [
        (name, asked, value <= asked if at_most else value >= asked, gap(asked, value))
        for name, asked in asdict(goals).items()
        if asked is not None
    ]


def rows(measured: Measured) -> list[Row]:
    """Return what the comparisons of a case came to; those of which nothing was measured are left out."""
    found = []
    for comparison in measured.case.comparisons:
        costs = measured.costs.get(comparison.one, {}).get(comparison.figure)
        others = measured.costs.get(comparison.other, {}).get(comparison.figure)
        if costs and others:
            others = [cost * comparison.times for cost in others]
            values = list(costs) if comparison.difference else paired_ratios(costs, others)
            found.append(Row(comparison, values, spread(values)))
    return found
