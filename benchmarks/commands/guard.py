"""``python -m benchmarks guard``: fails if a recorded floor is not reached."""

from __future__ import annotations

import argparse
import sys

from benchmarks import guard, runner, table
from benchmarks.commands.run import measured_or_status
from benchmarks.suites import all_cases

ROUNDS = 3


def main(arguments: list[str]) -> int:
    """Measure the guarded cases, compare them with the floors, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks guard",
        description="Measure the guarded cases on one CPU, and fail if the median ratio of the CPU times is "
        "below its recorded floor.",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument(
        "--record", action="store_true", help="record the measured ratios as floors, instead of comparing"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds is a number from 1")
    cases = [case for case in all_cases() if case.key in guard.CASES]
    measured = measured_or_status(cases, runner.Plan(options.rounds, quick=True, pin="all"))
    if isinstance(measured, int):
        return measured
    ratios = guard.ratios(measured)
    if options.record:
        guard.save(guard.floors(ratios))
        print(f"recorded in {guard.FILE}")
        return 0
    findings = guard.findings(ratios, guard.load())
    rows = [
        (each.name, table.number(each.ratio), table.number(each.floor), "" if each.holds else "BROKEN")
        for each in findings
    ]
    print("\n".join(table.aligned([("", "CPU ratio", "floor", ""), *rows], left=(0, 3))))
    if broken := [each.name for each in findings if not each.holds]:
        print(f"{len(broken)} of {len(findings)} floors are broken", file=sys.stderr)
        return 1
    return 0
