"""The process of a client: ``python -m benchmarks.worker MODULE``, one of those with a ``measure``.

It reads tasks from standard input, one JSON object a line, and answers each with one: what a call cost. So
the runner can interleave clients. It ends when standard input does.
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
    """Serve tasks until the end of standard input."""
    # Nothing that a client prints may get between the answers.
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
