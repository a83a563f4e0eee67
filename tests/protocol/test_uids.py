"""Uids are unique, and cannot be guessed from other uids."""

from __future__ import annotations

import itertools
import json
import os
import threading

from msl_network_trio.protocol import uids as module
from msl_network_trio.protocol.client import ClientProtocol
from msl_network_trio.protocol.requests import Request
from msl_network_trio.protocol.uids import Uids

IDENTITY = {"type": "client", "name": "C", "language": "Python", "os": "Linux"}


def made_by(protocol: ClientProtocol, number: int) -> list[str]:
    return [protocol.make(Request, "Echo", "add", (), None).uid for _ in range(number)]


def test_uids_differ_and_need_no_escapes():
    one, two = ClientProtocol(IDENTITY, "h:1"), ClientProtocol(IDENTITY, "h:1")
    uids = made_by(one, 1000) + made_by(two, 1000)
    assert len(set(uids)) == 2000
    for uid in uids:
        assert json.dumps(uid) == f'"{uid}"'
        assert len(uid) <= 36  # which is the length of those of msl-network


def test_the_digits_of_a_uid_say_nothing_of_those_of_the_next_ones():
    uids = made_by(ClientProtocol(IDENTITY, "h:1"), 2000)
    numbers = [int(uid, 16) for uid in uids]
    # What counting leaves behind: steps that recur, or digits that stay as they are.
    steps = {(later - earlier) % 16 ** len(uids[0]) for earlier, later in itertools.pairwise(numbers)}
    assert len(steps) == len(uids) - 1
    for position in range(len(uids[0])):
        assert len({uid[position] for uid in uids}) == 16


def test_all_of_a_uid_comes_from_the_operating_system(monkeypatch):
    asked = []

    def urandom(size: int) -> bytes:
        data = os.urandom(size)
        asked.append(data.hex())
        return data

    monkeypatch.setattr(module, "os", type("os", (), {"urandom": staticmethod(urandom)}))
    uids = Uids()
    made = []
    for _ in range(300):
        try:
            made.append(uids.take())
        except IndexError:
            made.append(uids.more())
    assert len(asked) > 1
    for uid in made:
        assert any(uid in digits for digits in asked)
    assert len(set(made)) == 300


def test_threads_never_get_the_same_uid():
    protocol = ClientProtocol(IDENTITY, "h:1")
    made: list[list[str]] = []
    threads = [threading.Thread(target=lambda: made.append(made_by(protocol, 2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({uid for uids in made for uid in uids}) == 8000
