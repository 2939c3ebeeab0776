"""Runs with faults, as a user has them: on the command line and in a notebook."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualstream_lab import lab
from dualstream_lab.errors import ConfigError, FaultInert
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.workload import Workload

from .conftest import redis_state

OOM = """
warm_up = 0
[workload]
rate = 500
duration = 90
[[faults]]
fault = 'redis.oom'
at = 0.5
for = 80
"""


@contextmanager
def chaos(*arguments: str, cwd: Path, ignoring: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "dualstream_lab.cli", "chaos", *arguments]
    if ignoring:
        command = ["sh", "-c", f"trap '' {ignoring}; exec \"$@\"", "sh", *command]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"XDG_STATE_HOME": str(cwd / "state"), "COLUMNS": "200"},
    ) as process:  # fmt: skip
        yield process


async def short(tmp_path, stack, what, **more):
    values = {"rate": 1000, "duration": 3, "warm_up": 0.5, "live": False, "root": tmp_path, "stack": stack}
    fault = lab.Fault(name=what, at=1, length=1, parameters=more)
    return await lab.run(**(values | {"faults": [fault]}))


def test_every_fault_is_listed_with_its_parameters(dualstream):
    code, output, _ = dualstream("chaos", "--list")
    assert code == 0
    for kind in CATALOGUE.values():
        assert kind.name in output
        for one in kind.parameters:
            assert f"{one.name} = {one.default:g}" in output


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (None, False, "SCENARIO is missing: a file, or one of `dualstream run --list`"),
        ("[workload]\nrate = 5\n", False, "has no [[faults]]: dualstream chaos --list"),
        ("[[faults]]\nfault = 'redis.burn'\nat = 1\n", False, ", line 2: fault: must be one of redis.kill"),
        (OOM, True, "redis.oom: changes brokers that are not of the local stack"),
        (OOM.replace("oom", "kill"), True, "redis.kill: such faults need the local stack"),
    ],
)
def test_mistakes_are_said_before_anything_runs(
    tmp_path, stack, dualstream, monkeypatch, text, where, message
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    arguments = []
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
        arguments.append("mine.toml")
    if where:
        arguments += ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--yes"]
    code, output, errors = dualstream("chaos", *arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("number", "ignoring"),
    [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGTERM, "INT")],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM to `chaos &`"],
)
async def test_an_interrupted_run_leaves_brokers_of_the_user_as_they_were(
    tmp_path, stack, topic, number, ignoring
):
    before = await redis_state(stack.redis_url)
    (tmp_path / "oom.toml").write_text(OOM)
    where = ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--target-is-mine"]

    def interrupted() -> tuple[str, str]:
        with chaos("oom.toml", *where, cwd=tmp_path, ignoring=ignoring) as process:
            assert process.stderr is not None
            lines = []
            while "redis.oom bites" not in "".join(lines[-1:]):
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            assert list(tmp_path.glob("state/dualstream-lab/faults/*.json"))
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        return output, errors

    output, errors = await asyncio.to_thread(interrupted)
    assert "Traceback" not in errors
    assert "it was interrupted" in errors
    assert "redis.oom" in output, "what was broken, and the evidence, is told"
    assert await redis_state(stack.redis_url) == before
    assert not list(tmp_path.glob("state/dualstream-lab/faults/*"))


async def test_the_load_goes_through_the_proxy_and_the_evidence_is_kept(tmp_path, stack):
    run = await short(tmp_path, stack, "redis.slow", delay_ms=70)
    (record,) = run.directory.manifest.faults
    assert float(record.bite.removeprefix("an answer takes ").split()[0]) >= 140  # ms
    assert record.over.startswith("a new connection has its answer in")
    assert run.measures["live.latency.max"] > 140, "one way for the publisher, one for the subscriber"
    assert run.measures["live.latency.p50"] < 140
    assert run.measures["publish.errors"] == run.measures["ledger.lost"] == 0


async def test_a_fault_that_does_not_bite_ends_the_run_and_keeps_what_was_recorded(
    tmp_path, stack, monkeypatch
):
    monkeypatch.setattr("dualstream_lab.faults.redis.commands._FILL", 0)  # as if nobody was refused
    with pytest.raises(
        FaultInert, match=r"redis\.maxclients does not bite: .*; recorded until then: "
    ) as error:
        await short(tmp_path, stack, "redis.maxclients")
    path = Path(str(error.value).rpartition(": ")[2])
    run = lab.Run.open(path)
    assert run.state == "interrupted"
    assert run.measures["publish.durable"] > 100
    assert (await redis_state(stack.redis_url))["maxclients"] != "0"


async def test_a_stopped_notebook_leaves_the_stack_whole(tmp_path, stack):
    before = await redis_state(stack.redis_url)
    broken = asyncio.Event()
    plan = lab.Scenario(
        workload=Workload(rate=500, duration=60),
        faults=(lab.Fault(name="redis.kill", at=0.5, length=50),),
        warm_up=0,
    )
    running = asyncio.create_task(
        run_scenario(
            plan, stack=stack, root=tmp_path, say=lambda line: broken.set() if "bites" in line else None
        )
    )
    async with asyncio.timeout(60):
        await broken.wait()
        assert not stack.redis.running
        running.cancel()
        run = await running
    assert run.state == "interrupted"
    assert run.directory.manifest.faults[0].end
    assert stack.redis.running
    assert await redis_state(stack.redis_url) == before


async def test_a_notebook_says_that_brokers_are_the_users(tmp_path, settings):
    fault = lab.Fault(name="redis.oom", at=0.2, length=0.5)
    more = {"rate": 500, "duration": 1, "warm_up": 0, "live": False, "root": tmp_path, "faults": [fault]}
    with pytest.raises(ConfigError, match=r"redis\.oom: changes brokers"):
        await lab.run(settings=settings(), **more)
    run = await lab.run(settings=settings(), target_is_mine=True, **more)
    assert run.directory.manifest.faults[0].over == "a write is accepted"
