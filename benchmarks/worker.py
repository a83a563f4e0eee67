"""The process of one peer: ``python -m benchmarks.worker ours``, or ``reference``.

It reads tasks from standard input, one JSON object a line, and answers each with one, so that the runner can
interleave two peers. It ends when standard input does.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Final

from benchmarks.workloads import PEERS, Task

ALLOWED: Final[set[int]] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
"""The CPUs that this process may run on."""


def pin(cpu: int | None) -> None:
    """Run on this CPU, or on any that this process was started with.

    Threads that are started later inherit it, those of the reference's client among them.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, ALLOWED if cpu is None else {cpu})


def main(peer: str) -> None:
    """Serve tasks until the end of standard input."""
    # Nothing that a client prints may get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    measure: Callable[[Task], float] = importlib.import_module(f"benchmarks.{peer}").measure
    print("ready {}", file=answers, flush=True)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        pin(task.cpu)
        seconds = measure(task)
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PEERS:
        sys.exit(f"usage: python -m benchmarks.worker {{{','.join(PEERS)}}}")
    main(sys.argv[1])
