"""Held-out runs are predicted by the costs that they had, and not by others; and the command that says so."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from dualstream_lab.cli.root import run
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation import Deployment, record, simulate
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.fitting.validate import Check, validate
from dualstream_lab.workload import Workload
from tests.simulation.invariants import unmeasured

from .sweep import TRUE, sweep

RIGHT = replace(unmeasured(), costs=TRUE, low=TRUE, high=TRUE)
SLOWER = replace(TRUE, request=TRUE.request * 2, event=TRUE.event * 2)


def _run(root, *, faults=(), seed=7, deployment=None, **options):
    workload = Workload(**{"duration": 3, "seed": seed} | options)
    return record(simulate(workload, deployment, TRUE, faults, seed=seed), root).path


@pytest.fixture(scope="module")
def checks(held_out):
    return validate(held_out, RIGHT)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    root = tmp_path_factory.mktemp("held")
    stop = [FaultSpec(name="kafka.stop", at=2, length=2)]
    return [
        _run(root, rate=5_000, seed=7),
        _run(root, rate=5_000, seed=8),
        _run(root, rate=200_000, duration=1, deployment=Deployment(buffer_timeout=60)),
        _run(root, rate=5_000, duration=6, faults=stop),
    ]


def test_the_true_costs_predict_what_was_held_out(checks):
    figures = {check.figure for check in checks}
    assert {"publish p50", "publish p99", "live p50", "live p99", "max rate"} <= figures
    assert "kafka.stop: publish backlog" in figures
    assert all(check.within for check in checks), [check for check in checks if not check.within]


def test_other_costs_do_not(held_out):
    wrong = replace(RIGHT, costs=SLOWER, low=SLOWER, high=SLOWER)
    off = {check.figure: check.error for check in validate(held_out, wrong) if not check.within}
    assert off["publish p50"] > 0.3
    assert off["max rate"] < -0.2


def test_repeats_are_one_line_and_may_be_as_far_off_as_they_differ(checks):
    found = [check for check in checks if check.figure == "publish p50"]
    assert [len(check.measured) for check in found] == [2]
    assert "2 runs" in found[0].setup
    apart = Check(setup="", figure="live p50", unit="s", measured=(1.0, 4.0), predicted=(2.5,), allowed=1.0)
    assert apart.means == (pytest.approx(2.0), pytest.approx(2.5))
    assert apart.error == pytest.approx(0.25)
    assert apart.within


@pytest.mark.parametrize(("predicted", "within"), [(1.0, True), (1.14, True), (1.16, False), (0.84, False)])
def test_what_is_too_far_is_a_share_of_what_was_measured(predicted, within):
    check = Check(setup="", figure="max rate", unit="", measured=(1.0,), predicted=(predicted,), allowed=0.15)
    assert check.within is within


def test_a_figure_that_is_not_predicted_at_all_is_too_far():
    assert not Check(setup="", figure="", unit="", measured=(1.0,), predicted=(), allowed=0.15).within


def test_a_run_that_cannot_be_predicted_is_named(tmp_path):
    path = _run(tmp_path, rate=500, faults=[FaultSpec(name="redis.stop", at=1, length=1)])
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["faults"][0]["name"] = "redis.output-buffer"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=path.name):
        validate([path], RIGHT)


# The command


def test_the_command_learns_saves_and_validates(held_out, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "here.json"
    sweep(runs)
    others = [f"--hold-out={path}" for path in held_out]
    assert run(["calibrate", str(runs), *others, "--save", str(file)]) == 0
    out = capsys.readouterr().out
    assert "not told: replica; needs" in out
    assert "beyond that a figure is extrapolated" in out
    good, among = map(int, re.search(r"(\d+) of (\d+) figures", out).groups())
    assert good == among > 5
    assert Calibration.load(file).costs.request == pytest.approx(TRUE.request, rel=0.1)


def test_a_bad_prediction_exits_with_99(held_out, tmp_path, capsys):
    slower = sweep(tmp_path, SLOWER)[:2]
    assert run(["calibrate", *map(str, slower), f"--hold-out={held_out[0]}"]) == 99
    assert "too far" in capsys.readouterr().out


def test_mistakes_are_told_without_a_traceback(held_out, tmp_path, capsys):
    mine = str(held_out[0])
    for arguments, said in (
        ([str(tmp_path / "none")], "does not exist"),
        ([mine, f"--hold-out={mine}"], "is among the runs to learn from, too"),
        ([mine, "--save", str(tmp_path / "none" / "x.json")], "cannot be written"),
        ([str(held_out[-1])], "give it with --hold-out"),
        ([], "Missing argument"),
    ):
        assert run(["calibrate", *arguments]) == 2
        assert said in capsys.readouterr().err
