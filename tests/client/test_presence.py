"""Loss of Services: noticed by notices and by requests for the link, reported to streams, handlers and locks."""

from __future__ import annotations

import itertools
import logging
import time
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from msl_network_trio import ConnectionLost, Gap, ManagerError, Notification, ServiceLost, connect
from msl_network_trio.client.client import client_session
from msl_network_trio.client.link import link_state
from msl_network_trio.client.presence import PROBE_INTERVAL, PROBE_INTERVAL_WITH_NOTICES
from msl_network_trio.client.session import Session
from tests.client.peer import ECHO, MANAGER, Network, Peer

OTHER = {**ECHO, "address": "vm:9999"}
"""The identity of another instance of the Service."""

ABSENT = "KeyError: \"the 'Echo' service does not exist, cannot link with Client[vm:1]\""
LOCKED = "PermissionError: 'Echo' service is locked"


class Manager:
    """A Manager with one Service, which answers requests for links and notes them with the time."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.identity: dict[str, Any] | str | None = ECHO
        """The answer to requests for a link: an identity, or the text of an error; None: there is none."""

        self.before: list[dict[str, Any]] = []
        """Lines to be sent in front of the next answer to such a request, in the same data."""

        self.behind: list[dict[str, Any]] = []
        """Lines to be sent behind it."""

        self.tells = False
        """Whether it sends notices, and says so after the admission."""

        self.requests: list[tuple[str, float]] = []

    def count(self, attribute: str) -> int:
        return [name for name, _ in self.requests].count(attribute)

    def emit(self, *args: object) -> None:
        self.peer.send(**notification(*args))

    def notice(self, **kwargs: object) -> None:
        self.peer.send(error=False, result=[[], kwargs], service="Manager", uid="notification")

    async def serve(self) -> None:
        with suppress(ConnectionLost):
            await self._serve()

    async def _serve(self) -> None:
        await self.peer.shake_hands()
        if self.tells:
            self.notice(tells=["services"])
        while (line := await self.peer.line()) is not None:
            uid = line["uid"]
            self.requests.append((line["attribute"], trio.current_time()))
            match line["attribute"]:
                case "link":
                    self._answer(uid)
                case "unlink":
                    self.peer.reply(uid, True)
                case "acquire_lock" | "release_lock":
                    self.peer.reply(uid, ["Client[vm:1]"])
                case "identity":
                    if self.identity is not None:
                        self.peer.reply(uid, {"services": {}})
                case "add":
                    self.peer.reply(uid, sum(line["args"]))
                case "shutdown_service":
                    self.notice(gone="Echo")
                    self.peer.reply(uid, True)
                case "__disconnect__":
                    break
        self.peer.transport.close()

    def _answer(self, uid: str) -> None:
        before, self.before = self.before, []
        behind, self.behind = self.behind, []
        for fields in before:
            self.peer.send(**fields)
        if isinstance(self.identity, str):
            self.peer.fail(uid, self.identity, MANAGER)
        elif self.identity is not None:
            self.peer.reply(uid, self.identity)
        for fields in behind:
            self.peer.send(**fields)


def notification(*args: object) -> dict[str, Any]:
    return {"error": False, "result": [args, {}], "service": "Echo", "uid": "notification"}


class Net:
    """A client with a link, and its Manager."""

    def __init__(self, client: Any, link: Any, manager: Manager) -> None:
        self.client = client
        self.link = link
        self.manager = manager


@pytest.fixture
async def net(network: Network, nursery: trio.Nursery):
    managers: list[Manager] = []

    async def accept() -> None:
        managers.append(Manager(await network.accept()))
        await managers[0].serve()

    nursery.start_soon(accept)
    client = await connect()
    link = await client.link("Echo")
    managers[0].requests.clear()
    yield Net(client, link, managers[0])
    await client.disconnect()


@pytest.fixture
def reconnecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lost links be restored, as by clients that reconnect."""
    monkeypatch.setattr(Session, "is_reconnecting", True)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


class Listener:
    """A task that iterates over the notifications of a link."""

    def __init__(self, link: Any, *, gaps: bool = False) -> None:
        self.got: list[Any] = []
        self.error: BaseException | None = None
        self.ended = trio.Event()
        self._stream = link.notifications(gaps=gaps)

    async def run(self) -> None:
        try:
            async with self._stream as stream:
                async for element in stream:
                    self.got.append(element)
        except Exception as error:
            self.error = error
        self.ended.set()


