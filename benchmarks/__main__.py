"""``python -m benchmarks``: how many times faster than msl-network 1.0.0, and than others, in the same run.

``python -m benchmarks compare OLD NEW`` compares two runs; ``report FILE`` makes a page of one;
``guard`` fails if a recorded floor is broken; ``profile`` shows where the time of a call goes;
``walk`` counts the files that a call goes through.
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
"""The modules of the commands, each of which has a ``main``; ``run`` is the default."""

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
