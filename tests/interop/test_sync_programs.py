"""Tests of programs with the blocking API at a real Manager: their end, and a Trio application with threads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import trio

from msl_network_trio import connect as async_connect
from msl_network_trio.sync import connect
from tests.interop.reference import Manager
from tests.patience import PATIENCE
from tests.sync import programs

pytestmark = [pytest.mark.interop, pytest.mark.timeout(150)]

DEADLINE = 60.0
"""Maximum seconds for a program, with its imports, on a busy machine."""

PRELUDE = """
import json, sys, threading, time
from msl_network_trio.sync import LinkedClient, connect
cxn = connect(name="The program", **json.loads(sys.argv[1]))
link = cxn.link("Echo")
print(link.add(1, 2), flush=True)
"""
ENDINGS = {
    "at its end": ("", 0),
    "after an exception": ("raise ZeroDivisionError", 1),
    "with a call open in a daemon thread": (
        "threading.Thread(target=link.slow, args=(5,), daemon=True).start()\ntime.sleep(0.2)",
        0,
    ),
    "with a thread that works on": (
        (
            "def work():\n"
            "    threading.main_thread().join()\n"
            "    for n in range(10): assert link.add(n, 1) == n + 1\n"
            "    print('worked on')\n"
            "threading.Thread(target=work).start()"
        ),
        0,
    ),
}


def start(manager: Manager, program: str) -> subprocess.Popen[str]:
    return programs.start(PRELUDE + program, json.dumps(manager.arguments()))


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    return programs.finish(process, DEADLINE)


@pytest.mark.parametrize("when", ENDINGS)
def test_a_program_leaves_no_ghost_behind_when_it_ends(lab: Manager, when: str):
    program, status = ENDINGS[when]
    process = start(lab, program)
    out, err = finish(process)
    assert process.returncode == status, err
    assert out == ("3\nworked on\n" if "works on" in when else "3\n")
    assert err == "" if status == 0 else err.count("Traceback") == 1
    with connect(**lab.arguments()) as client:
        # The Manager receives the goodbye even if it has no time to confirm it.
        deadline = time.monotonic() + DEADLINE
        while any(name.startswith("The program") for name in client.identities()["clients"]):
            assert time.monotonic() < deadline


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to one process")
def test_ctrl_c_in_a_call_leaves_the_connection_usable(lab: Manager):
    program = (
        "import os, signal\n"
        "from msl_network_trio.sync import to_async\n"
        "protocol = to_async(cxn)._session.connection.protocol\n"
        "def interrupt():\n"
        "    while not protocol.in_flight:\n"
        "        time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "try:\n"
        "    threading.Thread(target=interrupt).start()\n"
        "    link.slow(3)\n"
        "except KeyboardInterrupt:\n"
        "    print(cxn.identities()['port'], flush=True)\n"
        "print(link.add(3, 4))\n"
    )
    out, err = finish(start(lab, program))
    assert out == f"3\n{lab.port}\n7\n"
    assert err == ""


def test_a_trio_application_whose_worker_threads_use_a_link(lab: Manager):
    def measure(link: Any, number: int) -> list[int]:
        futures = [link.add(number, n, asynchronous=True) for n in range(50)]
        return [link.add(number, n) for n in range(50)] + [future.result() for future in futures]

    async def main() -> None:
        async with async_connect(**lab.arguments()) as client, client.link("Echo") as link:
            results: dict[int, list[int]] = {}

            async def one(number: int) -> None:
                results[number] = await trio.to_thread.run_sync(measure, link.sync, number)

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for number in range(6):
                        nursery.start_soon(one, number)
                    for number in range(50):
                        assert await link.add(number, 1) == number + 1
            for number, result in results.items():
                assert result == [number + n for n in range(50)] * 2
            with trio.move_on_after(0.3) as scope:
                await trio.to_thread.run_sync(link.sync.slow, 2)
            assert scope.cancelled_caught
            assert await link.add(1, 2) == 3

    trio.run(main)