async def listen(nursery: trio.Nursery, link: Any, *, gaps: bool = False) -> Listener:
    listener = Listener(link, gaps=gaps)
    nursery.start_soon(listener.run)
    await trio.lowlevel.checkpoint()
    return listener


# ---- without reconnection ----


async def test_a_stream_raises_as_soon_as_the_manager_tells_that_the_service_is_gone(
    net: Net, autojump_clock, nursery
):
    listener = await listen(nursery, net.link)
    net.manager.emit(1)
    net.manager.notice(gone="Echo")
    began = trio.current_time()
    await listener.ended.wait()
    assert trio.current_time() == began
    assert [each.args for each in listener.got] == [[1]]
    assert isinstance(listener.error, ServiceLost)
    assert "'Echo' Service has disconnected" in str(listener.error)
    assert (listener.error.service, listener.error.may_have_run) == ("Echo", False)
    assert await net.link.add(1, 2) == 3  # requests go to the Service of that name


async def test_a_loss_that_follows_the_answer_to_the_link_request_at_once_is_noticed(
    net: Net, autojump_clock, nursery
):
    net.manager.behind = [
        {"error": False, "result": [[], {"gone": "Echo"}], "service": "Manager", "uid": "notification"}
    ]
    link = await net.client.link("Echo")
    began = trio.current_time()
    listener = await listen(nursery, link)
    await listener.ended.wait()
    assert trio.current_time() == began
    assert isinstance(listener.error, ServiceLost)


async def test_a_notice_about_another_service_changes_nothing(net: Net, autojump_clock, nursery):
    listener = await listen(nursery, net.link)
    net.manager.notice(gone="Other")
    net.manager.notice(came="Echo")
    await trio.sleep(30)
    net.manager.emit(1)
    await settle()
    assert [each.args for each in listener.got] == [[1]]
    assert not listener.ended.is_set()
    nursery.cancel_scope.cancel()


async def test_a_handler_is_not_called_any_more_which_is_logged(net: Net, autojump_clock, caplog):
    got: list[int] = []
    net.link.notification_handler = got.append
    net.manager.emit(1)
    await settle()
    with caplog.at_level(logging.WARNING, "msl_network_trio"):
        net.manager.notice(gone="Echo")
        await settle()
    assert "the notification handler for 'Echo' will not be called any more" in caplog.text
    net.manager.emit(2)  # of the next instance, if another link of this client is linked with that
    await settle()
    assert got == [1]
    caplog.clear()
    net.link.notification_handler = got.append
    assert "the link must be made again" in caplog.text


async def test_the_end_of_the_connection_is_logged_for_a_handler(net: Net, autojump_clock, caplog):
    net.link.notification_handler = print
    net.manager.peer.transport.close()
    await settle()
    assert "the notification handler for 'Echo' will not be called any more: Manager[" in caplog.text


async def test_disconnecting_is_not_logged_for_a_handler(net: Net, autojump_clock, caplog):
    net.link.notification_handler = print
    await net.client.disconnect()
    await settle()
    assert not caplog.records


async def test_the_end_of_a_service_that_was_shut_down_is_no_loss(net: Net, autojump_clock, nursery, caplog):
    net.link.notification_handler = print
    listener = await listen(nursery, net.link)
    await net.link.shutdown_service()
    await listener.ended.wait()
    assert listener.error is None
    assert not caplog.records


async def test_a_stream_that_is_entered_afterwards_raises_at_once(net: Net, autojump_clock):
    net.manager.notice(gone="Echo")
    await settle()
    async with net.link.notifications() as stream:
        with pytest.raises(ServiceLost, match="has disconnected"):
            await anext(stream)


async def test_a_stream_that_is_entered_after_the_end_of_the_connection_raises(net: Net, autojump_clock):
    net.manager.peer.transport.close()
    await settle()
    async with net.link.notifications() as stream:
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await anext(stream)


