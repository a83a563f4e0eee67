"""Fixtures for tests of the blocking API, which are plain functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msl_network_trio.portal import background_thread
from msl_network_trio.sync import Client, Link, connect
from tests.sync.manager import FakeManager


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    manager = FakeManager()
    yield manager
    manager.close()


@pytest.fixture
def client(manager: FakeManager) -> Iterator[Client]:
    with connect(**manager.arguments()) as client:
        yield client


@pytest.fixture
def link(client: Client) -> Link:
    return client.link("Echo")


@pytest.fixture(scope="session", autouse=True)
def no_trio_thread_is_left() -> Iterator[None]:
    yield
    thread = background_thread.current.thread
    if thread is not None:
        background_thread.current.thread = None
        thread.end(10)
        assert not thread._thread.is_alive()
