"""Tests of the status that a Manager reports to administrators."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from msl_network_trio import connect
from msl_network_trio.cli.main import main
from msl_network_trio.constants import MANAGER
from msl_network_trio.exceptions import ManagerError
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.settings import Limits
from tests.manager.wires import Wire, dial
from tests.protocol.network import notification, reply, request
from tests.transport.certificates import ordinary


async def test_it_tells_who_is_there_and_what_is_open_and_for_how_long(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await wait_all_tasks_blocked()
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        mute = Wire(await manager.dial())
        await mute.line()
        await client.ask(MANAGER, "link", "Echo")
        await client.ask(MANAGER, "acquire_lock", "Echo", shared=True)
        await client.send(request("Echo", "e", uid="1"), request("Echo", "e", uid="2"))
        asked = await service.line()
        await trio.sleep(100)
        status = manager.status()
        assert status["manager"] == manager.name
        assert status["uptime"] == pytest.approx(100)
        assert status["peers"] == {"clients": 1, "services": 1, "unauthenticated": 1, "most": 2}
        assert status["open_requests"] == 2
        assert status["backlog"] == {"bytes": 0, "longest": 0, "peer": None}
        assert status["services"] == {
            "Echo": {"uptime": pytest.approx(100), "links": 1, "locks": 1, "backlog": 0}
        }
        await service.send(reply(asked, 1))
        await client.line()
        assert manager.status()["open_requests"] == 1
        assert json.loads(json.dumps(status)) == status


async def test_it_counts_what_peers_send_also_of_those_who_have_gone(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        await wait_all_tasks_blocked()
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.ask(MANAGER, "link", "Echo")
        before = manager.status()["totals"]
        assert before["connections"] == 2
        line = json.dumps(notification("Echo", "x" * 100)).encode()
        await service.send(*[line] * 50)
        for _ in range(50):
            await client.line()
        await trio.sleep(10)
        after = manager.status()
        assert after["totals"]["lines_from_services"] - before["lines_from_services"] == 50
        assert after["totals"]["bytes_received"] - before["bytes_received"] == 50 * (len(line) + 2)
        assert after["totals"]["bytes_sent"] - before["bytes_sent"] == 50 * (len(line) + 2)
        rates = after["rates"]
        assert rates["seconds"] == pytest.approx(10)
        assert (rates["lines_from_services"], rates["lines_from_clients"]) == (5, 0)
        service.transport.close()
        client.transport.close()
        await wait_all_tasks_blocked()
        gone = manager.status()
        assert gone["totals"] == after["totals"]
        assert gone["rates"]["bytes_sent"] == 0
        assert gone["peers"] == {"clients": 0, "services": 0, "unauthenticated": 0, "most": 2}


async def test_it_tells_whose_backlog_is_the_longest(autojump_clock):
    async with open_manager(in_memory=True) as manager:
        service, client = await dial(manager, "Echo", "service"), await dial(manager)
        await client.send(request("Echo", "e", "x" * 500_000))
        await wait_all_tasks_blocked()
        backlog = manager.status()["backlog"]
        assert backlog["bytes"] == backlog["longest"] > 400_000
        assert backlog["peer"] == service.name


async def test_it_tells_which_limits_there_are_and_how_often_they_were_met(autojump_clock):
    options = {
        "max_connections": 2,
        "max_unauthenticated": 2,
        "max_links": 1,
        "max_requests": 1,
        "notification_rate": 1,
        "login_attempts": 1,
        "login_delay": 0,
        "login_memory": 1000,
        "read_limit": 10_000,
        "max_backlog": 100_000,
        "stalled_after": 30,
        "handshake_timeout": 60,
    }
    async with open_manager(in_memory=True, auth_password="pw", **options) as manager:
        assert set(manager.status()["limits"]) == set(Limits.__annotations__)

        async def enter(name, kind="client"):
            wire = Wire(await manager.dial())
            await wire.line()
            await wire.send({"result": "pw"})
            await wire.line()
            await wire.send({"result": {"name": name, "type": kind, "attributes": {}}})
            await wait_all_tasks_blocked()
            return wire

        service, other = await enter("Echo", "service"), await enter("Other", "service")
        third = await enter("C")
        assert "max_connections" in (await third.line())["message"]
        await other.send(
            request(MANAGER, "link", "Echo", uid="1"),
            request(MANAGER, "link", "Other", uid="2"),
            *[request("Echo", "e", uid=str(number)) for number in range(3)],
        )
        await service.send(*[notification("Echo")] * 3)
        await wait_all_tasks_blocked()
        mute = [Wire(await manager.dial()) for _ in range(3)]
        await trio.sleep(61)
        for _ in range(2):
            guess = Wire(await manager.dial())
            await guess.line()
            await guess.send({"result": "guess"})
            await wait_all_tasks_blocked()
        for _ in range(3):
            await service.send(reply({"requester": "nobody", "uid": "1"}, "x" * 9000))
        await service.send(b"x" * 10_001)
        await wait_all_tasks_blocked()
        hits = {name: limit["hits"] for name, limit in manager.status()["limits"].items() if limit["hits"]}
        assert hits == {
            "max_connections": 1,
            "max_unauthenticated": 1,
            "max_links": 1,
            "max_requests": 2,
            "notification_rate": 2,
            "login_attempts": 1,
            "read_limit": 1,
            "handshake_timeout": 2,
        }
        assert len(mute) == 3


async def test_administrators_are_told_and_nobody_else(users):
    with trio.fail_after(60):
        async with open_manager(in_memory=True, database=users) as manager:
            arguments = manager.connect_kwargs()
            async with connect(**arguments, username="alice", password="pw-a") as client:
                assert (await client.admin_request("status"))["peers"]["clients"] == 1
            async with connect(**arguments, username="bob", password="pw-b") as client:
                with pytest.raises(ManagerError, match="You must be an administrator"):
                    await client.admin_request("status")


async def test_the_command_shows_it_as_tables_and_as_json(users, capsys):
    with trio.fail_after(60):
        async with open_manager(
            host="127.0.0.1", port=0, disable_tls=True, database=users, max_links=None
        ) as manager:
            words = ["status", "-H", "127.0.0.1", "-p", str(manager.port), "--disable-tls"]
            words += ["-u", "alice", "-P", "pw-a", "-i", "0.01"]
            stream = await trio.open_tcp_stream("127.0.0.1", manager.port)
            await stream.send_all(b'{"result":{"type":"service","name":"DMM","attributes":{}}}\n')
            while not manager.identity()["services"]:
                await trio.sleep(0.01)
            assert await trio.to_thread.run_sync(partial(main, words)) == 0
            text = capsys.readouterr().out
            assert await trio.to_thread.run_sync(partial(main, [*words, "--json"])) == 0
            status = json.loads(capsys.readouterr().out)
            await stream.aclose()
    for expected in (
        manager.name,
        "DMM",
        "running since",
        "lines from clients",
        "max_links",
        "none",
        "268,435,456",
    ):
        assert expected in text
    assert status["manager"] == manager.name
    assert 0 < status["rates"]["seconds"] < 30


async def test_the_command_names_its_options_where_an_error_names_arguments(users, capsys, tmp_path, home):
    certificate = tmp_path / "manager.pem"
    certificate.write_text(ordinary().key + ordinary().pem)
    certificate.chmod(0o600)
    with trio.fail_after(60):
        async with open_manager(host="127.0.0.1", port=0, cert_file=certificate, database=users) as manager:
            words = ["status", "-H", "127.0.0.1", "-p", str(manager.port)]
            assert await trio.to_thread.run_sync(partial(main, words)) == 1
            assert "Pass --auto-save or --cert-file" in capsys.readouterr().err
            assert await trio.to_thread.run_sync(partial(main, [*words, "-c", str(certificate)])) == 1
            assert "Pass --username" in capsys.readouterr().err
