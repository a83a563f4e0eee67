"""The README's program runs as it is printed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from msl_network_trio.constants import PORT
from tests.interop.reference import Manager

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.interop


def default_port_is_free() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) != 0


@pytest.mark.skipif(not default_port_is_free(), reason="a Manager runs on the default port of this computer")
def test_the_first_program_runs_as_it_is_printed(start, own_home: Path):
    program = re.search(r"```python\n(import trio\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert program is not None
    manager: Manager = start(port=PORT, tls=True)
    manager.start_example("BasicMath")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program[1]],
        capture_output=True,
        text=True,
        timeout=30,
        env=dict(os.environ),
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "1 + 2 = 3",
        "at the same time: [('add', 7), ('multiply', 12), ('subtract', -1)]",
        "the Service raised ZeroDivisionError",
    ]
