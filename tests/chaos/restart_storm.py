"""Restart storms: hundreds of clients and Services of one host that come back to a Manager all at once.

``python -m tests.chaos.restart_storm`` kills the Manager and starts it again, and prints how long it took from
when it listened until all Services and all clients, with their links, were back.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from msl_network_trio import NetworkError, Service, connect
from tests.interop.reference import Manager, free_port, start_manager

LIMIT = 5.0
"""Maximum seconds until all are back that `main` accepts."""

_PATIENCE = 90.0
"""Seconds after which a round is given up."""

_REJECTED = re.compile(r" is rejected: (.*)")

USERS = (("lab", "secret", False),)


class Numbered(Service):
    """A Service that returns a number."""

    def ask(self, number: int) -> int:
        """Return the number."""
        return number


@attrs.define
class Round:
    """The figures of one restart."""

    services: float
    """Seconds until all Services were registered."""

    clients: float
    """Seconds until all clients were linked again and had an answer."""

    rejected: list[str]
    """The reasons of the Manager's rejections."""

    cpu: float
    """CPU seconds of the Manager; 0 if the system does not tell."""


class Storm:
    """A Manager, and its peers in this process.

    Args:
        folder: An empty folder.
        clients: Number of clients.
        services: Number of Services.
        tls: Whether the Manager has TLS.
        login: Whether users have to log in.
    """

    def __init__(self, folder: Path, *, clients: int, services: int, tls: bool, login: bool) -> None:
        self.clients = clients
        self.services = services
        self._folder = folder
        self._tls = tls
        self._login = login
        self._port = free_port()
        self._manager: Manager
        self._round = 0
        self._back: dict[str, int] = {}
        """The round in which each peer was last seen."""
        self._changed = trio.Event()

    async def run(self, rounds: int, seconds: float) -> list[Round]:
        """Restart the Manager, and return the figures of each round.

        Args:
            rounds: Number of restarts.
            seconds: Seconds for which there is no Manager.
        """
        figures = []
        await self._start_manager()
        try:
            async with trio.open_nursery() as nursery:
                reconnect = {**self._manager.arguments(), **self._user(), "reconnect": True}
                for number in range(self.services):
                    run = partial(Numbered(name=f"S{number}").run, **reconnect)
                    nursery.start_soon(run)
                for number in range(self.clients):
                    nursery.start_soon(self._client, number, reconnect)
                await self._all_back()
                for _ in range(rounds):
                    self._manager.process.kill()
                    await trio.to_thread.run_sync(self._manager.process.end)
                    await trio.sleep(seconds)
                    self._round += 1
                    await self._start_manager()
                    figures.append(await self._measure())
                nursery.cancel_scope.cancel()
        finally:
            await trio.to_thread.run_sync(self._manager.end)
        return figures

    def _user(self) -> dict[str, Any]:
        return {"username": USERS[0][0], "password": USERS[0][1]} if self._login else {}

    async def _start_manager(self) -> None:
        options = {"auth_login": True} if self._login else {}
        start = partial(
            start_manager,
            self._folder / "manager",
            ours=True,
            tls=self._tls,
            port=self._port,
            users=USERS if self._login and not self._round else (),
            **options,
        )
        self._manager = await trio.to_thread.run_sync(start)

    async def _client(self, number: int, arguments: dict[str, Any]) -> None:
        """Make requests; each answer shows that the client and its link are back."""
        async with connect(name=f"C{number}", timeout=_PATIENCE, **arguments) as client:
            while True:
                with contextlib.suppress(NetworkError):
                    link = await client.link(f"S{number % self.services}", timeout=_PATIENCE)
                    break
                await trio.sleep(0.2)
            while True:
                with contextlib.suppress(NetworkError):
                    asked_in = self._round
                    await link.ask(number, timeout=_PATIENCE)
                    self._back[f"C{number}"] = asked_in
                    self._changed.set()
                await trio.sleep(0.1)

    async def _measure(self) -> Round:
        """Wait until all are back, and return the figures."""
        began = time.perf_counter()
        services = await self._all_services()
        await self._all_back()
        clients = time.perf_counter() - began
        rejected = _REJECTED.findall(self._manager.process.log())
        return Round(services - began, clients, rejected, _cpu(self._manager.process.popen.pid))

    async def _all_services(self) -> float:
        arguments = {**self._manager.arguments(), **self._user()}
        with trio.fail_after(_PATIENCE):
            async with connect(name="observer", **arguments) as observer:
                while len((await observer.identities())["services"]) < self.services:
                    await trio.sleep(0.05)
        return time.perf_counter()

    async def _all_back(self) -> None:
        with trio.fail_after(_PATIENCE):
            while sum(seen == self._round for seen in self._back.values()) < self.clients:
                self._changed = trio.Event()
                await self._changed.wait()


def _cpu(pid: int) -> float:
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> int:
    """Run storms, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.restart_storm", description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds without a Manager")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--no-login", dest="login", action="store_false")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(
            Path(folder),
            clients=options.clients,
            services=options.services,
            tls=options.tls,
            login=options.login,
        )
        figures = trio.run(storm.run, options.rounds, options.seconds)
    for each in figures:
        print(
            f"Services back after {each.services:.2f} s, clients after {each.clients:.2f} s; "
            f"{len(each.rejected)} rejections; CPU of the Manager {each.cpu:.1f} s"
        )
        for reason in sorted(set(each.rejected))[:5]:
            print(f"  {reason}")
    is_well = all(max(each.services, each.clients) < LIMIT and not each.rejected for each in figures)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
