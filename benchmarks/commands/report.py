"""``python -m benchmarks report FILE``: writes the page of results and the figures of the README."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.attribution import attribute
from benchmarks.page import page
from benchmarks.plots import draw
from benchmarks.readme import NoPlaceForFigures, with_figures


def main(arguments: list[str]) -> int:
    """Write the page and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report",
        description="Write RESULTS.md and its plots from files that were written with --json, and "
        "results.json with the content of all of them.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="file written with --json; the last file with a case counts",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("benchmarks"),
        help="folder for RESULTS.md, results.json and plots/ (default: benchmarks)",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="also write the figures into this file, between their marks",
    )
    options = parser.parse_args(arguments)
    try:
        run = results.merged([results.load(path) for path in options.results])
        if options.readme is not None:
            text = with_figures(options.readme.read_text(encoding="utf-8"), run)
            options.readme.write_text(text, encoding="utf-8")
    except (OSError, results.UnreadableResults, NoPlaceForFigures) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        pictures = draw(run, options.folder / "plots")
    except ImportError:
        print('the pictures need matplotlib: pip install "msl-network-trio[bench]"', file=sys.stderr)
        return 1
    results.save(run, options.folder / "results.json")
    path = options.folder / "RESULTS.md"
    path.write_text(page(run, pictures, options.folder, attribute()), encoding="utf-8")
    print(path)
    return 0
