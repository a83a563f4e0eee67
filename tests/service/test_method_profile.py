"""The profiles of the attributes that clients request."""

from __future__ import annotations

import threading

import trio

from msl_network_trio import Service
from msl_network_trio.service import threads
from msl_network_trio.service.method_profile import MethodProfiles
from msl_network_trio.service.state import state_of

from .peer import running


class Instrument(Service):
    def __init__(self):
        super().__init__(name="Service")

    def plain(self):
        return threading.current_thread().name

    async def wait(self, seriously):
        if seriously:
            await trio.lowlevel.checkpoint()

    @property
    def value(self):
        return 1

    @property
    def found(self):
        return self.plain


def test_a_profile_is_made_when_it_is_needed_and_knows_nothing():
    profiles = MethodProfiles()
    profile = profiles["add"]
    assert profiles["add"] is profile
    assert not any(getattr(profile, flag) for flag in profile.__slots__)


def test_the_number_of_profiles_is_bounded():
    profiles = MethodProfiles()
    for number in range(5000):
        profiles[f"name {number}"].is_prompt = True
    assert len(profiles) <= 1000
    assert profiles["name 4999"].is_prompt


async def test_a_plain_method_is_prompt_as_long_as_it_returns_within_the_limit(monkeypatch):
    service = Instrument()
    async with running(service, "tcp") as peer:
        profiles = state_of(service).connection._dispatcher._profiles
        for limit, is_prompt in ((1000.0, True), (-1.0, False), (1000.0, True)):
            monkeypatch.setattr(threads, "PROMPT", limit)
            await peer.call("plain")
            assert profiles["plain"].is_prompt is is_prompt


async def test_a_method_suspends_if_it_did_so_the_last_time():
    service = Instrument()
    async with running(service) as peer:
        profiles = state_of(service).connection._dispatcher._profiles
        for suspends in (True, False, True):
            await peer.call("wait", suspends)
            assert profiles["wait"].suspends is suspends


async def test_what_is_looked_up_and_callable_goes_to_the_threads_for_methods():
    service = Instrument()
    async with running(service) as peer:
        profiles = state_of(service).connection._dispatcher._profiles
        assert await peer.call("value") == 1
        assert not profiles["value"].is_callable
        for _ in range(2):
            assert (await peer.call("found")).startswith("Service-1")
        assert profiles["found"].is_callable


async def test_nothing_is_remembered_of_what_does_not_exist():
    service = Instrument()
    async with running(service) as peer:
        await peer.fail("nothing")
        await peer.fail("_private")
        assert not state_of(service).connection._dispatcher._profiles
