"""``python -m benchmarks``: measures speed and memory relative to msl-network 1.0.0 and other packages.

``python -m benchmarks compare OLD NEW`` compares two runs; ``report FILE`` writes the page of results;
``guard`` fails if a recorded floor is not reached; ``profile`` shows the parts of the time of a call;
``walk`` counts the files that a call passes through.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

COMMANDS: Final = {
    "run": "benchmarks.commands.run",
    "compare": "benchmarks.commands.compare",
    "guard": "benchmarks.commands.guard",
    "profile": "benchmarks.commands.profile",
    "report": "benchmarks.commands.report",
    "walk": "benchmarks.commands.walk",
}
"""Modules of the commands, each with a function ``main``; ``run`` is the default."""

_NEEDED: Final = ("msl.network", "psutil", "rich")


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:
        return True


def main(arguments: list[str]) -> int:
    """Run a command and return the exit status."""
    missing = [module for module in _NEEDED if _missing(module)]
    if missing:
        print(f'{", ".join(missing)} missing: pip install "msl-network-trio[bench]"', file=sys.stderr)
        return 1
    name, rest = (
        (arguments[0], arguments[1:]) if arguments[:1] and arguments[0] in COMMANDS else ("run", arguments)
    )
    status: int = import_module(COMMANDS[name]).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
