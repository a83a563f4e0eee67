"""Process of a client: ``python -m benchmarks.worker MODULE``, with a module that has a ``measure``.

It reads tasks from standard input, one JSON object per line, and answers each with the costs per call, so
that the runner can alternate clients. It ends at the end of standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable

from benchmarks.placement import pin
from benchmarks.tasks import Task


def main(module: str) -> None:
    """Execute tasks until the end of standard input."""
    # Output of a client must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    measure: Callable[[Task], dict[str, float]] = importlib.import_module(module).measure
    print("ready {}", file=answers, flush=True)
    for line in sys.stdin:
        task = Task.from_json(json.loads(line))
        pin(os.getpid(), task.cpu)
        print(json.dumps(measure(task)), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.worker MODULE")
    main(sys.argv[1])
