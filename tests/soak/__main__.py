"""Run a soak test: load two Managers, with and without TLS, and then check for leaks."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

import trio

from tests.soak.load import Load
from tests.soak.process import Manager, Sample

GROWTH = 0.10
"""Maximum relative growth of a Manager's memory at the end."""

SLACK = 10 * 1024 * 1024
"""Further bytes by which the memory may grow: the allocator's reserve varies by that much."""

SETTLE = 15.0
"""Seconds from the end of the load to the check; idle threads end after 10."""


async def watch(manager: Manager, samples: list[Sample]) -> None:
    """Sample the process of a Manager periodically."""
    while True:
        sample = manager.sample()
        if sample is not None:
            samples.append(sample)
        await trio.sleep(1)


async def soak(managers: list[Manager], seconds: float) -> bool:
    """Load the Managers, print a report, and return True if there was no error."""
    loads = [Load(manager) for manager in managers]
    samples: list[list[Sample]] = [[] for _ in managers]
    before = [manager.sample() for manager in managers]
    async with trio.open_nursery() as nursery:
        for manager, taken in zip(managers, samples, strict=True):
            nursery.start_soon(watch, manager, taken)
        async with trio.open_nursery() as running:
            for load in loads:
                running.start_soon(load.run, seconds)
        nursery.cancel_scope.cancel()
    await trio.sleep(SETTLE)
    well = True
    for load, taken, first in zip(loads, samples, before, strict=True):
        print(f"\nManager with{'' if load.manager.tls else 'out'} TLS")
        for what, count in sorted(load.counts.items()):
            print(f"  {what}: {count:,}")
        wrong = [*load.wrong, *_faults(load.manager, taken, first)]
        for text in wrong[:20]:
            print(f"  WRONG: {text}")
        print(f"  {len(wrong)} wrong")
        well = well and not wrong and load.counts["right answers"] > 0
    return well


def _faults(manager: Manager, taken: list[Sample], first: Sample | None) -> list[str]:
    if manager.popen.poll() is not None:
        return [f"the Manager has ended with status {manager.popen.returncode}"]
    faults = []
    text = manager.log.read_text(encoding="utf-8")
    if "Traceback" in text or "[CRITICAL" in text:
        faults.append(f"the log has a traceback: {text[text.find('Traceback') - 300 :][:2000]}")
    last = manager.sample()
    if first is None or last is None:
        print("  memory, files and threads cannot be looked at on this operating system")
        return faults
    quarter = max(1, len(taken) // 4)
    early = median(sample.memory for sample in taken[quarter : 2 * quarter])
    late = median(sample.memory for sample in taken[-quarter:])
    bound = early * (1 + GROWTH) + SLACK
    print(
        f"  memory: {early / 2**20:.1f} MiB in the second quarter, {late / 2**20:.1f} MiB in the last one "
        f"(at most {bound / 2**20:.1f}), {last.memory / 2**20:.1f} MiB afterwards"
    )
    print(
        f"  files: {first.files} before, {max(sample.files for sample in taken)} at most, {last.files} after"
    )
    print(
        f"  threads: {first.threads} before, {max(sample.threads for sample in taken)} at most, "
        f"{last.threads} after"
    )
    if late > bound:
        faults.append("the memory has grown")
    # Files that are opened for the first connection, such as the database.
    if last.files > first.files + 4:
        faults.append("files were left open")
    if last.threads > first.threads + 2:
        faults.append("threads were left")
    return faults


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        managers: list[Manager] = []
        try:
            for tls in (False, True):
                managers.append(Manager(Path(folder) / ("tls" if tls else "tcp"), tls=tls))
            well = trio.run(soak, managers, seconds)
        finally:
            statuses = [manager.end() for manager in managers]
    if any(statuses):
        print(f"WRONG: the Managers ended with {statuses}")
        well = False
    print("\nall is well" if well else "\nNOT WELL")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
