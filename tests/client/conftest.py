from tests.client.peer import network

__all__ = ["network"]
