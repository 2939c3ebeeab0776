"""What was written with the names of before is read: figures, classes and thresholds are the same.

``data/format_1`` was made by the last version of format 1, with `dualstream simulate`: ``dropped`` by plain
subscribers, ``recovered`` by those of a gateway.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.scenario import Scenario
from dualstream_lab.ledger import Ledger
from dualstream_lab.recording import RunDirectory
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.parameters import Costs, deployment_of
from dualstream_lab.verdict.thresholds import Threshold
from dualstream_lab.verdict.verdict import Verdict, judge

DATA = Path(__file__).parent / "data" / "format_1"


def opened(name: str) -> RunDirectory:
    directory = RunDirectory.open(DATA / name)
    assert directory.manifest.format == 1
    return directory


def test_classes_marks_and_causes_are_those_of_now() -> None:
    ledger = Ledger.of(opened("dropped"))
    assert [(entry.name, entry.cause, entry.count) for entry in ledger.entries] == [
        ("delivered", "", 160),
        ("undelivered", "reconnect gap", 10),
        ("undelivered", "dropped by the publisher: redis connection", 10),
        ("undelivered", "dropped by the publisher: redis down", 60),
    ]
    assert ledger.count("silent") == len([*ledger.ids("silent")]) == 80, "and they are asked for as before"
    (recovered,) = Ledger.of(opened("recovered")).marks
    assert (recovered.name, recovered.count) == ("recovered", 80)


@pytest.mark.parametrize("name", ["dropped", "recovered"])
def test_what_was_judged_then_is_what_is_judged_now(name: str) -> None:
    directory = opened(name)
    stored, now = Verdict.load(directory.verdict() or {}), judge(directory)
    assert not directory.problems
    assert dict(stored.measures) == dict(now.measures)
    assert (stored.entries, stored.marks) == (now.entries, now.marks)
    assert [one.as_dict() for one in stored.recoveries] == [one.as_dict() for one in now.recoveries]
    assert now.held
    assert all(check.value is not None for check in now.checks), "also of live.heard"


def test_a_gateway_counted_as_late_what_was_recovered() -> None:
    found = judge(opened("recovered")).measures
    assert (found["live.delivered"], found["live.recovered"], found["live.gaps"]) == (240, 80, 1)


def test_lanes_are_concurrency(tmp_path: Path) -> None:
    assert opened("dropped").manifest.users == {"concurrency": 8, "subscribers": 1}
    file = tmp_path / "then.toml"
    file.write_text("[users]\nlanes = 7")
    assert Scenario.read(str(file)).users.concurrency == 7
    file.write_text("[users]\nlanes = 7\nconcurrency = 8")
    with pytest.raises(ConfigError, match="line 2: lanes: is called concurrency now: give one of them"):
        Scenario.read(str(file))


def test_a_deployment_and_its_costs_are_those_of_now() -> None:
    directory = opened("recovered")
    deployment = deployment_of(directory, directory.intervals())
    assert (deployment.replication_factor, deployment.gateways) == (1, 2)
    assert set(directory.manifest.settings["costs"]) == set(asdict(Costs()))


def test_a_calibration_is_read() -> None:
    assert Calibration.load(DATA / "calibration.json") == Calibration.shipped()


def test_a_fault_is_named_by_what(tmp_path: Path) -> None:
    assert [fault.name for fault in opened("dropped").manifest.faults] == ["redis.kill"]
    file = tmp_path / "then.toml"
    file.write_text("[[faults]]\nwhat = 'redis.kill'\nat = 1\nfor = 1")
    assert [fault.name for fault in Scenario.read(str(file)).faults] == ["redis.kill"]
    file.write_text("[[faults]]\nat = 1\nwhat = 'redis.burn'")
    with pytest.raises(ConfigError, match="line 3: fault: must be one of"):
        Scenario.read(str(file))


def test_thresholds_name_measures_as_before() -> None:
    assert Threshold.parse("live.late==0").measure == "live.recovered"


@pytest.mark.parametrize("key", ["ledger", "measures", "recovery"])
def test_a_damaged_verdict_of_then_is_said(key: str, tmp_path: Path) -> None:
    shutil.copytree(DATA / "dropped", tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    directory.write_verdict((directory.verdict() or {}) | {key: [7]})
    with pytest.raises(Exception, match="the verdict is not one of this version"):
        Verdict.load(json.loads((tmp_path / "run" / "verdict.json").read_text()))


def test_a_locustfile_with_the_name_of_before_measures_what_it_published() -> None:
    """In a process of its own: the bridge patches it."""
    program = (
        "from dualstream_lab.locust_bridge import PublishingUser\n"
        "class Former(PublishingUser):\n    hears_itself = True\n"
        "class Mute(PublishingUser): pass\n"
        "print(Former.measures_delivery, Mute.measures_delivery)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
