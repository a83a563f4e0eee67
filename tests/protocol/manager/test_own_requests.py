"""Requests to the Manager itself."""

from __future__ import annotations

import pytest

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.manager.route import LARGE
from tests.protocol.network import Network, read, request


def test_the_identity_tells_who_is_connected(network):
    network.peer("Echo", "service")
    client = network.peer()
    network.send(client, request("Manager", "identity", uid="3"))
    [line] = read(client)
    assert (line["uid"], line["requester"], line["error"]) == ("3", client.name, False)
    assert line["result"]["clients"].keys() == {client.name}
    assert line["result"]["services"].keys() == {"Echo"}


def test_links_and_locks_are_answered_with_the_uid(network):
    service, client = network.peer("Echo", "service"), network.peer()
    network.send(
        client,
        request("Manager", "link", "Echo", uid="1"),
        request("Manager", "acquire_lock", "Echo", shared=False, uid="2"),
        request("Manager", "release_lock", "Echo", uid="3"),
        request("Manager", "unlink", "Echo", uid="4"),
        request("Manager", "unlink", "nobody", uid="5"),
    )
    assert [(line["uid"], line["result"]) for line in read(client)] == [
        ("1", service.info),
        ("2", [client.name]),
        ("3", []),
        ("4", True),
        ("5", True),
    ]


@pytest.mark.parametrize(
    ("attribute", "args", "kwargs", "message"),
    [
        ("link", ["Nope"], {}, "KeyError: \"the 'Nope' service does not exist"),
        ("link", [], {}, "TypeError: The first argument must be the name of a service"),
        ("link", [5], {}, "TypeError: The first argument must be the name of a service"),
        ("unlink", ["Echo"], {}, 'KeyError: "cannot unlink'),
        ("acquire_lock", ["Echo"], {}, "KeyError: 'shared'"),
        ("acquire_lock", ["Echo"], {"shared": True}, "PermissionError: C["),
    ],
)
def test_what_the_manager_refuses_it_says_with_the_uid(network, attribute, args, kwargs, message):
    network.peer("Echo", "service")
    client = network.peer()
    network.send(client, request("Manager", attribute, *args, uid="8", **kwargs))
    [line] = read(client)
    assert (line["uid"], line["error"], line["requester"]) == ("8", True, client.name)
    assert line["message"].startswith(message)


def test_a_request_to_the_manager_that_python_cannot_hold_is_refused(network):
    client = network.peer()
    network.send(client, b'{"service":"Manager","attribute":"link","uid":"1","args":[' + b"9" * 5000 + b"]}")
    assert read(client)[0]["uid"] == "1"


def test_a_request_to_the_manager_is_of_bounded_length():
    network = Network()
    network.peer("Echo", "service")
    client = network.peer()
    for attribute in ("identity", "link", "unlink", "acquire_lock", "release_lock", "port"):
        network.send(client, request("Manager", attribute, "Echo", "x" * 65_536, uid="7"))
        [line] = read(client)
        assert line["message"] == "ValueError: A request to the Manager has no more than 65,536 bytes"
        assert line["uid"] == "7"
    assert client.link_count == 0


def test_who_is_connected_is_encoded_once_for_all_who_ask(monkeypatch):
    network = Network()
    client = network.peer()
    network.peer("Echo", "service")
    network.send(client, request("Manager", "identity"))
    before = read(client)[0]["result"]
    calls = []
    real = codec.encode_value
    monkeypatch.setattr(codec, "encode_value", lambda value: calls.append(type(value)) or real(value))
    network.send(client, *[request("Manager", "identity")] * 10)
    assert [line["result"] for line in read(client)] == [before] * 10
    assert dict not in calls
    late = network.peer("late")
    network.send(client, request("Manager", "identity"))
    assert late.name in read(client)[0]["result"]["clients"]
    network.protocol.disconnect(late)
    network.send(client, request("Manager", "identity"))
    assert read(client)[0]["result"] == before


def test_large_answers_of_the_manager_are_whole():
    network = Network()
    client = network.peer()
    attributes = {"a": "x" * 2 * LARGE}
    network.peer("Large", "service", attributes=attributes)
    for _ in range(2):
        network.send(client, request("Manager", "link", "Large", uid="ü"), request("Manager", "identity"))
        link, identity = read(client)
        assert (link["uid"], link["requester"], link["result"]["attributes"]) == (
            "ü",
            client.name,
            attributes,
        )
        assert identity["result"]["services"]["Large"]["attributes"] == attributes
