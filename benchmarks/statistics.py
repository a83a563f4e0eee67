"""Evaluation of rounds: paired ratios, their spread, and whether goals are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

from benchmarks.cases import Comparison, Goals, Measured


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of the rounds."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Row:
    """The evaluation of one comparison."""

    comparison: Comparison
    values: list[float]
    """Ratios by round, or costs if the cost itself is compared."""

    spread: Spread

    @property
    def verdicts(self) -> list[tuple[str, float, bool, float]]:
        """Name, value, whether the median meets it, and the `gap`, of each goal."""
        return verdicts(self.comparison.goals, self.spread.median, at_most=self.comparison.difference)


def percentile(values: Sequence[float], hundredths: float) -> float:
    """Return the smallest value that a share of the values does not exceed.

    Args:
        values: At least one value.
        hundredths: Share in percent, from 0 to 100.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * hundredths / 100))]


def average(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the averages of costs that were measured several times, at least once, by name."""
    return {name: fmean(each[name] for each in figures) for name in figures[0]}


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(min(values), median(values), max(values))


def paired_ratios(costs: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratios of two costs, round by round.

    Raises:
        ValueError: The costs are from different rounds.
        ZeroDivisionError: A divisor is 0.
    """
    return [other / cost for cost, other in zip(costs, others, strict=True)]


def gap(asked: float, value: float) -> float:
    """Return the relative difference of a value to its goal: positive if it is greater."""
    return value - asked if asked == 0 else value / asked - 1


def verdicts(goals: Goals, value: float, *, at_most: bool = False) -> list[tuple[str, float, bool, float]]:
    """Return the name, the value, whether it is met, and the `gap`, of each goal."""
    return [
        (name, asked, value <= asked if at_most else value >= asked, gap(asked, value))
        for name, asked in asdict(goals).items()
        if asked is not None
    ]


def rows(measured: Measured) -> list[Row]:
    """Return the evaluation of the comparisons of a case, without those that were not measured."""
    found = []
    for comparison in measured.case.comparisons:
        costs = measured.costs.get(comparison.one, {}).get(comparison.figure)
        others = measured.costs.get(comparison.other, {}).get(comparison.figure)
        if costs and others:
            others = [cost * comparison.times for cost in others]
            values = list(costs) if comparison.difference else paired_ratios(costs, others)
            found.append(Row(comparison, values, spread(values)))
    return found
