"""Results as lines of a table, for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cases import OURS, Case, Comparison, Contestant, Measured
from benchmarks.results import Results
from benchmarks.statistics import Row, paired_ratios, rows, spread
from benchmarks.suites import DESCRIPTIONS

HEADER = ("", "than", "min", "median", "max", "CPU", "floor", "target", "goal", "")
_LEFT = (0, 1, len(HEADER) - 1)
"""Columns that contain text."""

_NOTES = {"seconds": "", "median": "median", "p99": "p99", "bytes": "memory for one", "threads": "threads"}


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    key: str
    row: Row
    cells: tuple[str, ...]


def number(value: float | None) -> str:
    """Return a number with about three digits."""
    if value is None:
        return "-"
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def note(figure: str) -> str:
    """Return the name of a cost in a table; empty for the usual one."""
    return _NOTES.get(figure, figure)


def label(case: Case, comparison: Comparison) -> str:
    """Return the name of a comparison in a table."""
    parts = [case.full_title]
    if comparison.one != OURS:
        parts.append(comparison.one)
    if of := note(comparison.figure):
        parts.append(of)
    return ", ".join(parts)


def verdict(row: Row) -> str:
    """Return the goals that the median meets, and the gap to the first one that it does not."""
    words = []
    for name, _, met, gap in row.verdicts:
        if met:
            words.append(f"{name} met")
        else:
            words.append(f"{name} NOT met, {abs(gap):.0%} {'over' if row.comparison.difference else 'short'}")
            break
    return "; ".join(words)


def cpu_ratio(measured: Measured, comparison: Comparison) -> float | None:
    """Return the ratio of CPU times of a comparison, as the median of the rounds.

    It is the CPU time of the processes that differ: the clients, the servers, or both. Other
    work on the machine hardly affects it.
    """
    if comparison.figure not in {"seconds", "median"} or comparison.difference:
        return None
    one, other = (_contestant(measured.case, name) for name in (comparison.one, comparison.other))
    figures = []
    if one.client != other.client or one.server == other.server:
        figures.append("cpu")
    if one.server != other.server:
        figures.append("server_cpu")
    costs, others = (_total(measured, each.name, figures) for each in (one, other))
    if not costs or not others or min(costs) <= 0:
        return None
    return spread(paired_ratios(costs, others)).median * comparison.times


def _contestant(case: Case, name: str) -> Contestant:
    return next(each for each in case.contestants if each.name == name)


def _total(measured: Measured, name: str, figures: Sequence[str]) -> list[float]:
    costs = measured.costs.get(name, {})
    return [sum(of_round) for of_round in zip(*(costs.get(figure, []) for figure in figures), strict=True)]


def lines(measured: Sequence[Measured], plan_pin: str = "latency") -> list[Line]:
    """Return the lines of the table, one for each comparison."""
    found = []
    for each in measured:
        case = each.case
        pinned = plan_pin == "all" or (plan_pin == "latency" and case.pinned)
        for row in rows(each):
            goals = row.comparison.goals
            cells = (
                label(case, row.comparison) + (" *" if pinned else ""),
                "at most" if row.comparison.difference else row.comparison.other,
                number(row.spread.min),
                number(row.spread.median),
                number(row.spread.max),
                number(cpu_ratio(each, row.comparison)),
                *(number(goal) for goal in (goals.floor, goals.target, goals.goal)),
                verdict(row),
            )
            found.append(Line(case.key, row, cells))
    return found


def met_of(table: Sequence[Line]) -> dict[str, tuple[int, int]]:
    """Return the numbers of goals met and of all goals, by name."""
    found: dict[str, tuple[int, int]] = {}
    for line in table:
        for name, _, met, _ in line.row.verdicts:
            before, asked = found.get(name, (0, 0))
            found[name] = (before + met, asked + 1)
    return found


def as_text(results: Results) -> str:
    """Return the tables for a terminal, with the facts in front and the skipped cases behind."""
    width = max(map(len, results.environment), default=0) + 2
    text = [f"{key:<{width}}{value}" for key, value in results.environment.items()]
    text += [
        "",
        "How many times less was needed (time, memory, ...) than by the other one, of",
        f"{results.rounds} rounds in which they took turns; CPU: the same for the CPU time alone.",
    ]
    for suite, measured in by_suite(results):
        table = lines(measured, results.pin)
        text += ["", f"{suite}: {DESCRIPTIONS.get(suite, '')}", ""]
        text += aligned([HEADER, *(line.cells for line in table)], left=_LEFT)
    text += ["", f"* on one CPU: {results.environment.get('pinned', 'all processes of the case')}"]
    text += [f"skipped: {skipped.what}: {skipped.why}" for skipped in results.skipped]
    return "\n".join(text)


def aligned(rows_of_cells: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return the lines of a table for a terminal; columns that are not ``left`` contain numbers."""
    widths = [max(map(len, column)) for column in zip(*rows_of_cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows_of_cells
    ]


def by_suite(results: Results) -> list[tuple[str, list[Measured]]]:
    """Return the results by suite."""
    found: dict[str, list[Measured]] = {}
    for measured in results.cases:
        found.setdefault(measured.case.suite, []).append(measured)
    return list(found.items())


def as_markdown(header: Sequence[str], rows_of_cells: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Return a table in Markdown; columns that are not ``left`` contain numbers."""
    rule = [":--" if column in left else "--:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows_of_cells))
