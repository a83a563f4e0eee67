"""The outbox: the order of lines, the size of chunks, withdrawing, and the gate."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio.protocol.outbox import Outbox
from msl_network_trio.protocol.requests import ABANDONED, WRITTEN, Line, Request


def lines(*sizes: int) -> list[Line]:
    return [Line(b"x" * size) for size in sizes]


def take(outbox: Outbox, candidates: Iterable[Line]) -> tuple[list[Line], bytes]:
    """Take lines; return those of the candidates that were taken, in order, and the bytes."""
    before = outbox.last_sequence
    data = outbox.take()
    taken = sorted((line for line in candidates if line.sequence > before), key=lambda line: line.sequence)
    assert [line.sequence for line in taken] == list(range(before + 1, outbox.last_sequence + 1))
    assert all(not line.data and line.phase is WRITTEN for line in taken)
    return taken, data


def test_lines_are_taken_in_order_and_none_twice():
    outbox = Outbox()
    added = lines(1, 2, 3)
    for line in added:
        outbox.add(line)
    assert bool(outbox)
    assert list(outbox) == added
    assert outbox.unsent == 6
    assert take(outbox, added) == (added, b"xxxxxx")
    assert [line.sequence for line in added] == [1, 2, 3]
    assert outbox.take() == b""
    assert outbox.last_sequence == 3
    assert not outbox
    assert outbox.unsent == 0


def test_a_line_can_be_added_first_while_others_are_being_taken():
    outbox = Outbox()
    added = lines(200_000, 200_000)
    first = Line(b"first")
    for line in added:
        outbox.add(line)
    assert take(outbox, added)[0] == added[:1]
    outbox.add_first(first)
    assert list(outbox) == [first, added[1]]
    assert take(outbox, [*added, first])[0] == [first, added[1]]


def test_a_large_line_is_taken_alone():
    outbox = Outbox()
    added = lines(10, 20, 300_000, 300_000, 30)
    for line in added:
        outbox.add(line)
    taken = []
    while outbox:
        taken.append(take(outbox, added))
    assert [lines for lines, _ in taken] == [added[:2], added[2:3], added[3:4], added[4:]]
    assert [len(data) for _, data in taken] == [30, 300_000, 300_000, 30]


def test_a_withdrawn_line_is_gone_at_once():
    outbox = Outbox()
    kept, withdrawn = lines(5, 7)
    outbox.add(withdrawn)
    outbox.add(kept)
    outbox.withdraw(withdrawn)
    assert (withdrawn.data, withdrawn.phase) == (b"", ABANDONED)
    assert outbox.unsent == 5
    assert list(outbox) == [kept]
    assert take(outbox, [kept, withdrawn]) == ([kept], b"xxxxx")


def test_a_line_can_be_withdrawn_while_others_are_being_taken():
    outbox = Outbox()
    added = lines(300_000, 7, 9)
    for line in added:
        outbox.add(line)
    outbox.take()
    outbox.withdraw(added[1])
    assert list(outbox) == [added[2]]
    assert outbox.unsent == 9
    assert take(outbox, added) == ([added[2]], b"x" * 9)


def test_behind_an_admin_request_lines_are_held_back_to_the_next_one():
    outbox = Outbox()
    added = lines(1, 2, 3, 4, 5)
    added[1].admin = added[3].admin = True
    for line in added:
        outbox.add(line)
    urgent = Line(b"urgent")
    outbox.add_first(urgent)
    assert list(outbox) == [urgent, *added]
    assert outbox.gate is added[1]
    assert take(outbox, [urgent, *added])[0] == [urgent]
    assert take(outbox, added)[0] == added[:2]
    assert (bool(outbox), outbox.unsent) == (False, 12)
    outbox.open_gate()
    assert outbox.gate is added[3]
    assert take(outbox, added)[0] == added[2:4]
    outbox.withdraw(added[4])
    outbox.open_gate()
    assert (outbox.gate, list(outbox), outbox.unsent) == (None, [], 0)


def test_requests_that_were_taken_are_open():
    outbox = Outbox()
    requests = [Request("Echo", "add", uid, b"x") for uid in "12"]
    for line in (requests[0], Line(b"goodbye"), requests[1]):
        outbox.add(line)
    assert outbox.open == {}
    outbox.take()
    assert outbox.open == {"1": requests[0], "2": requests[1]}


def test_clearing_removes_all_lines():
    outbox = Outbox()
    for line in lines(300_000, 7):
        outbox.add(line)
    outbox.take()
    outbox.add(Line(b"x"))
    outbox.clear()
    assert not outbox
    assert outbox.unsent == 0
    assert outbox.take() == b""


@given(st.lists(st.tuples(st.sampled_from(["add", "first", "withdraw", "take"]), st.integers(1, 400_000))))
def test_no_order_of_operations_loses_or_repeats_a_line(steps):
    outbox, model, all_taken = Outbox(), [], []
    for step, number in steps:
        if step in {"add", "first"}:
            line = Line(b"x" * number)
            if step == "add":
                outbox.add(line)
                model.append(line)
            else:
                outbox.add_first(line)
                model.insert(0, line)
        elif step == "withdraw" and model:
            outbox.withdraw(model.pop(number % len(model)))
        elif step == "take":
            sizes = {line: len(line.data) for line in model}
            taken, data = take(outbox, sizes)
            assert bool(taken) == bool(model)
            assert taken == model[: len(taken)]
            assert len(data) == sum(sizes[line] for line in taken)
            assert len(taken) <= 1 or len(data) <= 262_144
            all_taken += taken
            model = model[len(taken) :]
        assert list(outbox) == model
        assert outbox.unsent == sum(len(line.data) for line in model)
    assert len(set(map(id, all_taken))) == len(all_taken)
