"""A topic that gets more partitions, or is made anew, under those who serve it."""

from __future__ import annotations

import asyncio
import time

import pytest

from dualstream_lab.errors import StackError
from dualstream_lab.kafka_log import partition_of
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import curl, joined, streaming
from tests.gateway.estate import (
    estate,
    event_of,
    events_of,
    grow,
    make_anew,
    metric,
    producer,
    ready_of,
    until_ready,
    write,
)
from tests.gateway.published import Published, ids, new_source
from tests.gateway.serving import until_so


def moving_source(before: int, after: int) -> str:
    """One that is written to a partition that is added, when there are more."""
    while partition_of(source := new_source(), after) < before:
        pass
    return source


async def test_partitions_are_added_under_a_gateway_and_its_clients(stack: LocalStack):
    """R3: everything is told, old cursors are valid, the earliest is whole; nobody is restarted."""
    sources = [moving_source(6, 9) for _ in range(3)]
    with estate(stack, "grow") as made:
        topic = made.where["topic"]
        server = await asyncio.to_thread(lambda: made.start("ingester", "processor", "gateway"))
        async with Published(made, refresh_interval=1.0) as publish, joined(server.ws, *sources) as ear:
            sent = {source: ids(await publish(source, 2)) for source in sources}
            await ear.receive(6)
            old = {source: next(ear.of("subscribed", source))["cursor"] for source in sources}
            await grow(stack, topic, 9)
            began = time.monotonic()
            for number in range(80):  # for as long as it takes everybody to notice, and longer
                for source in sources:
                    sent[source] += ids(await publish(source, 1, silent=number % 5 == 0))
                await asyncio.sleep(0.05)
            for source in sources:
                wanted = {*sent[source]}
                await ear.until(lambda: wanted <= {*ear.ids(source)})  # noqa: B023
                assert len(ear.ids(source)) == len(sent[source]), "nothing twice"
            assert time.monotonic() - began < 30
            await ear.until(lambda: all("~" in ear_cursor(ear, source) for source in sources))
            places = {message["pos"].partition(":")[0] for message in ear.of("event")}
            assert any(int(partition) >= 6 for partition in places)
            for source in sources:
                page = await events_of(server, source, since="earliest", limit=1000)
                assert (sorted(page["events"]), page["recovered"]) == (sorted(sent[source]), True)
                page = await events_of(server, source, since=old[source], limit=1000)
                assert (sorted(page["events"]), page["recovered"]) == (sorted(sent[source]), True)
                async with streaming(server.url, source, since=old[source]) as stream:
                    assert sorted(stream.ids()) == sorted(sent[source])
                    assert next(stream.of("subscribed"))["recovered"] is True
                async with joined(server.ws, source, since=page["cursor"]) as again:
                    assert again.ids() == []
        await until_ready(server)
        assert server.process.running


def ear_cursor(ear, source: str) -> str:
    return next(m["cursor"] for m in reversed(ear.messages) if m.get("source") == source and "cursor" in m)


async def test_an_event_in_a_partition_that_nobody_noticed_yet_is_told_at_once(stack: LocalStack):
    """The notification itself is the reason to look."""
    with estate(stack, "soon", refresh_interval=100, check_interval=100) as made:
        gateway = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        source = moving_source(6, 7)
        async with joined(gateway.ws, source) as ear:
            await grow(stack, made.where["topic"], 7)
            async with Published(made) as publish:  # knows seven from its start
                (place,) = await publish(source)
                assert await ear.receive(1, timeout=10) == [place.id]
                assert "late" not in next(ear.of("event"))


async def test_where_other_partitioners_put_it_it_is_found(stack: LocalStack):
    """By any other hash, or by none: it is told, read, resumed."""
    source = new_source()
    with estate(stack, "elsewhere") as made:
        topic = made.where["topic"]
        server = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with producer(stack) as other, Published(made) as publish, joined(server.ws, source) as ear:
            sent = ids(await publish(source, 2))
            for partition in range(6):
                await write(other, topic, source, f"other-{partition}", partition=partition)
                sent.append(f"other-{partition}")
            sent += ids(await publish(source, 2))
            await ear.until(lambda: {*sent} == {*ear.ids()})
            await until_ready(server)
            page = await events_of(server, source, since="earliest", limit=3)
            seen = page["events"]
            while page["more"]:
                assert page["recovered"] is True
                page = await events_of(server, source, since=page["cursor"], limit=3)
                seen += page["events"]
            assert sorted(seen) == sorted(sent)
            assert page["cursor"].count("~") == 5
            async with joined(server.ws, source, since="earliest") as all_:
                assert sorted(all_.ids()) == sorted(sent)
                half = [m["cursor"] for m in all_.of("event")][4]
                told = set(all_.ids()[:5])
            async with joined(server.ws, source, since=half) as rest:
                assert told | set(rest.ids()) == set(sent)
                assert not told & set(rest.ids())


async def test_a_topic_made_anew_is_told_and_said(stack: LocalStack):
    """Nobody goes on as if nothing were; nobody else ends."""
    source = new_source()
    with estate(stack, "anew") as made:
        server = await asyncio.to_thread(lambda: made.start("ingester", "processor", "gateway"))
        async with Published(made) as publish, joined(server.ws, source) as ear:
            await publish(source, 3)
            await ear.receive(3)
            old = ear.cursor
            await until_ready(server)
        async with joined(server.ws, source) as ear:
            await make_anew(stack, made.where["topic"])
            told = await ear.see("subscribed", count=2)
            assert (told["recovered"], told["reason"]) == (False, "epoch_changed")
            assert told["cursor"].partition(":")[0] != old.partition(":")[0]
            async with Published(made) as publish:
                (new,) = await publish(source)
                assert await ear.receive(1) == [new.id]

            async def said() -> tuple[int, bool, bool]:
                status, parts = await ready_of(server)
                return status, "another log" in parts["store"], "--rebuild-store" in parts["store"]

            await until_so(said, (503, True, True))
            page = await curl(f"{server.url}/events?source={source}")
            assert page.status == 503
            assert (await event_of(server, id=new.id, source=source))[0] == 503
            async with joined(server.ws, source, since=old) as late:
                assert next(late.of("subscribed"))["reason"] == "epoch_changed"
            assert await metric(server, "feeders") == 0
        assert server.process.running


async def test_rebuild_store_is_what_helps(stack: LocalStack):
    source = new_source()
    with estate(stack, "rebuilt") as made:
        server = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with Published(made) as publish:
            await publish(source, 3)
            await until_ready(server)
        await server.end()
        await make_anew(stack, made.where["topic"])
        refused = made.make("processor", "gateway")
        with pytest.raises(StackError, match="--rebuild-store"):
            await refused.start()
        async with Published(made) as publish:
            new = ids(await publish(source, 2))
        again = await asyncio.to_thread(
            lambda: made.start("processor", "gateway", flags=("--rebuild-store",))
        )
        moved = made.directory / "store.db.before-1"
        assert moved.exists()
        assert str(moved) in again.process.log_text()

        async def found() -> list[str]:
            return (await events_of(again, source, since="earliest"))["events"]

        await until_so(found, new)
        with_gateway_alone = made.make("gateway", flags=("--rebuild-store",))
        with pytest.raises(StackError, match="only with the processor"):
            await with_gateway_alone.start()
