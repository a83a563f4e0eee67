"""Acceptance of reconnection: outages of known lengths, and floors for what is back after how long.

Without the proxy: all clients and Services are connected to the Manager directly.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import attrs
import psutil
import trio

from msl_network_trio import connect
from tests.chaos.blocking import BlockingMember
from tests.chaos.load import AsyncMember, Member, arguments
from tests.chaos.storm import judge
from tests.chaos.world import SERVICES, World
from tests.interop.reference import Process

LIMIT, MEDIAN = 5.0, 2.0
"""Maximum seconds, and maximum median, from the start of the Manager until everything is back."""

LONG_LIMIT = 10.0
"""Maximum seconds after an outage of 15 s or more."""

END_LIMIT = 0.5
"""Maximum seconds to end a client that is away."""

INTERRUPT_LIMIT = 2.0
"""Maximum seconds from Ctrl-C to the end of a process whose call waits."""

INTERRUPTED = {
    "async": """
import json, sys, trio
from msl_network_trio import connect
async def main():
    async with connect(**json.loads(sys.argv[1])) as client:
        print("connected", flush=True)
        while client.state == "connected":
            await trio.sleep(0.01)
        print(client.state, flush=True)
        await client.link("Alpha")
trio.run(main)
""",
    "blocking": """
import json, sys, time
from msl_network_trio.sync import connect
with connect(**json.loads(sys.argv[1])) as client:
    print("connected", flush=True)
    while client.state == "connected":
        time.sleep(0.01)
    print(client.state, flush=True)
    client.link("Alpha")