async def test_a_new_link_has_streams_of_its_own(net: Net, autojump_clock, nursery):
    lost = await listen(nursery, net.link)
    net.manager.notice(gone="Echo")
    await lost.ended.wait()
    net.manager.identity = OTHER
    again = await net.client.link("Echo")
    listener = await listen(nursery, again)
    net.manager.emit(1)
    await settle()
    assert (listener.got, lost.got) == ([Notification("Echo", [1], {})], [])
    await trio.sleep(30)
    assert net.manager.count("unlink") == 0
    nursery.cancel_scope.cancel()


async def test_the_stream_of_an_old_link_raises_before_it_gets_anything_of_the_next_instance(
    net: Net, autojump_clock, nursery
):
    listener = await listen(nursery, net.link)
    net.manager.identity = OTHER
    net.manager.before, net.manager.behind = [notification(1)], [notification(2)]
    await net.client.link("Echo")
    await listener.ended.wait()
    assert [each.args for each in listener.got] == [[1]]
    assert isinstance(listener.error, ServiceLost)
    assert "restarted" in str(listener.error)


# ---- requests for the link ----


async def test_nothing_is_requested_while_nobody_listens(net: Net, autojump_clock):
    async with net.link.notifications():
        pass
    await trio.sleep(1000)
    assert net.manager.count("link") == 0


async def test_the_link_is_requested_every_two_seconds_while_a_stream_is_open(
    net: Net, autojump_clock, nursery
):
    listener = await listen(nursery, net.link)
    began = trio.current_time()
    await trio.sleep(100)
    requests = [at - began for name, at in net.manager.requests if name == "link"]
    assert len(requests) == 49 or len(requests) == 50
    assert {later - earlier for earlier, later in itertools.pairwise(requests)} == {PROBE_INTERVAL}
    assert not listener.ended.is_set()
    assert set(net.manager.requests) == {("link", began + at) for at in requests}
    nursery.cancel_scope.cancel()


async def test_the_link_is_requested_less_often_at_a_manager_that_tells(net: Net, autojump_clock, nursery):
    net.manager.notice(tells=["services"])
    await settle()
    await listen(nursery, net.link)
    await trio.sleep(10 * PROBE_INTERVAL_WITH_NOTICES + 1)
    assert net.manager.count("link") == 10
    nursery.cancel_scope.cancel()


async def test_the_link_is_not_requested_while_notifications_arrive(net: Net, autojump_clock, nursery):
    await listen(nursery, net.link)
    for number in range(100):
        await trio.sleep(PROBE_INTERVAL / 4)
        net.manager.emit(number)
    assert net.manager.count("link") == 0
    await trio.sleep(PROBE_INTERVAL * 2.5)  # the clock of the computer, by which it has an age, does not jump
    assert net.manager.count("link") in {1, 2}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [-100_000, 100_000])
async def test_a_clock_that_is_set_does_not_stop_the_requests(
    net: Net, autojump_clock, nursery, monkeypatch, seconds
):
    await listen(nursery, net.link)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + seconds)
    net.manager.emit(1)
    await trio.sleep(20 * PROBE_INTERVAL)
    assert net.manager.count("link") >= 15
    nursery.cancel_scope.cancel()


async def test_the_requests_end_with_the_last_listener(net: Net, autojump_clock):
    async with net.link.notifications(), net.link.notifications():
        await trio.sleep(5)
    before = net.manager.count("link")
    tasks = trio.lowlevel.current_statistics().tasks_living
    await trio.sleep(100)
    assert net.manager.count("link") == before > 0
    assert trio.lowlevel.current_statistics().tasks_living < tasks


@pytest.mark.parametrize("way", ["handler", "lock"])
async def test_handlers_and_locks_depend_on_a_link_as_well(net: Net, autojump_clock, way):
    if way == "handler":
        net.link.notification_handler = print
    else:
        await net.link.acquire_lock()
    await trio.sleep(10 * PROBE_INTERVAL + 1)
    assert net.manager.count("link") == 10


async def test_a_stream_that_is_entered_long_after_the_last_sign_requests_at_once(
    net: Net, autojump_clock, nursery
):
    link_state(net.link).sure = time.time() - 100
    await listen(nursery, net.link)
    await settle()
    assert net.manager.count("link") == 1
    await trio.sleep(PROBE_INTERVAL * 1.5)
    assert net.manager.count("link") == 2
    nursery.cancel_scope.cancel()


