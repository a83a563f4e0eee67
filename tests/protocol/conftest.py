"""Fixtures for the tests of the Manager's protocol."""

from __future__ import annotations

import pytest

from tests.protocol.network import Network


@pytest.fixture
def network() -> Network:
    """A Manager with the default settings and no peers."""
    return Network()
