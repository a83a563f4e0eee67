"""Fixtures of the client's tests, for the tests of connecting."""

from tests.client.conftest import network, pytest_generate_tests

__all__ = ["network", "pytest_generate_tests"]
