"""``python -m benchmarks profile``: shows where the time of a call goes in our client."""

from __future__ import annotations

import argparse

from benchmarks import table
from benchmarks.attribution import attribute


def main(arguments: list[str]) -> int:
    """Measure, print the shares, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description="Show where the CPU time of a call goes in our client, with no network in between: how "
        "much of it is Trio's, and how much each part of ours.",
    )
    parser.parse_args(arguments)
    for load, shares in attribute().items():
        rows = [(what, f"{share:.0%}") for what, share in shares]
        print("\n".join(table.aligned([(load, ""), *rows], left=(0,))), end="\n\n")
    return 0
