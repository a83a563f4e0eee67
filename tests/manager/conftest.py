"""Managers on real sockets."""

from __future__ import annotations

import selectors
from functools import partial

import pytest

from msl_network_trio.manager import idle_poller
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.tables import Database
from tests.manager.sockets import OPENED
from tests.transport.certificates import ordinary


@pytest.fixture
def users(tmp_path):
    """The file of a database with two users, of whom one is an administrator."""
    path = tmp_path / "lab.sqlite3"
    with Database(path) as database:
        database.users.insert("alice", "pw-a", True)
        database.users.insert("bob", "pw-b", False)
    return path


@pytest.fixture(params=["plain", "TLS", "alone", "by a selector", "without a poll set"])
def tls(request, monkeypatch):
    """Whether there is TLS; without it also as on other systems, of which some have no poll set."""
    if request.param == "by a selector":
        if not hasattr(selectors.DefaultSelector, "fileno"):
            pytest.skip("this system cannot wait for a set of sockets as if it were one")
        monkeypatch.setattr(
            idle_poller, "_make_poll_set", lambda: idle_poller._SelectorPollSet(selectors.DefaultSelector())
        )
    if request.param == "without a poll set":
        monkeypatch.setattr(idle_poller, "_make_poll_set", lambda: None)
    return request.param == "TLS"


@pytest.fixture
def open_here(tls, tmp_path, request):
    """Open a Manager that is reached from this computer only."""
    path = tmp_path / "manager.pem"
    path.write_text(ordinary().key + ordinary().pem)
    path.chmod(0o600)
    security = {"cert_file": path} if tls else {"disable_tls": True}
    alone = request.node.callspec.params["tls"] == "alone"
    return partial(open_manager, host="127.0.0.1", port=0, alone=alone, **security)


@pytest.fixture(autouse=True)
def everything_is_closed():
    yield
    while OPENED:
        OPENED.pop().close()
