"""Tests of the Python code in docs/*.md: it compiles, and the examples run."""

from __future__ import annotations

import ast
import builtins
import csv
import functools
import re
import signal
import subprocess
import symtable
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from msl_network_trio.sync import LinkedClient, connect, notifications
from tests.interop.reference import Manager, Process, free_port
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

DOCS = Path(__file__).parents[2] / "docs"
SERVICE = """
import sys
import trio
from msl_network_trio import Service

class BasicMath(Service):
    def __init__(self):
        super().__init__()
        self.add_tasks(self._beat)

    def add(self, a, b):
        return a + b

    async def _beat(self):
        while True:
            self.emit_notification(5)
            await trio.sleep(0.01)

import logging
logging.basicConfig(level="INFO")
BasicMath().start(port=int(sys.argv[1]), disable_tls=True)
"""


@attrs.frozen
class Block:
    """A block of Python code in a page."""

    page: str
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def awaits(self) -> bool:
        """Whether the block belongs into an async function."""
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(self.source, str(self), "exec", flags)
        return code.co_flags & 0x80 != 0

    @property
    def unknown(self) -> set[str]:
        """The names that the block uses and does not define."""
        table = symtable.symtable(self.source, str(self), "exec")
        defined = {
            each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()
        }
        used = {name for each in tables(table) for name in each.get_identifiers() if is_global(each, name)}
        return used - defined - set(dir(builtins)) - {"__name__"}


def tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from tables(child)


def is_global(table: symtable.SymbolTable, name: str) -> bool:
    symbol = table.lookup(name)
    return symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())


