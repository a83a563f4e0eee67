"""``python -m benchmarks``: how many times faster than the client of msl-network 1.0.0, in the same run."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks import report
from benchmarks.processes import ChildFailed
from benchmarks.runner import Case, all_cases, run

ROUNDS = 8
QUICK_ROUNDS = 4
"""Both even, so that each peer goes first as often as the other."""


def _options() -> argparse.Namespace:
    cases = all_cases()
    names = list(dict.fromkeys(case.workload.name for case in cases)) + [case.name for case in cases]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure our client and that of msl-network 1.0.0 in turns, against a fake Manager that "
        "answers at once, and print the ratios of their times. Takes about a minute; other work on the "
        "machine makes the ratios of single rounds vary.",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}, if quick {QUICK_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="fewer calls: some seconds, rough ratios")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"measure just these: {', '.join(names)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to a file")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds is a number from 1")
    return options


def _progress() -> Callable[[str], None]:
    """Return what shows the progress: one line on a terminal, nothing elsewhere."""

    def show(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    return show


def main() -> int:
    """Run the benchmarks and return the exit status."""
    options = _options()
    if find_spec("msl") is None or find_spec("msl.network") is None:
        print('The reference is missing: pip install "msl-network-trio[bench]"', file=sys.stderr)
        return 1
    # As Ctrl-C does, so that processes and folders are cleared away then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cases: list[Case] = [
        case
        for case in all_cases()
        if not options.only or {case.name, case.workload.name} & set(options.only)
    ]
    progress = _progress()
    try:
        loop = run(cases, options.rounds, progress, quick=options.quick)
    except KeyboardInterrupt:
        progress("")
        print("interrupted", file=sys.stderr)
        return 130
    except ChildFailed as error:
        progress("")
        print(error, file=sys.stderr)
        return 1
    progress("")
    facts = report.environment(loop)
    print(report.as_text(cases, facts))
    if options.json is not None:
        text = json.dumps(report.as_json(cases, facts), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
