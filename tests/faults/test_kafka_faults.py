"""Each fault of Kafka on the real brokers: that it bit, as others see it, and that it is over."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from dualstream_lab.config import Settings
from dualstream_lab.errors import FaultInert, StackError, StreamUnavailable
from dualstream_lab.event import Event
from dualstream_lab.faults.evidence import KAFKA, Server, address_of
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.injector import broken, open_target, recover
from dualstream_lab.faults.journal import left_behind
from dualstream_lab.faults.kafka import admin as kafka_admin
from dualstream_lab.faults.kafka import cluster as kafka
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.publisher import DualPublisher

from .conftest import bites_each_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from dualstream_lab.faults.fault import Fault
    from dualstream_lab.faults.kafka.admin import Admin
    from dualstream_lab.publisher import Receipt
    from dualstream_lab.stack import LocalStack

Restart, Slow, Stop, Throttled, LeaderLost, NotEnoughReplicas = (
    CATALOGUE[f"kafka.{name}"]
    for name in ("restart", "slow", "stop", "throttled", "leader-lost", "not-enough-replicas")
)
ALONE = [kind for name, kind in CATALOGUE.items() if name.startswith("kafka.") and kind.brokers == 1]
PARAMETERS = {"kafka.slow": {"delay_ms": 60.0}, "kafka.throttled": {"rate_kib": 50.0}}
EVENT = Event(type="push", source_type="repo", source_id="a/b", data={"n": 1})


@pytest.fixture
async def target(stack: LocalStack, settings: Callable[..., Settings]) -> AsyncIterator[Target]:
    """One broker, and the proxy before it."""
    names = [kind.name for kind in ALONE]
    async with open_target(settings(delivery_timeout=20), names, stack=stack) as opened:
        yield opened


@pytest.fixture
async def three(cluster: LocalStack) -> Target:
    """Three brokers, and a topic on all of them."""
    topic = f"test-{uuid4().hex[:12]}"
    await asyncio.to_thread(cluster.create_topic, topic)
    where = Settings.load(
        kafka_url=cluster.kafka_url, redis_url=cluster.redis_url, topic=topic, delivery_timeout=30
    )
    target = Target(direct=where, settings=where, stack=cluster)
    await Restart(target).verify_ended()  # a new topic is not known to every broker at once
    return target


async def published(target: Target) -> Receipt:
    async with DualPublisher(target.settings) as publisher:
        return await publisher.publish(EVENT)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """What is changed is told to a broker a moment later."""
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.name)
async def test_each_bites_and_is_over(target: Target, kind: type[Fault]) -> None:
    # a publisher of before lives through it, and one of after works
    async with DualPublisher(target.settings) as publisher:
        await publisher.publish(EVENT)
        async with broken(target, kind.name, **PARAMETERS.get(kind.name, {})) as evidence:
            assert evidence
            meanwhile = asyncio.ensure_future(publisher.publish(EVENT))
            if kind.name in {"kafka.kill", "kafka.stop"}:
                await asyncio.wait([meanwhile], timeout=0.5)
                assert not meanwhile.done()
        await meanwhile
    assert await published(target)


@pytest.mark.parametrize("kind", ALONE, ids=lambda kind: kind.name)
async def test_without_it_there_is_no_evidence(
    target: Target, kind: type[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_SPREAD", 0.5)
    fault = kind(target, **PARAMETERS.get(kind.name, {}))
    with pytest.raises(FaultInert):
        await bites_each_time(fault)
    monkeypatch.undo()
    await fault.end()  # of what was not begun
    assert await fault.verify_ended()


# Of those that a broker need not be started after, which takes seconds.
@pytest.mark.parametrize("kind", [Stop, Slow, Throttled], ids=lambda kind: kind.name)
async def test_while_it_lasts_it_is_not_over(
    target: Target, kind: type[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = kind(target, **PARAMETERS.get(kind.name, {}))
    try:
        await fault.begin()
        await fault.verify_active()
        monkeypatch.setattr(kafka_admin, "_TIMEOUT", 1.0)
        monkeypatch.setattr(kafka, "_SPREAD", 0.5)
        monkeypatch.setattr(kafka, "_BACK", 0.5)
        with pytest.raises((FaultInert, StreamUnavailable)):
            await fault.verify_ended()
    finally:
        await fault.end()
        await fault.end()
    monkeypatch.undo()
    assert await fault.verify_ended()


@pytest.mark.parametrize("kind", [Stop, Slow, Throttled], ids=lambda kind: kind.name)
async def test_a_begin_that_is_cut_short_is_undone(target: Target, kind: type[Fault]) -> None:
    fault = kind(target, **PARAMETERS.get(kind.name, {}))
    beginning = asyncio.create_task(fault.begin())
    await asyncio.sleep(0.005)
    beginning.cancel()
    with suppress(asyncio.CancelledError):
        await beginning
    await fault.end()
    assert await fault.verify_ended()


async def test_slow_is_slow_where_the_load_goes_and_nowhere_else(target: Target) -> None:
    async with broken(target, "kafka.slow", delay_ms=60) as evidence:
        assert float(evidence.split()[-2]) >= 120  # ms
        assert await Server(address_of(target.direct.kafka_url or ""), KAFKA).answers(within=0.1)
        began = time.monotonic()
        await published(target)
        assert time.monotonic() - began >= 0.24  # connects, and asks several times


async def test_a_throttled_producer_takes_as_long_as_the_quota_says_and_says_so(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    # The quota counts what was sent within some 11 s: 600 KB are more than 11 s worth of it.
    big = Event(type="push", source_type="repo", source_id="a/b", data={"x": "y" * 100_000})
    async with (
        DualPublisher(target.settings) as publisher,
        broken(target, "kafka.throttled", rate_kib=50) as evidence,
    ):
        assert "held back for" in evidence
        began = time.monotonic()
        for _ in range(3):
            await publisher.publish_batch([big] * 3)
        assert time.monotonic() - began > 0.5
    assert "Kafka throttles this client: it offers more than its quota" in caplog.text


async def test_a_quota_that_there_was_is_put_back(target: Target) -> None:
    async with administration(target.direct) as admin:

        async def is_five() -> bool:
            return await admin.quota() == 5e8

        async def is_none() -> bool:
            return await admin.quota() is None

        try:
            await admin.set_quota(5e8)
            await until(is_five)
            async with broken(target, "kafka.throttled", rate_kib=100):
                assert await admin.quota() == 100 * 1024
            assert await is_five()
        finally:
            await admin.set_quota(None)
        await until(is_none)


async def test_a_topic_s_other_settings_stay(target: Target) -> None:
    name, other = "min.insync.replicas", "retention.ms"
    async with administration(target.direct) as admin:

        async def is_inherited() -> bool:
            return await admin.topic_setting(name) is None

        assert await admin.topic_setting(name) == "1"
        await admin.set_topic_setting(other, "7654321")
        await admin.set_topic_setting(name, None)
        await until(is_inherited)
        assert await admin.topic_setting(other) == "7654321"
        with pytest.raises(StreamUnavailable, match=other):
            await admin.set_topic_setting(other, "soon")


async def test_what_is_tried_is_never_written(target: Target) -> None:
    async with administration(target.direct) as admin:
        await until(lambda: refuses_what_is_broken(admin))
        assert await admin.throttled(admin.brokers()[0], 1000) == 0
    assert "all 6 partitions" in await Restart(target).verify_ended()
    assert (await published(target)).offset == 0


async def refuses_what_is_broken(admin: Admin) -> bool:
    partitions = await admin.partitions()
    answers = {await admin.try_to_write(number, one.leader) for number, one in partitions.items()}
    return answers == {"CorruptRecordException"}


async def test_a_quota_that_a_crash_left_is_mended(
    settings: Callable[..., Settings], stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    foreign = Target(direct=settings(), settings=settings(), owned=True)
    fault = Throttled(foreign, rate_kib=50)
    await fault.begin()
    fault._entry.close()  # as its process ends
    (entry,) = left_behind()
    assert "no quota" in await recover(entry)
    async with administration(foreign.direct) as admin:
        assert await admin.quota() is None


async def test_kafka_that_is_not_ours_is_not_killed(settings: Callable[..., Settings]) -> None:
    foreign = Target(direct=settings(), settings=settings(), owned=True)
    with pytest.raises(StackError, match="not of the local stack"):
        await Stop(foreign).begin()
    with pytest.raises(StackError, match="no proxy"):
        await Slow(foreign).begin()


async def test_an_absent_topic_is_told(target: Target) -> None:
    target.direct = target.direct.model_copy(update={"topic": "nobody-made-this"})
    with pytest.raises(StreamUnavailable, match="nobody-made-this"):
        await Restart(target).partitions()


async def test_a_lost_leader_moves_and_is_back(three: Target) -> None:
    assert three.stack is not None
    fault = LeaderLost(three)
    before = await fault.partitions()
    async with DualPublisher(three.settings) as publisher, broken(three, "kafka.leader-lost") as evidence:
        dead = [n for n, one in enumerate(three.stack.brokers, 1) if not one.running]
        leads = [one.leader for one in before.values()]
        assert dead == [max(range(1, 4), key=leads.count)] or leads.count(dead[0]) == 2
        assert f"broker {dead[0]} led 2 partitions" in evidence
        after = await fault.partitions()
        assert all(one.leader not in dead for one in after.values())
        await publisher.publish(EVENT)
    assert all(one.running for one in three.stack.brokers)
    assert all(one.whole for one in (await fault.partitions()).values())


async def test_too_few_replicas_refuse_and_are_enough_again(
    three: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_MOVED", 1.0)
    with pytest.raises(FaultInert, match="answered CorruptRecordException"):
        await NotEnoughReplicas(three).verify_active()
    monkeypatch.undo()
    assert three.stack is not None
    async with DualPublisher(three.settings) as publisher:
        async with broken(three, "kafka.not-enough-replicas") as evidence:
            assert "NotEnoughReplicas" in evidence
            assert sum(not one.running for one in three.stack.brokers) == 1
            meanwhile = asyncio.ensure_future(publisher.publish(EVENT))
            await asyncio.wait([meanwhile], timeout=1)
            assert not meanwhile.done()
        await meanwhile
        async with administration(three.direct) as admin:
            assert await admin.topic_setting("min.insync.replicas") == "2"
        await publisher.publish(EVENT)
