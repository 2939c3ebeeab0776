"""`/readyz`, and what is called whole: both are compared with the end of the log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import StoreError
from dualstream_lab.lab import serve as serve_module
from dualstream_lab.processor import Processor
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import curl, joined
from tests.gateway.estate import (
    delete_below,
    estate,
    events_of,
    metric,
    ready_of,
    until_ready,
    until_stored,
)
from tests.gateway.published import Published, at, ids, new_source
from tests.gateway.serving import Server, serve_settings, served, until_so


async def until_not_ready(server: Server, *words: str) -> str:
    """What it says of the processor, once all of these words are in it."""

    async def said() -> bool:
        status, parts = await ready_of(server)
        return status == 503 and all(word in parts["processor"] for word in words)

    await until_so(said, True)
    return str((await ready_of(server))[1]["processor"])


async def test_a_store_that_nobody_feeds(stack: LocalStack):
    """R5: neither ready, nor whole."""
    source = new_source()
    with estate(stack, "unfed", store_timeout=0.5) as made:
        processor = await asyncio.to_thread(lambda: made.start("processor"))
        processor.kill()
        gateway = await asyncio.to_thread(lambda: made.start("gateway"))
        await until_not_ready(gateway, "no processor feeds this store")
        assert (await events_of(gateway, source, since="earliest"))["recovered"] is True, "it has nothing"
        async with Published(made) as publish:
            sent = ids(await publish(source, 5))
        page = await events_of(gateway, source, since="earliest")
        assert (page["events"], page["recovered"], page["reason"]) == ([], False, "store_lag")
        page = await events_of(gateway, source)
        assert (page["recovered"], page["reason"]) == (False, "store_lag")
        # By Kafka it is whole all the same.
        async with joined(gateway.ws, source, since="earliest") as ear:
            assert ear.ids() == sent
            assert next(ear.of("subscribed"))["recovered"] is True
        assert await metric(gateway, "store_lag_messages") == 5
        assert await metric(gateway, "feeders") == 0


@pytest.mark.parametrize("codec", ["zstd", "lz4", "snappy", "gzip"])
async def test_compressed_topics_are_served(stack: LocalStack, codec: str):
    """R5, and by Kafka itself while the processor stands still."""
    source = new_source()
    with estate(stack, "packed", topic_settings={"compression.type": codec}) as made:
        processor = await asyncio.to_thread(lambda: made.start("processor"))
        gateway = await asyncio.to_thread(lambda: made.start("gateway", store_timeout=0.3))
        async with Published(made) as publish:
            sent = ids(await publish(source, 5))
            await until_ready(gateway)
            page = await events_of(gateway, source, since="earliest")
            assert (page["events"], page["recovered"]) == (sent, True)
            await processor.pause()
            sent += ids(await publish(source, 5))
            async with joined(gateway.ws, source, since="earliest") as ear:
                assert ear.ids() == sent
                assert next(ear.of("subscribed"))["recovered"] is True
            processor.process.resume()


async def test_a_processor_that_dies_is_missed_and_one_that_comes_is_seen(stack: LocalStack):
    source = new_source()
    with estate(stack, "dies", ready_lag=2) as made:
        processor = await asyncio.to_thread(lambda: made.start("processor"))
        gateway = await asyncio.to_thread(lambda: made.start("gateway"))
        await until_ready(gateway)
        assert await metric(gateway, "feeders") == 1
        # It stands still, and has not been missed yet: the store is behind.
        await processor.pause()
        async with Published(made) as publish:
            await publish(source, 7)
        await until_not_ready(gateway, "behind the log", "7 messages")
        await until_not_ready(gateway, "no processor feeds this store", "was seen")
        assert await metric(gateway, "store_lag_messages") == 7
        assert await metric(gateway, "store_lag_seconds") > 2
        processor.process.resume()
        await until_ready(gateway)
        assert await metric(gateway, "store_lag_seconds") == 0


async def test_a_processor_that_died_is_started_again_and_said_meanwhile(
    stack: LocalStack, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A fake that dies twice, to force the moment. Whoever listens hears on."""
    runs: list[float] = []
    let_go = asyncio.Event()

    class Dying(Processor):
        async def run(self) -> None:
            runs.append(time.monotonic())
            if len(runs) == 1:
                raise StoreError("no room left")
            if len(runs) == 2:
                raise RuntimeError("what nobody expected")
            await let_go.wait()
            await super().run()

    monkeypatch.setattr(serve_module, "Processor", Dying)
    monkeypatch.setattr(serve_module, "_PAUSES", (0.5, 5.0))
    settings = serve_settings(stack, topic, tmp_path, group=topic)
    source = new_source()
    async with (
        served(settings, "processor", "gateway") as url,
        joined(url.replace("http", "ws") + "/ws", source) as ear,
        aiohttp.ClientSession() as session,
    ):

        async def said() -> str:
            async with session.get(f"{url}/readyz") as answer:
                return str((await answer.json())["processor"])

        await until_so(lambda: contains(said, "it has died: no room left"), True)
        await until_so(lambda: contains(said, "it has died: RuntimeError"), True)
        async with DualPublisher(settings) as publisher:
            receipt = await publisher.publish(Event(type="push", source_type="repo", source_id=source[5:]))
        assert await ear.receive(1) == [receipt.event_id]
        let_go.set()
        await until_so(said, "up")
    assert len(runs) == 3
    assert runs[1] - runs[0] >= 0.5
    assert runs[2] - runs[1] >= 1.0


async def contains(said: Callable[[], Awaitable[str]], words: str) -> bool:
    return words in await said()


