"""Every Redis fault bites, as an independent client sees it, and nothing is left of it however it ends."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress

import pytest

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.injector import broken
from dualstream_lab.faults.redis.probe import Link, ask
from dualstream_lab.faults.spec import CATALOGUE

from .conftest import PARAMETERS, REDIS_FAULTS, bites_each_time

LASTING = [name for name in REDIS_FAULTS if not CATALOGUE[name].instant]


def made(target, name):
    return CATALOGUE[name](target, **PARAMETERS.get(name, {}))


@pytest.mark.parametrize("name", REDIS_FAULTS)
async def test_it_bites_and_is_over(target, whole, name):
    before = await whole()
    async with broken(target, name, **PARAMETERS.get(name, {})) as evidence:
        assert evidence
    assert await whole() == before


@pytest.mark.parametrize("name", LASTING)
async def test_it_is_not_over_before_its_end(target, whole, name):
    before = await whole()
    fault = made(target, name)
    try:
        await fault.begin()
        await fault.verify_active()
        with pytest.raises((FaultInert, StreamUnavailable, TimeoutError)):
            # A stopped Redis does not answer, and would be waited for.
            async with asyncio.timeout(1 if name == "redis.stop" else None):
                await fault.verify_ended()
    finally:
        await fault.end()
    assert await fault.verify_ended()
    assert await whole() == before


@pytest.mark.parametrize("name", LASTING)
async def test_what_was_not_begun_is_inert_and_may_be_ended(target, whole, name):
    before = await whole()
    fault = made(target, name)
    with pytest.raises(FaultInert):
        await bites_each_time(fault)
    await fault.end()
    await fault.end()
    assert await fault.verify_ended()
    assert await whole() == before


@pytest.mark.parametrize("name", REDIS_FAULTS)
async def test_a_begin_that_is_cut_short_is_undone(target, whole, name):
    before = await whole()
    for moment in (0, 0.0005, 0.001, 0.002, 0.005, 0.02):
        fault = made(target, name)
        beginning = asyncio.create_task(fault.begin())
        await asyncio.sleep(moment)
        beginning.cancel()
        await asyncio.wait([beginning])
        await fault.end()
        assert await fault.verify_ended(), moment
        assert await whole() == before, moment


async def test_who_lost_his_place_waits_for_one_to_accept_clients_again(target):
    fault = made(target, "redis.maxclients")
    await fault.begin()
    await fault._links[0].close()  # as where the begin is cut short
    async with Link(target.direct.redis_url) as other:
        while True:  # Redis has to notice
            with suppress(StreamUnavailable):
                await other.ask("PING")
                break
        ending = asyncio.create_task(fault.end())
        done, _ = await asyncio.wait([ending], timeout=0.3)
        assert not done
    await ending
    assert await fault.verify_ended()


async def test_a_restart_that_was_none_is_inert(target, monkeypatch):
    process = target.stack.redis
    monkeypatch.setattr(process, "kill", lambda: None)  # a process that nothing can kill
    with pytest.raises(FaultInert, match=r"redis\.restart does not bite: a connection of before goes on"):
        async with broken(target, "redis.restart"):
            pass


async def test_out_of_memory_evicts_nothing(target):
    async with Link(target.direct.redis_url) as link:
        await link.ask("SET", "precious", "1")
        await link.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            async with broken(target, "redis.oom"):
                assert await link.ask("GET", "precious") == "1"
            assert await link.ask("GET", "precious") == "1"
            assert await link.setting("maxmemory-policy") == "allkeys-lru"
        finally:
            await link.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await link.ask("DEL", "precious")


async def test_a_replica_is_not_made_to_copy_everything_again(target):
    await ask(target.direct.redis_url, "REPLICAOF", "127.0.0.1", "0")
    try:
        with pytest.raises(
            FaultInert, match=r"redis\.readonly cannot be begun: this Redis is a slave already"
        ):
            async with broken(target, "redis.readonly"):
                pass
        async with Link(target.direct.redis_url) as link:
            assert await link.info("role") == "slave"
    finally:
        await ask(target.direct.redis_url, "REPLICAOF", "NO", "ONE")


async def test_who_is_connected_stays_when_no_more_are_accepted(target):
    async with Link(target.direct.redis_url) as link:
        await link.ask("PING")
        async with broken(target, "redis.maxclients"):
            assert await link.ask("PING") == "PONG"


async def test_a_slow_redis_is_slow_only_where_the_load_goes(target):
    async with broken(target, "redis.slow", delay_ms=300):
        for tries_left in reversed(range(5)):  # a busy machine may be as slow, once
            with suppress(StreamUnavailable) if tries_left else nullcontext():
                await ask(target.direct.redis_url, "PING", timeout=0.3)
                break
        with pytest.raises(StreamUnavailable):
            await ask(target.settings.redis_url, "PING", timeout=0.3)
