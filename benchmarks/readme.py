"""The figures that the README quotes, between two comments in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.cases import OURS, REFERENCE, Measured
from benchmarks.results import Results
from benchmarks.statistics import Spread, rows
from benchmarks.table import as_markdown, by_suite, number

BEGIN: Final = "<!-- figures: written by `python -m benchmarks report` -->"
END: Final = "<!-- end of figures -->"

_ALL_OF_ONES_OWN: Final = "all of one's own: "

_ABOUT_CLIENTS: Final = """\
The time of a call with the client of msl-network 1.0.0, divided by the time of ours, both against the same
bare stand-in for a Manager, so that the client's own cost is what shows (min / median / max of {rounds}
rounds):
"""

_ABOUT_NETWORKS: Final = """\
Whole networks under the load of the same client, ours: the time with the Manager and a Service of msl-network
1.0.0 (at its default log level), divided by the time with ours, whose methods are async or plain ones:
"""

Key = tuple[str, str, str]
"""The title of a case, its transport, and who is compared."""


class NoPlaceForFigures(ValueError):
    """A text has not the two comments between which the figures belong."""


def _found(measured: Sequence[Measured]) -> dict[Key, Spread]:
    """Return the ratios to the reference, except those that only a page of details needs."""
    found = {}
    for each in measured:
        for row in rows(each):
            comparison = row.comparison
            if comparison.other == REFERENCE and comparison.figure != "p99":
                found[each.case.title, each.case.transport, comparison.one] = row.spread
    return found


def _cell(spread: Spread | None) -> str:
    return "-" if spread is None else " / ".join(map(number, (spread.min, spread.median, spread.max)))


def _table(found: dict[Key, Spread], columns: Sequence[tuple[str, str, str]], *, whole: bool) -> str:
    titles = [title for title, _, _ in found if whole or not title.startswith(_ALL_OF_ONES_OWN)]
    body = []
    for title in dict.fromkeys(titles):
        cells = [_cell(found.get((title, transport, one))) for _, transport, one in columns]
        if any(cell != "-" for cell in cells):
            body.append((title, *cells))
    return as_markdown(("", *(heading for heading, _, _ in columns)), body, (0,))


def figures(results: Results) -> str:
    """Return what the README quotes of a run."""
    suites = dict(by_suite(results))
    parts = []
    if "client" in suites:
        columns = [(transport.upper(), transport, OURS) for transport in ("tcp", "tls")]
        table = _table(_found(suites["client"]), columns, whole=True)
        parts += [_ABOUT_CLIENTS.format(rounds=results.rounds), table + "\n"]
    if "network" in suites:
        columns = [
            (f"{transport.upper()}, {kind}", transport, kind)
            for transport in ("tcp", "tls")
            for kind in ("async", "plain")
        ]
        parts += [_ABOUT_NETWORKS, _table(_found(suites["network"]), columns, whole=False) + "\n"]
    return "\n".join(parts)


def with_figures(text: str, results: Results) -> str:
    """Return the text with the figures of a run between the two comments.

    Raises:
        NoPlaceForFigures: They are not there, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlaceForFigures(f"there is no {BEGIN} with an {END} behind it")
    return f"{before}{BEGIN}\n\n{figures(results)}\n{END}{after}"
