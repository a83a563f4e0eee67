"""Tests of the output queue of a peer, and its limits."""

from __future__ import annotations

import json

import pytest

from msl_network_trio.protocol.manager.peer import Peer
from msl_network_trio.protocol.manager.peer_queue import PeerQueue
from msl_network_trio.protocol.manager.route import LARGE
from tests.protocol.network import Network, notification, queue_of, raw, read, reply, request


def test_who_does_not_read_is_bounded_told_and_dropped_while_others_go_on():
    network = Network(max_backlog=10_000)
    service, lazy, diligent = network.peer("Echo", "service"), network.peer("L"), network.peer("D")
    for client in (lazy, diligent):
        network.send(client, request("Manager", "link", "Echo"))
        raw(client)
    network.protocol.touched.clear()
    line = {"error": False, "result": [["x" * 1000], {}], "service": "Echo", "uid": "notification"}
    for _ in range(100):
        network.send(service, line)
        assert read(diligent) == [line]
        assert lazy.route.backlog < 12_000
    assert lazy.close_reason
    assert lazy.route in network.protocol.touched
    [last] = read(lazy)
    assert last["message"].startswith("BufferError: 10,")
    assert not diligent.close_reason
    network.send(service, json.dumps({**line, "result": [["x" * LARGE], {}]}).encode())
    assert read(lazy) == []


def test_a_peer_that_overflows_loses_what_waits_but_no_part_of_a_line(network):
    """A batch that the I/O layer has taken may be half written; the last line follows it."""
    network = Network(max_backlog=10_000)
    service, lazy = network.peer("Echo", "service"), network.peer()
    network.send(lazy, request("Manager", "link", "Echo"))
    raw(lazy)
    network.protocol.touched.clear()
    network.send(service, notification("Echo", "x" * LARGE))
    taken, queue_of(lazy).pieces = queue_of(lazy).pieces, []
    network.send(service, notification("Echo", "lost"), notification("Echo", "lost"))
    assert [json.loads(line)["error"] for line in queue_of(lazy).pieces] == [True]
    assert b"".join(taken).endswith(b"\n")
    assert lazy.route.backlog == sum(map(len, [*taken, *queue_of(lazy).pieces]))
    assert not queue_of(lazy).has_large
    assert not service.close_reason


def test_one_line_may_be_larger_than_what_may_wait():
    network = Network(max_backlog=1000)
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "x" * 5000), request("Echo", "e", "y", uid="2"))
    assert service.close_reason  # it did not read the first one, and there is a second one
    network = Network(max_backlog=1000)
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(client, request("Echo", "e", "x" * 5000))
    assert len(read(service)) == 1


@pytest.mark.parametrize("size", [30_000, 300_000])
def test_so_much_and_no_more_phase_all_peers_together(size):
    network = Network(max_backlog=1_000_000)
    echo = network.peer("Echo", "service")
    lazy = [network.peer(f"Lazy{number}") for number in range(10)]

    def load(client, total):
        for _ in range(total // size):
            network.send(client, request("Echo", "e", uid="1"))
            network.send(echo, reply(read(echo)[0], "x" * size))

    load(lazy[0], 900_000)
    for client in lazy[1:]:
        load(client, 600_000)
    dropped = [client.name for client in lazy if client.close_reason]
    assert dropped[0] == lazy[0].name  # of which there is most
    assert 2 <= len(dropped) <= 5
    assert "and by all peers together more than the 4,000,000 that this Manager keeps" in lazy[0].close_reason
    assert read(lazy[0])[0]["message"] == lazy[0].close_reason
    assert sum(client.route.backlog for client in lazy) < 4_600_000
    assert network.protocol.hits == {"max_backlog": len(dropped)}
    for client in lazy:
        raw(client)
        network.protocol.disconnect(client)
    more = network.peer("More")
    load(more, 900_000)
    assert not more.close_reason


def test_what_phase_many_is_kept_once_and_counted_once():
    network = Network(max_backlog=1_000_000)
    camera = network.peer("Camera", "service")
    clients = [network.peer(f"C{number}") for number in range(30)]
    for client in clients:
        network.send(client, request("Manager", "link", "Camera"))
    for _ in range(2):
        network.send(camera, notification("Camera", "x" * 400_000))
        for client in clients[:15]:  # of these the I/O layer has taken it, and cannot send it yet
            queue = queue_of(client)
            queue.writing = [*(queue.writing or ()), *queue.pieces]
            queue.pieces = []
    assert sum(client.route.backlog for client in clients) > 20_000_000
    assert not any(client.close_reason for client in clients)


def test_a_peer_keeps_the_route_that_it_has_before_it_connects(network):
    peer = Peer("vm", 99)
    route = PeerQueue(peer, network.protocol.backlog)
    network.protocol.connect(peer)
    assert peer.route is route
    assert network.protocol.touched[-1] is route