async def test_another_address_is_another_instance(net: Net, autojump_clock, nursery):
    listener = await listen(nursery, net.link)
    await trio.sleep(5)
    net.manager.identity = OTHER
    await listener.ended.wait()
    assert isinstance(listener.error, ServiceLost)
    assert "was restarted" in str(listener.error)
    await settle()
    # The request has made a link, which would occupy a place.
    assert net.manager.requests[-1][0] == "unlink"
    await trio.sleep(100)
    assert net.manager.requests[-1][0] == "unlink"


@pytest.mark.parametrize("refusal", [ABSENT, LOCKED])
async def test_a_refusal_means_that_the_link_is_lost(net: Net, autojump_clock, nursery, refusal):
    listener = await listen(nursery, net.link)
    net.manager.identity = refusal
    await listener.ended.wait()
    assert isinstance(listener.error, ServiceLost)
    assert refusal in str(listener.error)
    assert net.manager.count("unlink") == 0


async def test_a_refused_link_of_the_user_ends_the_streams_of_others(net: Net, autojump_clock, nursery):
    listener = await listen(nursery, net.link)
    net.manager.identity = ABSENT
    with pytest.raises(ManagerError):
        await net.client.link("Echo")
    await listener.ended.wait()
    assert isinstance(listener.error, ServiceLost)


async def test_an_answer_that_is_no_identity_is_ignored(net: Net, autojump_clock, nursery):
    listener = await listen(nursery, net.link)
    net.manager.identity = {"address": None}
    await trio.sleep(50)
    net.manager.emit(1)
    await settle()
    assert len(listener.got) == 1
    assert net.manager.count("link") > 10
    nursery.cancel_scope.cancel()


async def test_a_link_that_was_unlinked_meanwhile_is_unlinked_again(net: Net, autojump_clock):
    net.manager.identity = None
    async with net.link.notifications():
        await trio.sleep(PROBE_INTERVAL * 1.5)
        uid = net.manager.peer.received[-1]["uid"]
        await net.link.unlink()
    net.manager.peer.reply(uid, ECHO)
    await settle()
    assert [name for name, _ in net.manager.requests][-2:] == ["unlink", "unlink"]


async def test_a_manager_that_says_nothing_is_noticed_by_those_who_only_listen(
    net: Net, autojump_clock, nursery
):
    listener = await listen(nursery, net.link)
    net.manager.identity = None
    with trio.fail_after(100):
        await listener.ended.wait()
    assert isinstance(listener.error, ConnectionLost)
    assert "has sent nothing for 60 seconds" in str(listener.error)


async def test_a_request_for_the_link_that_is_not_answered_is_repeated(net: Net, autojump_clock, nursery):
    listener = await listen(nursery, net.link)
    net.manager.identity = None
    with trio.move_on_after(1000):
        while not listener.ended.is_set():
            await trio.sleep(1)
            net.manager.notice(came="Other")  # so the Manager is not dead
    assert not listener.ended.is_set()
    times = [at for name, at in net.manager.requests if name == "link"]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[:5] == [5, 10, 20, 40, 60]
    assert set(waits[5:]) == {60}
    net.manager.identity = OTHER
    with trio.fail_after(61):
        await listener.ended.wait()


async def test_disconnecting_while_a_request_for_the_link_is_unanswered_takes_no_time(
    net: Net, autojump_clock, nursery
):
    listener = await listen(nursery, net.link)
    net.manager.identity = None
    await trio.sleep(PROBE_INTERVAL * 1.5)
    with trio.fail_after(0.1):
        await net.client.disconnect()
        await listener.ended.wait()
    assert isinstance(listener.error, ConnectionLost)


# ---- with reconnection: a Service that restarts ----


async def test_a_stream_goes_on_with_a_gap_in_order(net: Net, autojump_clock, nursery, reconnecting):
    before = time.time()
    listener = await listen(nursery, net.link, gaps=True)
    plain = await listen(nursery, net.link)
    net.manager.emit(1)
    await settle()
    net.manager.notice(tells=["services"])
    net.manager.notice(gone="Echo")
    await settle()
    net.manager.identity = OTHER
    net.manager.behind = [notification(2)]
    net.manager.notice(came="Echo")
    with trio.fail_after(0.5):
        while len(listener.got) < 3:
            await settle()
    first, gap, second = listener.got
    assert (first.args, second.args) == ([1], [2])
    assert isinstance(gap, Gap)
    assert before <= first.received <= gap.since <= gap.until <= second.received + 1
    assert (gap.service, gap.reason) == ("Echo", "The 'Echo' Service has disconnected from the Manager")
    assert [each.gap for each in plain.got] == [None, gap]
    assert net.link.service_address == "vm:9999"
    nursery.cancel_scope.cancel()


