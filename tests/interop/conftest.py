"""Fixtures: Managers of msl-network 1.0.0, and a temporary home folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.interop.reference import Manager, start_manager

USERS = (("alice", "pw-a", True), ("bob", "pw-b", False))


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep trusted certificates of the client away from the user's home folder."""
    home = tmp_path / "client-home"
    monkeypatch.setenv("MSL_NETWORK_HOME", str(home))
    return home


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("tcp", marks=pytest.mark.slow),
        "tls",
        "ours-tcp",
        pytest.param("ours-tls", marks=pytest.mark.slow),
    ],
)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A Manager with the Services Echo and One (one client at most); shared, so no test may stop it."""
    home = tmp_path_factory.mktemp(f"lab-{request.param}")
    tls, ours = request.param.endswith("tls"), request.param.startswith("ours")
    manager = start_manager(home, tls=tls, users=USERS, ours=ours)
    try:
        manager.start_service("Echo")
        manager.start_service("One", max_clients=1)
        yield manager
    finally:
        manager.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """Start Managers of the reference, or our own with ``ours=True``, which the test may stop."""
    started: list[Manager] = []

    def start_one(**options: Any) -> Manager:
        home = tmp_path / f"manager-{len(started)}"
        started.append(start_manager(home, **options))
        return started[-1]

    yield start_one
    for manager in started:
        manager.end()


@pytest.fixture(params=["reference", "ours"])
def start_either(request: pytest.FixtureRequest, start: Callable[..., Manager]) -> Callable[..., Manager]:
    """Start Managers of both kinds, as `start` does."""
    return partial(start, ours=request.param == "ours")
