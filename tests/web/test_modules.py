"""Tests of the JavaScript modules in Node.js, with a fake WebSocket; the ``.mjs`` files have the cases."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = Path(str(resources.files("msl_network_trio.web")))


def node() -> str:
    """Return the path of Node.js; skip the test if it is missing or too old."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.match(r"v(\d+)", version).group(1)) < 20:
        pytest.skip(f"Node.js {version.strip()} has no clock for tests")
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_module(name):
    command = [node(), "--test", str(HERE / name)]
    environment = {**os.environ, "MODULES": str(MODULES)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"# pass [1-9]", run.stdout)


@pytest.mark.parametrize("path", sorted(MODULES.glob("*.js")), ids=lambda path: path.name)
def test_modules_are_short_and_load_nothing_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert max(map(len, text.splitlines())) <= 120
    assert all(
        source.startswith("./")
        for source in re.findall(r'^(?:import|export) .*from "(.*)";$', text, re.MULTILINE)
    )
    assert not re.search(
        r"\bimport\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
    )
