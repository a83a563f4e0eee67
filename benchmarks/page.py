"""The page of results, in Markdown, made from what a run has measured."""

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
# What was measured

Made by `python -m benchmarks report`; do not edit. Every figure is a ratio of what two contestants needed
**in the same run, in turns, on the same machine**: how many times less ours needed than the other one, so
that more is better and 1 is the same.
"""

_METHOD: Final = """\
## Method

- **Turns.** In every round each contestant of a case does its load, one right after the other, there and
  back, several times if that does not take long, and who goes first goes round. A ratio is taken of the
  two costs of one round; *min*, *median* and *max* are of the rounds.
- **Processes.** Clients, Managers, Services and the servers of other packages run in processes of their
  own, new ones in every round: how memory happens to be laid out can make a process slower for all its
  life.
- **One CPU.** The latency of a call depends on where the system puts the processes more than on their
  code. Cases with a * run all their processes on one CPU; the others may use all of them.
- **CPU** is the same ratio for the CPU time alone, of what differs: of the clients, of what is at the
  other end, or of both. Other work on the machine hardly touches it; but it says nothing about waiting.
- **Results are checked.** Every sum and every list that comes back is compared with what it must be.
- **Warming up.** A twentieth of the calls is made before those that are timed.
- **client**: both clients against the same bare stand-in for a Manager, one process on uvloop that
  answers at once, so that the cost of the client is what shows. Its own time is in both, and makes the
  ratios smaller than those of the clients alone.
- **network**: small calls are made, and notifications received, by a generator of load that is the same
  for all networks and costs next to nothing, so that Manager and Service are what shows; the rest by our
  client, whose cost is in the times of all. *async* and *plain* are the methods of our Service: plain
  ones run in worker threads. Managers log at their default level, INFO, to a file and to a console that
  leads nowhere; at ERROR the reference would be faster. *All of one's own* compares our client, Manager
  and Service with those of the reference, which is what a user gains; *our client* there is ours in the
  network of the reference. The reference has no WebSocket: there its plain connection, with TLS if ours
  has it, is what we compare with.
- **resources**: growth of the resident memory and of the number of threads of a process, per connection,
  for connections after the first ones; what `python -c "import ..."` takes longer than `python -c pass`.
- **peers**: the whole of our network (client, Manager, Service: three processes) beside other packages,
  each in the fastest way that its documentation offers.
"""

_CAUTION: Final = """\
## What a reader must not conclude

- No figure here is a speed. Times of another machine, another day or another Python are not comparable;
  the ratios are less so the more the machines differ.
- The *client* ratios are not what a user gains with a Manager of msl-network 1.0.0 at the other end: that
  Manager dominates there. See *all of one's own, our client*.
- Everything ran on one machine, over the loopback interface. A network adds its latency to both sides,
  and the ratios of single calls go towards 1.
- A real instrument takes milliseconds. What these figures say matters for programs that make thousands of
  calls or pass on megabytes, not for one that reads a voltmeter once a second.
- A ratio of one round may be off by a third for no reason but other work on the machine. Where *min* and
  *max* lie on both sides of a goal, it is neither met nor missed for certain.
- Other packages do other things. Who needs no hub, no names, no JSON, no notifications and no locks
  should not pay for them; who needs them would have to build them on top of the faster ones.
"""

_ATTRIBUTION: Final = """\
## Where the time of our client goes

The shares of the CPU time of our client, measured when this page was made, without a network (by
`python -m benchmarks profile`). Where a floor or a target is missed, this is why: what is Trio's is no
smaller in any client on Trio, and the largest part of a call when 100 tasks are in flight. The rest buys
exact values, cancellation that sends nothing for who is cancelled already, and errors that reach the right
caller. With a kernel and another process beside it everything costs more, since it finds colder caches.
"""

Shares = Sequence[tuple[str, float]]

_LEFT: Final = (0, 1, len(HEADER) - 1)


def page(
    results: Results, pictures: Mapping[str, Path], folder: Path, shares: Mapping[str, Shares] | None = None
) -> str:
    """Return the page.

    Args:
        results: What was measured.
        pictures: The files of pictures by the name of their suite.
        folder: Where the page will be, to which the files are relative.
        shares: Where the time of calls goes; see `benchmarks.attribution.attribute`.
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
    """Return what is said of where the time goes."""
    text = _ATTRIBUTION
    for load, of_load in shares.items():
        rows = [(what, f"{share:.0%}") for what, share in of_load]
        text += "\n" + as_markdown((load, "share"), rows, (0,)) + "\n"
    return text


def _table(table: Sequence[Line]) -> str:
    """Return the table, without columns in which nothing stands."""
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
    """Return how many rounds the cases had; those that take long may have had fewer."""
    counts = {
        len(values)
        for each in results.cases
        for figures in each.costs.values()
        for values in figures.values()
    }
    least, most = min(counts, default=0), max(counts, default=0)
    return f"{most}" if least == most else f"{least} to {most}"


def _summary(results: Results) -> str:
    """Return how many of the goals were met, and which floors were not."""
    table = lines(results.cases, results.pin)
    missed = [
        f"{line.cells[0]} ({number(line.row.spread.median)} of {number(value)})"
        for line in table
        for name, value, met, _ in line.row.verdicts
        if name == "floor" and not met
    ]
    counts = met_of(table)
    text = "Of what was asked for, met: "
    text += ", ".join(f"{met} of {asked} {name}s" for name, (met, asked) in counts.items()) + ". "
    if not missed:
        text += "Every floor is met. "
    text += f"Rounds: {_rounds(results)}."
    if results.quick:
        text += " Some or all of it is from a quick run, with few calls: rough."
    if missed:
        text += "\n\nFloors that are **not met** (median of what was asked for):\n\n"
        text += "\n".join(f"- {each}" for each in missed)
    return f"{text}\n"


def _about_peers(measured: Sequence[Measured]) -> str:
    present = {each.name for of in measured for each in of.case.contestants}
    rows = [
        (peer.name, ", ".join(peer.transports).upper(), peer.about) for peer in PEERS if peer.name in present
    ]
    reference = "Threads and asyncio. A hub; the same protocol and the same things as ours."
    rows.insert(0, (PACKAGES[REFERENCE], "TCP, TLS", reference))
    return as_markdown(("", "over", "how it is driven, and what it gives"), rows, (0, 1, 2))


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
## Repeat it

Every figure can be measured again, alone or with all others.
From a clone: `python -m nox -s bench` installs what is needed and measures everything; options go behind
`--`.
In an environment with `pip install -e ".[bench,bench-more]"`:

{commands}
    python -m benchmarks --only {example}     # just one; --list tells all names
    python -m benchmarks --quick              # everything that is quick, in less than two minutes
    python -m benchmarks compare benchmarks/results.json new.json
    python -m benchmarks report benchmarks/results.json
"""