def blocks() -> list[Block]:
    found = []
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^ *```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start(1)].count("\n") + 1
            found.append(Block(path.name, line, textwrap.dedent(match[1])))
    return found


BLOCKS = blocks()
KNOWN = {"client", "connect", "cxn", "link"}
"""The names that pages use without importing them each time."""

RUN = [block for block in BLOCKS if not block.awaits and block.unknown <= KNOWN]


def test_there_are_blocks_of_both_kinds():
    assert {block.page for block in BLOCKS} >= {"manager.md", "migration.md", "websocket.md"}
    assert len(RUN) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_can_be_compiled(block):
    compile(block.source, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.filterwarnings("ignore")  # of msl-network
@pytest.mark.parametrize("block", RUN, ids=str)
def test_what_can_run_runs(block, start):
    """Programs are only defined here, since their name is not that of a program."""
    namespace: dict[str, Any] = {"__name__": "docs"}
    if not block.unknown:
        exec(compile(block.source, str(block), "exec"), namespace)
        return
    manager: Manager = start(ours=True)
    port = str(manager.port)
    manager.services.append(Process.start(["-c", SERVICE, port], manager.home, "is connected to Manager"))
    LinkedClient("BasicMath", **manager.arguments(timeout=20)).disconnect()  # waits for the Service
    with connect(**manager.arguments()) as client:
        printed: list[object] = []

        def show(*values: object) -> None:
            printed.extend(values)
            if "link" in namespace:
                namespace["link"].unlink()  # ends a loop over notifications

        if "link" in block.unknown:  # releases locks, for which the next block would wait
            namespace["link"] = client.link("BasicMath")
        namespace |= {"client": client, "cxn": client, "print": show}
        namespace["connect"] = functools.partial(connect, **manager.arguments())
        exec(compile(block.source, str(block), "exec"), namespace)
    assert printed


@pytest.mark.parametrize("kind", ["msl.network", "msl_network_trio"])
def test_the_service_does_the_same_before_and_after(kind, start, tmp_path):
    [program] = [block.source for block in BLOCKS if f"from {kind} import Service" in block.source]
    manager: Manager = start(ours=kind == "msl_network_trio")
    printed = "Thermometer().start(auto_save=True)"
    assert printed in program
    path = tmp_path / "thermometer.py"
    path.write_text(program.replace(printed, f"Thermometer().start(port={manager.port}, disable_tls=True)"))
    with subprocess.Popen([sys.executable, str(path)], stderr=subprocess.DEVNULL) as process:
        try:
            with LinkedClient("Thermometer", **manager.arguments(timeout=20)) as link:
                assert 40 <= link.read(channel=2) < 41
                assert link.unit() == "degree Celsius"
                with notifications(link.link) as stream:
                    first = next(iter(stream))
                assert 20 <= first.args[0] < 21
        finally:
            process.kill()


def test_a_program_that_starts_a_manager_by_ssh_names_what_is_there():
    [script] = [block for block in BLOCKS if "**parse_console_script_kwargs()" in block.source]
    [starts] = [block for block in BLOCKS if 'start_manager("' in block.source]
    assert script in RUN
    assert starts in RUN
    path = re.search(r'start_manager\("pi@raspberrypi", "([^"]+)"', starts.source)[1]
    page = (DOCS / starts.page).read_text(encoding="utf-8")
    assert f"`{path}`" in page
    assert f"`{path}.log`" in page


COUNTING = """
import sys
import trio
from msl_network_trio import Service

class Thermometer(Service):
    def __init__(self):
        super().__init__()
        self.add_tasks(self._count)
        self.reads = 0

    def set_range(self, value):
        pass

    def read(self):
        self.reads += 1
        return self.reads

    async def _count(self):
        for number in range(10**9):
            self.emit_notification(number)
            await trio.sleep(0.01)

print("starting", flush=True)
Thermometer().start(port=int(sys.argv[1]), disable_tls=True)
"""


def unattended(name: str) -> str:
    """Return the program of docs/reconnection.md that uses this name."""
    [program] = [each.source for each in BLOCKS if each.page == "reconnection.md" and name in each.source]
    return program.replace("auto_save=True", 'host="localhost", port=int(sys.argv[1]), disable_tls=True')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it sends signals that Windows does not have")
def test_the_program_that_records_starts_first_and_survives_what_is_killed(start_either, tmp_path):
    table = tmp_path / "temperature.csv"
    port = free_port()
    source = unattended("temperature.csv").replace('"temperature.csv"', "sys.argv[2]")
    program = Process.start(
        ["-c", "import sys; print('starting', flush=True)\n" + source, str(port), str(table)],
        tmp_path,
        "starting",
    )
    processes = [program]

    def rows() -> list[list[str]]:
        return list(csv.reader(table.read_text().splitlines())) if table.exists() else []

    def wait_for_values(gaps: int) -> None:
        """Wait for a value after a number of gaps."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and program.popen.poll() is None:
            kinds = [row[0] for row in rows()]
            if kinds.count("gap") == gaps and kinds and kinds[-1] == "value":
                return
            time.sleep(0.02)
        raise AssertionError(f"{rows()[-5:]}\n{program.log()}")

    try:
        processes.append(Process.start(["-c", COUNTING, str(port)], tmp_path, "starting"))
        manager: Manager = start_either(port=port)
        wait_for_values(gaps=0)
        manager.process.kill()
        start_either(port=port)
        wait_for_values(gaps=1)
        processes[-1].kill()
        processes.append(Process.start(["-c", COUNTING, str(port)], tmp_path, "starting"))
        wait_for_values(gaps=2)
        program.popen.send_signal(signal.SIGINT)
        program.popen.wait(PATIENCE)
        processes[-1].popen.send_signal(signal.SIGTERM)
        assert processes[-1].popen.wait(PATIENCE) == 0, processes[-1].log()
    finally:
        for process in processes:
            process.end()
    assert program.log().rstrip().endswith("KeyboardInterrupt")
    last = None
    for kind, *values in rows():
        number = int(values[1]) if kind == "value" else None
        assert number is None or last is None or number == last + 1, "a row is missing without a gap"
        last = number
