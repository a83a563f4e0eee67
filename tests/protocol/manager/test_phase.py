"""The phases of a peer: no transition but those of the table, and each of these happens."""

from __future__ import annotations

from functools import partial

import pytest

from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import PeerQueue
from msl_network_trio.protocol.manager.pending_check import AdminRequest, LoginCheck, UserCheck
from msl_network_trio.protocol.manager.phase import TRANSITIONS, Phase
from msl_network_trio.protocol.manager.protocol import ManagerProtocol
from tests.protocol.network import NAME, encoded, request

AUTHENTICATION = {
    Phase.PASSWORD: Authentication("secret"),
    Phase.USERNAME: Authentication(login=True),
    Phase.CHECK: Authentication(hostname=True),
    Phase.IDENTITY: None,
}
"""The authentication method that asks first for what a phase waits for."""

CLIENT = {"result": {"name": "C", "type": "client"}}
SERVICE = {"result": {"name": "S", "type": "service", "attributes": {}}}
ADMIN = request("Manager", "port", uid="a")


class Watched(Peer):
    """A peer that records its transitions, and allows no others than those of the table."""

    def __init__(self, port: int, seen: set[tuple[Phase, Phase]]) -> None:
        self.seen = seen
        self.is_new = True
        super().__init__("vm", port)

    @property
    def phase(self) -> Phase:
        return Peer.phase.__get__(self)

    @phase.setter
    def phase(self, phase: Phase) -> None:
        if self.is_new:
            self.is_new = False
            assert phase is Phase.GREETING
        elif phase is not self.phase:
            assert self.phase is not Phase.CLOSING
            assert phase is Phase.CLOSING or phase in TRANSITIONS[self.phase]
            self.seen.add((self.phase, phase))
        Peer.phase.__set__(self, phase)


class Network:
    """A Manager, and one peer that goes through phases.

    Args:
        authentication: What the Manager requires.
        seen: Where the transitions are added.
    """

    def __init__(
        self, authentication: Authentication | None = None, seen: set[tuple[Phase, Phase]] | None = None
    ) -> None:
        self.protocol = ManagerProtocol(
            NAME, {}, authentication=authentication, max_backlog=1_000_000, replaces=True
        )
        self.seen = set() if seen is None else seen
        self._port = 0
        self.connect()

    def connect(self) -> Peer:
        self._port += 1
        self.peer = Watched(self._port, self.seen)
        self.protocol.connect(self.peer)
        return self.peer

    def send(self, *lines: object) -> Phase:
        self.protocol.receive(self.peer, b"".join(encoded(line) + b"\r\n" for line in lines))
        return self.peer.phase

    def resolve(self, result: object) -> Phase:
        self.protocol.resolve(self.peer, result)
        return self.peer.phase

    def log_in(self, *, is_admin: bool = True) -> Phase:
        assert self.peer.phase is Phase.USERNAME
        assert self.send({"result": "alice"}) is Phase.CHECK
        assert isinstance(self.protocol.pending_check(self.peer), UserCheck)
        assert self.resolve(True) is Phase.USER_PASSWORD
        assert self.send({"result": "pw"}) is Phase.CHECK
        assert isinstance(self.protocol.pending_check(self.peer), LoginCheck)
        return self.resolve(is_admin)


def close(network: Network) -> None:
    network.protocol.reject(network.peer, ValueError("the test wants it"))


def in_greeting(seen: set[tuple[Phase, Phase]]) -> Network:
    network = Network(None, seen)
    network.peer = Watched(9, seen)
    PeerQueue(network.peer, network.protocol.backlog)
    assert network.peer.phase is Phase.GREETING
    return network


def begin(phase: Phase, seen: set[tuple[Phase, Phase]]) -> Network:
    network = Network(AUTHENTICATION[phase], seen)
    assert network.peer.phase is phase
    return network


