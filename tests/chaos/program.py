"""The unattended program of docs/reconnection.md in a chaos run.

It runs as it is in the documentation, but for the arguments of the connection. Each number that the Service
has emitted must be in its table, or within a gap that is marked there.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import trio

from tests.chaos.oracle import StreamRecord
from tests.chaos.units import NUMBER
from tests.chaos.world import World
from tests.interop.reference import Process

SERVICE = "Thermometer"
PAGE = Path(__file__).parents[2] / "docs" / "reconnection.md"
TABLE = "temperature.csv"


def program(arguments: dict[str, object]) -> str:
    """Return the program of the documentation, with these arguments of the connection."""
    blocks = re.findall(r"```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    [source] = [each for each in blocks if TABLE in each and "__main__" in each]
    assert source.count("auto_save=True") == 1
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return str(source.replace("auto_save=True", given)).replace(f'"{TABLE}"', "__import__('sys').argv[1]")


def check_table(path: Path, record: StreamRecord) -> int:
    """Check the table against the numbers of the Service, and return the number of rows with values."""
    has_gap = False
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            if row[0] == "gap":
                has_gap = True
                continue
            found = NUMBER.fullmatch(row[2].encode())
            if found is None or found[1] != SERVICE.encode():
                record.oracle.wrong(f"the table has the row {row}")
                continue
            record.notification(int(found[2]), int(found[3]), has_gap=has_gap)
            has_gap = False
    return record.received


async def run_program(world: World) -> Process:
    """Start the program, and wait until its table has a row."""
    arguments = world.arguments()
    path = world.folder / "program.py"
    path.write_text("print('starting', flush=True)\n" + program(arguments), encoding="utf-8")
    process = await trio.to_thread.run_sync(
        Process.start, [str(path), str(world.folder / TABLE)], world.folder, "starting"
    )
    await wait_for_row(world, process, 0)
    return process


async def wait_for_row(world: World, process: Process, size: int) -> None:
    """Wait until the table is larger than this size in bytes."""
    table = world.folder / TABLE
    with trio.move_on_after(60) as scope:
        while not table.exists() or table.stat().st_size <= size:
            if process.popen.poll() is not None:
                world.oracle.wrong(f"the program ended:\n{process.log()[-3000:]}")
                return
            await trio.sleep(0.05)
    if scope.cancelled_caught:
        world.oracle.wrong("the table of the program does not grow any more")
