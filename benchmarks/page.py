"""The page of results in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.cases import REFERENCE, Measured
from benchmarks.peers import PEERS
from benchmarks.plots import PACKAGES
from benchmarks.results import Results
from benchmarks.suites import DESCRIPTIONS
from benchmarks.table import HEADER, Line, as_markdown, by_suite, lines, met_of, number

_INTRODUCTION: Final = """\
# Results

Written by `python -m benchmarks report`; do not edit. Every figure is the ratio of the costs of two
contestants, measured **in the same run, alternately, on the same machine**: the cost of the other one
divided by the cost of this package. Higher is better, 1 is equal.
"""

_METHOD: Final = """\
## Method

- **Rounds.** In every round all contestants of a case do their load one after the other, in both orders,
  several times if the load is short; the first contestant rotates. Each ratio is computed from two costs
  of one round; *min*, *median* and *max* are those of the rounds.
- **Processes.** Clients, Managers, Services and the servers of other packages run in separate processes,
  started anew in every round: the memory layout of a process can slow it down for its whole life.
- **One CPU.** The latency of a call depends more on the placement of the processes than on their code.
  Cases with a * run all their processes on one CPU; the others may use all CPUs.
- **CPU** is the ratio of the CPU times of the processes that differ: the clients, the servers, or both.
  Other work on the machine hardly affects it, but it does not include waiting.
- **Checks.** Every returned sum and list is compared with the expected one.
- **Warm-up.** Before the timed calls, a twentieth of their number is made.
- **client**: both clients with the same fake Manager, one process on uvloop that answers immediately, to
  measure the costs of the client. Its own time is included in both, and makes the ratios smaller than
  those of the clients alone.
- **network**: small calls and notifications use a load generator that is the same for all networks and
  costs very little, to measure Manager and Service; the other loads use this package's client, whose
  cost is included in all times. *async* and *plain* are the methods of this package's Service: plain
  ones run in worker threads. Managers log at their default level INFO, to a file and to a console that
  discards its input; at ERROR the reference would be faster. *All of one's own* compares client, Manager
  and Service of this package with those of the reference, which is the gain for users; *our client*
  there is this package's client in the network of the reference. The reference has no WebSocket:
  WebSocket is compared with its plain connection, with TLS if the WebSocket has TLS.
- **resources**: growth of the resident memory and of the number of threads of a process per connection,
  without the first connections; the time of `python -c "import ..."` minus that of `python -c pass`.
- **peers**: the whole network of this package (client, Manager, Service: three processes) beside other
  packages, each used in the fastest way that its documentation offers.
"""

_CAUTION: Final = """\
## Limits of these measurements

- No figure is a speed. Times of different machines, days or versions of Python are not comparable, and
  ratios are less comparable the more the machines differ.
- The *client* ratios are not the gain with a Manager of msl-network 1.0.0: there that Manager dominates.
  See *all of one's own, our client*.
- All processes ran on one machine, over the loopback interface. A network adds its latency to both
  sides, so that the ratios of single calls approach 1.
- A real instrument takes milliseconds. These figures matter for programs that make thousands of calls or
  transfer megabytes, not for a program that reads a voltmeter once a second.
- A ratio of one round may be off by a third because of other work on the machine. If a goal is between
  *min* and *max*, it is neither met nor missed with certainty.
- Other packages have other features. A program that needs no hub, names, JSON, notifications and locks
  should not pay for them; with the faster packages, a program that needs them would have to implement
  them.
"""

_ATTRIBUTION: Final = """\
## Shares of the client's time

