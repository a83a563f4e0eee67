"""Managers of msl-network 1.0.0 for tests, and a home folder that is not the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.reference import Manager, start_manager

USERS = (("alice", "pw-a", True), ("bob", "pw-b", False))


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep what the client saves away from the user's own trust."""
    home = tmp_path / "client-home"
    monkeypatch.setenv("MSL_NETWORK_HOME", str(home))
    return home


@pytest.fixture(scope="session", params=["tcp", "tls"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A Manager with the Services Echo and One (at most one client), which no test may end."""
    home = tmp_path_factory.mktemp(f"lab-{request.param}")
    manager = start_manager(home, tls=request.param == "tls", users=USERS)
    try:
        manager.start_service("Echo")
        manager.start_service("One", max_clients=1)
        yield manager
    finally:
        manager.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """Start Managers that the test may treat as it likes."""
    started: list[Manager] = []

    def start_one(**options: Any) -> Manager:
        home = tmp_path / f"manager-{len(started)}"
        started.append(start_manager(home, **options))
        return started[-1]

    yield start_one
    for manager in started:
        manager.end()
