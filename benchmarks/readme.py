"""The figures of the README, between two comments in its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.cases import OURS, REFERENCE, TITLES, Measured
from benchmarks.results import Results
from benchmarks.statistics import Spread, rows
from benchmarks.table import as_markdown, by_suite, lines, met_of, note, number

BEGIN: Final = "<!-- figures: written by `python -m benchmarks report` -->"
END: Final = "<!-- end of figures -->"

_ALL_OF_ONES_OWN: Final = "all of one's own: "

_ABOUT_FLOORS: Final = """\
Of {asked} floors for these ratios in the design, this run reached {met}.
"""

_ABOUT_WHOLE: Final = """\
Client, Manager and Service of this package compared with those of msl-network 1.0.0; and only the client
replaced, in a network of msl-network (median of the rounds):
"""

_ABOUT_CLIENTS: Final = """\
The clients alone, with the same fake Manager (min / median / max of the rounds):
"""

_ABOUT_NETWORKS: Final = """\
Manager and Service alone, under the same load, with async or plain methods of this package's Service (median
of the rounds):
"""

Key = tuple[str, str, str]
"""Title of a case, its transport, and the contestants compared."""

Columns = Sequence[tuple[str, str, str]]
"""Heading, transport and contestant of each column."""


class NoPlaceForFigures(ValueError):
    """A text does not contain the two comments that enclose the figures."""


def _found(measured: Sequence[Measured]) -> dict[Key, Spread]:
    """Return the ratios to the reference, without those for the page of details only."""
    found = {}
    for each in measured:
        for row in rows(each):
            comparison = row.comparison
            if comparison.other == REFERENCE and comparison.figure != "p99":
                title = each.case.title
                if comparison.figure == "bytes":
                    title = f"{title}, {note(comparison.figure)}"
                found[title, each.case.transport, comparison.one] = row.spread
    return found


def _all_of(spread: Spread) -> str:
    return " / ".join(map(number, (spread.min, spread.median, spread.max)))


def _median_of(spread: Spread) -> str:
    return number(spread.median)


def _table(found: Mapping[Key, Spread], columns: Columns, cell: Callable[[Spread], str]) -> str:
    body = []
    for title in dict.fromkeys(title for title, _, _ in found):
        spreads = [found.get((title, transport, one)) for _, transport, one in columns]
        if any(spreads):
            name = title.removeprefix(_ALL_OF_ONES_OWN)
            body.append((name, *("-" if spread is None else cell(spread) for spread in spreads)))
    return as_markdown(("", *(heading for heading, _, _ in columns)), body, (0,)) + "\n"


def _across(transports: Sequence[str], ones: Sequence[str]) -> Columns:
    return [
        (TITLES[transport] if one == OURS else f"{TITLES[transport]}, {one}", transport, one)
        for transport in transports
        for one in ones
    ]


def figures(results: Results) -> str:
    """Return the figures of a run for the README."""
    suites = dict(by_suite(results))
    of_networks = _found(suites.get("network", []))
    whole = {key: spread for key, spread in of_networks.items() if key[0].startswith(_ALL_OF_ONES_OWN)}
    networks = {key: spread for key, spread in of_networks.items() if key not in whole}
    clients = _found(suites.get("client", []))
    met, asked = met_of(lines(results.cases, results.pin)).get("floor", (0, 0))
    which = "all" if met == asked else f"{met}; RESULTS names the others"
    parts = [_ABOUT_FLOORS.format(met=which, asked=asked)]
    if whole:
        exchanged = _across(("tcp", "tls"), ("our client",))
        columns = [*_across(("tcp", "tls", "websocket"), (OURS,)), *exchanged]
        parts += [_ABOUT_WHOLE, _table(whole, columns, _median_of)]
    if clients:
        parts += [_ABOUT_CLIENTS, _table(clients, _across(("tcp", "tls"), (OURS,)), _all_of)]
    if networks:
        kinds = _across(("tcp", "tls"), ("async", "plain"))
        parts += [_ABOUT_NETWORKS, _table(networks, kinds, _median_of)]
    return "\n".join(parts)


def with_figures(text: str, results: Results) -> str:
    """Return the text with the figures of a run between the two comments.

    Raises:
        NoPlaceForFigures: The comments are missing, or not in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlaceForFigures(f"there is no {BEGIN} with an {END} behind it")
    return f"{before}{BEGIN}\n\n{figures(results)}\n{END}{after}"
