"""Tests of the page of results, its plots and the figures of the README, from made-up results."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as program
from benchmarks import page, plots, readme, results
from benchmarks.cases import Comparison, Goals
from benchmarks.readme import BEGIN, END, NoPlaceForFigures
from benchmarks.statistics import Spread
from tests.benchmarks.conftest import case, contestant, measured


def curve():
    def point(x, ours, reference):
        of = case(
            suite="growth",
            name=f"length-{x}",
            curve="length",
            x=x,
            comparisons=(Comparison("ours", "reference"),),
        )
        return measured(of, {"ours": [{"seconds": ours}] * 2, "reference": [{"seconds": reference}] * 2})

    return [point(1000, 2.0, 20.0), point(10, 1.0, 2.0)]


@pytest.fixture
def long_run(run):
    run.cases += curve()
    of = case(
        suite="network",
        contestants=(contestant("async", server="ours-async"), contestant("reference", server="reference")),
        comparisons=(Comparison("async", "reference", Goals(1.7, None, 2.0)),),
    )
    run.cases.append(measured(of, {"async": [{"seconds": 1.0}] * 3, "reference": [{"seconds": 1.8}] * 3}))
    return run


def test_a_bar_has_the_spread_and_what_was_asked_for(run):
    assert plots.bars(run.cases) == {
        "one call at a time": [
            plots.Bar(
                "one call at a time", "tcp", Spread(2.0, pytest.approx(2.2), pytest.approx(3.0)), 2.0, 2.5
            )
        ]
    }


def test_a_curve_is_relative_to_the_first_point_of_the_reference_and_a_length_is_per_byte():
    (found,) = plots.curves(curve()).values()
    assert [each.contestant for each in found] == ["ours", "reference"]
    ours, reference = ([(x, at.median) for x, at in each.points] for each in found)
    assert ours == [(10, 0.5), (1000, pytest.approx(0.01))]
    assert reference == [(10, 1.0), (1000, pytest.approx(0.1))]


def test_the_page_has_tables_pictures_verdicts_machine_and_limits(long_run, tmp_path, capsys):
    path = tmp_path / "run.json"
    results.save(long_run, path)
    assert program.main(["report", str(path), "--folder", str(tmp_path)]) == 0
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith("RESULTS.md\n")
    for suite in ("client", "network", "growth"):
        assert f"![{suite}](plots/{suite}.svg)" in text
        assert (tmp_path / "plots" / f"{suite}.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (
        "| one call at a time, TCP \\* | msl-network 1.0.0 | 2.00 | 2.20 | 3.00 | 2.00 | 2.00 | 2.50 |"
        in text
    )
    assert "target **not met**, 12% short" in text
    assert "met: 3 of 3 floors, 0 of 1 targets, 0 of 1 goals. Every floor is met." in text
    assert "a machine" in text
    assert "Skipped: a peer: it is not installed." in text
    assert "## Limits of these measurements" in text
    assert "python -m benchmarks --json new.json" in text


def test_a_floor_that_is_not_met_is_named_first(run):
    run.cases[0].costs["reference"]["seconds"] = [1e-5] * 3
    text = page.page(run, {}, None)
    assert "- one call at a time, TCP * (1.00 of 2.00)" in text.partition("## client")[0]
    assert "Every floor" not in text


def test_the_figures_of_the_readme_are_replaced_and_nothing_else(long_run):
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = readme.with_figures(text, long_run)
    assert new.startswith(f"before\n{BEGIN}\n")
    assert new.endswith(f"{END}\nafter\n")
    assert "old" not in new
    assert "| one call at a time | 2.00 / 2.20 / 3.00 | - |" in new
    assert "| one call at a time | 1.80 | - | - | - |" in new
    assert readme.with_figures(new, long_run) == new


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}"])
def test_a_readme_without_a_place_for_figures_is_left_alone(text, run, tmp_path, capsys):
    with pytest.raises(NoPlaceForFigures):
        readme.with_figures(text, run)
    path, target = tmp_path / "run.json", tmp_path / "README.md"
    results.save(run, path)
    target.write_text(text, encoding="utf-8")
    assert program.main(["report", str(path), "--folder", str(tmp_path), "--readme", str(target)]) == 1
    assert BEGIN in capsys.readouterr().err
    assert target.read_text(encoding="utf-8") == text
    assert not (tmp_path / "RESULTS.md").exists()
