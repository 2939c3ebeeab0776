"""Recorded runs on a real Kafka and a real Valkey, from the lab and from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dualstream_lab import analysis, lab
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import shipped_scenarios
from dualstream_lab.workload import Workload


def cli(*arguments: str, **more):
    return subprocess.run(
        [sys.executable, "-m", "dualstream_lab.cli", *arguments], capture_output=True, text=True, timeout=110,
        check=False, **more,
    )  # fmt: skip


async def short(tmp_path, stack, **more):
    values = {"rate": 2000, "duration": 2, "warm_up": 0.5, "live": False, "root": tmp_path, "stack": stack}
    return await lab.run(**(values | more))


async def test_a_run_accounts_for_every_event_and_loads_no_gevent(tmp_path, stack):
    run = await short(tmp_path, stack, thresholds=["publish.errors==0", "ledger.lost==0", "live.missing==0"])
    found = run.measures
    assert run.state == "finished"
    assert run.held, [check.text for check in run.checks]
    for name in (
        "publish.intended",
        "publish.durable",
        "live.notified",
        "live.delivered",
        "durable.consumed",
    ):
        assert found[name] == 4000, name
    assert found["ledger.orphan"] == found["live.repeated"] == found["durable.repeated"] == 0
    assert found["publish.latency.p99"] >= found["publish.latency_raw.p99"] > 0
    assert 0 < found["durable.lag.max"] < 60_000
    assert "gevent" not in sys.modules
    assert "<table>" in run._repr_html_()
    assert "finished, held" in repr(run)

    frames = analysis.load(run)
    assert len(frames.events) == 4000
    assert frames.events[["publish_ms", "live_ms", "consumed_ms"]].notna().all(axis=None)
    assert (frames.events["live_ms"] > 0).all()
    assert {"generator", "redis", "kafka"} == set(frames.seconds["writer"])
    again = lab.Run.open(run.path)
    assert again.measures == run.measures
    verdict = json.loads((run.path / "verdict.json").read_text())
    assert verdict["held"] is True
    assert not list(run.path.glob("*.log")), "no process had anything to complain of"


async def test_a_long_run_keeps_a_sample_of_the_same_events(tmp_path, stack):
    scenario = lab.Scenario(workload=Workload(rate=5000, duration=2), max_rows=1000, warm_up=0)
    run = await run_scenario(scenario, stack=stack, root=tmp_path)
    frames = analysis.load(run)
    assert frames.sample == 10
    assert 500 < len(frames.events) < 2000
    assert frames.events[["live_ms", "consumed_ms"]].notna().all(axis=None), "every kind has the same events"
    assert run.measures["publish.durable"] == 10_000, "counters have all"
    assert run.measures["ledger.lost"] == 0


async def test_a_paused_redis_is_recorded_and_publishing_goes_on(tmp_path, stack):
    fault = lab.Fault(name="redis.stop", at=1, length=1)
    run = await short(tmp_path, stack, duration=3, faults=[fault])
    frames = analysis.load(run)
    begin, end = frames.faults["begin_s"].iloc[0], frames.faults["end_s"].iloc[0]
    assert 1 <= begin <= end - 1 < 3
    assert run.measures["publish.durable"] == 6000
    assert run.measures["publish.errors"] == run.measures["ledger.lost"] == 0
    assert not stack.redis.paused
    assert run.recovery.header[1].startswith("redis.stop at 1.")
    assert run.ledger.recoveries == run.verdict.recoveries
    assert run.limit.endswith(")") or "nothing" in run.limit


async def test_a_killed_kafka_comes_back_and_loses_nothing(tmp_path, stack):
    fault = lab.Fault(name="kafka.kill", at=1, length=0.5)
    run = await short(tmp_path, stack, rate=500, duration=3, faults=[fault])
    assert stack.brokers[0].running
    assert run.measures["ledger.lost"] == 0
    assert run.measures["publish.latency.max"] > 400


async def test_cancelling_keeps_what_was_recorded(tmp_path, stack):
    begun = asyncio.Event()

    def show(progress):
        if progress.counters.get("durable", 0) > 1000:
            begun.set()

    scenario = lab.Scenario(workload=Workload(rate=2000, duration=60), warm_up=0)
    running = asyncio.create_task(run_scenario(scenario, stack=stack, root=tmp_path, show=show))
    async with asyncio.timeout(60):
        await begun.wait()
        running.cancel()  # what Ctrl-C and the stop button do
        run = await running
    assert run.state == "interrupted"
    assert 1000 < run.measures["publish.durable"] == len(analysis.load(run).events)
    assert run.measures["durable.consumed"] == run.measures["publish.durable"]


async def test_a_plan_that_cannot_be_kept_is_given_up_and_the_rest_is_unsent(tmp_path, stack, monkeypatch):
    monkeypatch.setattr("dualstream_lab.lab.runner.time_limit", lambda *_: 3)
    began = time.monotonic()
    run = await short(tmp_path, stack, rate=50_000, batch=1, users=lab.Users(concurrency=1))
    assert time.monotonic() - began < 40
    found = run.measures
    assert run.state == "finished"
    assert found["publish.unsent"] > 50_000
    assert found["publish.unsent"] + found["publish.durable"] == found["publish.intended"] == 100_000
    assert not run.held if run.checks else found["publish.latency.p50"] == float("inf")


@pytest.mark.parametrize("command", [["smoke"], ["find-rate"]], ids=" ".join)
def test_ctrl_c_while_the_brokers_start_ends_them(tmp_path, command):
    with subprocess.Popen(
        [sys.executable, "-m", "dualstream_lab.cli", *command], cwd=tmp_path, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        while "starting Kafka" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


async def test_a_notebook_stopped_while_its_brokers_start_ends_them(tmp_path):
    scenario = lab.Scenario(workload=Workload(rate=100, duration=1))
    running = asyncio.create_task(run_scenario(scenario, root=tmp_path))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not list(tmp_path.iterdir())


async def test_killed_generators_leave_a_readable_run_and_an_error(tmp_path, stack):
    file = tmp_path / "mine.toml"
    file.write_text("warm_up = 0.5\n[workload]\nrate = 10_000\nduration = 60\n")
    runs = tmp_path / "runs"
    ours = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "dualstream_lab.cli", "run", str(file), *where(stack, tmp_path)],
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(runs.glob("*/published-*.parquet"))) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait(60)
    (path,) = runs.iterdir()
    frames = analysis.load(path)
    assert len(frames.events) >= 10_000
    assert any("did not end" in problem for problem in frames.problems)
    shown = cli("runs", str(path))
    assert "its writers died" in shown.stderr
    assert "publish: intended to ack" in shown.stdout
    # its children end by themselves: their stdin has ended
    manifest = lab.Run.open(path).directory.manifest
    assert manifest.state == "running"
    deadline = time.monotonic() + 60
    while _children_of_run(path):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


def _children_of_run(path: Path) -> list[int]:
    import psutil

    running = psutil.process_iter(["cmdline"])
    return [p.pid for p in running if any(str(path) in word for word in p.info["cmdline"] or ())]


async def test_bad_surroundings_are_refused_before_any_load(tmp_path, stack):
    nowhere = Settings.load(kafka_url="127.0.0.1:1", redis_url=stack.redis_url, start_timeout=1)
    with pytest.raises(StreamUnavailable, match="could not be reached"):
        await lab.run(settings=nowhere, root=tmp_path, live=False, warm_up=0)
    no_topic = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic="nobody-made-it")
    with pytest.raises(ConfigError, match="nobody-made-it"):
        await lab.run(settings=no_topic, root=tmp_path, live=False, warm_up=0)
    no_redis = Settings.load(kafka_url=stack.kafka_url, redis_url="redis://127.0.0.1:1", topic=stack.topic)
    with pytest.raises(StreamUnavailable, match="could not subscribe"):
        await lab.run(settings=no_redis, root=tmp_path, live=False, warm_up=0)
    with pytest.raises(ConfigError, match="faults need the local stack"):
        await lab.run("redis_down.toml", settings=nowhere, root=tmp_path, live=False)
    assert not list(tmp_path.iterdir()), "no run directory for what did not run"


def where(stack, tmp_path):
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", stack.topic, "--yes",
            "--runs", str(tmp_path / "runs")]  # fmt: skip


@pytest.mark.usefixtures("_short_warm_up")
def test_smoke_gives_ci_a_verdict(tmp_path, stack, dualstream):
    files = ["--junit", str(tmp_path / "v.xml"), "--json", str(tmp_path / "v.json")]
    code, out, err = dualstream("smoke", *where(stack, tmp_path), "--rate", "2000", "--duration", "3", *files)
    assert code == 0, out + err
    assert "publish: intended to ack" in out
    assert "next:" in err
    suite = ET.parse(tmp_path / "v.xml").getroot().find("testsuite")
    assert suite.get("failures") == "0"
    assert {case.get("name") for case in suite.iter("testcase")} >= {"the run finished", "publish.errors==0"}
    verdict = json.loads((tmp_path / "v.json").read_text())
    assert verdict["held"] is True
    assert verdict["measures"]["publish.durable"] == 6000
    listed = dualstream("runs", str(tmp_path / "runs"))[1]
    assert "smoke-" in listed
    assert "held" in listed


def test_a_missed_threshold_gives_99_and_says_by_how_much(tmp_path, stack):
    file = tmp_path / "mine.toml"
    file.write_text("warm_up = 0.5\n[workload]\nrate = 500\nduration = 1\n")
    threshold = ["--threshold", "live.latency.p99<1us", "--junit", str(tmp_path / "v.xml")]
    done = cli("run", str(file), *where(stack, tmp_path), *threshold)
    assert done.returncode == 99
    assert "MISSED" in done.stdout
    assert "(by " in done.stdout
    assert ET.parse(tmp_path / "v.xml").getroot().find("testsuite").get("failures") == "1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["smoke", "--kafka", "127.0.0.1:1", "--yes"], 3, "could not be reached"),
        (["smoke", "--kafka", "127.0.0.1:1"], 2, "give --yes if load may go there"),
        (["smoke", "--topic", "a b"], 2, "topic"),
        (["smoke", "--use-env"], 2, "DUALSTREAM_KAFKA_URL is not set"),
        (["smoke", "--rate", "0"], 2, "rate: must be from 0.1"),
        (["smoke", "--threshold", "x<1"], 2, "there is no measure 'x'"),
        (["smoke", "--redis", "redis://127.0.0.1:1"], 2, "--redis without --kafka"),
        (["smoke", "--junit", "no/such/place/v.xml"], 2, "there is no directory"),
        (["run", "nothing.toml"], 2, "shipped ones"),
        (["run", "redis_down.toml", "--kafka", "127.0.0.1:1", "--yes"], 2, "faults need the local stack"),
        (["find-rate", "--rate", "5"], 2, "give --low and --high"),
        (["runs", "no-such-directory"], 3, "there is no directory no-such-directory"),
    ],
)
def test_mistakes_are_said_before_anything_runs(tmp_path, dualstream, arguments, code, message):
    returned, output, errors = dualstream(*arguments)
    assert (returned, output) == (code, "")
    assert message in errors
    assert not list(tmp_path.glob("runs/*/*"))


def test_what_can_be_asked_for_is_listed(dualstream):
    assert "redis_down.toml" in dualstream("run", "--list")[1]
    assert "live.latency.p99 " in dualstream("run", "--measures")[1]
    for name, text in shipped_scenarios().items():
        assert dualstream("run", "--show", name) == (0, text, "")
    assert "must be one of" in dualstream("run", "--show", "mine.toml")[2]


def test_find_rate_says_the_rate_and_what_saturated(tmp_path, stack):
    limits = ["--low", "400", "--high", "800", "--repeats", "1", "--duration", "1", "--publish-p99", "5000"]
    done = cli("find-rate", *where(stack, tmp_path), *limits, "--live-p99", "5000")
    assert done.returncode == 0, done.stderr
    assert "800 events/s hold" in done.stdout
    assert "nothing: the highest rate that was allowed held" in done.stdout
    assert "next: dualstream smoke" in done.stderr
