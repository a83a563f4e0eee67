"""What the Services of a chaos run have executed, from the files that they have written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs


@attrs.define
class Executions:
    """The executions of all Services since their first start."""

    times: Counter[int] = attrs.field(factory=Counter)
    """How often each token was executed."""

    overlaps: list[str] = attrs.field(factory=list)
    """Methods that ran beside another one although ``max_workers`` is 1."""

    holders: dict[str, list[tuple[str, float]]] = attrs.field(factory=dict)
    """The holders of the lock in the order of their requests, by Service, start and connection of the Service.

    With each the seconds since that connection was made.
    """


def read_executions(folder: Path, single: frozenset[str] = frozenset()) -> Executions:
    """Read the records of all Services in a folder.

    Args:
        folder: The folder.
        single: The Services whose plain methods must not overlap.
    """
    found = Executions()
    for path in sorted(folder.glob("*-*")):
        running, connections, connected = "", 0, 0.0
        for line in path.read_text(encoding="utf-8").splitlines():
            word, _, text = line.partition(" ")
            if word in ("begin", "task"):
                found.times[int(text.strip("t#"))] += 1
            if word == "connected":
                connections, connected = connections + 1, float(text)
            if word == "holder":
                holder, _, when = text.partition(" ")
                held = found.holders.setdefault(f"{path.name}.{connections}", [])
                held.append((holder, float(when) - connected))
            if path.name.rpartition("-")[0] in single and word in ("begin", "end"):
                if word == "begin" and running:
                    found.overlaps.append(f"{path.name}: {text} began while {running} ran")
                running = text if word == "begin" else ""
    return found
