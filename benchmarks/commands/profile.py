"""``python -m benchmarks profile``: shows the parts of the client's time of a call."""

from __future__ import annotations

import argparse

from benchmarks import table
from benchmarks.attribution import attribute


def main(arguments: list[str]) -> int:
    """Measure, print the shares, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description="Show the parts of the client's CPU time of a call, without a network: the "
        "share of Trio, and of each part of this package.",
    )
    parser.parse_args(arguments)
    for load, shares in attribute().items():
        rows = [(what, f"{share:.0%}") for what, share in shares]
        print("\n".join(table.aligned([(load, ""), *rows], left=(0,))), end="\n\n")
    return 0
