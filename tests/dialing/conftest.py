"""The tests of connecting use the network of the client's tests."""

from tests.client.conftest import network, pytest_generate_tests

__all__ = ["network", "pytest_generate_tests"]