async def test_a_restart_that_only_the_address_shows_is_a_gap_as_well(
    net: Net, autojump_clock, nursery, reconnecting
):
    listener = await listen(nursery, net.link, gaps=True)
    await trio.sleep(5)
    net.manager.identity = OTHER
    # In the data that tell it: what is in front is of the instance before.
    net.manager.before, net.manager.behind = [notification(1)], [notification(2)]
    await trio.sleep(5)
    kinds = [each if isinstance(each, Gap) else each.args for each in listener.got]
    assert [kinds[0], kinds[2]] == [[1], [2]]
    assert "was restarted" in kinds[1].reason
    assert net.manager.count("unlink") == 0
    nursery.cancel_scope.cancel()


async def test_an_absent_service_is_asked_for_until_it_is_there(
    net: Net, autojump_clock, nursery, reconnecting
):
    listener = await listen(nursery, net.link, gaps=True)
    net.manager.identity = ABSENT
    await trio.sleep(60)
    times = [at for name, at in net.manager.requests if name == "link"]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] <= 0.1 + PROBE_INTERVAL  # soon at first
    assert all(PROBE_INTERVAL / 2 <= wait <= PROBE_INTERVAL for wait in waits[6:])
    assert not listener.got
    net.manager.identity = OTHER
    await trio.sleep(PROBE_INTERVAL)
    assert [type(each) for each in listener.got] == [Gap]
    assert ABSENT in listener.got[0].reason
    nursery.cancel_scope.cancel()


async def test_a_manager_that_tells_is_asked_less_often_but_not_about_locks(
    net: Net, autojump_clock, nursery, reconnecting
):
    net.manager.notice(tells=["services"])
    net.manager.notice(gone="Echo")
    net.manager.identity = ABSENT
    await trio.sleep(100)
    count = net.manager.count("link")
    assert 100 / PROBE_INTERVAL_WITH_NOTICES - 1 <= count <= 2 * 100 / PROBE_INTERVAL_WITH_NOTICES + 1
    net.manager.identity = LOCKED
    net.manager.notice(came="Echo")
    await settle()
    before = net.manager.count("link")
    await trio.sleep(100)
    assert net.manager.count("link") - before >= 100 / PROBE_INTERVAL
    # Nobody listens, but the link is to be restored.
    net.manager.identity = OTHER
    await trio.sleep(PROBE_INTERVAL)
    assert link_state(net.link).lost is None
    before = net.manager.count("link")
    await trio.sleep(100)
    assert net.manager.count("link") == before


async def test_a_link_of_the_user_restores_the_others(net: Net, autojump_clock, nursery, reconnecting):
    listener = await listen(nursery, net.link, gaps=True)
    net.manager.identity = ABSENT
    net.manager.notice(tells=["services"])
    net.manager.notice(gone="Echo")
    await settle()
    net.manager.identity = OTHER
    net.manager.behind = [notification(1)]
    await net.client.link("Echo")
    await settle()
    assert [type(each) for each in listener.got] == [Gap, Notification]
    nursery.cancel_scope.cancel()


async def test_every_loss_is_one_gap(net: Net, autojump_clock, nursery, reconnecting):
    listener = await listen(nursery, net.link, gaps=True)
    net.manager.notice(tells=["services"])
    for number in range(20):
        net.manager.notice(gone="Echo")
        net.manager.identity = {**ECHO, "address": f"vm:{number}"}
        net.manager.behind = [notification(number)]
        net.manager.notice(came="Echo")
        net.manager.notice(came="Echo")
        await settle()
    assert [type(each) for each in listener.got] == [Gap, Notification] * 20
    session = client_session(net.client)
    assert len(session.links) == 1
    assert session.mailboxes.gaps == {"Echo": 20}
    nursery.cancel_scope.cancel()
