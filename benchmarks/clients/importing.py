"""Costs of importing a package: ``python -c "import ..."`` minus ``python -c pass``."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from time import perf_counter

from benchmarks.tasks import Task

PROGRAMS = {
    "import-ours": "import msl_network_trio",
    "import-reference": "import msl.network",
    "import-trio": "import trio",
}


def _seconds(program: str) -> float:
    # If Python may not write compiled modules, only packages installed by pip would have them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30, env=environment)
    return perf_counter() - began


def measure(task: Task) -> dict[str, float]:
    """Start programs that import the package or do not, alternately, and return the differences."""
    program = PROGRAMS[task.load]
    _seconds(program)
    differences = [_seconds(program) - _seconds("pass") for _ in range(task.calls)]
    return {"seconds": median(differences)}
