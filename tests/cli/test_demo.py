"""Tests of the demo: in a process of its own, as in the README, with an empty standard input."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msl_network_trio import connect
from msl_network_trio.exceptions import ConnectError
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop

CHAPTERS = ["Calls", "Many at once", "Giving up", "Notifications", "Locks", "A Service dies", "Done"]


def environment(home: Path) -> dict[str, str]:
    return dict(os.environ, MSL_NETWORK_HOME=str(home), PYTHONUNBUFFERED="1", NO_COLOR="1")


def run_demo(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msl_network_trio", "demo", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(home),
        check=False,
    )


def test_the_demo_shows_everything_and_leaves_nothing_behind(tmp_path):
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    positions = [done.stdout.index(f"\n{chapter}") for chapter in CHAPTERS]
    assert positions == sorted(positions)
    assert "may have been executed" in done.stdout
    assert "'Echo' service is locked" in done.stdout
    assert list(tmp_path.iterdir()) == []  # the user's own folder
    certificate = re.search(r"certificate (\S+)", done.stdout)
    assert certificate is not None
    assert not Path(certificate[1]).exists()


async def test_the_kept_demo_can_be_used_until_ctrl_c(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "msl_network_trio", "demo", "--keep"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if shown := re.search(r"connect\(host='(\w+)', port=(\d+), cert_file='(.+)'\)", line):
                break
        else:
            pytest.fail("it ended")
        arguments = {"host": shown[1], "port": int(shown[2]), "cert_file": shown[3]}
        async with connect(**arguments) as client, client.link("BasicMath") as math:
            assert await math.add(1, 2) == 3
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(PATIENCE) == 0, rest
        assert "Done" in rest
        assert "Traceback" not in rest
        with pytest.raises(ConnectError):
            await connect(**arguments | {"disable_tls": True, "cert_file": None})
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def test_the_demo_says_that_its_port_is_in_use(tmp_path):
    import socket

    with socket.create_server(("localhost", 0)) as taken:
        done = run_demo(tmp_path, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
