"""Faults happen at their time, their evidence is kept, and nothing stays broken however that ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from dualstream_lab.errors import ConfigError, FaultInert
from dualstream_lab.faults.fault import Fault
from dualstream_lab.faults.injector import broken, carry_out, open_target
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.recording import Clocks, Manifest, RunDirectory
from dualstream_lab.tasks import finished
from dualstream_lab.workload import Workload


@pytest.fixture
def directory(tmp_path):
    clocks = Clocks.now()
    manifest = Manifest(
        name="x", run="x", ids="0" * 24, clocks=clocks, workload=Workload().as_dict(), settings={}
    )
    manifest.started = clocks.monotonic
    return RunDirectory(tmp_path, manifest)


def seconds(directory):
    zero = directory.manifest.started
    return [((one.begin - zero) / 1e9, (one.end - zero) / 1e9) for one in directory.manifest.faults]


async def test_faults_happen_at_their_time_and_their_evidence_is_kept(target, whole, directory):
    before = await whole()
    said = []
    specs = [
        FaultSpec(name="redis.kill", at=0.2, length=0.3, every=1.0, times=2),
        FaultSpec(name="redis.slow", at=2.0, length=0.5, parameters={"delay_ms": 70}),
        FaultSpec(name="redis.restart", at=3.0),
    ]
    await carry_out(specs, target, directory, said.append)
    assert await whole() == before
    kept = RunDirectory.open(directory.path).manifest.faults
    assert kept == directory.manifest.faults
    assert [one.name for one in kept] == ["redis.kill", "redis.kill", "redis.slow", "redis.restart"]
    assert all(one.bite and one.over and one.end > one.begin for one in kept)
    for (begin, end), (at, length) in zip(
        seconds(directory), [(0.2, 0.3), (1.2, 0.3), (2, 0.5), (3, 0)], strict=True
    ):
        assert at <= begin < at + 5
        assert length <= end - begin < length + 5
    assert len(said) == 8
    assert said[0] == "redis.kill bites: a new connection is refused"
    assert said[1].startswith("redis.kill is over: a PUBLISH is received")


async def test_who_is_not_back_yet_is_waited_for(target, directory, monkeypatch):
    start = target.stack.redis.start

    def slow_start():  # a server that takes its time to come back
        time.sleep(0.6)
        start()

    monkeypatch.setattr(target.stack.redis, "start", slow_start)
    specs = [
        FaultSpec(name="redis.kill", at=0.0, length=0.1),
        FaultSpec(name="redis.stop", at=0.2, length=0.1),
    ]
    await carry_out(specs, target, directory, lambda _: None)
    (_, first_end), (second_begin, _) = seconds(directory)
    assert second_begin >= first_end > 0.6


async def test_an_inert_fault_ends_the_others_and_says_what_was_seen(target, whole, directory, monkeypatch):
    before = await whole()
    monkeypatch.setattr("dualstream_lab.faults.redis.commands._FILL", 0)  # as if nobody was refused
    specs = [
        FaultSpec(name="redis.maxclients", at=0.1, length=20),
        FaultSpec(name="redis.kill", at=60, length=1),
    ]
    async with asyncio.timeout(30):
        with pytest.raises(
            FaultInert, match=r"^redis\.maxclients does not bite: 0 new connections are accepted"
        ):
            await carry_out(specs, target, directory, lambda _: None)
    assert await whole() == before
    (record,) = directory.manifest.faults
    assert record.end
    assert not record.bite


async def test_a_schedule_that_is_interrupted_leaves_all_whole(target, whole, directory):
    before = await whole()
    begun = asyncio.Event()
    for what in ("redis.kill", "redis.stop", "redis.oom", "redis.busy", "redis.flap"):
        specs = [FaultSpec(name=what, at=0, length=60)]
        directory.manifest.started = time.monotonic_ns()
        begun.clear()
        task = asyncio.create_task(carry_out(specs, target, directory, lambda _: begun.set()))
        async with asyncio.timeout(60):
            await begun.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # Ctrl-C again, while it is being undone
            await asyncio.wait([task])
        assert task.cancelled(), what
        assert await whole() == before, what
        assert directory.manifest.faults[-1].end, "when it ended is kept"


async def test_the_end_comes_also_when_the_block_fails(target, whole):
    before = await whole()
    with pytest.raises(ZeroDivisionError):
        async with broken(target, "redis.oom"):
            1 / 0  # noqa: B018
    assert await whole() == before


async def test_the_end_comes_also_when_the_block_is_cancelled_again_and_again(target, whole):
    before = await whole()
    for moment in range(1, 30, 3):
        begun = asyncio.Event()

        async def block(begun=begun) -> None:
            async with broken(target, "redis.oom"):
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(block())
        async with asyncio.timeout(60):
            await begun.wait()
            for _ in range(3):
                task.cancel()
                for _ in range(moment):
                    await asyncio.sleep(0)
            await asyncio.wait([task])
        assert task.cancelled(), moment
        assert await whole() == before, moment


async def test_a_block_that_is_short_lasts_as_long_as_was_asked_for(target):
    began = time.monotonic()
    async with broken(target, "redis.oom", length=0.4):
        pass
    assert 0.4 <= time.monotonic() - began < 10


async def test_wrong_names_and_targets_are_refused_before_anything_is_broken(target, settings, monkeypatch):
    monkeypatch.setattr(Fault, "__init__", None)  # nothing may be made
    with pytest.raises(ConfigError, match="fault: must be one of"):
        async with broken(target, "redis.burn"):
            pass
    with pytest.raises(ConfigError, match=r"unknown key 'delay'; known for redis\.slow: .*, delay_ms"):
        async with broken(target, "redis.slow", delay=3):
            pass
    with pytest.raises(ConfigError, match="needs a Redis, and none was given"):
        async with open_target(settings(redis_url=None), ["redis.slow"]):
            pass
    with pytest.raises(ConfigError, match="redis_url: a fault proxy needs redis://"):
        async with open_target(settings(redis_url="rediss://127.0.0.1:1"), ["redis.slow"]):
            pass


async def test_what_undoes_is_not_cut_short():
    done = []

    async def undo():
        await asyncio.sleep(0.05)
        done.append(True)

    task = asyncio.create_task(finished(undo()))
    for _ in range(5):
        await asyncio.sleep(0.005)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert done == [True]