""",
}
"""Programs that are interrupted while they wait."""

GROWTH = 8 * 2**20
"""Maximum bytes by which this process grows in all rounds, with the records of the tests."""


@attrs.frozen
class Resources:
    """The resources of this process."""

    tasks: int
    threads: int
    files: int
    memory: int

    @classmethod
    def now(cls) -> Resources:
        """Return the present resources."""
        process = psutil.Process()
        files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        tasks = trio.lowlevel.current_statistics().tasks_living
        return cls(tasks, process.num_threads(), files, process.memory_info().rss)


@attrs.define
class Acceptance:
    """The acceptance in one world.

    Args:
        world: The world, whose clients and Services are connected directly.
        rounds: Number of kills of the Manager, and of Services.
    """

    world: World
    rounds: int = 20
    figures: dict[str, str] = attrs.field(factory=dict)
    members: Sequence[Member] = ()
    draw: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.draw = random.Random(self.world.schedule.seed)

    async def run(self) -> None:
        """Run everything, and record contradictions in the oracle of the world."""
        world = self.world
        async with world.running():
            async with trio.open_nursery() as nursery:
                blocking = [BlockingMember(world, f"blocking-{number}") for number in range(5)]
                self.members = [*(AsyncMember(world, f"async-{number}") for number in range(5)), *blocking]
                for member in self.members:
                    nursery.start_soon(member.run)
                await self._wait_back(time.monotonic())
                await trio.sleep(2)
                before = Resources.now()
                await self._kill_managers()
                await self._kill_services()
                await self._outages((15, 15))
                await trio.sleep(3)
                self._compare(before, Resources.now())
                nursery.cancel_scope.cancel()
            for each in blocking:
                await each.ended()
            await self._end_while_away()
            await self._wait_for_services()
            statuses = await world.terminate_services()
            self.figures["exit statuses of Services after SIGTERM"] = str(statuses)
            self._expect(not any(statuses), f"Services ended with {statuses} after SIGTERM")
        judge(world)

    def _expect(self, is_right: bool, text: str) -> None:
        if not is_right:
            self.world.oracle.wrong(text)

    # ---- what is back when ----

    async def _wait_back(self, since: float) -> float:
        """Wait until all links and streams have worked since a time; return the seconds from it."""
        with trio.move_on_after(60) as scope:
            while not all(member.is_back(since) for member in self.members):
                await trio.sleep(0.01)
        if scope.cancelled_caught:
            missing = [
                f"{member.name}/{name}"
                for member in self.members
                for name, each in member.progress.items()
                if min(each.asked, each.notified) <= since
            ]
            self._expect(False, f"not back within 60 s: {', '.join(missing)}")
        return time.monotonic() - since

    def _gaps(self) -> list[int]:
        return [record.gaps for record in self.world.oracle.streams]

    async def _kill_managers(self) -> None:
        world = self.world
        before = self._gaps()
        times = []
        for _ in range(self.rounds):
            await trio.sleep(self.draw.uniform(0.5, 1.5))
            await world.kill_manager(self.draw.uniform(0.5, 2.0))
            times.append(await self._wait_back(world.manager_since))
        self._judge_times("Manager killed", times, LIMIT, MEDIAN)
        gaps = [after - start for start, after in zip(before, self._gaps(), strict=False)]
        self.figures["gaps per stream and kill"] = f"{sum(gaps) / len(gaps) / self.rounds:.2f}"
        self._expect(set(gaps) == {self.rounds}, f"gaps per stream after {self.rounds} kills: {sorted(gaps)}")

    async def _kill_services(self) -> None:
        world = self.world
        times = []
        for _ in range(self.rounds):
            await trio.sleep(self.draw.uniform(0.5, 1.5))
            since = time.monotonic()
            world.kill_service(self.draw.choice(SERVICES))
            await trio.sleep(0.05)  # what was received until then may be from before
            times.append(await self._wait_back(since + 0.05) + 0.05)
        self._judge_times("Service killed (with its start)", times, LIMIT, LIMIT)

    async def _outages(self, outages: tuple[float, ...]) -> None:
        times = []
        for seconds in outages:
            await self.world.kill_manager(seconds)
            times.append(await self._wait_back(self.world.manager_since))
        self._judge_times(f"outages of {outages} s", times, LONG_LIMIT, LONG_LIMIT)

    def _judge_times(self, what: str, times: list[float], limit: float, median: float) -> None:
        middle = statistics.median(times)
        self.figures[f"{what}: seconds until all is back"] = (
            f"median {middle:.2f}, maximum {max(times):.2f}, {len(times)} times"
        )
        self._expect(max(times) <= limit, f"{what}: back after {max(times):.2f} s, more than {limit} s")
        self._expect(middle <= median, f"{what}: back after a median of {middle:.2f} s, more than {median} s")

    def _compare(self, before: Resources, after: Resources) -> None:
        self.figures["resources before"] = str(before)
        self.figures["resources after"] = str(after)
        for name in ("tasks", "threads", "files"):
            # Members make requests meanwhile: one task more or less per link.
            slack = 2 * len(self.members)
            first, last = getattr(before, name), getattr(after, name)
            self._expect(last <= first + slack, f"{name}: {first} before, {last} after")
        self._expect(after.memory <= before.memory + GROWTH, f"memory: {before.memory}, {after.memory}")

    # ---- ends while away ----

    async def _end_while_away(self) -> None:
        """End clients while the Manager is down, in each way, with a request that waits."""
        world = self.world
        port = world.manager.port
        ways: tuple[Callable[[], Awaitable[float]], ...] = (
            self._disconnect,
            self._cancel,
            self._end_of_nursery,
        )
        times = []
        for way in ways:
            times.append(await way())
            await world.start_manager(port)
        for name, program in INTERRUPTED.items():
            seconds = await self._interrupt(name, program)
            await world.start_manager(port)
            self.figures[f"seconds to end a program by Ctrl-C while away, {name}"] = f"{seconds:.2f}"
            self._expect(seconds <= INTERRUPT_LIMIT, f"Ctrl-C took {seconds:.1f} s, {name}")
        self.figures["seconds to end a client while away"] = ", ".join(f"{each:.2f}" for each in times)
        self._expect(max(times) <= END_LIMIT, f"ends of clients while away took {times} s")

    async def _lose(self) -> None:
        await trio.to_thread.run_sync(self.world.manager.process.kill)
        self.world.manager.process.end()

    async def _disconnect(self) -> float:
        client = await connect(**arguments(self.world, "away"))
        await self._lose()
        await trio.sleep(0.5)
        began = time.monotonic()
        await client.disconnect()
        return time.monotonic() - began

    async def _cancel(self) -> float:
        with trio.CancelScope() as scope:
            async with connect(**arguments(self.world, "away")) as client:
                await self._lose()
                await trio.sleep(0.5)
                began = time.monotonic()
                with trio.move_on_after(0.1):
                    await client.identities()
                scope.cancel()
                await client.identities()
        return time.monotonic() - began - 0.1

    async def _end_of_nursery(self) -> float:
        async with trio.open_nursery() as nursery:
            await connect(**arguments(self.world, "away"), nursery=nursery)
            await self._lose()
            await trio.sleep(0.5)
            began = time.monotonic()
            nursery.cancel_scope.cancel()
        return time.monotonic() - began

    async def _interrupt(self, name: str, program: str) -> float:
        """Interrupt a program while its call waits for the connection; return the seconds until it ended."""
        world = self.world
        given = json.dumps(arguments(world, "interrupted") | {"reconnect": True})
        process = await trio.to_thread.run_sync(
            Process.start, ["-c", program, given], world.folder, "connected"
        )
        try:
            await self._lose()
            await trio.to_thread.run_sync(process.wait_for, "away")
            await trio.sleep(0.5)
            began = time.monotonic()
            process.popen.send_signal(signal.SIGINT)
            with trio.move_on_after(30):
                while process.popen.poll() is None:
                    await trio.sleep(0.01)
            seconds = time.monotonic() - began
        finally:
            await trio.to_thread.run_sync(process.end)
        self._expect("KeyboardInterrupt" in process.log(), f"no KeyboardInterrupt, {name}:\n{process.log()}")
        return seconds

    async def _wait_for_services(self) -> None:
        """Wait until the Services are connected to the Manager that runs now."""
        async with connect(**arguments(self.world, "waiting")) as client:
            with trio.fail_after(60):
                while not set(SERVICES) <= (await client.identities())["services"].keys():
                    await trio.sleep(0.05)
