"""Plots of results: ratios with their spread and the goals, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.cases import OURS, REFERENCE, TITLES, Measured
from benchmarks.results import Results
from benchmarks.statistics import Spread, rows, spread
from benchmarks.suites.growth import CURVES
from benchmarks.table import by_suite, note, number

COLOURS: Final = {"tcp": "#2f6f9f", "tls": "#c2703d", "websocket": "#5a8f4e", "wss": "#8c5a9e", "": "#2f6f9f"}
"""Colors of transports."""

_OF_CLIENTS: Final = {OURS: "#2f6f9f", REFERENCE: "#8a8a8a"}
PACKAGES: Final = {OURS: "ours", REFERENCE: "msl-network 1.0.0"}
"""Names of contestants in plots, if they differ."""

_WORSE: Final = "#f7eded"


@dataclass(frozen=True)
class Bar:
    """A ratio and its goals."""

    label: str
    transport: str
    spread: Spread
    floor: float | None
    best: float | None
    """Highest goal: target or goal."""


@dataclass(frozen=True)
class Curve:
    """Costs of one contestant along a curve, as multiples of the first cost of the reference."""

    contestant: str
    points: tuple[tuple[float, Spread], ...]


def bars(measured: Sequence[Measured]) -> dict[str, list[Bar]]:
    """Return the ratios of a suite by their label, which is the same for all transports."""
    found: dict[str, list[Bar]] = {}
    for each in measured:
        for row in rows(each):
            comparison = row.comparison
            if comparison.difference or comparison.figure == "p99":
                continue
            parts = [each.case.title, "" if comparison.one == OURS else comparison.one]
            if comparison.figure != "median":
                parts.append(note(comparison.figure))
            if each.case.suite == "peers" or comparison.other != REFERENCE:
                parts.append(f"vs {PACKAGES.get(comparison.other, comparison.other)}")
            label = ", ".join(part for part in parts if part)
            goals = comparison.goals
            asked = [goal for goal in (goals.target, goals.goal) if goal is not None]
            found.setdefault(label, []).append(
                Bar(label, each.case.transport, row.spread, goals.floor, max(asked, default=None))
            )
    return found


def curves(measured: Sequence[Measured]) -> dict[str, list[Curve]]:
    """Return the curves by their name."""
    of_name: dict[str, list[Measured]] = {}
    for each in measured:
        if each.case.curve:
            of_name.setdefault(each.case.curve, []).append(each)
    found = {}
    for name, points in of_name.items():
        points.sort(key=lambda each: each.case.x)
        unit = spread(_costs(points[0], REFERENCE)).median
        found[name] = [
            Curve(
                contestant,
                tuple(
                    (each.case.x, spread([cost / unit for cost in _costs(each, contestant)]))
                    for each in points
                    if contestant in each.costs
                ),
            )
            for contestant in (OURS, REFERENCE)
        ]
    return found


def _costs(measured: Measured, contestant: str) -> list[float]:
    """Return the costs of a point: per call, or per byte if the curve is about lengths."""
    by = measured.case.x if measured.case.curve == "length" else 1.0
    return [cost / by for cost in measured.costs[contestant]["seconds"]]


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Draw the plots of a run, and return their files by the name of the suite.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same run must give the same file; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for suite, measured in by_suite(results):
        figure = _draw_curves(curves(measured)) if suite == "growth" else _draw_bars(suite, bars(measured))
        if figure is None:
            continue
        path = folder / f"{suite}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        files[suite] = path
    return files


def _figure(columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def _draw_bars(suite: str, groups: dict[str, list[Bar]]) -> Any:
    """Draw a row of points for each label, by transport, on a logarithmic scale."""
    if not groups:
        return None
    from matplotlib.lines import Line2D

    figure, (axis,) = _figure(1, 8.5, 1.2 + 0.36 * len(groups))
    labels = list(groups)
    ends = [1.0]
    for at, label in enumerate(labels):
        for place, bar in enumerate(groups[label]):
            y = at + 0.26 * (place - (len(groups[label]) - 1) / 2)
            colour = COLOURS[bar.transport]
            axis.hlines(y, bar.spread.min, bar.spread.max, color=colour, linewidth=1.5, alpha=0.55)
            axis.plot(bar.spread.median, y, "o", color=colour, markersize=5.5)
            for goal, shape in ((bar.floor, "|"), (bar.best, ">")):
                if goal:
                    axis.plot(goal, y, shape, color="black", markersize=7 if shape == "|" else 4, alpha=0.8)
            ends += [bar.spread.min, bar.spread.max, *(goal for goal in (bar.floor, bar.best) if goal)]
            axis.annotate(
                number(bar.spread.median),
                (1.005, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7.5,
                color=colour,
            )
    axis.set_xscale("log")
    least, most = min(ends) * 0.88, max(ends) * 1.12
    axis.set_xlim(least, most)
    axis.axvspan(least, 1, color=_WORSE, zorder=0)
    axis.axvline(1, color="black", linewidth=0.8)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200) if least <= tick <= most]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    than = "than the other package" if suite == "peers" else "than msl-network 1.0.0"
    axis.set_xlabel(f"how many times less ours needs {than}")
    shown = dict.fromkeys(bar.transport for group in groups.values() for bar in group)
    legend = [
        Line2D([], [], color=COLOURS[transport], marker="o", label=f"{TITLES.get(transport, 'median')}")
        for transport in shown
    ]
    if any(bar.floor for group in groups.values() for bar in group):
        legend.append(Line2D([], [], color="black", marker="|", linestyle="", markersize=8, label="floor"))
        legend.append(
            Line2D([], [], color="black", marker=">", linestyle="", markersize=4, label="target or goal")
        )
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), frameon=False)
    return figure


def _leading(value: float) -> int:
    """Return the first digit of a number that is not 0."""
    return int(f"{value:e}"[0])


def _draw_curves(found: dict[str, list[Curve]]) -> Any:
    if not found:
        return None
    figure, axes = _figure(len(found), 3.6 * len(found), 3.4)
    for axis, (name, lines) in zip(axes, found.items(), strict=True):
        cost, of = CURVES[name]
        for curve in lines:
            xs = [x for x, _ in curve.points]
            colour = _OF_CLIENTS[curve.contestant]
            axis.plot(
                xs,
                [at.median for _, at in curve.points],
                "o-",
                color=colour,
                label=PACKAGES[curve.contestant],
            )
            low, high = [at.min for _, at in curve.points], [at.max for _, at in curve.points]
            axis.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(of)
        axis.set_title(cost, fontsize=9)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leading(value) in {2, 5} else "")
        axis.grid(color="#dddddd", linewidth=0.6)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel("relative to the first of msl-network 1.0.0")
    axes[0].legend(frameon=False)
    return figure
