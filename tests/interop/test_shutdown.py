"""Tests of the shutdown of our Manager, as clients and Services of both packages see it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio

from msl_network_trio import ConnectionLost, connect
from tests.interop.reference import Process
from tests.interop.test_manager_command import RUNNING, Running
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows can send no such signals"),
]

_CLIENT = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from msl.network import connect
client = connect(host="localhost", port=int(sys.argv[1]), disable_tls=True)
link = client.link("Echo")
future = link.add(1, 2, asynchronous=True)
print("answer", future.result(), flush=True)
if sys.argv[2] == "waits":
    future = link.slow(2, asynchronous=True)
    try:
        print("no error", future.result(), flush=True)
    except BaseException as error:
        print("outcome", type(error).__name__, error, flush=True)
else:
    import time
    print("idle", flush=True)
    while client.is_connected():
        time.sleep(0.01)
    print("outcome closed", flush=True)
"""


@pytest.fixture
def manager(tmp_path: Path):
    home = tmp_path / "lab"
    home.mkdir()
    words = ["-m", "msl_network_trio", "manager", "-p", "0", "--disable-tls", "--drain", "0.1", "-G", "DEBUG"]
    process = Process.start(words, home, "Network Manager running on")
    line = RUNNING.search(process.wait_for("Network Manager running on"))
    assert line is not None
    port = int(line[2])
    running = Running(process, home, port, False, {"host": "localhost", "port": port, "disable_tls": True})
    yield running
    running.end()


@pytest.mark.parametrize("how", ["waits", "is idle"])
def test_the_client_and_services_of_the_reference_see_the_end_they_know(manager, tmp_path, how):
    service = manager.start_service("Echo")
    home = tmp_path / "client"
    home.mkdir()
    client = Process.start(["-c", _CLIENT, str(manager.port), how], home, "answer 3")
    try:
        if how == "waits":
            service.wait_for("requested 'slow'")
        else:
            client.wait_for("idle")
        assert manager.stop(signal.SIGTERM) == 0
        client.wait_for("outcome")
        client.popen.wait(PATIENCE)
        service.popen.wait(PATIENCE)
    finally:
        client.end()
    assert "is shutting down" in client.log()  # it was notified, and ignored it
    assert "is shutting down" in service.log()
    for process in (client, service):
        for mishap in ("AssertionError", "KeyError", "TypeError"):
            assert mishap not in process.log()
    # The log of a client without open requests at the end of any Manager.
    logged = [line for line in client.log().splitlines() if line.startswith("ConnectionAbortedError: ")]
    ends = [line for line in logged if line.endswith("] closed the connection")]
    assert client.log().count("Traceback") == len(ends)
    if how == "waits":
        assert "the request may have been executed" in client.log().split("outcome RuntimeError")[1]
    assert "Traceback" not in service.log()


async def test_a_client_of_ours_is_told_why(manager):
    manager.start_service("Echo")
    async with connect(**manager.arguments()) as client:
        link = await client.link("Echo")
        assert await link.add(1, 2) == 3
        waiting = link.slow(2, asynchronous=True)
        assert await link.add(1, 2) == 3
        assert await trio.to_thread.run_sync(manager.stop, signal.SIGTERM) == 0
        with pytest.raises(
            ConnectionLost, match=r"closed the connection: Manager\[.*\] is shutting down; Echo.slow"
        ):
            await waiting
