"""``python -m benchmarks walk``: counts the files and functions of the package that a call goes through."""

from __future__ import annotations

import argparse
import os
import tempfile
from unittest.mock import patch

from benchmarks import table
from benchmarks.walk import BASELINE, BASELINE_COMMIT, COUNTS, METHODS, Walk, walk


def as_text(walks: dict[str, Walk]) -> str:
    """Return a table of the counts: now, and of the commit that they are compared with."""
    rows: list[tuple[str, ...]] = [("method", "commit", *COUNTS)]
    for kind, walked in walks.items():
        for commit, counts in (("now", walked.counts()), (BASELINE_COMMIT, BASELINE[kind])):
            rows.append((kind, commit, *(str(counts[name]) for name in COUNTS)))
    return "\n".join(table.aligned(rows, left=(0, 1)))


def steps_as_text(walked: Walk) -> str:
    """Return the steps, one a line, with the role and the file where they change."""
    lines = []
    last = ("", "")
    for step, role in zip(walked.steps, walked.roles(), strict=True):
        now = (role, step.file)
        lines.append((role, step.file, step.function) if now != last else ("", "", step.function))
        last = now
    return "\n".join(table.aligned(lines, left=(0, 1, 2)))


def main(arguments: list[str]) -> int:
    """Record the walks, print the counts, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks walk",
        description="Follow one await link.add(1, 2) through a client, a Manager and a Service in one "
        "process, and count the switches from one file of the package to another.",
    )
    parser.add_argument("--method", choices=METHODS, help="the kind of the method (default: all)")
    parser.add_argument("--steps", action="store_true", help="list the functions in the order of their calls")
    options = parser.parse_args(arguments)
    kinds = [options.method] if options.method else list(METHODS)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as home,
        patch.dict(os.environ, {"MSL_NETWORK_HOME": home}),
    ):
        walks = {kind: walk(METHODS[kind]) for kind in kinds}
    if options.steps:
        for kind, each in walks.items():
            print(f"method: {kind}\n{steps_as_text(each)}\n")
    print(as_text(walks))
    return 0
