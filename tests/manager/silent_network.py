"""A program in a network namespace: a Service whose packets are lost reconnects, and so does one that is alive.

Exit status 0: all is right; 77: the packets of a connection cannot be dropped here.
"""

from __future__ import annotations

import subprocess
import sys

import trio

from msl_network_trio.constants import MANAGER
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.transport.tcp_connect import open_tcp
from tests.manager.wires import Wire
from tests.protocol.network import request


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(words, done.stderr)
        sys.exit(77)


async def reach(manager) -> Wire:
    wire = Wire(await open_tcp("127.0.0.1", manager.port))
    await wire.line()
    return wire


async def start(manager, name: str) -> tuple[Wire, dict]:
    wire = await reach(manager)
    await wire.send({"result": {"name": name, "type": "service", "attributes": {}}})
    await wire.send(request(MANAGER, "unlink", "nobody", uid="hello"))
    return wire, await wire.line()


async def main() -> None:
    options = {
        "host": "127.0.0.1",
        "port": 0,
        "disable_tls": True,
        "database": ":memory:",
        "replace_after": 1,
    }
    with trio.fail_after(40):
        async with open_manager(**options) as manager:
            idle, _ = await start(manager, "Idle")
            asked, _ = await start(manager, "Asked")
            alive, _ = await start(manager, "Alive")
            client = await reach(manager)
            await client.send({"result": {"name": "C", "type": "client"}})
            for wire in (idle, asked):
                for port in ("--sport", "--dport"):
                    number = str(wire.transport.port)
                    run("iptables", "-A", "INPUT", "-p", "tcp", port, number, "-j", "DROP")
            await client.send(request("Asked", "add", 1, uid="owed"))
            new = [(await start(manager, name)) for name in ("Idle", "Asked")]
            assert [answer["error"] for _, answer in new] == [False, False], new
            answer = await client.line()
            assert answer["uid"] == "owed"
            assert "may have been executed" in answer["message"], answer
            _, answer = await start(manager, "Alive")
            assert "already running" in answer["message"], answer
            assert len(manager.identity()["services"]) == 3
            for wire, _ in new:
                assert (await wire.ask(MANAGER, "unlink", "nobody"))["result"] is True
            assert alive.transport.fileno() >= 0


if __name__ == "__main__":
    run("ip", "link", "set", "lo", "up")
    trio.run(main)
