"""The loops of tries to connect, with a fake clock and without connections."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from msl_network_trio.dialing import reconnect, retrying
from msl_network_trio.dialing.prompts import Credentials
from msl_network_trio.dialing.reconnect import Reconnect
from msl_network_trio.dialing.retrying import Outage, dial_again, dial_first
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import AuthenticationError, ConnectError, ConnectionLost, ConnectTimeout
from msl_network_trio.protocol.messages import Question

POLICY = Reconnect()
LOST = ConnectionLost("The connection was lost")


class Manager:
    """Connects after a number of errors, and records the tries."""

    def __init__(self, *errors: Exception | float, then: Exception | float | None = None) -> None:
        self.errors = list(errors)
        self.then = then
        self.tries: list[tuple[float, float | None]] = []

    async def attempt(self, settings: Settings) -> str:
        self.tries.append((trio.current_time(), settings.timeout))
        event = self.errors.pop(0) if self.errors else self.then
        if isinstance(event, float):  # silent for some seconds
            assert settings.timeout is not None
            if event >= settings.timeout:
                await trio.sleep(settings.timeout)
                raise ConnectTimeout(f"silent for {settings.timeout:g} s")
            await trio.sleep(event)
        elif event is not None:
            raise event
        return "connected"


def refused() -> ConnectError:
    return ConnectError("refused")


async def first(manager: Manager, policy: Reconnect = POLICY, **kwargs: Any) -> str:
    settings = Settings(**kwargs)
    return await dial_first(settings, policy, settings.credentials(), manager.attempt)


async def again(manager: Manager, policy: Reconnect = POLICY, **kwargs: Any) -> str:
    outage = Outage()
    outage.begin(connected_at=-math.inf)
    return await dial_again(Settings(**kwargs), policy, manager.attempt, outage, reason=LOST)


# ---- the first connection ----


async def test_the_first_connection_is_tried_again_within_the_timeout(autojump_clock):
    manager = Manager(refused(), refused(), refused())
    assert await first(manager) == "connected"
    assert len(manager.tries) == 4


async def test_when_the_time_is_over_the_last_real_error_is_raised_with_the_number_of_tries(autojump_clock):
    manager = Manager(then=refused())
    began = trio.current_time()
    with pytest.raises(ConnectError, match="refused") as caught:
        await first(manager, timeout=0.7)
    assert trio.current_time() - began == pytest.approx(0.7), "delays are cut to what is left"
    assert caught.value.__notes__ == [f"{len(manager.tries)} tries to connect failed within 0.7 s."]


async def test_a_timeout_of_a_try_that_was_cut_short_replaces_no_other_error(autojump_clock):
    manager = Manager(refused(), then=math.inf)
    with pytest.raises(ConnectError) as caught:
        await first(manager, timeout=3)
    assert str(caught.value) == "refused"
    assert len(manager.tries) == 2
    silent = Manager(then=math.inf)
    with pytest.raises(ConnectTimeout, match="silent for 5 s"):
        await first(silent, timeout=12)


async def test_one_try_is_given_5_seconds_and_no_more_than_is_left(autojump_clock):
    manager = Manager(refused(), 4.0)
    assert await first(manager, timeout=30) == "connected"
    assert [timeout for _, timeout in manager.tries] == [5, 5]
    manager = Manager(then=math.inf)
    with pytest.raises(ConnectTimeout):
        await first(manager, timeout=2)
    assert manager.tries[0][1] == 2


async def test_a_task_that_wakes_when_the_time_is_over_raises_the_last_error(monkeypatch, autojump_clock):
    def draw(policy: Reconnect, elapsed: float, error: Exception) -> float:
        autojump_clock.jump(0.75)  # more than is left, as on a busy computer
        return 0.5

    monkeypatch.setattr(retrying, "delay", draw)
    with pytest.raises(ConnectError, match="refused") as caught:
        await first(Manager(refused(), then=math.inf), timeout=1)
    assert caught.value.__notes__ == ["2 tries to connect failed within 1 s."]


async def test_without_a_timeout_the_policy_limits_the_first_connection(autojump_clock):
    began = trio.current_time()
    with pytest.raises(ConnectError, match="refused"):
        await first(Manager(then=refused()), Reconnect(give_up_after=60), timeout=None)
    assert trio.current_time() - began == pytest.approx(60)
    with trio.move_on_after(10_000) as scope:
        await first(Manager(then=refused()), timeout=None)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "error",
    [AuthenticationError("ValueError: Wrong Manager password"), AuthenticationError("A is already running")],
)
async def test_a_final_error_is_raised_at_once(error, autojump_clock):
    manager = Manager(refused(), error)
    with pytest.raises(AuthenticationError):
        await first(manager)
    assert len(manager.tries) == 2


async def test_the_clock_is_stopped_while_a_person_is_asked(autojump_clock):
    class Slow:
        async def username(self, manager: str) -> str:
            await trio.sleep(1000)
            return "me"

    settings = Settings(timeout=3, prompts=Slow())
    credentials = settings.credentials()
    errors = [refused(), refused()]

    async def attempt(_: Settings) -> str:
        if errors:
            await credentials.answer(Question("username", "Manager[lab:1]"))
            raise errors.pop()
        return "connected"

    assert await dial_first(settings, POLICY, credentials, attempt) == "connected"
    assert credentials.seconds_asked == 1000, "the answer is remembered"


# ---- after a loss ----


async def test_after_a_loss_tries_go_on_until_one_succeeds(monkeypatch, autojump_clock):
    monkeypatch.setattr(retrying, "delay", lambda policy, elapsed, error: min(max(elapsed / 2, 0.1), 10))
    began = trio.current_time()
    manager = Manager(*(refused() for _ in range(8)))
    assert await again(manager) == "connected"
    times = [time - began for time, _ in manager.tries]
    assert times == pytest.approx([0.1 * 1.0, 0.2, 0.3, 0.45, 0.675, 1.0125, 1.51875, 2.278125, 3.4171875])


async def test_giving_up_raises_why_the_connection_was_lost_and_what_the_last_error_was(autojump_clock):
    manager = Manager(then=refused())
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="was lost; gave up reconnecting after 20 s") as caught:
        await again(manager, Reconnect(give_up_after=20))
    assert trio.current_time() - began == pytest.approx(20)
    assert str(caught.value.__cause__) == "refused"
    assert caught.value.may_have_run is False
    with pytest.raises(ConnectionLost) as caught:
        await again(manager, Reconnect(give_up_after=0))
    assert caught.value.__cause__ is None, "there was no try"


@pytest.mark.parametrize("errors", [(), (refused(),)])
async def test_a_try_does_not_outlast_the_time_after_which_it_gives_up(errors, autojump_clock):
    manager = Manager(*errors, then=math.inf)
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="gave up reconnecting after 4 s") as caught:
        await again(manager, Reconnect(give_up_after=4))
    assert trio.current_time() - began == pytest.approx(4)
    assert str(caught.value.__cause__).startswith("refused" if errors else "silent for")


async def test_a_final_error_ends_the_tries(autojump_clock):
    manager = Manager(refused(), AuthenticationError("ValueError: Unregistered user"))
    with pytest.raises(ConnectionLost, match="impossible: ValueError: Unregistered user") as caught:
        await again(manager)
    assert isinstance(caught.value.__cause__, AuthenticationError)


async def test_a_name_that_our_lost_connection_still_holds_is_not_final_then(autojump_clock):
    assert await again(Manager(AuthenticationError("NameError: A 'S' service is already running"))) == (
        "connected"
    )


@pytest.mark.parametrize(("timeout", "of_a_try"), [(None, 5), (2, 2), (60, 5)])
async def test_a_try_after_a_loss_has_at_most_5_seconds(timeout, of_a_try, autojump_clock):
    manager = Manager()
    await again(manager, timeout=timeout)
    assert manager.tries[0][1] == of_a_try


async def test_a_manager_that_is_slow_to_answer_gets_more_time_with_each_try(autojump_clock):
    manager = Manager(then=6.0)
    assert await first(manager, timeout=20) == "connected"
    assert [timeout for _, timeout in manager.tries] == [5, 10]
    manager = Manager(then=6.0)
    assert await again(manager) == "connected"
    assert [timeout for _, timeout in manager.tries] == [5, 10]
    manager = Manager(then=math.inf)
    with pytest.raises(ConnectionLost):
        await again(manager, Reconnect(give_up_after=1000), timeout=None)
    assert [timeout for _, timeout in manager.tries[:6]] == [5, 10, 20, 40, 60, 60]


async def test_connections_that_are_lost_at_once_are_one_outage(autojump_clock):
    outage = Outage()
    outage.begin(connected_at=-math.inf)
    assert outage.seconds_for_delay == 0
    await trio.sleep(10)
    connected_at = trio.current_time()
    await trio.sleep(reconnect.STABLE_AFTER / 2)
    outage.begin(connected_at)
    assert outage.seconds == 0
    assert outage.seconds_for_delay == reconnect.UNSTABLE_ELAPSED
    await trio.sleep(reconnect.STABLE_AFTER)
    outage.begin(trio.current_time() - reconnect.STABLE_AFTER)
    assert outage.seconds_for_delay == 0


# ---- credentials without a person ----


async def test_unattended_credentials_have_the_answers_and_ask_nobody(autojump_clock):
    answers = Credentials("me", "secret", None).unattended()
    assert await answers.answer(Question("username", "Manager[lab:1]")) == "me"
    assert await answers.answer(Question("password", "me")) == "secret"
    with pytest.raises(AuthenticationError, match="nobody is asked when"):
        await answers.answer(Question("password", "Manager[lab:1]", True))
    with pytest.raises(AuthenticationError, match="nobody is asked when"):
        await Credentials().unattended().answer(Question("username", "Manager[lab:1]"))
