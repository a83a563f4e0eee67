"""The fuzz target: a Manager without I/O, whose hostile peers must not affect the other peers."""

from __future__ import annotations

import json
from itertools import islice

from msl_network_trio.protocol.manager.authentication import Authentication
from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import PeerQueue
from msl_network_trio.protocol.manager.pending_check import AdminRequest, HostCheck, LoginCheck, UserCheck
from msl_network_trio.protocol.manager.phase import Phase
from msl_network_trio.protocol.manager.protocol import MAX_LINES, ManagerProtocol

NAME = "Manager[vm:1875]"

SEEDS = [
    b'\x00{"result":{"name":"C","type":"client"},"uid":""}\n\x01{"service":"Echo","attribute":"e","uid":"1"}\n',
    (
        b'\x00{"result":{"name":"S","type":"service","attributes":{}}}\n\x00{"result":[[],{}],"service":"S",'
        b'"uid":"notification","error":false}\n'
    ),
    (
        b'\x00{"result":{"name":"C","type":"client"}}\n\x00{"args":["Echo"],"attribute":"link","kwargs":{"shared":'
        b'true},"service":"Manager","uid":"2","error":false}\n\x00{"args":["Echo"],"attribute":"acquire_lock",'
        b'"kwargs":{"shared":true},"service":"Manager","uid":"2"}\n'
    ),
    (
        b'\x00{"result":{"name":"C","type":"client"}}\n\x00{"service":"Manager","attribute":"port","args":[],'
        b'"kwargs":{},"uid":"3"}\n\x00{"result":"alice"}\n\x00{"result":"pw"}\n'
    ),
    b'\x03{"result":"secret"}\n\x00client C\n\x00Echo echo 1 x=2\n\x00identity\n\x00exit\n',
    (
        b'\x00{"result":1,"requester":"Good[vm:2]","uid":"1","error":false}\n\x00{"service":"","attribute":'
        b'"__disconnect__"}\n'
    ),
]
"""Initial inputs; bytes up to 3 end a chunk, see `fuzz`."""

_AUTHENTICATIONS = [
    Authentication(),
    Authentication("secret"),
    Authentication(hostname=True),
    Authentication(login=True),
]


class Network:
    """A Manager with a correct Service, a correct client, and hostile peers.

    Args:
        kind: The kind of authentication.
    """

    def __init__(self, kind: int) -> None:
        self.protocol = ManagerProtocol(
            NAME,
            {"hostname": "vm"},
            authentication=_AUTHENTICATIONS[kind % len(_AUTHENTICATIONS)],
            read_limit=5000,
            max_backlog=20_000,
            max_links=2,
            max_requests=5,
            notification_rate=5,
            login_attempts=3,
            clock=lambda: 1.0,
        )
        self.service = self._enter(1, b'{"result":{"name":"Echo","type":"service","attributes":{}}}\n')
        self.client = self._enter(2, b'{"result":{"name":"Good","type":"client"}}\n')
        self.send(
            self.client, b'{"args":["Echo"],"attribute":"link","kwargs":{},"service":"Manager","uid":"l"}\n'
        )
        self.read(self.client)
        self.hostile: list[Peer] = []
        self._number = 0

    def _enter(self, port: int, identity: bytes) -> Peer:
        peer = Peer("vm", port)
        self.protocol.connect(peer)
        self._decide(peer)
        while peer.phase is not Phase.IDENTITY:
            answer = b"secret" if peer.phase is Phase.PASSWORD else b"alice"
            self.send(peer, b'{"result":"%b"}\n' % answer)
        self.send(peer, identity)
        self.read(peer)
        assert peer.kind
        return peer

    def connect(self) -> Peer:
        """Connect a further hostile peer."""
        peer = Peer("vm", 3 + len(self.hostile))
        self.protocol.connect(peer)
        self._decide(peer)
        self.hostile.append(peer)
        return peer

    def send(self, peer: Peer, data: bytes) -> None:
        """Pass bytes of a peer to the Manager."""
        self.protocol.receive(peer, data, MAX_LINES)
        self._decide(peer)
        while peer.phase is Phase.YIELDING:
            self.protocol.receive_more(peer, MAX_LINES)
            self._decide(peer)

    def _decide(self, peer: Peer) -> None:
        while peer.phase is Phase.CHECK:
            check = self.protocol.pending_check(peer)
            match check:
                case HostCheck() | UserCheck():
                    result: object = True
                case LoginCheck():
                    result = check.password == "alice" or None
                case AdminRequest():
                    result = check.attribute
            self.protocol.resolve(peer, result)

    def read(self, peer: Peer) -> list[dict]:
        """Take the output for a peer, which must be whole lines of JSON."""
        queue = peer.route
        assert isinstance(queue, PeerQueue)
        data = b"".join(queue.pieces)
        assert len(data) == queue.backlog
        queue.pieces, queue.backlog, queue.has_large = [], 0, False
        assert data == b"" or data.endswith(b"\n")
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def check(self) -> None:
        """Check that the two correct peers are served, and have received nothing of others."""
        assert self.service.phase is not Phase.CLOSING
        assert self.client.phase is not Phase.CLOSING
        assert self.read(self.client) == []
        for line in self.read(self.service):  # requests of others
            assert "requester" in line
            assert line["requester"] != self.client.name
        self._number += 1
        uid = f"good-{self._number}"
        self.send(self.client, b'{"service":"Echo","attribute":"e","args":[7],"uid":"%b"}\n' % uid.encode())
        [asked] = self.read(self.service)
        assert (asked["requester"], asked["args"], asked["uid"]) == (self.client.name, [7], uid)
        self.send(
            self.service,
            b'{"error":false,"requester":"%b","result":7,"uid":"%b"}\n'
            % (self.client.name.encode(), uid.encode()),
        )
        [answer] = self.read(self.client)
        assert (answer["result"], answer["uid"]) == (7, uid)
        assert self.client.open == {}
        registry = self.protocol.registry
        known = {peer for peer in (self.service, self.client, *self.hostile) if peer.kind}
        assert set(registry.peers.values()) == known
        assert all(peer.link_count == sum(peer in s.links for s in known) for peer in known)
        assert all(set(peer.locks) <= set(peer.links) <= known for peer in known)


def fuzz(data: bytes) -> None:
    """Send bytes as hostile peers, and check that the other peers are not affected.

    Args:
        data: The first byte says which authentication. After that bytes from 4 on are what a peer sends, and
            others end a chunk of it: behind 0 comes more of the same peer, behind 1 and 3 another one, and
            with 2 the peer goes.
    """
    network = Network(data[0] if data else 0)
    peer = network.connect()
    chunk = bytearray()
    for byte in islice(data, 1, None):
        if byte > 3:
            chunk.append(byte)
            continue
        network.send(peer, bytes(chunk))
        chunk.clear()
        network.check()
        if byte == 2 and peer in network.hostile:
            network.protocol.disconnect(peer)
            network.hostile.remove(peer)
            network.check()
        if byte != 0 or peer.close_reason:
            if peer.close_reason and peer in network.hostile:
                network.protocol.disconnect(peer)
                network.hostile.remove(peer)
            peer = network.connect()
        network.read(peer)
    network.send(peer, bytes(chunk))
    network.check()
