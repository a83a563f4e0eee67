"""The shapes of lines and events."""

from __future__ import annotations

import time

import attrs
import pytest

from msl_network_trio.protocol.messages import UNSET, Connected, Notification, Question, ReceivedLine


@pytest.mark.parametrize("event", [Question("username", "M"), Connected("M"), Notification("Echo", [], {})])
def test_events_cannot_be_changed(event):
    name = attrs.fields(type(event))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, name, "changed")


def test_a_notification_knows_when_it_came_and_is_equal_by_what_it_says():
    before = time.time()
    one = Notification("Echo", [1], {"a": 2})
    assert before <= one.received <= time.time()
    assert one == Notification("Echo", [1], {"a": 2}, received=0.0)
    assert one != Notification("Echo", [1], {"a": 3})


def test_a_line_without_fields_is_no_reply_question_or_error():
    line = ReceivedLine()
    assert (line.uid, line.error, line.result, line.attribute) == (None, False, UNSET, None)
