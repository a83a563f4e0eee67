"""Storms: phases with faults in the network and of processes, each followed by a check that all is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from tests.chaos.blocking import BlockingMember
from tests.chaos.load import AsyncMember, Member
from tests.chaos.locks import AsyncLocker, BlockingLocker, check_holders
from tests.chaos.program import SERVICE, TABLE, check_table, run_program, wait_for_row
from tests.chaos.records import read_executions
from tests.chaos.world import SINGLE, World

STORM = 20.0
"""Seconds of faults between two checks."""

BACK = 10.0
"""Maximum seconds after the last fault until each link has answered and each stream has delivered."""

IsDone = Callable[[], bool]


async def storm(world: World, seconds: float) -> None:
    """Inject faults for some seconds; leave with all processes running."""
    world.proxy.rage()
    with trio.move_on_after(seconds):
        await world.harass_processes()
    world.proxy.calm()
    if world.kind == "reference":
        # It keeps names, links and locks of peers for ever if writing to some peer has raised an exception.
        await world.kill_manager(0.1)


async def wait_back(world: World, members: Sequence[Member]) -> float:
    """Wait until everything is back, and return the seconds that it took."""
    since = time.monotonic()
    late: list[str] = []
    while not all(member.is_back(since) for member in members):
        await trio.sleep(0.02)
        took = time.monotonic() - since
        if took > BACK and not late:
            late = [each for member in members for each in member.missing(since)]
        if took > 6 * BACK:
            break
    took = time.monotonic() - since
    if late:
        world.oracle.wrong(f"back after {took:.1f} s; missing after {BACK} s: {'; '.join(late)}")
    return took


async def run_storms(world: World, is_done: IsDone) -> list[float]:
    """Run storms until enough; return the seconds after each of them until everything was back."""
    returns: list[float] = []
    async with world.running():
        async with trio.open_nursery() as nursery:
            blocking = [
                *(BlockingMember(world, f"blocking-{number}") for number in range(5)),
                BlockingLocker(world, "blocking-lock"),
            ]
            members = [
                *(AsyncMember(world, f"async-{number}") for number in range(5)),
                *(AsyncLocker(world, f"lock-{number}") for number in range(2)),
                *blocking,
            ]
            for member in members:
                nursery.start_soon(member.run)
            await wait_back(world, members)
            while not is_done():
                await storm(world, STORM)
                returns.append(await wait_back(world, members))
            nursery.cancel_scope.cancel()
        for each in blocking:
            await each.ended()
        await trio.sleep(1.5)  # until all that was written is executed
    judge(world)
    return returns


def judge(world: World) -> None:
    """Judge all requests, after the processes have ended."""
    for request in world.oracle.requests.values():
        if request.outcome == "open":
            world.oracle.given_up(request)  # cancelled at the end
    found = read_executions(world.records, SINGLE)
    for text in found.overlaps:
        world.oracle.wrong(text)
    check_holders(world.oracle, found.holders, is_told=world.kind == "ours")
    world.oracle.judge(found.times)


async def run_unattended_program(world: World, is_done: IsDone) -> list[float]:
    """Run storms around the program of the documentation, and check its table."""
    assert world.names == (SERVICE,)
    returns: list[float] = []
    table = world.folder / TABLE
    async with world.running():
        process = await run_program(world)
        while not is_done():
            await storm(world, STORM)
            began = time.monotonic()
            await wait_for_row(world, process, table.stat().st_size)
            returns.append(time.monotonic() - began)
        await trio.to_thread.run_sync(process.end)
    world.oracle.counts["rows"] = check_table(table, world.oracle.stream("program", SERVICE))
    return returns