def in_user_password(seen: set[tuple[Phase, Phase]]) -> Network:
    network = begin(Phase.USERNAME, seen)
    network.send({"result": "alice"})
    assert network.resolve(True) is Phase.USER_PASSWORD
    return network


def in_ready(seen: set[tuple[Phase, Phase]]) -> Network:
    network = begin(Phase.IDENTITY, seen)
    assert network.send(CLIENT) is Phase.READY
    return network


def in_yielding(seen: set[tuple[Phase, Phase]]) -> Network:
    network = in_ready(seen)
    assert network.send(b"S e 1", b"S e 2") is Phase.YIELDING
    return network


PHASES = {
    Phase.GREETING: in_greeting,
    Phase.PASSWORD: partial(begin, Phase.PASSWORD),
    Phase.USERNAME: partial(begin, Phase.USERNAME),
    Phase.USER_PASSWORD: in_user_password,
    Phase.IDENTITY: partial(begin, Phase.IDENTITY),
    Phase.CHECK: partial(begin, Phase.CHECK),
    Phase.READY: in_ready,
    Phase.YIELDING: in_yielding,
}
"""How to get into each phase."""


def test_every_phase_is_in_the_table():
    assert TRANSITIONS.keys() == set(Phase) == {*PHASES, Phase.CLOSING}


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_peer_can_be_closed_in_every_phase_and_leaves_it_never(phase):
    network = PHASES[phase](set())
    assert network.peer.phase is phase
    close(network)
    assert network.peer.phase is Phase.CLOSING
    assert network.peer.close_reason == "ValueError: the test wants it"
    network.peer.enter(Phase.READY)
    network.peer.close("another reason")
    network.send(CLIENT, ADMIN)
    network.protocol.receive_more(network.peer)
    assert network.peer.phase is Phase.CLOSING
    assert network.peer.close_reason == "ValueError: the test wants it"
    network.protocol.disconnect(network.peer)


def test_the_phases_follow_each_other_as_the_table_says():
    seen: set[tuple[Phase, Phase]] = set()

    network = begin(Phase.PASSWORD, seen)
    assert network.send({"result": "secret"}) is Phase.IDENTITY
    assert network.send(CLIENT) is Phase.READY

    network = begin(Phase.CHECK, seen)
    assert network.resolve(True) is Phase.IDENTITY

    network = begin(Phase.USERNAME, seen)
    assert network.log_in() is Phase.IDENTITY
    assert network.send(CLIENT) is Phase.READY
    assert network.send(ADMIN) is Phase.CHECK  # it has logged in as an administrator already
    assert isinstance(network.protocol.pending_check(network.peer), AdminRequest)
    assert network.resolve(1875) is Phase.READY

    network = in_ready(seen)
    assert network.send(ADMIN) is Phase.USERNAME
    assert network.send({"result": ""}) is Phase.READY
    assert network.send(ADMIN, ADMIN) is Phase.USERNAME
    assert network.log_in(is_admin=False) is Phase.USERNAME  # for the second request
    assert network.send({"result": "alice"}) is Phase.CHECK
    assert network.resolve(True) is Phase.USER_PASSWORD
    assert network.send({"result": None}) is Phase.READY
    assert network.send(ADMIN, ADMIN) is Phase.USERNAME
    network.send({"result": "alice"})
    network.resolve(True)
    assert network.send({"result": None}) is Phase.USERNAME

    network = in_yielding(seen)
    network.protocol.receive_more(network.peer)
    assert network.peer.phase is Phase.READY

    network = begin(Phase.IDENTITY, seen)
    network.send(SERVICE)
    network.connect()
    assert network.send(SERVICE) is Phase.CHECK  # of whether the first one is dead
    network.resolve(False)
    assert network.peer.phase is Phase.CLOSING

    assert {pair for pair in seen if pair[1] is not Phase.CLOSING} == {
        (phase, following) for phase, phases in TRANSITIONS.items() for following in phases
    }
