"""The types of lines and events."""

from __future__ import annotations

import time

import pytest

from msl_network_trio.protocol.messages import (
    NO_RESULT,
    UNSET,
    Connected,
    Gap,
    ManagerNotice,
    Notification,
    Question,
    ReceivedLine,
    RoutedLine,
    departure,
    refusal,
    retry_after,
)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (Question("username", "M"), "kind"),
        (Connected("M"), "manager"),
        (Notification("Echo", [], {}), "args"),
        (Gap(1.0, 2.0, "lost", "Echo"), "since"),
        (ManagerNotice("gone", "Echo"), "name"),
    ],
)
def test_events_cannot_be_changed(event, name):
    before = getattr(event, name)
    with pytest.raises(AttributeError):
        setattr(event, name, "changed")
    assert getattr(event, name) == before


def test_a_notification_knows_when_it_came_and_is_equal_by_what_it_says():
    before = time.time()
    one = Notification("Echo", [1], {"a": 2})
    assert before <= one.received <= time.time()
    assert one == Notification("Echo", [1], {"a": 2}, received=0.0)
    assert one != Notification("Echo", [1], {"a": 3})
    assert one != ("Echo", [1], {"a": 2})


def test_a_line_without_fields_is_no_reply_question_or_error():
    line = ReceivedLine()
    assert (line.uid, line.error, line.result, line.attribute) == (None, False, UNSET, None)


@pytest.mark.parametrize("again", [0, 1, 2.5, 86_400])
def test_the_seconds_of_an_error_are_a_number(again):
    assert retry_after(again) == again
    assert type(retry_after(again)) is float


@pytest.mark.parametrize("again", [None, True, "1", [1], -1, 86_401, 10**400, float("inf"), float("nan")])
def test_anything_else_is_no_number_of_seconds(again):
    assert retry_after(again) is None


def test_a_line_without_fields_goes_nowhere():
    line = RoutedLine()
    assert (line.uid, line.service, line.attribute, line.requester, line.error) == ("", "", "", UNSET, False)
    assert line.result is NO_RESULT


def test_a_refusal_is_word_for_word_that_of_msl_network():
    assert (
        refusal("Gone", "Manager[vm:1]")
        == "KeyError: \"the 'Gone' Service is not connected to Manager[vm:1]\""
    )


def test_that_a_service_has_gone_is_told_with_what_it_means():
    text = departure("Echo", "Manager[vm:1]")
    assert text.startswith("ConnectionError: the 'Echo' Service has gone from Manager[vm:1]")
    assert "may have been executed" in text


def test_notifications_are_equal_if_they_say_the_same_whenever_they_came():
    first, second = (Notification("Echo", [1], {}, received=float(time)) for time in range(2))
    other, thing = Notification("Echo", [2], {}), ("Echo", [1], {})
    assert [first == each for each in (second, other, thing)] == [True, False, False]
    assert [first != each for each in (second, other, thing)] == [False, True, True]


def test_notifications_are_equal_whatever_was_lost_before_them():
    gap = Gap(1.0, 2.0, "lost", "Echo")
    assert Notification("Echo", [1], {}, gap=gap) == Notification("Echo", [1], {})
    assert Notification("Echo", [1], {}).gap is None


def test_a_merged_gap_spans_both_and_has_both_reasons():
    first, second = Gap(1.0, 2.0, "one", "Echo"), Gap(3.0, 4.0, "two", "Echo")
    assert first.merged(second) == Gap(1.0, 4.0, "one; two", "Echo")
    assert first.merged(Gap(3.0, 4.0, "one")) == Gap(1.0, 4.0, "one", "Echo")


def test_the_reason_of_merged_gaps_has_a_limit():
    gap = Gap(0.0, 1.0, "lost")
    for number in range(1000):
        gap = gap.merged(Gap(number, number + 1, f"reason {number}"))
    assert (gap.since, gap.until) == (0.0, 1000)
    assert len(gap.reason) < 600
    assert gap.reason.startswith("lost; reason 0; reason 1;")
