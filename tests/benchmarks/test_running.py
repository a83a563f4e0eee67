"""Tests of whole runs in processes: one round of few calls."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as program
from benchmarks import machine, runner
from benchmarks.cases import REFERENCE, Comparison
from benchmarks.commands import run as command
from benchmarks.placement import one_cpu
from benchmarks.processes import Child, ChildFailed
from tests.benchmarks.conftest import case, contestant

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.interop
def test_a_round_with_clients_a_fake_manager_and_a_network():
    of = case(
        contestants=(
            contestant("ours", client="benchmarks.clients.ours"),
            contestant("reference", client="benchmarks.clients.reference"),
            contestant("network", client="benchmarks.clients.ours", server="ours-async"),
        )
    )
    told = []
    (measured,) = runner.run([of], runner.Plan(rounds=1), lambda what, done: told.append(done))
    assert set(measured.costs) == {"ours", "reference", "network"}
    for costs in measured.costs.values():
        assert {name: len(values) for name, values in costs.items()} == dict.fromkeys(
            ("seconds", "cpu", "server_cpu", "median", "p99"), 1
        )
    assert sum(told) == runner.steps([of], runner.Plan(rounds=1)) == 3


def test_contestants_take_turns_there_and_back_and_their_costs_are_averaged(monkeypatch):
    asked = []

    def measure(stage, of, contestant, plan):
        asked.append(contestant.name)
        return {"seconds": float(len(asked))}

    monkeypatch.setattr(runner._Stage, "prepare", lambda *_: None)
    monkeypatch.setattr(runner._Stage, "measure", measure)
    monkeypatch.setattr(runner, "make_certificate", lambda home: (home, home))
    of = case(turns=4)
    told = []
    (measured,) = runner.run([of], runner.Plan(rounds=2), lambda what, done: told.append(done))
    there, back = ["ours", "reference"], ["reference", "ours"]
    assert asked == [*there, *back, *there, *back, *back, *there, *back, *there]
    assert measured.costs == {
        "ours": {"seconds": [(1 + 4 + 5 + 8) / 4, (10 + 11 + 14 + 15) / 4]},
        "reference": {"seconds": [(2 + 3 + 6 + 7) / 4, (9 + 12 + 13 + 16) / 4]},
    }
    assert sum(told) == runner.steps([of], runner.Plan(rounds=2)) == 16
    assert runner.steps([of], runner.Plan(rounds=2, quick=True)) == 4


def test_heavy_cases_are_measured_in_every_third_round_and_not_in_a_quick_run():
    heavy = case(heavy=True)
    assert [number for number in range(7) if runner.Plan(7).measures(heavy, number)] == [0, 3, 6]
    assert not runner.Plan(7, quick=True).measures(heavy, 0)
    assert not runner.Plan(7, quick=True).measures(case(quick=False), 0)
    assert runner.Plan(7).measures(case(quick=False), 1)
    assert runner.steps([heavy, case()], runner.Plan(6)) == 2 * 2 + 6 * 2


def test_a_quick_run_makes_fewer_calls_and_all_can_be_pinned():
    assert runner.Plan(1).calls(contestant("ours", calls=12)) == 12
    assert runner.Plan(1, quick=True).calls(contestant("ours", calls=12)) == 2
    assert runner.Plan(1, quick=True).calls(contestant("ours", calls=3)) == 1
    possible = one_cpu() is not None
    assert [runner.Plan(1, pin=pin).pins(case(pinned=False)) for pin in ("latency", "all", "none")] == [
        False,
        possible,
        False,
    ]


def test_cases_of_a_suite_and_transport_share_processes():
    cases = [case(), case(transport="tls"), case(name="two"), case(suite="network")]
    assert [[each.key for each in group] for group in runner.groups(cases)] == [
        ["client-one-tcp", "client-two-tcp"],
        ["client-one-tls"],
        ["network-one-tcp"],
    ]


def test_memory_is_measured_in_processes_that_have_done_nothing_else():
    memory = case(name="idle", comparisons=(Comparison("ours", "reference", figure="bytes"),))
    assert [[each.key for each in group] for group in runner.groups([case(), memory, case(name="two")])] == [
        ["client-one-tcp", "client-two-tcp"],
        ["client-idle-tcp"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no suite 'nothing'"),
        (["--rounds", "0"], "a number from 1"),
        (["--only", "nothing"], "nothing is called 'nothing'"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command.options(arguments)
    assert message in capsys.readouterr().err


def test_suites_may_stand_anywhere():
    found = command.options(["client", "--quick", "--only", "one", "flight"])
    assert (found.suites, found.only, found.rounds) == (["client"], ["one", "flight"], command.QUICK_ROUNDS)


def test_a_quick_run_leaves_out_what_takes_long_and_says_so(capsys):
    assert program.main(["network", "--only", "idle-tcp", "one-tcp", "--quick", "--list"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("network-one-tcp")
    assert last == "skipped: a notification to 1,000 idle clients, TCP: it takes too long for a quick run"


def test_what_can_be_measured_is_listed(capsys):
    assert program.main(["client", "--only", "one", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "client-one-tcp"
    assert REFERENCE in lines[0]


def test_without_the_reference_it_is_said_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(program, "find_spec", lambda name: None)
    assert program.main([]) == 1
    assert "pip install" in capsys.readouterr().err


def test_a_child_that_fails_is_an_error_with_what_it_said(tmp_path):
    with pytest.raises(ChildFailed, match="usage"):
        Child("child", "benchmarks.worker", home=tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.timeout(120)
def test_ctrl_c_ends_it_with_all_its_processes(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "client", "--only", "one", "--rounds", "1000", "--quick"]
    log = tmp_path / "error.txt"
    with (
        log.open("w") as error,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(os.environ, TMPDIR=str(tmp_path)),
            stdout=subprocess.DEVNULL,
            stderr=error,
        ) as process,
    ):
        try:
            children = []
            while len(children) < 3:
                assert process.poll() is None
                children = psutil.Process(process.pid).children(recursive=True)
            for _ in range(5):
                # Python ignores a KeyboardInterrupt in its own callbacks, so it may have to be repeated.
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)  # a child that is still starting has some seconds to end
                    break
        finally:
            process.kill()
    assert process.returncode == 130
    assert log.read_text().endswith("interrupted\n")
    # A child that was still starting ends at the end of its input.
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.glob("benchmarks-*")) == []


def test_a_file_of_results_is_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "run", lambda cases, plan, progress: [])
    path = tmp_path / "run.json"
    assert program.main(["client", "--only", "one", "--json", str(path)]) == 0
    assert json.loads(path.read_text(encoding="utf-8"))["command"] == "python -m benchmarks client --only one"
    assert "packages" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_run_names_the_commit_that_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # tests may run within a clone
    assert machine.commit(tmp_path) == "unknown: not in a clone"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one", encoding="utf-8")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    name = machine.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{7,40}", name)
    (tmp_path / "file").write_text("two", encoding="utf-8")
    assert machine.commit(tmp_path) == f"{name}, with changes"
