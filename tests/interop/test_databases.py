"""Tests of both Managers, one after the other, with one database and one home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from msl_network_trio import AuthenticationError, connect
from tests.interop.conftest import USERS
from tests.interop.reference import Process, free_port, start_manager
from tests.patience import PATIENCE

pytestmark = pytest.mark.interop


def command(home: Path, *words: str) -> str:
    """Run a command of this package, which must succeed."""
    ran = subprocess.run(
        [sys.executable, "-m", "msl_network_trio", *words],
        env=dict(os.environ, MSL_NETWORK_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return ran.stdout


@pytest.fixture
def lab(tmp_path):
    """Start Managers one after the other in the same home folder."""
    home = tmp_path / "lab"
    home.mkdir()
    running = []

    def start(*, ours: bool, **options):
        for manager in running:
            manager.end()
        running.append(start_manager(home, ours=ours, **options))
        return running[-1]

    start.home = home
    yield start
    for manager in running:
        manager.end()


async def test_a_database_of_ours_works_at_msl_networks_manager(lab, tmp_path):
    (tmp_path / "password.txt").write_text("pw of eve\n")
    command(lab.home, "user", "add", "eve", "--admin", "--password", str(tmp_path / "password.txt"))
    command(lab.home, "user", "add", "bob", "--password", "pw-b")
    command(lab.home, "hostname", "add", "lab-3")
    manager = lab(ours=True, auth_login=True, users=())
    async with connect(**manager.arguments(username="eve", password="pw of eve")) as eve:
        await eve.admin_request("users_table.insert", "zoe", "pw-z", True)
        await eve.admin_request("users_table.update", "bob", password="new")
        await eve.admin_request("hostnames_table.insert", "lab-4")
        seen = await eve.admin_request("connections_table.connections")
    assert seen[-1][5] == "connected as a client"

    manager = lab(ours=False, auth_login=True, users=())
    manager.service_arguments |= {"username": "bob", "password": "new"}
    manager.start_service("Echo")
    async with connect(**manager.arguments(username="zoe", password="pw-z")) as zoe:
        assert await (await zoe.link("Echo")).add(1, 2) == 3
        assert await zoe.admin_request("users_table.users") == [["bob", False], ["eve", True], ["zoe", True]]
        assert {"lab-3", "lab-4"} <= set(await zoe.admin_request("hostnames_table.hostnames"))
        records = await zoe.admin_request("connections_table.connections")
        assert records[: len(seen)] == seen
    with pytest.raises(AuthenticationError, match="Wrong login password"):
        await connect(**manager.arguments(username="bob", password="pw-b"))

    manager = lab(ours=True, auth_login=True, users=())
    async with connect(**manager.arguments(username="eve", password="pw of eve")) as eve:
        later = await eve.admin_request("connections_table.connections")
        assert later[: len(records)] == records
        assert "rejected: wrong login password" in [record[5] for record in later[len(records) :]]


async def test_trusted_hosts_of_ours_count_at_msl_networks_manager(lab):
    command(lab.home, "hostname", "remove", "localhost")
    for ours in (True, False):
        manager = lab(ours=ours, auth_hostname=True, users=())
        with pytest.raises(AuthenticationError, match="'localhost' is not a trusted hostname"):
            await connect(**manager.arguments())
    command(lab.home, "hostname", "add", "localhost")
    for ours in (False, True):
        manager = lab(ours=ours, auth_hostname=True, users=())
        async with connect(**manager.arguments()) as client:
            assert client.is_connected()


_RUN_SERVICES = """
from msl_network_trio.manager.running import run_services
from msl_network_trio.examples.echo import Echo
run_services(Echo(), port=PORT, disable_tls=True, auth_login=True, username="bob", password="pw-b")
"""


async def test_run_services_logs_in(tmp_path):
    command(tmp_path, "user", "add", "bob", "--password", "pw-b")
    port = free_port()
    code = _RUN_SERVICES.replace("PORT", str(port))
    process = Process.start(["-c", code], tmp_path, "using a login for authentication")
    try:
        await trio.to_thread.run_sync(process.wait_for, "Echo[")
        async with connect(port=port, disable_tls=True, username="bob", password="pw-b") as client:
            assert "Echo" in (await client.identities())["services"]
        with pytest.raises(AuthenticationError, match="Unregistered user"):
            await connect(port=port, disable_tls=True, username="zed", password="x")
    finally:
        process.end()


async def test_connections_are_recorded_as_msl_network_records_them(start):
    kept = []
    for ours in (False, True):
        manager = start(ours=ours, users=USERS, auth_login=True)
        async with connect(**manager.arguments(username="bob", password="pw-b")):
            pass
        for username, password in (("zed", "x"), ("bob", "x")):
            with pytest.raises(AuthenticationError):
                await connect(**manager.arguments(username=username, password=password))
        async with connect(**manager.arguments(username="alice", password="pw-a")) as alice:
            messages: list[str] = []
            with trio.fail_after(PATIENCE):
                while messages.count("disconnected") < 3:  # logged after the client has closed the connection
                    found = await alice.admin_request("connections_table.connections")
                    messages = [row[5] for row in found]
        kept.append(sorted((*row[2:4], row[5]) for row in found))
    assert kept[0] == kept[1]
