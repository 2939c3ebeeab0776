"""The labs of fan-out on the real stack: what they count is right, and stopping them keeps what is done."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from redis import Redis

from dualstream_lab import lab
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.recording import RunDirectory, list_runs

POLICIES = ("source", "aggregate", "pattern")


def children() -> list[str]:
    """The processes of a lab that are still there."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    return [line for line in lines if "-m dualstream_lab." in line]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"policies": ["source", "sauce"]}, r"policies: .*source, aggregate, pattern \(is 'sauce'\)"),
        ({"policies": []}, "policies: .* at least one"),
        ({"policies": "source"}, "policies: .* a list"),
        ({"channels": 100}, "channels: .* a list"),
        ({"channels": [100, 100]}, "channels: .* each once"),
        ({"channels": [3]}, "channels: .* from 16 to 200,000"),
        ({"channels": [300_000]}, "channels: .* from 1 to 200,000"),
        ({"subscribers": 0}, "subscribers: .* from 1 to 64"),
        ({"repeats": 1.5}, "repeats: .* whole number"),
        ({"rate": "fast"}, "rate: .* number"),
        ({"duration": 0}, "duration: "),
        ({"warm_up": -1}, "warm_up: "),
    ],
)
async def test_bad_arguments_are_refused_before_anything_starts(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        await lab.fan_out(**arguments, progress=pytest.fail)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"ticks": [5]}, "ticks: .* from 0 to 0.1"),
        ({"ticks": 0.005}, "ticks: .* a list"),
        ({"clients": [0]}, "clients: .* from 1 to 5,000"),
        ({"clients": [True]}, "clients: .* whole number"),
        ({"rate": 0}, "rate: "),
        ({"warm_up": 61}, "warm_up: "),
    ],
)
async def test_bad_arguments_of_coalescing_are_refused_before_anything_starts(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        await lab.coalescing(**arguments, progress=pytest.fail)


async def test_every_policy_delivers_everything_and_costs_what_it_subscribes_and_hears(stack, tmp_path):
    table = await lab.fan_out(
        stack=stack, channels=[5_000], subscribers=3, rate=500, duration=1, warm_up=0, root=tmp_path
    )
    assert table.attrs["state"] == "finished"
    assert tuple(table.policy) == POLICIES
    assert (table.delivered + table.missing == 500).all()
    assert table.missing.between(0, table.dropped).all()
    source, aggregate, pattern = table.itertuples()
    # a gateway also wants the word of publishers on what they skipped
    assert source.subscriptions == 5_000 + 3
    assert pattern.subscriptions == 3
    assert pattern.subscriptions < aggregate.subscriptions <= 3 * (3 * 64 + 1)
    assert source.memory_mib > 0.5 > max(aggregate.memory_mib, pattern.memory_mib)
    assert source.messages_per_event <= 1 < aggregate.messages_per_event < pattern.messages_per_event <= 3
    assert (table.storm_s > 0).all()
    assert (table.delay_p50_ms <= table.delay_p99_ms).all()
    # each is a run like others
    for path in table.run:
        run = lab.Run.open(path)
        assert run.state == "finished"
        assert run.ledger.count("delivered") + run.measures["live.dropped"] >= 500
    assert not children()
    assert Redis.from_url(stack.redis_url).pubsub_channels() == []


async def test_a_longer_tick_joins_more_messages_and_is_later(stack, tmp_path):
    table = await lab.coalescing(
        stack=stack, ticks=[0, 0.1], clients=[3], rate=200, duration=2, warm_up=0.5, root=tmp_path
    )
    assert (table.deliveries + table.missing == 3 * 400).all()
    assert table.missing.between(0, 3 * table.dropped).all()
    for sooner, later in pairwise(table.itertuples()):
        assert sooner.tick_ms < later.tick_ms
        assert sooner.messages_per_write < later.messages_per_write
        assert sooner.writes_per_s > later.writes_per_s
        assert sooner.delay_p50_ms < later.delay_p50_ms
    assert not children()


async def test_stopping_keeps_the_rows_until_then(stack, tmp_path):
    lines: list[str] = []
    begun = asyncio.Event()

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith("2 of 3"):
            begun.set()

    doing = asyncio.create_task(
        lab.fan_out(
            stack=stack, channels=[64], rate=100, duration=1, warm_up=0, root=tmp_path, progress=progress
        )
    )
    await begun.wait()
    while not any(run.manifest.started for run in runs(tmp_path) if run.manifest.state == "running"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    doing.cancel()
    table = await doing
    assert table.attrs["state"] == "interrupted"
    assert list(table.policy) == ["source"]
    assert lines == ["1 of 3: source, 64 channels", "2 of 3: aggregate, 64 channels"]
    assert sorted(run.manifest.state for run in runs(tmp_path)) == ["finished", "interrupted"]
    assert not children()


async def test_stopping_before_the_first_row_leaves_nothing(stack, tmp_path):
    begun = asyncio.Event()
    doing = asyncio.create_task(
        lab.coalescing(stack=stack, clients=[1], root=tmp_path, progress=lambda _line: begun.set())
    )
    await begun.wait()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert not list(tmp_path.iterdir())
    assert not children()


async def test_a_listener_that_dies_is_said(stack, tmp_path):
    async def kill() -> None:
        while True:
            for child in psutil.Process().children(recursive=True):
                if "scaling.gateways" in " ".join(child.cmdline()):
                    child.kill()
                    return
            await asyncio.sleep(0.01)

    killing = asyncio.create_task(kill())
    with pytest.raises(StackError, match="the listener process ended"):
        await lab.fan_out(stack=stack, channels=[64], warm_up=0, root=tmp_path)
    await killing
    assert not children()


def runs(root: Path) -> list[RunDirectory]:
    return [run for run in list_runs(root) if isinstance(run, RunDirectory)]