async def test_two_stores_in_one_group_have_half_each(stack: LocalStack):
    with estate(stack, "halves") as made:
        first = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        await until_ready(first)
        other = made.directory / "other.db"
        second = await asyncio.to_thread(lambda: made.start("processor", "gateway", store=other))
        for server in (first, second):
            said = await until_not_ready(server, "no processor that feeds this store has them")
            assert str(made.where["group"]) in said
        await second.end()
        await until_ready(first)


async def test_a_full_disk_is_the_processors_trouble_alone(stack: LocalStack):
    """F7: ingester and gateway go on, and once there is room the store catches up."""
    source = new_source()
    with estate(stack, "full") as made:
        server = await asyncio.to_thread(lambda: made.start("ingester", "processor", "gateway"))
        await until_ready(server)
        process = psutil.Process(server.process.pid)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        full = max(path.stat().st_size for path in made.directory.glob("store.db*"))
        process.rlimit(psutil.RLIMIT_FSIZE, (full, before[1]))  # as a disk without room for one page more

        async def post() -> None:
            event = json.dumps({"type": "push", "source_type": "repo", "source_id": source[5:]})
            kind = ("-H", "Content-Type: application/json")
            assert (await curl(f"{server.url}/ingest", *kind, "-d", event)).status == 202

        async with joined(server.ws, source) as ear:
            for _ in range(200):
                await post()
            await ear.receive(200)
            said = await until_not_ready(server, "store.db failed (disk I/O error)")
            assert str(made.directory) not in said, "where it is is nobody's business"
            assert await metric(server, "processor_up") == 0
            process.rlimit(psutil.RLIMIT_FSIZE, before)
            await until_ready(server)
            assert len((await events_of(server, source, since="earliest", limit=1000))["events"]) == 200
        assert server.process.running


async def test_a_hole_in_the_middle_is_said(stack: LocalStack):
    """R15: the processor stood still while Kafka's retention went on."""
    source = new_source()
    with estate(stack, "hole") as made:
        processor = await asyncio.to_thread(lambda: made.start("processor"))
        gateway = await asyncio.to_thread(lambda: made.start("gateway"))
        async with Published(made) as publish:
            places = await publish(source, 5)
            await until_stored(gateway, places[4])
            async with joined(gateway.ws, source) as ear:
                old = at(ear.cursor, places[2].offset)
            processor.kill()
            places += await publish(source, 5)
            await delete_below(stack, made.where["topic"], places[8].partition, places[8].offset)
            await processor.start()
            await until_stored(gateway, places[9])
            left = ids(places[8:])
            page = await events_of(gateway, source, since="earliest")
            assert (page["events"], page["recovered"], page["reason"]) == (left, False, "retention")
            page = await events_of(gateway, source, since=old)
            assert (page["events"], page["recovered"], page["reason"]) == ([], False, "retention")
            page = await events_of(gateway, source, since=at(old, places[8].offset))
            assert (page["events"], page["recovered"]) == (left[1:], True)
            async with joined(gateway.ws, source, since="earliest") as ear:
                (told,) = ear.of("subscribed")
                assert (ear.ids(), told["recovered"], told["reason"]) == (left, False, "retention")
                new = await publish(source, 1)
                assert await ear.receive(3) == left + ids(new)
            async with joined(gateway.ws, source, since=old) as ear:
                (told,) = ear.of("subscribed")
                assert (ear.ids(), told["recovered"], told["reason"]) == ([], False, "retention")


async def test_bad_cursors_are_named(plain, publish, source):
    (place,) = await publish(source)
    async with joined(plain.ws, source) as ear:
        epoch, _, where = ear.cursor.partition(":")
    bad = {
        f"{epoch}:9:1": "partition 9; the topic has 6",
        f"{epoch}:{where}~7:1": "partition 7; the topic has 6",
        f"{epoch}:1:1~1:2": "twice",
        f"{epoch}:1:1~": "epoch:partition:offset",
        f"{epoch}:1:1~2": "epoch:partition:offset",
        "x" * 20_000: "",
    }
    for cursor, word in bad.items():
        for path in ("events", "sse"):
            if len(cursor) > 8000:
                continue  # no URL of this server's
            answer = await curl(f"{plain.url}/{path}?source={source}&since={cursor}")
            assert answer.status == 400, (path, cursor)
            assert word in answer.json["error"]
        async with joined(plain.ws) as socket:
            await socket.say(subscribe=source, since=cursor)
            assert word in (await socket.see("error"))["error"]
    for cursor in ("0123456789ab:77:5~9:1", f"{epoch}:{place.partition}:{place.offset + 1000}"):
        page = await events_of(plain, source, since=cursor)
        assert (page["recovered"], page["reason"], page["events"]) == (False, "epoch_changed", [])


async def test_without_kafka_a_page_says_that_there_may_be_more(stack: LocalStack):
    source = new_source()
    with estate(stack, "away", store_timeout=1.0) as made:
        server = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with Published(made) as publish:
            sent = ids(await publish(source, 3))

        async def recovered() -> bool:
            return bool((await events_of(server, source, since="earliest"))["recovered"])

        await until_ready(server)
        await until_so(recovered, True)  # so the store has them
        stack.brokers[0].pause()
        began = time.monotonic()
        page = await events_of(server, source, since="earliest")
        assert time.monotonic() - began < 10
        assert (page["events"], page["recovered"], page["reason"]) == (sent, False, "log_unavailable")
        stack.brokers[0].resume()

        await until_so(recovered, True)
