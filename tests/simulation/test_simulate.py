"""``dualstream simulate``: a scenario without brokers, judged and told as a run is, and marked."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path

import pytest

from dualstream_lab.analysis import Arm
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.report import again
from dualstream_lab.lab.report.report import report as report_of
from dualstream_lab.lab.result import Run
from dualstream_lab.simulation import Deployment
from dualstream_lab.simulation.parameters import deployment_for, deployment_of

SMALL = ("--rate", "2000", "--duration", "14")


def directory(out: str) -> Path:
    return Path(re.findall(r"^run  (\S+)$", out, re.MULTILINE)[-1])


def test_a_scenario_is_simulated_and_judged(dualstream):
    code, out, err = dualstream("simulate", "redis_down.toml", *SMALL, "--json", "v.json", "--junit", "v.xml")
    assert code == 0, err
    assert "nothing was measured" in err
    assert "note: costs of " in err
    assert out.count("held") >= 3
    assert "redis.kill" in out
    run = Run.open(directory(out))
    assert run.directory.manifest.simulated
    assert run.measures["publish.durable"] == 28_000
    assert run.measures["live.dropped"] > 7_000
    assert json.loads(Path("v.json").read_text())["held"] is True
    assert 'failures="0"' in Path("v.xml").read_text()


@pytest.mark.parametrize("trouble", ["redis", "kafka", "network"])
def test_shipped_trouble_ends_well(dualstream, trouble):
    code, out, err = dualstream("simulate", f"{trouble}_trouble.toml", "--rate", "500")
    assert code == 0, out + err
    assert "MISSED" not in out


def test_a_missed_threshold_is_99(dualstream):
    code, out, _ = dualstream("simulate", "redis_down.toml", *SMALL, "--threshold", "live.latency.p99<1ms")
    assert code == 99
    assert "MISSED" in out


def test_parts_are_as_asked_for_and_faults_bring_their_brokers(dualstream):
    parts = ("--publishers", "2", "--partitions", "12", "--shards", "2", "--gateways", "2", "--clients", "4")
    _, out, _ = dualstream("simulate", "smoke.toml", *SMALL, *parts, "--brokers", "3", "--tick", "20ms")
    run = Run.open(directory(out)).directory
    its = deployment_of(run, run.intervals())
    assert (its.publishers, its.partitions, its.shards, its.gateways, its.clients) == (2, 12, 2, 2, 4)
    assert (its.brokers, its.replication_factor, its.tick) == (3, 3, 0.02)
    Path("lost.toml").write_text(
        '[workload]\nrate=100\nduration=9\n[[faults]]\nfault = "kafka.leader-lost"\nat=2\nfor=2\n'
    )
    code, out, err = dualstream("simulate", "lost.toml")
    assert code == 0, err
    run = Run.open(directory(out)).directory
    assert deployment_of(run, run.intervals()).brokers == 3
    code, _, err = dualstream("simulate", "lost.toml", "--brokers", "1")
    assert (code, "--brokers: the scenario's faults need 3 (are 1)" in err) == (2, True)


def test_what_a_report_says_makes_the_same_run_again(dualstream, tmp_path):
    arguments = ("--publishers", "2", "--seed", "5", "--threshold", "publish.errors==0", "--gateways", "2")
    _, out, _ = dualstream("simulate", "redis_mute.toml", *SMALL, *arguments)
    first = Run.open(directory(out))
    report = report_of(first)
    words = again.command(report).split()
    assert words[:3] == ["dualstream", "simulate", "redis_mute.toml"]
    file = tmp_path / "again" / "redis_mute.toml"
    file.parent.mkdir()
    file.write_text(again.scenario(report))
    assert "subscribers" not in tomllib.loads(file.read_text())["users"]
    _, out, _ = dualstream("simulate", str(file), *words[3:])
    second = Run.open(directory(out))
    assert second.directory.manifest.thresholds == first.directory.manifest.thresholds
    assert second.directory.manifest.settings == first.directory.manifest.settings
    assert second.measures == pytest.approx(first.measures, nan_ok=True)


def test_repeats_of_another_seed_are_compared_and_marked_as_are_all_runs(dualstream):
    paths = []
    for seed in ("1", "2"):
        _, out, _ = dualstream("simulate", "smoke.toml", "--rate", "500", "--duration", "4", "--seed", seed)
        paths.append(str(directory(out)))
    assert len(Arm.read("both", paths).runs) == 2
    _, out, err = dualstream("compare", *paths)
    assert "simulated: nothing was measured" in " ".join((out + err).split())
    _, out, _ = dualstream("runs")
    assert out.count("simulated") >= 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope.toml",), "there is no scenario file nope.toml"),
        (("throttled.toml",), "kafka.throttled is not simulated; those that are: kafka.kill"),
        (("smoke.toml", "--partitions", "2", "--brokers", "4"), "brokers: must be at most partitions"),
        (("smoke.toml", "--clients", "100"), "--clients: are at gateways"),
        (("smoke.toml", "--gateways", "2", "--subscribers", "3"), "--subscribers: with --gateways"),
        (("smoke.toml", "--calibration", "nope.json"), "nope.json cannot be read"),
        (("smoke.toml", "--rate", "0"), "rate"),
        (("smoke.toml", "--threshold", "live<"), "threshold"),
        (("smoke.toml", "--json", "no/such/file"), "there is no directory"),
    ],
)
def test_bad_arguments_are_named(dualstream, arguments, says):
    Path("throttled.toml").write_text(
        '[workload]\nrate=100\nduration=9\n[[faults]]\nfault = "kafka.throttled"\nat=2\nfor=2\n'
    )
    code, _, err = dualstream("simulate", *arguments)
    assert code == 2
    assert says in err
    assert not Path("runs").exists()


def test_lanes_are_the_callers_of_each_publisher():
    its = deployment_for(Settings(buffer_events=50), concurrency=100, publishers=3, partitions=9)
    assert (its.callers, its.buffer_events, its.publishers, its.partitions) == (100, 50, 3, 9)
    assert its.replication_factor == 1
    assert deployment_for(Settings(), brokers=4, replication_factor=2).replication_factor == 2
    assert math.isclose(deployment_for(Settings(redis_timeout=0.5)).redis_timeout, 0.5)
    assert deployment_for(Settings()).brokers == Deployment().brokers
    with pytest.raises(ConfigError, match="replication_factor"):
        deployment_for(Settings(), brokers=1, replication_factor=2)
