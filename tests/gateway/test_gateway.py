"""The gateway's protocol, as clients that nobody here wrote find it: `websockets`, and `curl` for SSE.

Everything runs in real processes on the real stack. Some constants are shortened there; it is said where.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from redis.asyncio import Redis

from dualstream_lab.cursor import Cursor
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import Socket, curl, escaped, joined, streaming, until_status
from tests.gateway.published import Place, Published, at, ids, new_source, place_of
from tests.gateway.serving import CHECK, Delivery, Server, until, until_so
from tests.publisher.helpers import mute, read_log

# --- WebSocket


async def test_a_websocket_client_hears_what_is_published_after_it_came(plain, publish, source):
    await publish(source, 3)
    began = time.time_ns()
    async with joined(plain.ws, source) as ear:
        told = ear.messages[0]
        assert told == {"kind": "subscribed", "source": source, "cursor": told["cursor"], "recovered": True}
        (place,) = await publish(source)
        event = await ear.see("event")
        assert event == {
            "kind": "event",
            "source": source,
            "id": place.id,
            "type": "push",
            "pos": place.pos,
            "ts": event["ts"],
            "cursor": event["cursor"],
        }
        assert began < event["ts"] < time.time_ns()
        # To resume from: all is known up to it, which the event's own offset would not say.
        assert place_of(told["cursor"]) <= place_of(event["cursor"]) <= place.offset
        await ear.until(lambda: [*ear.of("sync")] and place_of(ear.cursor) >= place.offset)
        (*_, sync) = ear.of("sync")
        assert sync["cursor"].split(":")[:2] == told["cursor"].split(":")[:2]
        assert len(ear.ids()) == 1


async def test_earliest_is_all_there_is_in_order_and_then_live(plain, publish, source):
    past = await publish(source, 500)
    async with joined(plain.ws, source, since="earliest") as ear:
        assert ear.ids() == ids(past)
        assert all(event["old"] for event in ear.of("event"))
        assert ear.messages[500]["kind"] == "subscribed"
        new = await publish(source, 5)
        assert await ear.receive(505) == ids(past + new)
        assert not any("old" in event or "late" in event for event in ear.messages[-5:] if "id" in event)


async def test_a_cursor_brings_what_came_after_it(plain, publish, source):
    past = await publish(source, 20)
    async with joined(plain.ws, source) as ear:
        now = ear.cursor
    for known in (-1, *(place.offset for place in past)):
        async with joined(plain.ws, source, since=at(now, known)) as ear:
            assert ear.ids() == [place.id for place in past if place.offset > known]
            assert next(ear.of("subscribed"))["recovered"] is True


async def test_who_drops_and_resumes_while_much_is_published_has_everything_once(plain, publish, source):
    """Also: at every moment all up to the cursor was told; whoever is cut off there loses nothing."""
    sent: list[Place] = []
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(await publish(source, 20))
            await asyncio.sleep(0.01)

    going = asyncio.create_task(go_on())
    known: set[str] = set()
    cursor = "earliest"
    connections: list[tuple[str, list[dict[str, Any]]]] = []
    for number in range(25):
        async with joined(plain.ws, source, since=cursor, wait=False) as ear:
            await ear.until(lambda: len(ear.messages) > number * 7)  # noqa: B023
            ear.drop()
            messages = ear.messages[: number * 7 + 1]  # what came later may as well have been lost
        connections.append((cursor, messages))
        cursor = next((m["cursor"] for m in reversed(messages) if "cursor" in m), cursor)
    stop.set()
    await going
    async with joined(plain.ws, source, since=cursor) as ear:
        connections.append((cursor, list(ear.messages)))
    for began, messages in connections:
        heard = [message["id"] for message in messages if message["kind"] == "event"]
        assert len(heard) == len(set(heard)), f"twice on one connection, since {began}"
        for message in messages:
            if message["kind"] == "event":
                known.add(message["id"])
            through = place_of(message["cursor"])
            assert not [place for place in sent if place.offset <= through and place.id not in known], message
    assert known == set(ids(sent))


async def test_several_sources_on_one_connection_come_and_go(plain, publish):
    one, two, three, four = (new_source() for _ in range(4))
    past = await publish(four, 5)
    async with joined(plain.ws, one, two) as ear:
        await ear.say(subscribe=three)
        await ear.say(subscribe=four, since="earliest")
        await ear.see("subscribed", three)
        await ear.see("subscribed", four)
        assert ear.ids() == ids(past)
        news = {source: await publish(source, 3) for source in (one, two, three, four)}
        await ear.receive(17)
        for source, places in news.items():
            assert ear.ids(source)[-3:] == ids(places)
        await ear.say(unsubscribe=one)
        await ear.see("unsubscribed", one)
        await publish(one, 3)
        last = await publish(two, 3)
        await ear.receive(6, two)
        assert ear.ids(two)[-3:] == ids(last)
        assert len(ear.ids(one)) == 3
        # And again, from where it was.
        await ear.say(
            subscribe=one, since=at(next(ear.of("subscribed", one))["cursor"], news[one][-1].offset)
        )
        await ear.see("subscribed", one, count=2)
        assert len(ear.ids(one)) == 6


async def test_a_client_may_come_without_a_source(plain, publish, source):
    async with joined(plain.ws) as ear:
        await ear.say(subscribe=source)
        await ear.see("subscribed", source)
        (place,) = await publish(source)
        assert await ear.receive(1) == [place.id]
        await ear.say(subscribe=source)
        assert "already" in (await ear.see("error", source))["error"]
        await ear.say(unsubscribe=new_source())
        assert "not followed" in (await ear.see("error", count=2))["error"]
        (other,) = await publish(source)
        assert await ear.receive(2) == [place.id, other.id]


async def test_names_of_all_the_world_are_heard_everywhere(plain, publish):
    source = "repo:\N{SNOWMAN}/\N{LATIN SMALL LETTER E WITH ACUTE}%2F+&=#" + uuid4().hex[:8]
    past = await publish(source, 2)
    async with (
        joined(plain.ws, source, since="earliest") as ear,
        streaming(plain.url, source, since="earliest") as stream,
    ):
        new = await publish(source, 2)
        assert await ear.receive(4) == await stream.receive(4) == ids(past + new)
        assert ear.messages[0]["source"] == source
    await until_status(f"{plain.url}/events/{new[-1].id}?pos={new[-1].pos}", 200)
    page = (await curl(f"{plain.url}/events?source={escaped(source)}")).json
    assert [event["id"] for event in page["events"]] == ids(past + new)


async def test_all_sources_of_a_connection_share_since(plain, publish):
    one, two = new_source(), new_source()
    first, second = await publish(one, 2), await publish(two, 2)
    async with joined(plain.ws, one, two, since="earliest") as ear:
        assert (ear.ids(one), ear.ids(two)) == (ids(first), ids(second))


async def test_clients_of_a_source_share_one_subscription_which_ends_after_them(
    plain, stack, publish, source
):
    channel = f"events:{source}"
    async with Redis.from_url(stack.redis_url) as redis, AsyncExitStack() as clients:
        ears = [await clients.enter_async_context(joined(plain.ws, source)) for _ in range(20)]
        assert int((await redis.pubsub_numsub(channel))[0][1]) == 1
        sent = ids(await publish(source, 10))
        for ear in ears:
            assert await ear.receive(10) == sent
    await left(stack, source)


async def left(stack: LocalStack, *sources: str) -> None:
    """Until the gateway has let go of sources that nobody follows any more."""
    channels = [f"events:{source}" for source in sources]
    async with Redis.from_url(stack.redis_url) as redis:

        async def followed() -> set[int]:
            return {int(count) for _, count in await redis.pubsub_numsub(*channels)}

        await until_so(followed, {0})


# --- SSE


async def test_curl_streams_and_resumes_with_the_last_event_id(plain, publish, source):
    past = await publish(source, 3)
    async with streaming(plain.url, source, since="earliest") as ear:
        new = await publish(source, 3)
        assert await ear.receive(6) == ids(past + new)
        assert [kind for kind, _ in ear.heads] == ["event"] * 3 + ["subscribed"] + ["event"] * 3
        for message, (kind, name) in zip(ear.messages, ear.heads, strict=True):
            assert (message["kind"], message["cursor"]) == (kind, name)
        await ear.see("sync")
        assert ear.heads[-1][0] == "sync"
        await ear.until(lambda: ear.comments >= 2)
        last = ear.last_id
    missed = await publish(source, 4)
    header = ("-H", f"Last-Event-ID: {last}")
    # As an EventSource reconnects: to the same URL, whose `since` is now of no meaning.
    async with streaming(plain.url, source, since="earliest", options=header) as ear:
        assert ear.ids() == ids(missed)


async def test_the_id_of_several_sources_holds_the_cursor_of_each(plain, publish):
    sources = [new_source() for _ in range(3)]
    past = {source: await publish(source, 2) for source in sources}
    async with streaming(plain.url, *sources, since="earliest") as ear:
        for source in sources:
            assert ear.ids(source) == ids(past[source])
        assert len(ear.last_id.split(",")) == 3
        last = ear.last_id
    missed = {source: await publish(source, 2) for source in sources}
    async with streaming(plain.url, *sources, options=("-H", f"Last-Event-ID: {last}")) as ear:
        for source in sources:
            assert ear.ids(source) == ids(missed[source])


async def test_a_source_that_had_no_cursor_yet_resumes_where_the_url_says(plain, publish):
    """Cut off after the first words on the first source: the other was not begun yet."""
    one, two = new_source(), new_source()
    first, second = await publish(one, 1), await publish(two, 3)
    async with streaming(plain.url, one, since="earliest") as ear:
        cursor = ear.last_id
    header = ("-H", f"Last-Event-ID: {cursor},")
    async with streaming(plain.url, one, two, since="earliest", options=header) as ear:
        assert ear.ids(one) == []
        assert ear.ids(two) == ids(second)
    assert first


async def test_sse_is_not_for_head_nor_for_http_1_0(plain):
    """Both would get a stream that they cannot read."""
    url = f"{plain.url}/sse?source=repo:o/x"
    assert 400 <= (await curl(url, "--head")).status < 500
    assert 400 <= (await curl(url, "--http1.0")).status < 600
    assert (await curl(url, "-X", "POST")).status == 405


# --- What cannot be recovered is said, with its reason, and live goes on


async def refused(server: Server, source: str, since: str, publish: Published) -> str:
    """The reason; the client is live from the cursor that it was given."""
    async with joined(server.ws, source, since=since) as ear:
        (told,) = ear.of("subscribed")
        assert told["recovered"] is False
        assert not ear.ids()
        places = await publish(source, 3)
        assert await ear.receive(3) == ids(places)
        known = Cursor.parse(told["cursor"]).by_partition  # also of a partition that it was asked with
        assert known[places[0].partition] < places[0].offset
        cursor = told["cursor"]
    async with streaming(server.url, source, since=cursor) as stream:
        assert stream.ids() == ids(places)
    reason = told["reason"]
    assert isinstance(reason, str)
    return reason


async def test_a_cursor_of_another_log_or_beyond_its_end_is_said(plain, publish, source):
    await publish(source, 3)
    async with joined(plain.ws, source) as ear:
        epoch, partition, offset = ear.cursor.split(":")
    strangers = (
        f"0123456789ab:{partition}:{offset}",
        f"{epoch}:{(int(partition) + 1) % 6}:{int(offset) + 1_000_000}",
        f"{epoch}:{partition}:{int(offset) + 1_000_000}",
        f"{epoch}:{partition}:{10**18 - 1}",
    )
    for stranger in strangers:
        assert await refused(plain, source, stranger, publish) == "epoch_changed"


async def test_too_far_behind_is_said_and_nothing_partial_is_sent(small, publish, source):
    past = await publish(source, 21)
    assert await refused(small, source, "earliest", publish) == "too_far_behind"
    # One less, and it is caught up.
    async with joined(small.ws, source) as ear:
        known = at(ear.cursor, past[3].offset)
    async with joined(small.ws, source, since=known) as ear:
        assert next(ear.of("subscribed"))["recovered"] is True
        assert len(ear.ids()) == 20


async def test_too_far_behind_amid_traffic_misses_nothing_after_its_cursor(small, publish, source):
    """What happened between the fence and the refusal is either before the cursor or told."""
    sent: list[Place] = []
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(await publish(source, 5))

    going = asyncio.create_task(go_on())
    await until(lambda: len(sent) > 100)
    for _ in range(15):
        async with joined(small.ws, source, since="earliest") as ear:
            (told,) = ear.of("subscribed")
            assert told["reason"] == "too_far_behind"
            await ear.receive(10)
            seen = len(sent)
            await ear.until(lambda: ear.ids()[-1:] > [] and len(sent) > seen)  # noqa: B023
            last = sent[seen - 1]
            await ear.until(lambda: last.id in ear.ids())  # noqa: B023
            after = [p for p in sent[:seen] if p.offset > place_of(told["cursor"])]
            assert set(ids(after)) <= set(ear.ids())
    stop.set()
    await going


async def test_retention_is_said(stack):
    topic = f"retention-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    source = new_source()
    with Delivery(stack, topic, check_interval=CHECK, store_timeout=1.5) as made:
        processor = made.make("processor", retention_events=10, constants={"processor.processor._PRUNE": 0.2})
        made.launch(processor)
        gateway = made.start("gateway")
        async with Published(made) as publish:
            past = await publish(source, 60)
            await until_status(f"{gateway.url}/events/{past[-1].id}?pos={past[-1].pos}", 200)
            async with joined(gateway.ws, source) as ear:
                now = ear.cursor
            await settled(gateway, source, 10)
            for gone in (past[0], past[30], past[48]):
                assert await refused(gateway, source, at(now, gone.offset), publish) == "retention"
            places = await publish(source, 30)
            await until_status(f"{gateway.url}/events/{places[-1].id}?pos={places[-1].pos}", 200)
            await settled(gateway, source, 10)
            answer = (
                await curl(f"{gateway.url}/events?source={source}&since={at(now, past[0].offset)}")
            ).json
            assert (answer["events"], answer["recovered"], answer["reason"]) == ([], False, "retention")
            async with joined(gateway.ws, source, since=at(now, places[-3].offset)) as ear:
                assert ear.ids() == ids(places[-2:])
            # `earliest` is what is kept.
            async with joined(gateway.ws, source, since="earliest") as ear:
                assert next(ear.of("subscribed"))["recovered"] is True
                assert ear.ids() == ids(places[-10:])
            # The store is behind, and Kafka's own retention was faster.
            processor.kill()
            behind = await publish(source, 20)
            known = at(now, places[-3].offset)
            async with joined(gateway.ws, source, since=known) as ear:
                assert ear.ids() == ids(places[-2:] + behind)
            admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
            await admin.start()
            target = TopicPartition(topic, behind[0].partition)
            await admin.delete_records({target: RecordsToDelete(before_offset=behind[10].offset)})
            await admin.close()
            async with joined(gateway.ws, source, since=known) as ear:
                (told,) = ear.of("subscribed")
                assert (told["recovered"], told["reason"]) == (False, "store_lag")
                assert not ear.ids()


async def settled(gateway: Server, source: str, count: int) -> None:
    """Until the store keeps so many."""

    async def kept() -> int:
        return len((await curl(f"{gateway.url}/events?source={source}&limit=1000")).json["events"])

    await until_so(kept, count)


async def test_what_the_store_does_not_have_yet_comes_from_kafka(plain, small, publish, processor):
    """The processor stands still. Also: many who come at once, amid traffic, are all served."""
    sources = [new_source() for _ in range(4)]
    past = {source: await publish(source, 5) for source in sources}
    cursors = {}
    for source in sources:
        async with joined(plain.ws, source) as ear:
            cursors[source] = at(ear.cursor, past[source][1].offset)
    await processor.pause()
    for source in sources:
        past[source] += await publish(source, 5)
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            for source in sources:
                past[source] += await publish(source, 1)
            await asyncio.sleep(0.02)

    async def come(source: str) -> tuple[Socket, float]:
        began = time.monotonic()
        ear = await clients.enter_async_context(
            joined(plain.ws, source, since=cursors[source], open_timeout=30)
        )
        return ear, time.monotonic() - began

    going = asyncio.create_task(go_on())
    async with AsyncExitStack() as clients:
        came = await asyncio.gather(*(come(source) for source in sources for _ in range(5)))
        stop.set()
        await going
        for number, (ear, _) in enumerate(came):
            source = sources[number // 5]
            (told,) = ear.of("subscribed")
            assert told["recovered"] is True, told
            wanted = ids(past[source][2:])
            await ear.receive(len(wanted))
            assert sorted(ear.ids()) == sorted(wanted)
        assert max(seconds for _, seconds in came) < 15
        # A cursor beyond what the store has: nothing is told again.
        (told,) = came[0][0].of("subscribed")
        async with joined(plain.ws, sources[0], since=told["cursor"]) as ear:
            assert ear.ids() == [p.id for p in past[sources[0]] if p.offset > place_of(told["cursor"])]
        # More than may be read from Kafka for one client: said, not guessed.
        async with joined(small.ws, sources[0], since=cursors[sources[0]]) as ear:
            (told,) = ear.of("subscribed")
            assert (told["recovered"], told["reason"]) == (False, "store_lag")
            assert not ear.ids()


async def test_without_kafka_and_processor_what_can_be_told_is_and_the_rest_is_said(
    plain, stack, publish, processor
):
    """Who is told that nothing is lost misses nothing once they are back."""
    one, two = new_source(), new_source()
    past = {source: await publish(source, 5) for source in (one, two)}
    async with joined(plain.ws, one, two) as ear:
        behind = {
            source: at(told["cursor"], past[source][0].offset)
            for source in past
            for told in ear.of("subscribed", source)
        }
    await settled(plain, one, 5)
    await settled(plain, two, 5)
    await left(stack, one, two)
    await processor.pause()
    for source in (one, two):
        past[source] += await publish(source, 5)
    async with joined(plain.ws, two) as first, AsyncExitStack() as clients:
        ahead = first.cursor  # of the store
        await mute(stack.brokers[0])
        ears = await asyncio.gather(
            *(
                clients.enter_async_context(joined(plain.ws, source, since=since))
                for source, since in ((one, behind[one]), (two, ahead), (two, behind[two]))
            )
        )
        told = [next(ear.of("subscribed")) for ear in ears]
        assert [message["recovered"] for message in told] == [False] * 3
        # Of the second source it is known that Kafka has more, which nobody can give.
        reasons = ["log_unavailable", "log_unavailable", "store_lag"]
        assert [message["reason"] for message in told] == reasons
        assert ears[0].ids() == ids(past[one][1:5]), "what the store has is whole up to the cursor"
        stack.brokers[0].resume()
        processor.process.resume()
        for source in (one, two):
            past[source] += await publish(source, 5)
        await ears[0].until(lambda: {*ids(past[one][1:])} == {*ears[0].ids()})
        for ear in ears[1:]:
            await ear.until(lambda: {*ids(past[two][10:])} <= {*ear.ids()})  # noqa: B023
        for ear in ears:
            assert len(ear.ids()) == len({*ear.ids()})


async def test_a_broken_store_is_said(delivery, stack, publish, source):
    past = await publish(source, 3)
    broken = delivery.directory / "broken.db"
    await asyncio.sleep(0)

    with sqlite3.connect(delivery.where["store"]) as original, sqlite3.connect(broken) as copy:
        original.backup(copy)
    copy.close()
    original.close()
    gateway = await asyncio.to_thread(
        lambda: delivery.start(
            "gateway", store=broken, store_timeout=0.3, constants={"store.reading._CACHE": 0}
        )
    )
    async with joined(gateway.ws, source) as ear:
        known = at(ear.cursor, past[0].offset)
    for path in (broken, broken.with_name("broken.db-wal")):
        if path.exists():
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
    async with joined(gateway.ws, source, since=known) as ear:
        (told,) = ear.of("subscribed")
        assert (told["recovered"], told["reason"]) == (False, "store_unavailable")
        places = await publish(source, 2)
        assert await ear.receive(2) == ids(places)
    answer = await curl(f"{gateway.url}/events?source={source}")
    assert answer.status == 503
    assert "Retry-After".lower() in answer.headers
    gateway.kill()


# --- What Redis lost is found


async def test_lost_notifications_are_found_by_looking(plain, publish, source):
    async with joined(plain.ws, source) as ear:
        lost = await publish(source, 3, silent=True)
        heard = await ear.receive(3)
        assert heard == ids(lost)
        assert all(event["late"] for event in ear.of("event"))


async def test_a_late_event_promises_no_more_than_was_told_when_it_came(plain, publish, source):
    """Who is cut off between two of them has the second one after resuming."""
    async with joined(plain.ws, source) as ear:
        lost = await publish(source, 50, silent=True)
        await ear.receive(50)
        for number, event in enumerate(ear.of("event")):
            known = [place.offset for place in lost if place.id in ear.ids()[: number + 1]]
            unknown = [place.offset for place in lost if place.offset not in known]
            assert place_of(event["cursor"]) < min(unknown, default=10**9), event


async def test_a_hole_in_a_publishers_numbers_is_looked_into_at_once(patient, stack, publish, source):
    async with joined(patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        for number, place in ((1, lost[0]), (4, lost[3])):
            note = {
                "id": place.id,
                "type": "push",
                "source_id": source[5:],
                "pos": place.pos,
                "log": ear.cursor.partition(":")[0],
                "pub": f"n:{number}",
            }
            await redis.publish(f"events:{source}", json.dumps(note))
        assert sorted(await ear.receive(4)) == sorted(ids(lost))
        assert [e["id"] for e in ear.of("event") if "late" in e] == ids(lost[1:3])


@pytest.mark.parametrize("everything", [False, True])
async def test_a_publisher_that_skipped_says_so(patient, stack, publish, source, everything):
    async with joined(patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        said = {"sources": [], "all": True} if everything else {"sources": [source]}
        await redis.publish("events:_resync", json.dumps(said))
        assert await ear.receive(4) == ids(lost)


async def test_a_repeated_confirmation_is_a_reason_to_look(patient, stack, publish, source):
    async with joined(patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        await redis.client_kill_filter(_type="pubsub")
        assert await ear.receive(4) == ids(lost)
        await ear.see("degraded")
        await ear.see("live")


async def test_notifications_that_say_only_that_there_is_something(patient, publish, source, delivery):
    async with (
        Published(delivery, notify_details=False) as brief,
        joined(patient.ws, source) as ear,
    ):
        places = await brief(source, 5)
        assert await ear.receive(5) == ids(places)


async def test_without_redis_clients_are_served_from_the_store(delivery, publish, source):
    gateway = await asyncio.to_thread(
        lambda: delivery.start("gateway", redis_url="redis://127.0.0.1:1", check_interval=300)
    )
    past = await publish(source, 3)
    began = time.monotonic()
    async with joined(gateway.ws, source, since="earliest") as ear:
        assert time.monotonic() - began < 15
        assert "reason" in await ear.see("degraded")
        new = await publish(source, 3)
        assert await ear.receive(6) == ids(past + new)
        assert not list(ear.of("live"))
    ready = await curl(f"{gateway.url}/readyz")
    assert (ready.status, ready.json["redis"]) == (200, "away")
    gateway.kill()


async def test_noise_on_redis_is_ignored(patient, stack, publish, source):
    async with joined(patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        channels = (f"events:{source}", "events:_resync")
        good = {"id": "x", "type": "push", "source_id": source[5:]}
        noise: list[bytes | str] = [b"", b"\xff\xfe", b"{", b"[]", b"null", b"[" * 5000, b'{"sources":[1]}']
        noise += [json.dumps(good | {"pos": pos}) for pos in ("x", "1", "1:x", ":", "9:1", "0:" + "9" * 5000)]
        noise += [json.dumps(good | {"pub": pub, "pos": "0:1"}) for pub in ("x", "n:x", "n:" + "9" * 5000)]
        for message in noise:
            for channel in channels:
                await redis.publish(channel, message)
        places = await publish(source, 2)
        await ear.until(lambda: {*ids(places)} <= {*ear.ids()})


@pytest.mark.parametrize(
    ("upstream", "policy"),
    [("pattern", {}), ("aggregate", {"channel_policy": "shard", "channel_shards": 4})],
)
async def test_one_pattern_or_the_shard_channels_serve_as_well(delivery, stack, source, upstream, policy):
    sources = [source, new_source(), new_source()]
    gateway = await asyncio.to_thread(
        lambda: delivery.start("gateway", check_interval=300, upstream=upstream, **policy)
    )
    async with Published(delivery, **policy) as publish, joined(gateway.ws, *sources) as ear:
        places = [place for one in sources for place in await publish(one, 5)]
        assert sorted(await ear.receive(15)) == sorted(ids(places))
        assert not any("late" in event for event in ear.of("event"))
        lost = await publish(source, 2, silent=True)
        async with Redis.from_url(stack.redis_url) as redis:
            await redis.publish("events:_resync", json.dumps({"sources": [source]}))
        await ear.until(lambda: {*ids(lost)} <= {*ear.ids()})
        async with streaming(gateway.url, source) as stream:
            await gateway.end()  # SIGTERM
            assert (await ear.closed())[0] == 1001
            await until(lambda: stream.ended)


# --- GET /events and /events/{id}


async def test_recent_events_are_the_newest_in_order_as_they_are_in_kafka(
    plain, publish, source, stack, delivery
):
    past = await publish(source, 120, size=20)
    await settled(plain, source, 120)
    answer = await curl(f"{plain.url}/events?source={source}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert [event["id"] for event in answer.json["events"]] == ids(past[-50:])
    assert answer.json["recovered"] is True
    assert place_of(answer.json["cursor"]) >= past[-1].offset
    log = {
        r.offset: r.value
        for r in await read_log(stack.kafka_url, str(delivery.where["topic"]))
        if r.key == source[5:].encode()
    }
    for place in past[-50:]:
        assert log[place.offset] in answer.body
    assert len((await curl(f"{plain.url}/events?source={source}&limit=7")).json["events"]) == 7


async def test_pages_join_without_a_gap_and_their_cursor_begins_a_stream(plain, publish, source):
    past = await publish(source, 55)
    await settled(plain, source, 55)
    seen: list[str] = []
    since, more = "earliest", True
    while more:
        page = (await curl(f"{plain.url}/events?source={source}&since={since}&limit=10")).json
        assert page["recovered"] is True
        seen += [event["id"] for event in page["events"]]
        since, more = page["cursor"], page["more"]
    assert seen == ids(past)
    new = await publish(source, 3)
    async with joined(plain.ws, source, since=since) as ear:
        assert ear.ids() == ids(new)


async def test_recent_events_of_nobody_and_of_another_log(plain, publish, source):
    page = (await curl(f"{plain.url}/events?source={source}")).json
    assert (page["events"], page["more"], page["recovered"]) == ([], False, True)
    new = await publish(source, 2)
    async with joined(plain.ws, source, since=page["cursor"]) as ear:
        assert ear.ids() == ids(new)
        now = ear.cursor
    stranger = "0123456789ab" + now[12:]
    page = (await curl(f"{plain.url}/events?source={source}&since={stranger}")).json
    assert (page["events"], page["recovered"], page["reason"]) == ([], False, "epoch_changed")
    # Of a place that the store has not reached: nothing yet, and never a step back.
    page = (await curl(f"{plain.url}/events?source={source}&since={at(now, 10**6)}")).json
    assert page["events"] == []
    assert page["recovered"] is False or place_of(page["cursor"]) >= 10**6


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1.5", "limit=" + "9" * 5000, "since=x", "limit="],
)
async def test_a_bad_query_is_named(plain, source, query):
    answer = await curl(f"{plain.url}/events?source={source}&{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.json["error"]


async def test_a_whole_event_byte_for_byte(plain, publish, source, stack, delivery):
    (place,) = await publish(source, size=100)
    answer = await curl(f"{plain.url}/events/{place.id}?pos={place.pos}")
    assert answer.status == 200
    assert answer.headers["x-position"] == place.pos
    log = await read_log(stack.kafka_url, str(delivery.where["topic"]))
    assert answer.body == next(r.value for r in log if (r.partition, r.offset) == place[1:])
    assert (await curl(f"{plain.url}/events/{place.id}")).body == answer.body


async def test_a_whole_event_is_waited_for(plain, publish, source, processor):
    await processor.pause()
    (place,) = await publish(source)
    began = time.monotonic()
    asked = asyncio.create_task(curl(f"{plain.url}/events/{place.id}?pos={place.pos}"))
    late = await curl(f"{plain.url}/events/{place.id}")
    assert (late.status, "retry-after" in late.headers) == (404, False)
    await asyncio.sleep(0.5)
    assert not asked.done()
    processor.process.resume()
    assert (await asked).status == 200
    await processor.pause()
    (place,) = await publish(source)
    began = time.monotonic()
    answer = await curl(f"{plain.url}/events/{place.id}?pos={place.pos}")
    assert answer.status == 404
    assert "retry-after" in answer.headers
    assert 1.5 < time.monotonic() - began < 15


@pytest.mark.parametrize(
    "pos", ["x", "1", "1:", ":1", "1:x", "-1:2", "1:-2", "9" * 5000 + ":1", "1:" + "9" * 30]
)
async def test_a_bad_place_is_named(plain, pos):
    answer = await curl(f"{plain.url}/events/some-id?pos={pos}")
    assert answer.status == 400
    assert "pos" in answer.json["error"]


@pytest.mark.parametrize("name", ["nothing", "%ff", "a%2Fb"])
async def test_an_event_that_is_not_there(plain, name):
    answer = await curl(f"{plain.url}/events/{name}")
    assert answer.status == 404
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("name", ["%00", "%20", "%22", "%F0%9F%98%80", "x" * 4000, ""])
async def test_an_id_that_no_event_has(plain, name):
    for path in (f"event?id={name}", *([f"events/{name}"] if name else [])):
        answer = await curl(f"{plain.url}/{path}")
        assert answer.status == 400
        assert "printable ASCII" in answer.json["error"]


async def test_what_watches_a_gateway_is_answered(plain, publish, source):
    assert (await curl(f"{plain.url}/healthz")).status == 200
    ready = await curl(f"{plain.url}/readyz")
    parts = dict.fromkeys(("redis", "kafka", "store", "processor"), "up")
    assert (ready.status, ready.json) == (200, {"ready": True} | parts)
    async with joined(plain.ws, source) as ear:
        await publish(source)
        await ear.receive(1)
        text = (await curl(f"{plain.url}/metrics")).body.decode()
    assert "messaging_client_sent_messages_total{" in text
    assert "dualstream_clients 1.0" in text
    assert (await curl(f"{plain.url}/openapi.json")).json["openapi"].startswith("3.")
    assert (await curl(f"{plain.url}/")).headers["content-type"].startswith("text/html")
    missing = await curl(f"{plain.url}/nothing")
    assert missing.status == 404


async def test_ready_says_what_is_missing(plain, stack):
    await mute(stack.brokers[0])

    async def ready() -> tuple[int, bool, str, bool]:
        answer = await curl(f"{plain.url}/readyz")
        return answer.status, answer.json["ready"], answer.json["store"], answer.json["kafka"] == "up"

    await until_so(ready, (503, False, "up", False))
    stack.brokers[0].resume()
    await until_so(ready, (200, True, "up", True))
