"""``python -m benchmarks [run]``: measures, shows a table, and writes the results to a file."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import machine, results, runner, table
from benchmarks.availability import available
from benchmarks.cases import Case, Measured, choose
from benchmarks.placement import one_cpu
from benchmarks.processes import ChildFailed
from benchmarks.suites import DESCRIPTIONS, all_cases

ROUNDS = 6
QUICK_ROUNDS = 1


def _described() -> str:
    return "; ".join(f"{name}: {what}" for name, what in DESCRIPTIONS.items())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure contestants alternately, each in separate processes, and print the ratios of "
        "their costs. Other work on the machine makes the ratios of single rounds vary.",
        epilog="Other commands: 'compare OLD NEW' compares runs, 'report FILE' writes the page of results.",
    )
    add = parser.add_argument
    add(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"suites to measure; {_described()}. Default: all",
    )
    add("--only", nargs="+", default=[], metavar="NAME", help="cases to measure, see --list; may be patterns")
    add("--list", action="store_true", help="list the cases, and exit")
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"number of rounds, default {ROUNDS}, with --quick {QUICK_ROUNDS}",
    )
    add(
        "--quick",
        action="store_true",
        help="fewer calls, no slow cases: rough ratios in less than two minutes",
    )
    add(
        "--pin",
        nargs="?",
        const="all",
        default="latency",
        choices=("latency", "all", "none"),
        help="cases that share one CPU, where that can be chosen: those that measure the latency of one "
        "call (default), all (--pin alone), or none",
    )
    add("--json", type=Path, metavar="FILE", help="write the results to a file")
    return parser


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the checked options."""
    reader = parser()
    # Suites may also follow options.
    found = reader.parse_intermixed_args(arguments)
    for suite in found.suites:
        if suite not in DESCRIPTIONS:
            reader.error(f"there is no suite {suite!r}, but {', '.join(DESCRIPTIONS)}")
    if found.rounds is None:
        found.rounds = QUICK_ROUNDS if found.quick else ROUNDS
    if found.rounds < 1:
        reader.error("--rounds is a number from 1")
    for word in found.only:
        if not choose(all_cases(), [], [word]):
            reader.error(f"nothing is called {word!r}; --list shows the names")
    return found


def listed(cases: Sequence[Case]) -> str:
    """Return one line per case: name, title, contestants."""
    width = max(len(case.key) for case in cases) + 2
    return "\n".join(
        f"{case.key:<{width}}{case.full_title} ({', '.join(each.name for each in case.contestants)})"
        for case in cases
    )


@contextmanager
def shown(total: int) -> Iterator[runner.Progress]:
    """Show a progress bar, on terminals only."""
    console = Console(stderr=True)
    if not console.is_terminal:  # older releases of rich print an empty line otherwise
        yield lambda what, done: None
        return
    with Progress(
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)

        def show(what: str, done: int) -> None:
            bar.update(task, advance=done, description=what or None)

        yield show


def measured_or_status(cases: Sequence[Case], plan: runner.Plan) -> list[Measured] | int:
    """Measure, with a progress bar; return the exit status if the run was interrupted or has failed."""
    # Treat SIGTERM like Ctrl-C, so that processes and folders are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with shown(runner.steps(cases, plan)) as progress:
            return runner.run(cases, plan, progress)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ChildFailed as error:
        print(error, file=sys.stderr)
        return 1


def main(arguments: list[str]) -> int:
    """Run the benchmarks and return the exit status."""
    found = options(arguments)
    cases = choose(all_cases(), found.suites, found.only)
    if not cases:
        print("nothing is both in these suites and called so; --list shows the names", file=sys.stderr)
        return 2
    cases, skipped = available(cases)
    if found.quick and (long := [case for case in cases if case.heavy or not case.quick]):
        skipped += [results.Skipped(case.full_title, "it takes too long for a quick run") for case in long]
        cases = [case for case in cases if case not in long]
    if found.list:
        print(listed(cases))
        print(*(f"skipped: {each.what}: {each.why}" for each in skipped), sep="\n")
        return 0
    plan = runner.Plan(found.rounds, quick=found.quick, pin=found.pin)
    environment = machine.environment()
    measured = measured_or_status(cases, plan)
    if isinstance(measured, int):
        return measured
    cpu = one_cpu()
    environment["pinned"] = "not possible here" if cpu is None else f"all processes of a case on CPU {cpu}"
    environment["managers"] = "log level INFO, to a file and to a console that is os.devnull"
    command = " ".join(
        ["python -m benchmarks", *(arguments if "--json" not in arguments else _without_json(arguments))]
    )
    run = results.Results(environment, plan.rounds, plan.quick, plan.pin, command, measured, skipped)
    print(table.as_text(run))
    if found.json is not None:
        results.save(run, found.json)
    return 0


def _without_json(arguments: Sequence[str]) -> list[str]:
    at = list(arguments).index("--json")
    return [*arguments[:at], *arguments[at + 2 :]]
