"""Client and Manager without I/O: every request is settled, whenever Services disconnect and return.

Clients whose bytes arrive in pieces call Services that disconnect and connect again under the same name; some
are closing before. At the end everything is delivered, and no request may be open.
"""

from __future__ import annotations

import json
import random

import pytest

from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from tests.protocol.network import Network, raw, reply

ALL = 10**9
NAMES = "AB"


class Client:
    """A client, and the bytes between it and the Manager."""

    def __init__(self, network: Network, name: str) -> None:
        identity = {"type": "client", "name": name, "language": "Python", "os": "Linux"}
        self.protocol = ClientProtocol(identity, "vm:1875")
        self.requests: list[tuple[Request, int | None]] = []
        self.network = network
        self.peer = network.connect()
        self.received, self.sent = bytearray(), bytearray()
        while not self.peer.kind:
            self.pass_on(ALL, ALL)

    def request(self, service: str, attribute: str, *args: object, result: int | None = None) -> None:
        request = self.protocol.make(Request, service, attribute, args, None)
        if attribute == "link":
            self.protocol.note_link(request, str(args[0]))
        self.requests.append((request, result))
        self.protocol.request(request)

    def pass_on(self, down: int, up: int) -> None:
        """Deliver at most `down` bytes to the client, and `up` bytes to the Manager."""
        self.received += raw(self.peer)
        self.protocol.receive(bytes(self.received[:down]))
        del self.received[:down]
        while data := self.protocol.take():
            self.sent += data
        self.network.protocol.receive(self.peer, bytes(self.sent[:up]))
        del self.sent[:up]


class Service:
    """A Service that replies with the first argument, in any order."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.peer = network.peer(name, "service")
        self.requests: list[dict[str, object]] = []

    def answer(self, chance: random.Random, count: int) -> None:
        self.requests += map(json.loads, raw(self.peer).splitlines())
        chance.shuffle(self.requests)
        replies = [reply(request, request["args"][0]) for request in self.requests[:count]]
        del self.requests[:count]
        self.network.send(self.peer, *replies)

    def disconnect(self) -> None:
        self.network.protocol.disconnect(self.peer)


def step(chance: random.Random, network: Network, client: Client, services: dict[str, Service]) -> None:
    """Take a random step."""
    name = chance.choice(NAMES)
    service = services.get(name)
    match chance.randrange(9):
        case 0 | 1 | 2:
            number = len(client.requests)
            client.request(name, "number", number, result=number)
        case 3:
            client.request("Manager", *chance.choice([("identity",), ("link", name)]))
        case 4 | 5:
            client.pass_on(*chance.choices([1, 50, 300, ALL], k=2))
        case 6 if service is not None:
            service.answer(chance, chance.choice([0, 1, 5]))
        case 7 if service is not None:
            service.peer.close("it is closing")
        case 8:
            if service is not None:
                services.pop(name).disconnect()
            if service is None or chance.random() < 0.5:
                services[name] = Service(network, name)


@pytest.mark.parametrize("seed", range(100))
def test_every_request_is_settled_though_services_disconnect_and_return(seed):
    chance = random.Random(seed)
    network = Network()
    clients = [Client(network, f"C{number}") for number in range(1 + seed % 3)]
    services = {name: Service(network, name) for name in NAMES}
    for _ in range(150):
        step(chance, network, chance.choice(clients), services)
    for name in NAMES:
        if name in services and services[name].peer.close_reason:
            services.pop(name).disconnect()
    for _ in range(3):
        for client in clients:
            client.pass_on(ALL, ALL)
        for service in services.values():
            service.answer(chance, ALL)
    for client in clients:
        assert client.peer.open == client.protocol.open == {}
        for request, result in client.requests:
            assert request.settled
            if result is not None and request.error is None:
                assert request.result == result
