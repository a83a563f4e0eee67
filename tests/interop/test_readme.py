"""Tests of the README: its program runs as printed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from msl_network_trio import LinkedClient, RemoteError
from msl_network_trio.constants import PORT
from tests.interop.reference import Manager
from tests.patience import PATIENCE

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.interop


def default_port_is_free() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) != 0


def programs() -> list[str]:
    return re.findall(r"```python\n((?:import|from) .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def run(program: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=dict(os.environ),
        check=False,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


async def test_the_service_runs_as_it_is_printed(start, tmp_path: Path):
    manager: Manager = start(ours=True)
    [thermometer] = [program for program in programs() if "Thermometer" in program]
    printed = "Thermometer().start(auto_save=True)"
    assert printed in thermometer
    program = thermometer.replace(printed, f"Thermometer().start(port={manager.port}, disable_tls=True)")
    path = tmp_path / "thermometer.py"
    path.write_text(program, encoding="utf-8")
    with subprocess.Popen([sys.executable, "-W", "error", str(path)], env=dict(os.environ)) as process:
        try:
            async with LinkedClient("Thermometer", **manager.arguments(timeout=20)) as link:
                assert 20 <= await link.read() < 21
                assert await link.unit() == "degree Celsius"
                with pytest.raises(RemoteError, match="there is no channel 3"):
                    await link.read(channel=3)
        finally:
            process.kill()


def test_the_program_with_a_manager_inside_runs_as_it_is_printed_and_ends(own_home: Path):
    [program] = [program for program in programs() if "open_manager" in program]
    assert run(program) == ["2 * 21 = 42"]


def test_the_programs_run_as_they_are_printed(start, own_home: Path):
    if not default_port_is_free():
        pytest.skip("a Manager runs on the default port of this computer")
    manager: Manager = start(port=PORT, tls=True, ours=True)
    manager.start_example_of_ours("basic_math", "--pace", "0.05")
    manager.start_example_of_ours("heartbeat")
    blocking, first, heartbeat, *_ = programs()
    assert run(blocking) == [
        "1 + 2 = 3",
        "at the same time: [0, 2, 4, 6, 8]",
        "the Service raised ZeroDivisionError",
    ]
    assert run(first) == [
        "1 + 2 = 3",
        "at the same time: [('add', 7), ('multiply', 12), ('subtract', -1)]",
        "the Service raised ZeroDivisionError",
    ]
    beats = run(heartbeat)
    looped = [line for line in beats if line.startswith("in the loop:")]
    handled = [line for line in beats if line not in looped]
    assert looped[-1] == "in the loop: [3] lost so far: 0"
    assert handled  # the number depends on when the Service applies its new rate
    numbers = [int(re.fullmatch(r"The Heartbeat Service emitted \((\d+),\) {}", line)[1]) for line in handled]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
