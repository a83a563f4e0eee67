"""Run the chaos: faults in the network and of processes, while an oracle watches all requests."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.chaos.acceptance import Acceptance
from tests.chaos.locks import BENCH
from tests.chaos.oracle import Oracle
from tests.chaos.program import SERVICE
from tests.chaos.proxy import Wire
from tests.chaos.schedule import Schedule
from tests.chaos.storm import run_storms, run_unattended_program
from tests.chaos.world import SERVICES, Kind, World

KINDS: tuple[Kind, ...] = ("ours", "reference")
WIRES: tuple[Wire, ...] = ("tcp", "tls", "websocket")
FAULTS = 10_000
"""Faults of one run, if neither seconds nor a number is given."""


@attrs.define
class Report:
    """The figures of all worlds."""

    total: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    is_well: bool = True

    def add(self, world: World, figures: dict[str, str]) -> None:
        """Print the figures of a world, and add them."""
        faults = Counter(world.proxy.counts) + world.counts
        self.total += faults
        self.outcomes += Counter(dict(world.oracle.report()))
        how = "" if world.clients_reconnect else ", without reconnection"
        print(f"\n{world.kind} {world.wire}{how}: {sum(faults.values()):,} faults")
        counts = [*sorted(faults.items()), *world.oracle.report()]
        for what, figure in [*figures.items(), *((what, f"{count:,}") for what, count in counts)]:
            print(f"  {what}: {figure}")
        for text in world.oracle.faults[:20]:
            print(f"  WRONG: {text}")
        print(f"  {len(world.oracle.faults)} wrong", flush=True)
        self.is_well = self.is_well and not world.oracle.faults

    def end(self, seed: int) -> int:
        """Print the sums, and return the exit status."""
        print(f"\n{sum(self.total.values()):,} faults, seed {seed}")
        for what, count in [*sorted(self.total.items()), *sorted(self.outcomes.items())]:
            print(f"  {what}: {count:,}")
        return 0 if self.is_well else 1


def is_done(world: World, until: float, faults: float) -> bool:
    """Return whether a time is over, or there were so many faults."""
    return time.monotonic() >= until or world.counts.total() + world.proxy.counts.total() >= faults


def main() -> int:
    """Run all worlds, print the report and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("storms", "acceptance", "program"),
        default="storms",
        help="storms: faults everywhere, under load. acceptance: outages, and when everything is back. "
        "program: storms around the unattended program of the documentation",
    )
    parser.add_argument("--seconds", type=float, help="maximum seconds of all storms")
    parser.add_argument("--faults", type=int, help=f"number of faults (default: {FAULTS:,}, or no limit)")
    parser.add_argument("--rounds", type=int, default=20, help="kills of each kind in the acceptance")
    parser.add_argument("--seed", type=int, help="seed of the faults (default: random)")
    parser.add_argument("--manager", choices=KINDS, action="append", help="whose Manager (default: both)")
    parser.add_argument("--wire", choices=WIRES, action="append", help="the transport (default: all)")
    parser.add_argument("--without-reconnect", action="store_true", help="with peers that do not reconnect")
    parser.add_argument("--logs", type=Path, help="folder for the output of all processes")
    arguments = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job; the processes would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("msl_network_trio").addHandler(logging.NullHandler())  # thousands of warnings
    seed = time.time_ns() % 1_000_000 if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    worlds = [(kind, wire) for wire in arguments.wire or WIRES for kind in arguments.manager or KINDS]
    faults = arguments.faults or (None if arguments.seconds else FAULTS)
    report = Report()
    for kind, wire in worlds:
        with tempfile.TemporaryDirectory() as folder:
            reconnect = not arguments.without_reconnect
            world = World(
                kind,
                wire,
                Path(folder),
                Oracle(),
                Schedule(len(KINDS) * len(WIRES) * seed + KINDS.index(kind) + len(KINDS) * WIRES.index(wire)),
                names={"storms": (*SERVICES, BENCH), "acceptance": SERVICES, "program": (SERVICE,)}[
                    arguments.what
                ],
                direct=arguments.what == "acceptance",
                services_reconnect=reconnect,
                clients_reconnect=reconnect,
            )
            seconds = arguments.seconds / len(worlds) if arguments.seconds else float("inf")
            end = partial(
                is_done, world, time.monotonic() + seconds, faults / len(worlds) if faults else float("inf")
            )
            figures: dict[str, str] = {}
            try:
                if arguments.what == "acceptance":
                    acceptance = Acceptance(world, arguments.rounds, figures)
                    trio.run(acceptance.run)
                else:
                    run = run_storms if arguments.what == "storms" else run_unattended_program
                    returns = trio.run(run, world, end)
                    figures["seconds until all was back"] = ", ".join(f"{each:.1f}" for each in returns)
            finally:
                if arguments.logs is not None:
                    world.save_logs(arguments.logs / f"{kind}-{wire}")
            report.add(world, figures)
    return report.end(seed)


if __name__ == "__main__":
    sys.exit(main())
