"""``python -m benchmarks report FILE``: writes the page of results and its pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.page import page
from benchmarks.plots import draw
from benchmarks.readme import NoPlaceForFigures, with_figures


def main(arguments: list[str]) -> int:
    """Write the page and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report",
        description="Write RESULTS.md and its pictures from a file that was written with --json.",
    )
    parser.add_argument("results", type=Path, metavar="FILE", help="a file written with --json")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("benchmarks"),
        help="where to write RESULTS.md and plots/ (default: benchmarks)",
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="also put the figures into this file, between their marks"
    )
    options = parser.parse_args(arguments)
    try:
        run = results.load(options.results)
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
    path = options.folder / "RESULTS.md"
    path.write_text(page(run, pictures, options.folder), encoding="utf-8")
    print(path)
    return 0
