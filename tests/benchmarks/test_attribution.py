"""Tests of `benchmarks profile`: the shares of a call's time."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as program
from benchmarks import attribution
from benchmarks.page import attributed


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    monkeypatch.setattr(attribution, "_CALLS", 200)
    monkeypatch.setattr(attribution, "_REPETITIONS", 2)


def test_the_parts_of_a_call_are_all_of_it():
    found = attribution.attribute()
    assert [len(parts) for parts in found.values()] == [6, 5]
    for parts in found.values():
        assert sum(share for _, share in parts) == pytest.approx(1)
        assert all(share > 0 for _, share in parts[:-1])


def test_the_shares_are_shown(capsys):
    assert program.main(["profile"]) == 0
    out = capsys.readouterr().out
    assert "a call of 100 tasks in flight" in out
    assert out.count("%\n") == 11


def test_the_page_says_where_the_time_goes():
    text = attributed({"a call": [("Trio", 0.515), ("the rest", 0.485)]})
    assert "| Trio | 52% |" in text
    assert "python -m benchmarks profile" in text
