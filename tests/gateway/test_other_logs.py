"""What is said on Redis that is not of this log, or not true."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from dualstream_lab.stack import LocalStack
from tests.gateway.clients import joined
from tests.gateway.estate import estate, events_of, metric, until_ready
from tests.gateway.published import Published, ids, new_source
from tests.gateway.serving import until_so


@pytest.mark.parametrize(
    ("upstream", "policy"),
    [("source", {}), ("pattern", {}), ("aggregate", {"channel_policy": "shard", "channel_shards": 2})],
)
async def test_two_topics_on_one_redis(stack: LocalStack, upstream: str, policy: dict[str, Any]):
    """R1: the same source in both, and places that both have."""
    source = new_source()
    with estate(stack, "prod", upstream=upstream, **policy) as prod, estate(stack, "staging") as staging:
        gateway = await asyncio.to_thread(lambda: prod.start("processor", "gateway"))
        async with (
            Published(prod, **policy) as publish,
            Published(staging, **policy) as stage,
            joined(gateway.ws, source) as ear,
        ):
            await stage.named(source, "staging-0", "staging-1")
            await publish.named(source, "prod-0", "prod-1", "prod-2")
            assert await ear.receive(3) == ["prod-0", "prod-1", "prod-2"]
            assert not any("late" in event for event in ear.of("event")), "each was heard"
            await stage.named(source, "staging-2")
            last = await publish.named(source, "prod-3")
            await ear.until(lambda: ear.ids() == [f"prod-{number}" for number in range(4)])
            await ear.see("sync")
            assert await metric(gateway, "other_epoch_notifications_total") == 3
            await until_ready(gateway)
            assert (await events_of(gateway, source, since="earliest"))["events"] == ear.ids()
            assert ids(last) == ["prod-3"]


async def test_a_prefix_keeps_estates_apart(stack: LocalStack):
    source = new_source()
    with estate(stack, "prod", channel_prefix="blue:") as prod, estate(stack, "staging") as staging:
        gateway = await asyncio.to_thread(lambda: prod.start("processor", "gateway"))
        async with (
            Published(prod, channel_prefix="blue:") as publish,
            Published(staging) as stage,
            joined(gateway.ws, source) as ear,
            Redis.from_url(stack.redis_url) as redis,
        ):
            assert dict(await redis.pubsub_numsub(f"blue:events:{source}", "blue:events:_resync")) == {
                f"blue:events:{source}".encode(): 1,
                b"blue:events:_resync": 1,
            }
            await stage.named(source, "staging-0")
            await publish.named(source, "prod-0")
            assert await ear.receive(1) == ["prod-0"]
            assert await metric(gateway, "other_epoch_notifications_total") == 0
            lost = await publish.named(source, "prod-1", silent=True)
            await redis.publish("events:_resync", json.dumps({"sources": [source]}))
            await redis.publish("blue:events:_resync", json.dumps({"sources": [source]}))
            assert (await ear.receive(2))[1:] == ids(lost)


async def test_the_resync_of_another_log_is_ignored(patient, stack: LocalStack, publish, source):
    before = await metric(patient, "other_epoch_notifications_total")
    async with joined(patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        epoch = ear.cursor.partition(":")[0]
        lost = await publish(source, 1, silent=True)
        said = {"sources": [source], "log": "0123456789ab"}
        await redis.publish("events:_resync", json.dumps(said))

        async def counted() -> float:
            return await metric(patient, "other_epoch_notifications_total") - before

        await until_so(counted, 1)
        assert ear.ids() == []
        await redis.publish("events:_resync", json.dumps(said | {"log": epoch}))
        assert await ear.receive(1) == ids(lost)


async def test_nothing_that_redis_says_is_believed_beyond_the_end(plain, stack: LocalStack, publish, source):
    """F8: a place of 10^15 and a hole in the numbers, then a reconnect."""
    before = await metric(plain, "notifications_beyond_end_total")
    async with joined(plain.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        (place,) = await publish(source)
        await ear.receive(1)
        note = {"type": "push", "source_id": source[5:], "log": ear.cursor.partition(":")[0]}
        for number, pos in (
            (1, f"{place.partition}:{10**15}"),
            (9, f"{place.partition}:{10**17}"),
            (1, "77:5"),
        ):
            said = note | {"id": f"forged-{pos}", "pos": pos, "pub": f"x:{number}"}
            await redis.publish(f"events:{source}", json.dumps(said))

        async def dropped() -> float:
            return await metric(plain, "notifications_beyond_end_total") - before

        await until_so(dropped, 3)
        await redis.client_kill_filter(_type="pubsub")
        await ear.see("degraded")
        await ear.see("live")
        (more,) = await publish(source)
        assert await ear.receive(2) == [place.id, more.id]


async def test_what_is_announced_in_the_name_of_a_place_hides_nothing(
    plain, stack: LocalStack, publish, source
):
    """Within what the log may have reached since: told, as it cannot be known; the true one is told, too."""
    async with joined(plain.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        (place,) = await publish(source)
        await ear.receive(1)
        epoch = ear.cursor.partition(":")[0]
        note = {"id": "forged", "type": "push", "source_id": source[5:], "log": epoch}
        await redis.publish(
            f"events:{source}", json.dumps(note | {"pos": f"{place.partition}:{place.offset + 1}"})
        )
        await ear.receive(2)
        (silent,) = await publish(source, 1, silent=True)
        heard = await ear.receive(3)
        assert heard == [place.id, "forged", silent.id]
