"""Run the chaos: faults in the network and of processes, while an oracle watches all requests."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import trio

from tests.chaos.blocking import BlockingMember
from tests.chaos.load import AsyncMember, Member
from tests.chaos.oracle import Oracle
from tests.chaos.records import read_executions
from tests.chaos.schedule import Schedule
from tests.chaos.world import SINGLE, World

KINDS = ("ours", "reference")
WIRES = ("tcp", "tls", "websocket")
STORM = 20.0
"""Seconds of faults between two checks that everything is back."""

BACK = 10.0
"""Maximum seconds after the last fault until each link has answered and each stream has delivered."""


async def storm(world: World, seconds: float) -> None:
    """Inject faults for some seconds; leave with all processes running."""
    world.proxy.rage()
    with trio.move_on_after(seconds):
        await world.harass_processes()
    world.proxy.calm()
    if world.kind == "reference":
        # It keeps names, links and locks of peers for ever if writing to some peer has raised an exception.
        await world.kill_manager(0.1)


async def wait_back(world: World, members: list[Member]) -> float:
    """Wait until everything is back, and return the seconds that it took."""
    since = time.monotonic()
    with trio.move_on_after(3 * BACK):
        while not all(member.is_back(since) for member in members):
            await trio.sleep(0.02)
    took = time.monotonic() - since
    if took > BACK:
        for member in members:
            for service, progress in member.progress.items():
                if min(progress.asked, progress.notified) <= since:
                    world.oracle.wrong(
                        f"{member.name}: {service} is not back {took:.1f} s after the last fault: "
                        f"request {since - progress.asked:.1f} s, stream {since - progress.notified:.1f} s "
                        "before it"
                    )
    return took


async def run_world(world: World, seconds: float) -> list[float]:
    """Run one world, and return the seconds after each storm until everything was back."""
    returns: list[float] = []
    async with world.running():
        async with trio.open_nursery() as nursery:
            blocking = [BlockingMember(world, f"blocking-{number}") for number in range(5)]
            members = [*(AsyncMember(world, f"async-{number}") for number in range(5)), *blocking]
            for member in members:
                nursery.start_soon(member.run)
            world.proxy.calm()
            await wait_back(world, members)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await storm(world, min(STORM, max(1.0, until - time.monotonic())))
                returns.append(await wait_back(world, members))
            nursery.cancel_scope.cancel()
        for each in blocking:
            await each.ended()
        await trio.sleep(1.5)  # until all that was written is executed
    for request in world.oracle.requests.values():
        if request.outcome == "open":
            world.oracle.given_up(request)  # cancelled at the end
    found = read_executions(world.records, SINGLE)
    for text in found.overlaps:
        world.oracle.wrong(text)
    world.oracle.judge(found.times)
    return returns


def main() -> int:
    """Run all worlds, print the report and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "seconds", type=float, nargs="?", default=600, help="seconds of faults (default: 600)"
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of the faults (default: random)")
    parser.add_argument("--manager", choices=KINDS, action="append", help="whose Manager (default: both)")
    parser.add_argument("--wire", choices=WIRES, action="append", help="the transport (default: all)")
    parser.add_argument("--reconnect", action="store_true", help="only worlds in which peers reconnect")
    parser.add_argument("--logs", type=Path, help="folder for the output of all processes")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    worlds = [(kind, wire) for wire in arguments.wire or WIRES for kind in arguments.manager or KINDS]
    total: Counter[str] = Counter()
    is_well = True
    for kind, wire in worlds:
        with tempfile.TemporaryDirectory() as folder:
            oracle = Oracle()
            reconnect = arguments.reconnect
            world = World(kind, wire, Path(folder), oracle, Schedule(seed), reconnect, reconnect)
            returns = trio.run(run_world, world, arguments.seconds / len(worlds))
        if arguments.logs is not None:
            world.save_logs(arguments.logs / f"{kind}-{wire}")
        faults = Counter(world.proxy.counts) + world.counts
        total += faults
        print(f"\n{kind} {wire}: {sum(faults.values()):,} faults")
        print(f"  back after {', '.join(f'{each:.1f}' for each in returns)} s")
        for what, count in [*sorted(faults.items()), *oracle.report()]:
            print(f"  {what}: {count:,}")
        for text in oracle.faults[:20]:
            print(f"  WRONG: {text}")
        print(f"  {len(oracle.faults)} wrong", flush=True)
        is_well = is_well and not oracle.faults
    print(f"\n{sum(total.values()):,} faults, seed {seed}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
