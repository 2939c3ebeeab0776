"""Redis in trouble: no publish fails or waits; what is skipped is counted and its source announced."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from redis.asyncio import Redis

from dualstream_lab import DualPublisher
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.event import decode_notification, resync_channel
from dualstream_lab.faults.proxy.proxy import Proxy
from dualstream_lab.faults.proxy.toxics import Reset
from dualstream_lab.publisher.notifier import Notifier
from dualstream_lab.publisher.redis_link import RedisLink
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.stack.valkey import find_redis, redis_process

from .helpers import events, heard, key_of, mute, until

RESYNC = resync_channel()


def accounted(publisher: DualPublisher) -> bool:
    stats = publisher.stats()
    return stats.notified + sum(stats.dropped.values()) == stats.durable


async def announced(messages: list[tuple[str, bytes]]) -> set[str]:
    """The sources on the resync channel, once there are any."""
    await until(lambda: any(channel == RESYNC for channel, _ in messages))
    sources: set[str] = set()
    for channel, message in messages:
        if channel == RESYNC:
            sources |= set(json.loads(message)["sources"])
    return sources


async def test_no_publish_waits_for_redis(stack, settings):
    async with DualPublisher(settings(redis_timeout=20)) as publisher:
        await publisher.publish_batch(events(100))
        assert await publisher.flush()
        await mute(stack.redis)
        for number in range(100):
            await publisher.publish_batch(events(20))
            stats = publisher.stats()
            # No exchange with Redis has ended since, neither well nor by its timeout.
            assert (stats.notified, stats.dropped, stats.redis_up) == (100, {}, True)
            assert stats.durable == 100 + 20 * (number + 1)
        stack.redis.resume()
        assert await publisher.flush()
        assert accounted(publisher)


@pytest.mark.parametrize("trouble", ["killed", "mute"])
async def test_redis_away_fails_no_publish_and_is_healed(stack, settings, trouble, caplog):
    async with DualPublisher(settings(redis_timeout=0.1)) as publisher:
        await publisher.publish_batch(events(100))
        assert await publisher.flush()
        assert publisher.stats().redis_up
        if trouble == "killed":
            stack.redis.kill()
        else:
            await mute(stack.redis)
        with caplog.at_level(logging.WARNING):
            for _ in range(100):
                await publisher.publish_batch(events(20))
            await until(lambda: publisher.stats().dropped.get("redis down"))
        assert publisher.stats().durable == 2100
        assert not publisher.stats().redis_up
        assert publisher.stats().dirty_sources == 20
        assert 1 <= len(caplog.records) < 20, "warnings are limited"
        assert "dropped" in caplog.text
        listening = asyncio.Event()
        link = publisher._notifier._link
        connect = link.connect

        async def connect_when_heard() -> None:
            await listening.wait()
            await connect()

        link.connect = connect_when_heard
        (stack.redis.start if trouble == "killed" else stack.redis.resume)()
        async with heard(stack.redis_url) as messages:
            listening.set()
            assert await announced(messages) == {f"repo:owner/r{n}" for n in range(20)}
            await publisher.publish_batch(events(40))
            assert await publisher.flush()
            await until(lambda: sum(channel != RESYNC for channel, _ in messages) >= 40)
        assert accounted(publisher)
        assert publisher.stats().dirty_sources == 0
        numbers = [decode_notification(m).pub.split(":")[1] for c, m in messages if c != RESYNC]
        assert min(map(int, numbers)) > 100, "the dropped ones took their numbers: a subscriber sees a hole"


async def test_a_redis_busy_with_a_script_is_given_up_on_in_time(stack, settings):
    client = Redis.from_url(stack.redis_url, socket_timeout=30)
    async with DualPublisher(settings(redis_timeout=0.1)) as publisher, client:
        await publisher.publish_batch(events(10))
        await publisher.flush()
        busy = asyncio.create_task(client.eval("for i = 1, 200000000 do end return 1", 0))
        async with asyncio.timeout(20):
            while not sum(publisher.stats().dropped.values()):
                await publisher.publish_batch(events(5))
        await busy
        await until(lambda: publisher.stats().resyncs)
        assert await publisher.flush()
        assert accounted(publisher)


async def killed_clients(stack) -> None:
    """Ends the publisher's connection; the test's own is not one of type normal any more."""
    async with Redis.from_url(stack.redis_url) as client:
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def timed_out(stack) -> None:
    """The server ends connections that were idle for a second; subscribers are not idle to it."""
    async with Redis.from_url(stack.redis_url) as client:
        await client.config_set("timeout", 1)
        try:
            async with asyncio.timeout(20):
                while any(each["name"] != "test" for each in await idle_clients(client)):
                    pass
        finally:
            await client.config_set("timeout", 0)


async def idle_clients(client: Redis) -> list[dict[str, str]]:
    await client.client_setname("test")
    return await client.client_list(_type="normal")


async def restarted(stack) -> None:
    stack.redis.stop()
    stack.redis.start()


@pytest.mark.parametrize("end", [killed_clients, timed_out])
async def test_a_connection_that_died_while_idle_costs_no_notification(stack, settings, end, caplog):
    async with heard(stack.redis_url) as messages, DualPublisher(settings(redis_timeout=10)) as publisher:
        for number in range(3):
            await publisher.publish_batch(events(10, start=10 * number))
            await publisher.flush()
            await end(stack)
        await publisher.publish_batch(events(10, start=30))
        assert await publisher.flush()
        await until(lambda: len(messages) >= 40)
        stats = publisher.stats()
        assert (stats.notified, stats.dropped, stats.resyncs) == (40, {}, 0)
        ids = [json.loads(message)["id"] for _, message in messages]
        assert len(set(ids)) == len(ids) == 40, "nothing is lost, and nothing told twice"
    assert "Redis" not in caplog.text


async def test_a_redis_that_restarted_while_idle_costs_no_notification(stack, settings):
    async with DualPublisher(settings(redis_timeout=10)) as publisher:
        await publisher.publish_batch(events(10))
        await publisher.flush()
        await restarted(stack)
        async with heard(stack.redis_url) as messages:
            await publisher.publish_batch(events(10))
            assert await publisher.flush()
            await until(lambda: len(messages) == 10)
        assert (publisher.stats().notified, publisher.stats().dropped) == (20, {})
        assert accounted(publisher)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_was_reset_while_idle_is_known_before_it_is_used(stack, loop):
    async def check(proxy: Proxy) -> None:
        link = RedisLink("redis://{}:{}".format(*proxy.address), timeout=1.0)
        await link.connect()
        assert await link.check()
        proxy.set(Reset())  # in its own thread; this loop has not seen anything yet
        link._answered = 0.0
        assert not await link.check()
        assert not link.connected

    host, port = stack.redis_url.removeprefix("redis://").split(":")
    with Proxy((host, int(port))) as proxy, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(check(proxy))


async def test_a_demoted_redis_never_fails_a_publish(stack, settings):
    async with DualPublisher(settings()) as publisher, Redis.from_url(stack.redis_url) as client:
        await publisher.publish_batch(events(10))
        await client.replicaof("127.0.0.1", "1")
        try:
            for _ in range(5):
                await publisher.publish_batch(events(10))
            assert await publisher.flush()
        finally:
            await client.replicaof("NO", "ONE")
        assert publisher.stats().durable == 60
        assert accounted(publisher)


async def test_a_full_queue_drops_the_oldest_and_counts(stack, settings):
    async with DualPublisher(settings(notify_queue=50, redis_timeout=5)) as publisher:
        told: list[str] = []
        publisher.tell_drops(lambda keys, reason: told.extend(keys))
        await mute(stack.redis)
        made: list[str] = []
        for start in range(0, 500, 50):
            batch = events(50, start=start)
            made += map(key_of, batch)
            await publisher.publish_batch(batch)
        stats = publisher.stats()
        assert stats.queued_notifications <= 50
        assert stats.dropped["queue full"] >= 350
        assert len(set(told)) == len(told) == sum(stats.dropped.values())
        assert set(told) <= set(made)
        async with asyncio.timeout(10):
            stack.redis.resume()
            assert await publisher.flush()
        assert accounted(publisher)


@asynccontextmanager
async def slowed(url: str, delay: float) -> AsyncIterator[str]:
    """A proxy that holds every answer of Redis for a while."""
    port = int(url.rpartition(":")[2])
    pipes: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        try:
            while data := await reader.read(65_536):
                await asyncio.sleep(delay)
                writer.write(data)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        pipes.add(asyncio.create_task(pipe(reader, back, 0)))
        pipes.add(asyncio.create_task(pipe(there, writer, delay)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in pipes:
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def test_a_slow_redis_is_dropped_from_and_never_waited_for(stack, settings):
    async with (
        slowed(stack.redis_url, 0.5) as url,
        DualPublisher(settings(redis_url=url, redis_timeout=10, notify_queue=500)) as publisher,
    ):
        started = time.perf_counter()
        for number in range(100):
            await publisher.publish_batch(events(100, start=number * 100))
        # A hundred waits for Redis would take 50 s.
        assert time.perf_counter() - started < 25
        assert await publisher.flush()
        assert accounted(publisher)
        stats = publisher.stats()
        assert stats.notified > 0
        assert stats.dropped["queue full"] > 0
        assert stats.durable == 10_000


async def test_what_waits_for_redis_is_no_work_for_the_garbage_collector(stack, settings):
    # Ten thousand tracked objects would be a pause of milliseconds for whoever publishes.
    async with DualPublisher(settings(redis_timeout=30)) as publisher:
        await publisher.publish_batch(events(100))
        assert await publisher.flush()
        await mute(stack.redis)
        gc.collect()
        before = len(gc.get_objects())
        for number in range(100):
            await publisher.publish_batch(events(100, start=number * 100))
        assert publisher.stats().queued_notifications > 8000
        gc.collect()
        assert len(gc.get_objects()) - before < 1000
        stack.redis.resume()


async def test_it_starts_without_redis_and_finds_it_later(stack, settings):
    stack.redis.kill()
    async with DualPublisher(settings()) as publisher:
        await publisher.publish_batch(events(10))
        stack.redis.start()
        await until(lambda: publisher.stats().redis_up)
        await publisher.publish_batch(events(10))
        assert await publisher.flush()
        assert accounted(publisher)


async def test_a_refused_publish_is_counted(stack, settings):
    async with Redis.from_url(stack.redis_url) as client:
        await client.acl_setuser(
            "shy", enabled=True, passwords=["+pw"], commands=["+@all"], reset=True, reset_channels=True
        )
        try:
            url = stack.redis_url.replace("redis://", "redis://shy:pw@")
            async with DualPublisher(settings(redis_url=url)) as publisher:
                await publisher.publish_batch(events(10))
                await until(lambda: publisher.stats().dropped.get("redis refused") == 10)
                assert accounted(publisher)
        finally:
            with suppress(Exception):
                await client.acl_deluser("shy")


async def test_what_was_refused_is_announced_once_that_is_allowed_again(stack, settings):
    async with Redis.from_url(stack.redis_url) as client, heard(stack.redis_url) as messages:
        await client.acl_setuser(
            "shy", enabled=True, passwords=["+pw"], commands=["+@all", "-publish"], channels=["*"]
        )
        try:
            url = stack.redis_url.replace("redis://", "redis://shy:pw@")
            async with DualPublisher(settings(redis_url=url)) as publisher:
                batch = events(10)
                await publisher.publish_batch(batch)
                await until(lambda: publisher.stats().dropped.get("redis refused") == 10)
                assert await publisher.flush()
                assert (publisher.stats().resyncs, publisher.stats().redis_up) == (0, True)
                await client.acl_setuser("shy", commands=["+publish"])
                wanted = {f"{event.source_type}:{event.source_id}" for event in batch}
                assert await announced(messages) == wanted
                await until(lambda: publisher.stats().resyncs == 1)
                assert publisher.stats().dirty_sources == 0
        finally:
            with suppress(Exception):
                await client.acl_deluser("shy")


@pytest.mark.parametrize("url", ["redis+sentinel://h:1", "redis://a:1,b:2", "rediscluster://h:1"])
def test_cluster_and_sentinel_urls_are_refused_by_name(settings, url):
    with pytest.raises(ConfigError, match=r"Cluster|Sentinel"):
        settings(redis_url=url)


async def test_a_server_in_cluster_mode_is_refused_by_name(settings, tmp_path):
    port, bus = free_ports(2)  # the bus is at port + 10000 by default, where somebody else may be
    process = redis_process(
        find_redis(),
        port=port,
        directory=tmp_path,
        remove=None,
        settings=("--cluster-enabled", "yes", "--cluster-port", str(bus)),
        tls=None,
        tls_port=0,
    )
    process.start()
    try:
        with pytest.raises(ConfigError, match=r"Redis Cluster, which is not supported"):
            await DualPublisher(settings(redis_url=f"redis://127.0.0.1:{port}")).start()
    finally:
        process.kill()


async def test_closing_while_the_connection_is_made_anew_ends_at_whatever_moment(stack):
    """redis-py's handshake can swallow the cancellation that ends the notifier."""
    for moment in range(80):
        notifiers = [
            Notifier(RedisLink(stack.redis_url, timeout=1.0), nonce="n", limit=10, epoch="e")
            for _ in range(5)
        ]
        for notifier in notifiers:
            await notifier.start()
            await notifier._link.close()
            notifier._wake.set()
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await asyncio.gather(*(notifier.close() for notifier in notifiers))
        assert all(notifier._task.done() for notifier in notifiers), moment


def test_a_reset_connection_is_trouble_of_redis_on_uvloop_too(stack):
    async def check(proxy: Proxy) -> None:
        link = RedisLink("redis://{}:{}".format(*proxy.address), timeout=1.0)
        await link.connect()
        transport = link._connection._writer.transport
        await asyncio.to_thread(proxy.set, Reset())
        await until(transport.is_closing)
        with pytest.raises(StreamUnavailable):
            await link.role()
        assert not link.connected

    host, port = stack.redis_url.removeprefix("redis://").split(":")
    with Proxy((host, int(port))) as proxy:
        uvloop.run(check(proxy))
