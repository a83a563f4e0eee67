"""Programs that use the blocking API, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msl_network_trio


def start(program: str, argument: str) -> subprocess.Popen[str]:
    """Start a program with one argument, which imports the tested package."""
    path = [str(Path(msl_network_trio.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", program, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
    )


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Wait until it ends, and return its output."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
