from __future__ import annotations

import pytest

from benchmarks import suites
from benchmarks.availability import available
from benchmarks.cases import Comparison, choose
from benchmarks.clients import asynchronous, bare, importing, lean, ours, reference
from benchmarks.peers import PEERS
from tests.benchmarks.conftest import case, contestant

CASES = suites.all_cases()
LOADS = {
    **{peer.module: asynchronous.PEER_LOADS for peer in PEERS},
    "benchmarks.clients.bare": bare.LOADS,
    "benchmarks.clients.lean": lean.LOADS,
    "benchmarks.clients.ours": ours.LOADS,
    "benchmarks.clients.reference": reference.LOADS,
    "benchmarks.clients.importing": importing.PROGRAMS,
}


def test_every_case_has_a_name_of_its_own():
    assert len({each.key for each in CASES}) == len(CASES)


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.key)
def test_a_case_compares_its_contestants_and_each_can_do_its_load(each):
    names = [contestant.name for contestant in each.contestants]
    assert len(set(names)) == len(names)
    for comparison in each.comparisons:
        assert {comparison.one, comparison.other} <= set(names)
    for each_one in each.contestants:
        assert each_one.load in LOADS[each_one.client]
        assert each_one.calls > 0


def test_goals_rise_from_floor_to_goal():
    for each in CASES:
        for comparison in each.comparisons:
            goals = comparison.goals
            asked = [goal for goal in (goals.floor, goals.target, goals.goal) if goal is not None]
            assert asked == sorted(asked)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["one"], ["client-one-tcp", "client-one-tls"]),
        (["one-tcp"], ["client-one-tcp"]),
        (["client-one-tls"], ["client-one-tls"]),
        (["client-*-tls"], ["client-one-tls"]),
        (["tls", "one"], ["client-one-tcp", "client-one-tls"]),
        (["client"], ["client-one-tcp", "client-one-tls"]),
        ([], ["client-one-tcp", "client-one-tls", "network-two-tcp"]),
        (["nothing"], []),
    ],
)
def test_cases_are_chosen_by_words_and_patterns(words, expected):
    cases = [case(), case(transport="tls"), case(suite="network", name="two")]
    assert [each.key for each in choose(cases, [], words)] == expected


def test_suites_and_words_both_have_to_fit():
    cases = [case(), case(suite="network")]
    assert [each.key for each in choose(cases, ["network"], ["one"])] == ["network-one-tcp"]


def test_without_a_contestant_its_comparisons_go_and_the_rest_stays():
    of = case(
        contestants=(contestant("ours"), contestant("reference"), contestant("third")),
        comparisons=(Comparison("ours", "reference"), Comparison("ours", "third")),
    )
    rest = of.without({"third"})
    assert [each.name for each in rest.contestants] == ["ours", "reference"]
    assert rest.comparisons == (Comparison("ours", "reference"),)


def test_a_case_that_compares_nothing_any_more_is_gone():
    assert case().without({"reference"}) is None


def test_what_is_not_there_is_skipped_and_said(monkeypatch):
    monkeypatch.setattr("benchmarks.availability._missing", lambda module: module == "msl.network")
    kept, skipped = available([case()])
    assert kept == []
    assert [(each.what, each.why) for each in skipped] == [
        ("one call at a time, TCP", "msl-network is not installed")
    ]
