"""``python -m benchmarks``: how many times faster than msl-network 1.0.0, in the same run.

``python -m benchmarks client``, which is the default, compares the clients; ``python -m benchmarks network``
whole networks.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import report
from benchmarks.processes import ChildFailed


class Suite(NamedTuple):
    """What can be compared."""

    module: str
    """It has `all_cases` and `run`."""

    compared: str
    """What of msl-network 1.0.0 we are compared with."""

    description: str

    rounds: int
    """A multiple of the number of peers, so that each goes first as often as any other."""

    quick_rounds: int
    """A multiple, too."""


SUITES: Final = {
    "client": Suite(
        "benchmarks.runner",
        "the client",
        "Measure our client and that of msl-network 1.0.0 in turns, against a fake Manager that answers at "
        "once, and print the ratios of their times. Takes about a minute; other work on the machine makes "
        "the ratios of single rounds vary. 'python -m benchmarks network' measures whole networks instead.",
        8,
        4,
    ),
    "network": Suite(
        "benchmarks.network.runner",
        "the network",
        "Measure our Manager with our Service, with plain methods and with async ones, and those of "
        "msl-network 1.0.0 in turns, each in a process of its own and all with our client, and print the "
        "ratios of their times. Takes some minutes; other work on the machine makes the ratios of single "
        "rounds vary.",
        6,
        3,
    ),
}


def _options(name: str, suite: Suite, cases: list[report.Case], arguments: list[str]) -> argparse.Namespace:
    words = list(dict.fromkeys(group for case in cases for group in case.groups if "-" not in group))
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=suite.description)
    add = parser.add_argument
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"default {suite.rounds}, if quick {suite.quick_rounds}",
    )
    add("--quick", action="store_true", help="fewer calls: faster, rough ratios")
    add(
        "--only",
        nargs="+",
        choices=sorted({name for case in cases for name in (case.name, *case.groups)}),
        metavar="NAME",
        help=f"measure just these: {', '.join(words)}, or such as {cases[0].name}",
    )
    add("--json", type=Path, metavar="FILE", help="write everything measured to a file")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = suite.quick_rounds if options.quick else suite.rounds
    if options.rounds < 1:
        parser.error("--rounds is a number from 1")
    return options


def _progress() -> Callable[[str], None]:
    """Return what shows the progress: one line on a terminal, nothing elsewhere."""

    def show(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    return show


def main(arguments: list[str]) -> int:
    """Run the benchmarks and return the exit status."""
    if find_spec("msl") is None or find_spec("msl.network") is None:
        print('The reference is missing: pip install "msl-network-trio[bench]"', file=sys.stderr)
        return 1
    name, *rest = arguments if arguments[:1] and arguments[0] in SUITES else ("client", *arguments)
    suite = SUITES[name]
    runner: Any = import_module(suite.module)
    cases: list[report.Case] = runner.all_cases()
    options = _options(name, suite, cases, rest)
    if options.only:
        cases = [case for case in cases if {case.name, *case.groups} & set(options.only)]
    # As Ctrl-C does, so that processes and folders are cleared away then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = _progress()
    try:
        facts: dict[str, str] = runner.run(cases, options.rounds, progress, quick=options.quick)
    except KeyboardInterrupt:
        progress("")
        print("interrupted", file=sys.stderr)
        return 130
    except ChildFailed as error:
        progress("")
        print(error, file=sys.stderr)
        return 1
    progress("")
    facts = report.environment() | facts
    print(report.as_text(cases, facts, suite.compared))
    if options.json is not None:
        text = json.dumps(report.as_json(cases, facts), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