Shares of the CPU time of this package's client, measured without a network when this page was written
(by `python -m benchmarks profile`). They explain missed floors and targets: Trio's share is the same in
any client on Trio, and the largest one of a call when 100 tasks are in flight. The remainder pays for
exact values, cancellation that sends nothing for a caller that is already cancelled, and errors that
reach the right caller. With a kernel and another process beside it everything costs more, because of
cold caches.
"""

Shares = Sequence[tuple[str, float]]

_LEFT: Final = (0, 1, len(HEADER) - 1)


def page(
    results: Results, pictures: Mapping[str, Path], folder: Path, shares: Mapping[str, Shares] | None = None
) -> str:
    """Return the page.

    Args:
        results: The results of a run.
        pictures: Files of plots by the name of their suite.
        folder: Folder of the page, for relative paths.
        shares: Shares of the time of calls; see `benchmarks.attribution.attribute`.
    """
    parts = [_INTRODUCTION, _summary(results)]
    for suite, measured in by_suite(results):
        parts.append(f"## {suite}: {DESCRIPTIONS.get(suite, '')}\n")
        if suite in pictures:
            parts.append(f"![{suite}]({pictures[suite].relative_to(folder).as_posix()})\n")
        parts.append(_table(lines(measured, results.pin)) + "\n")
        if suite == "peers":
            parts.append(_about_peers(measured) + "\n")
    if shares is not None:
        parts.append(attributed(shares))
    parts += [_METHOD, _machine(results), _CAUTION, _repeat(results)]
    return "\n".join(parts)


def attributed(shares: Mapping[str, Shares]) -> str:
    """Return the section about the shares of the time of calls."""
    text = _ATTRIBUTION
    for load, of_load in shares.items():
        rows = [(what, f"{share:.0%}") for what, share in of_load]
        text += "\n" + as_markdown((load, "share"), rows, (0,)) + "\n"
    return text


def _table(table: Sequence[Line]) -> str:
    """Return the table without empty columns."""
    used = [
        column
        for column in range(len(HEADER))
        if column < len(HEADER) - 4 or any(line.cells[column] not in {"", "-"} for line in table)
    ]
    header = ["" if column == 0 else HEADER[column] or "result" for column in used]
    left = [at for at, column in enumerate(used) if column in _LEFT]
    rows = [[_worded(line.cells[column], column) for column in used] for line in table]
    return as_markdown(header, rows, left)


def _worded(cell: str, column: int) -> str:
    if column == 1:
        return PACKAGES.get(cell, cell)
    if column == len(HEADER) - 1:
        return cell.replace("NOT met", "**not met**")
    return cell.replace(" *", " \\*")


def _rounds(results: Results) -> str:
    """Return the number of rounds of the cases; slow cases may have fewer."""
    counts = {
        len(values)
        for each in results.cases
        for figures in each.costs.values()
        for values in figures.values()
    }
    least, most = min(counts, default=0), max(counts, default=0)
    return f"{most}" if least == most else f"{least} to {most}"


def _summary(results: Results) -> str:
    """Return the numbers of goals met, and the floors that were not met."""
    table = lines(results.cases, results.pin)
    missed = [
        f"{line.cells[0]} ({number(line.row.spread.median)} of {number(value)})"
        for line in table
        for name, value, met, _ in line.row.verdicts
        if name == "floor" and not met
    ]
    counts = met_of(table)
    text = "Goals met: "
    text += ", ".join(f"{met} of {asked} {name}s" for name, (met, asked) in counts.items()) + ". "
    if not missed:
        text += "Every floor is met. "
    text += f"Rounds: {_rounds(results)}."
    if results.quick:
        text += " Some or all of these figures are from a quick run with few calls, and therefore rough."
    if missed:
        text += "\n\nFloors that are **not met** (median of goal):\n\n"
        text += "\n".join(f"- {each}" for each in missed)
    return f"{text}\n"


def _about_peers(measured: Sequence[Measured]) -> str:
    present = {each.name for of in measured for each in of.case.contestants}
    rows = [
        (peer.name, ", ".join(peer.transports).upper(), peer.about) for peer in PEERS if peer.name in present
    ]
    reference = "Threads and asyncio. A hub; the same protocol and features as this package."
    rows.insert(0, (PACKAGES[REFERENCE], "TCP, TLS", reference))
    return as_markdown(("", "over", "use and features"), rows, (0, 1, 2))


def _machine(results: Results) -> str:
    rows = [(key, value) for key, value in results.environment.items()]
    text = "## Machine and versions\n\n" + as_markdown(("", ""), rows, (0, 1)) + "\n"
    for skipped in results.skipped:
        text += f"\nSkipped: {skipped.what}: {skipped.why}.\n"
    return text


def _repeat(results: Results) -> str:
    keys = sorted({measured.case.key for measured in results.cases})
    example = keys[0] if keys else "client-one-tcp"
    commands = "\n".join(f"    {command} --json new.json" for command in results.command.split("; "))
    return f"""\
## Repeat the measurements

Every figure can be measured again, alone or with all others.
From a clone, `python -m nox -s bench` installs the dependencies and measures everything; options follow `--`.
In an environment with `pip install -e ".[bench,bench-more]"`:

{commands}
    python -m benchmarks --only {example}     # one case; --list shows all names
    python -m benchmarks --quick              # all quick cases, in less than two minutes
    python -m benchmarks compare benchmarks/results.json new.json
    python -m benchmarks report benchmarks/results.json
"""
