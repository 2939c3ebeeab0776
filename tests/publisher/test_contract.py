"""The publisher's contract on healthy brokers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from datetime import UTC, datetime

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import (
    BufferFull,
    ConfigError,
    EventError,
    OutcomeUnknown,
    PublishRejected,
    StreamUnavailable,
)
from dualstream_lab.event import (
    MAX_NESTING,
    channel_of,
    decode_notification,
    encode_event,
    resync_channel,
    shard_channel,
)
from dualstream_lab.kafka_log import Records, open_consumer, topic_info
from dualstream_lab.publisher import InLog, Rejected, StillOpen, Unknown
from dualstream_lab.publisher.call import PartitionSlice, State
from dualstream_lab.publisher.record_batch import RecordBatch
from dualstream_lab.record import Decoder, StoredEvent

from .helpers import assert_in_order, events, heard, ids_of, key_of, mute, read_log, until
from .kafka_admin import alter_topic


async def test_a_receipt_says_where_the_whole_event_is(stack, settings, topic):
    event = Event(
        type="issues.opened",
        source_type="repo",
        source_id="owner/å",
        occurred_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        data=msgspec.Raw(b'{"z":1,  "a":[1.50]}'),
    )
    async with DualPublisher(settings()) as publisher:
        receipt = await publisher.publish(event)
    (record,) = await read_log(stack.kafka_url, topic)
    assert (receipt.event_id, receipt.partition, receipt.offset) == (
        event.id,
        record.partition,
        record.offset,
    )
    assert record.key == "owner/å".encode()
    assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 6
    assert b'"data":{"z":1,  "a":[1.50]}' in record.value, "data is kept byte for byte"
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": event.id.encode(),
        "ce_type": b"issues.opened",
        "ce_source": b"/repo/owner/%C3%A5",
        "ce_time": b"2025-01-02T03:04:05Z",
        "content-type": b"application/json",
        "traceparent": event.traceparent.encode(),
        "ce_traceparent": event.traceparent.encode(),
    }


async def test_a_batch_receipt_is_in_input_order(stack, settings, topic):
    batch = events(500)
    async with DualPublisher(settings()) as publisher:
        receipt = await publisher.publish_batch(batch)
    log = await read_log(stack.kafka_url, topic)
    places = {(record.partition, record.offset): ids_of([record])[0] for record in log}
    assert len(log) == len(receipt) == 500
    assert [places[p, o] for p, o in zip(receipt.partitions, receipt.offsets, strict=True)] == [
        event.id for event in batch
    ]
    assert [r.event_id for r in receipt] == receipt.event_ids == [event.id for event in batch]


async def test_a_batch_larger_than_a_kafka_batch_is_split_and_stays_in_order(stack, settings, topic):
    batch = events(2000, sources=3, size=300)
    async with DualPublisher(settings(batch_bytes=16_384)) as publisher:
        receipt = await publisher.publish_batch(batch)
    log = await read_log(stack.kafka_url, topic)
    assert_in_order(log)
    at = {(record.partition, record.offset): ids_of([record])[0] for record in log}
    assert [at[r.partition, r.offset] for r in receipt] == [event.id for event in batch]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_taken_by_kafka_and_read_by_the_product(stack, settings, topic, codec):
    await alter_topic(stack.kafka_url, topic, max_message_bytes="50000")
    where = settings(compression=codec)
    source = {"type": "t", "source_type": "repo", "source_id": "a"}
    sent: list[bytes] = []
    async with DualPublisher(where) as publisher:
        writer = publisher._accumulator.sender._writer
        batches: list[RecordBatch] = []
        send, writer.send = writer.send, lambda p, batch: (batches.append(batch), send(p, batch))[1]
        batch = events(2000, sources=3, size=200)
        await publisher.publish_batch(batch)
        large = Event(**source, data="x" * 400_000)
        if codec == "none":
            with pytest.raises(EventError, match="the topic takes at most"):
                await publisher.publish(large)
        else:
            await publisher.publish(large)
            batch.append(large)
        sent = [encode_event(event) for event in batch]
        assert all(b.size() <= 50_000 for b in batches), "as sent"
        assert publisher.stats().producers == 1
    found: list[bytes] = []
    async with open_consumer(where) as consumer:
        ends = await consumer.ends(range(6))
        consumer.assign(dict.fromkeys(ends, 0))
        while consumer.positions != ends:
            for part in await consumer.poll(Records):
                found += [record.value for record in part.records]
    assert sorted(found) == sorted(sent)
    assert sorted(r.value for r in await read_log(stack.kafka_url, topic)) == sorted(sent)


async def test_order_per_source_over_concurrent_singles(stack, settings, topic):
    async with DualPublisher(settings()) as publisher:
        await asyncio.gather(*(publisher.publish(event) for event in events(3000, sources=7)))
    log = await read_log(stack.kafka_url, topic)
    assert len(log) == 3000
    assert_in_order(log)


async def test_notifications_are_light_and_say_where_the_event_is(stack, settings, topic):
    batch = events(300, sources=5, size=2000)
    async with heard(stack.redis_url) as messages, DualPublisher(settings()) as publisher:
        receipt = await publisher.publish_batch(batch)
        assert await publisher.flush()
        await until(lambda: len(messages) == 300)
        assert publisher.stats().notified == publisher.stats().receivers == 300
    epoch = (await topic_info(settings())).log.epoch
    of_id = {event.id: event for event in batch}
    places = {r.event_id: (r.partition, r.offset) for r in receipt}
    numbers = defaultdict(list)
    for channel, message in messages:
        assert set(json.loads(message)) == {"id", "type", "source_id", "pos", "log", "pub", "ts"}
        assert b"xxx" not in message, "no payload byte ever goes to Redis"
        notification = decode_notification(message)
        assert channel == channel_of("repo", notification.source_id)
        assert notification.source_id == of_id[notification.id].source_id
        assert notification.position == places[notification.id]
        assert notification.log == epoch
        nonce, _, number = notification.pub.partition(":")
        numbers[notification.source_id, nonce].append(int(number))
    assert len(numbers) == 5, "one publisher counts each source once"
    assert all(counted == list(range(1, 61)) for counted in numbers.values())


async def test_bare_notifications_and_shard_channels(stack, settings):
    chosen = settings(notify_details=False, channel_policy="shard", channel_shards=4)
    async with heard(stack.redis_url) as messages, DualPublisher(chosen) as publisher:
        await publisher.publish_batch(events(50))
        await until(lambda: len(messages) == 50)
    for channel, message in messages:
        assert set(json.loads(message)) == {"id", "type", "source_id"}
        assert channel == shard_channel("repo", json.loads(message)["source_id"], 4)


@pytest.mark.parametrize("policy", ["source", "shard"])
async def test_channels_of_an_estate_have_its_prefix(stack, settings, policy):
    chosen = settings(channel_prefix="staging:", channel_policy=policy, channel_shards=1)
    async with heard(stack.redis_url, "*events:*") as messages, DualPublisher(chosen) as publisher:
        await publisher.publish_batch(events(5))
        publisher._notifier.start_anew("another-log")
        await publisher.flush()
        await until(lambda: len(messages) == 6)
    names = {f"staging:events:repo:owner/r{n}" for n in range(5)}
    if policy == "shard":
        names = {"staging:events:repo:_shard0"}
    assert {channel for channel, _ in messages} == names | {resync_channel("staging:")}
    assert resync_channel("staging:") == "staging:events:_resync"


@pytest.mark.parametrize("name", ["é\u4e2d", "\U0001f600", 'a"b', "a'b"])
async def test_any_allowed_name_survives_on_redis(stack, settings, name):
    async with heard(stack.redis_url) as messages, DualPublisher(settings()) as publisher:
        await publisher.publish(Event(type=name, source_type="user", source_id=name))
        await until(lambda: messages)
    channel, message = messages[0]
    notification = decode_notification(message)
    assert (channel, notification.type, notification.source_id) == (channel_of("user", name), name, name)


async def test_a_notification_never_comes_before_the_ack(stack, settings):
    async with heard(stack.redis_url) as messages, DualPublisher(settings()) as publisher:
        await mute(stack.brokers[0])
        publishing = asyncio.create_task(publisher.publish_batch(events(20)))
        await until(lambda: publisher.stats().accepted == 20)
        await publisher.flush(1)  # time enough for a notification that should not be
        assert not messages
        assert publisher.stats().queued_notifications == 0
        stack.brokers[0].resume()
        await publishing
        await until(lambda: len(messages) == 20)


def nested(levels: int) -> object:
    made: object = 1
    for _ in range(levels):
        made = [made]
    return made


NO_JSON = (b"", b"{oops", b'1,"source_id":"other/y"', b"1 2", b'"\xff"', b"[" * 1000 + b"]" * 999)
DEEP = (nested(600), msgspec.Raw(b"[" * 600 + b"]" * 600), msgspec.Raw(b'{"a":' * 600 + b"1" + b"}" * 600))
BAD = [
    (Event(type="t", source_type="repo", source_id=""), "source_id is empty"),
    (Event(type="t", source_type="repo", source_id="_x"), "must not begin with '_'"),
    (Event(type="t", source_type="Repo", source_id="a"), "source_type 'Repo'"),
    (Event(type="", source_type="repo", source_id="a"), "type is empty"),
    (Event(type="t", source_type="repo", source_id="a", id="a b"), "id 'a b'"),
    (Event(type="t", source_type="repo", source_id="a", data=object()), "cannot be written as JSON"),
    (Event(type="t", source_type="repo", source_id="a", data="x" * 2_000_000), "the topic takes at most"),
    (Event(type="t", source_type="repo", source_id="a", occurred_at=datetime(2025, 1, 1)), "time zone"),  # noqa: DTZ001
    ("no event", "str is not an Event"),
    (Event(type="t", source_type="repo", source_id="a", data=nested(2000)), "cannot be written as JSON"),
    (Event(type="t", source_type="repo", source_id="a", traceparent="00-x"), "must be W3C"),
    *(
        (Event(type="t", source_type="repo", source_id="a", data=msgspec.Raw(raw)), "as JSON")
        for raw in NO_JSON
    ),
    *((Event(type="t", source_type="repo", source_id="a", data=deep), "nested too deep") for deep in DEEP),
]


async def test_whatever_is_published_every_reader_takes(stack, settings, topic):
    """And what is refused alone is counted as in a batch."""
    deep = MAX_NESTING - 1  # with the event itself around it
    odd = [
        msgspec.Raw(b" {\n} "),
        "é\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        nested(deep),
    ]
    odd += [msgspec.Raw(b"[" * deep + b"]" * deep), msgspec.Raw('"é"'.encode()), None]
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    source = {"type": "t", "source_type": "repo", "source_id": "a"}
    good = [Event(**source, data=data) for data in odd]
    good += [Event(**source, traceparent=None), Event(**source, traceparent=trace)]
    async with DualPublisher(settings()) as publisher:
        for bad, reason in BAD:
            with pytest.raises(EventError, match=re.escape(reason)):
                await publisher.publish(bad)
        assert (publisher.stats().refused, publisher.stats().accepted) == (len(BAD), 0)
        for event in good:
            await publisher.publish(event)
        await publisher.publish_batch(event for event in good)
    decode = Decoder()
    log = await read_log(stack.kafka_url, topic)
    assert [
        decode(record.partition, record) for record in log if not isinstance(decode(0, record), StoredEvent)
    ] == []
    assert ids_of(log) == [event.id for event in good] * 2
    assert b"traceparent" not in log[len(odd)].value, "None is unset"


async def test_a_batch_may_be_any_iterable(stack, settings, topic):
    batch = events(30)
    async with DualPublisher(settings()) as publisher:
        receipts = [
            await publisher.publish_batch(each)
            for each in (iter(batch[:10]), {e.id: e for e in batch[10:20]}.values(), tuple(batch[20:]))
        ]
        assert len(await publisher.publish_batch(iter([]))) == 0
    assert [event_id for receipt in receipts for event_id in receipt.event_ids] == [e.id for e in batch]
    assert sorted(ids_of(await read_log(stack.kafka_url, topic))) == sorted(event.id for event in batch)


async def test_each_record_has_the_headers_that_were_asked_for(stack, settings, topic):
    headers = [("tenant", b"acme"), ("shape", b"\x00\xff"), ("tenant", b"again")]
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    batch = [*events(2), Event(type="t", source_type="repo", source_id="a", traceparent=trace)]
    async with DualPublisher(settings(), headers=iter(headers)) as publisher:
        await publisher.publish_batch(batch)
    for record in await read_log(stack.kafka_url, topic):
        assert list(record.headers)[-3:] == headers
        assert len(record.headers) == (11 if record.key == b"a" else 9)


async def test_a_publisher_that_was_closed_says_so(settings):
    publisher = DualPublisher(settings())
    with pytest.raises(StreamUnavailable, match="not started"):
        await publisher.publish(events(1)[0])
    await publisher.start()
    await publisher.close()
    with pytest.raises(StreamUnavailable, match="was closed: it cannot be started again"):
        await publisher.start()
    with pytest.raises(PublishRejected, match="closed"):
        await publisher.publish(events(1)[0])
    assert publisher.stats().refused == 1


async def test_two_sources_may_have_the_same_ids_and_are_resolved_apart(stack, settings, topic):
    def of(source: str, event_id: str) -> Event:
        return Event(id=event_id, type="t", source_type="repo", source_id=source)

    async with DualPublisher(settings(delivery_timeout=1)) as publisher:
        await publisher.publish_batch([of("owner/a", "0"), of("owner/b", "0")])
        await mute(stack.brokers[0])
        batch = [of("owner/a", "1"), of("owner/b", "1"), of("owner/b", "2")]
        with pytest.raises(OutcomeUnknown):
            await publisher.publish_batch(batch)
        stack.brokers[0].resume()
        assert await publisher.flush()
        log = {
            (r.key, ids_of([r])[0]): InLog(r.partition, r.offset)
            for r in await read_log(stack.kafka_url, topic)
        }
        of_a, of_b, two = (log[e.source_id.encode(), e.id] for e in batch)
        for forget in (False, True):
            if forget:  # as if it had never been acknowledged: read from the log
                for part, _ in publisher._accumulator.unresolved.values():
                    part.state = State.LOST
            assert await publisher.resolve(batch) == {
                "repo:owner/a 1": of_a,
                "repo:owner/b 1": of_b,
                "repo:owner/b 2": two,
            }
            assert await publisher.resolve(["2", "repo:owner/b 1", batch[0]]) == {
                "2": two,
                "repo:owner/b 1": of_b,
                "repo:owner/a 1": of_a,
            }
        with pytest.raises(EventError, match=r"'1' is of several events: repo:owner/a 1, repo:owner/b 1"):
            await publisher.resolve(["1"])
        with pytest.raises(EventError, match="1 events were not reported unknown"):
            await publisher.resolve([of("owner/a", "2")])


async def test_a_batch_with_bad_events_is_refused_whole_and_names_each(stack, settings, topic):
    batch = events(3)
    for place, (bad, _) in enumerate(BAD):
        batch.insert(2 * place, bad)
    async with DualPublisher(settings()) as publisher:
        with pytest.raises(EventError, match="none was sent") as caught:
            await publisher.publish_batch(batch)
        told = [caught.value.invalid[index] for index in sorted(caught.value.invalid)]
        assert [batch[index] for index in sorted(caught.value.invalid)] == [bad for bad, _ in BAD]
        for reason, (_, expected) in zip(told, BAD, strict=True):
            assert expected in reason
        assert publisher.stats().accepted == 0
        assert await read_log(stack.kafka_url, topic) == []

        receipt = await publisher.publish_batch(batch, on_invalid="skip")
        assert set(receipt.invalid) == set(caught.value.invalid)
        assert [receipt.offsets[index] for index in receipt.invalid] == [-1] * len(BAD)
        assert len(list(receipt)) == 3
    assert len(await read_log(stack.kafka_url, topic)) == 3


async def test_the_partition_of_an_oversize_event_goes_on(stack, settings, topic):
    source = {"type": "t", "source_type": "repo", "source_id": "a"}
    async with DualPublisher(settings()) as publisher:
        for _ in range(2):
            await publisher.publish(Event(**source))
            with pytest.raises(EventError, match="the topic takes at most"):
                await publisher.publish(Event(**source, data="x" * 1_048_500))
        big = await publisher.publish(Event(**source, data="x" * 1_047_800))
        after = await publisher.publish(Event(**source))
        assert after.offset == big.offset + 1 == 3
        assert publisher.stats().producers == 1


async def test_a_batch_that_kafka_refuses_is_rejected_and_the_publisher_goes_on(stack, settings, topic):
    """The topic's limit sinks while the publisher runs: its batches are refused, and the producer goes on."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    async with DualPublisher(settings()) as publisher:
        await publisher.publish_batch(events(100))
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
        await admin.start()
        limit = {"max.message.bytes": "5000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])
        await admin.close()

        async def attempt() -> object:
            big = Event(type="t", source_type="repo", source_id="a", data="x" * 9000)
            return (await asyncio.gather(publisher.publish(big), return_exceptions=True))[0]

        async with asyncio.timeout(60):  # the setting takes a moment to reach the broker
            while not isinstance(error := await attempt(), PublishRejected):
                pass
        assert isinstance(error.outcomes[0], Rejected)
        assert "MESSAGE_TOO_LARGE" in str(error)
        receipt = await publisher.publish(Event(type="t", source_type="repo", source_id="a"))
        assert receipt.offset >= 0
        assert publisher.stats().producers == 1


async def test_room_is_waited_for_and_then_refused(stack, settings):
    small = {"buffer_events": 100, "delivery_timeout": 60}
    async with (
        DualPublisher(settings(**small, buffer_timeout=0.3)) as hasty,
        DualPublisher(settings(**small, buffer_timeout=30)) as patient,
    ):
        with pytest.raises(BufferFull, match="more than the whole buffer"):
            await hasty.publish_batch(events(101))
        await mute(stack.brokers[0])
        calls = [asyncio.create_task(publisher.publish_batch(events(80))) for publisher in (hasty, patient)]
        await until(lambda: hasty.stats().accepted == patient.stats().accepted == 80)
        waiting = asyncio.create_task(patient.publish_batch(events(30, start=200)))
        with pytest.raises(BufferFull, match=r"buffer_timeout=0.3") as caught:
            await hasty.publish_batch(events(30, start=100))
        assert len(caught.value.outcomes) == 30
        assert hasty.stats().accepted == patient.stats().accepted == 80, "nothing of it was handed over"
        stack.brokers[0].resume()
        await asyncio.gather(*calls, waiting)
        assert (hasty.stats().durable, patient.stats().durable) == (80, 110)
        for publisher in (hasty, patient):
            assert publisher.stats().buffered_events == publisher.stats().buffered_bytes == 0


async def test_a_cancelled_caller_does_not_unsend(stack, settings, topic):
    async with DualPublisher(settings(buffer_events=50)) as publisher:
        await mute(stack.brokers[0])
        sent = asyncio.create_task(publisher.publish_batch(events(50)))
        await until(lambda: publisher.stats().accepted == 50)
        in_line = asyncio.create_task(publisher.publish_batch(events(10, start=50)))
        await asyncio.sleep(0)
        for task in (sent, in_line):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        stack.brokers[0].resume()
        assert await publisher.flush()
        assert publisher.stats().durable == 50
        assert publisher.stats().buffered_events == 0
    assert len(await read_log(stack.kafka_url, topic)) == 50


async def test_the_deadline_is_kept_and_the_unknown_are_resolved(stack, settings, topic):
    async with DualPublisher(settings(delivery_timeout=2.5)) as publisher:
        await publisher.publish_batch(events(10))
        await mute(stack.brokers[0])
        batch = events(20, start=10)
        with pytest.raises(OutcomeUnknown, match="resolve") as caught:
            await publisher.publish_batch(batch)
        assert all(isinstance(outcome, Unknown) for outcome in caught.value.outcomes)
        with pytest.raises(PublishRejected, match="not handed to Kafka within delivery_timeout"):
            await publisher.publish_batch(events(20, start=40))
        open_still = await publisher.resolve([batch[0].id], timeout=0.5)
        assert type(open_still[batch[0].id]).__name__ == "StillOpen"
        stack.brokers[0].resume()
        assert await publisher.flush()
        stats = publisher.stats()
        assert (stats.durable, stats.unknown, stats.late_acks, stats.rejected) == (10, 20, 20, 20)
        log = await read_log(stack.kafka_url, topic)
        places = {ids_of([record])[0]: (record.partition, record.offset) for record in log}
        answers = await publisher.resolve([event.id for event in batch])
        assert {i: (a.partition, a.offset) for i, a in answers.items()} == {
            event.id: places[event.id] for event in batch
        }
        assert len(log) == 30
        with pytest.raises(EventError, match="not reported unknown"):
            await publisher.resolve(["stranger"])
        await publisher.publish_batch(events(10, start=80))


async def test_an_event_is_in_the_log_when_its_json_is_committed_whatever_headers_say(stack, settings, topic):
    ghost = Event(id="ghost", type="t", source_type="repo", source_id="owner/a")
    other = Event(id="other", type="t", source_type="repo", source_id="owner/a")
    options = {"key": b"owner/a", "partition": 3}
    async with DualPublisher(settings()) as publisher:
        lost = PartitionSlice([], 3, time.time_ns() // 1_000_000)
        lost.state, lost.reason = State.LOST, "the test says so"
        publisher._accumulator.unresolved[key_of(ghost)] = (lost, 0)
        producer = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, transactional_id=topic)
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait(
                    topic, encode_event(other), headers=[("ce_id", b"ghost")], **options
                )
            await producer.begin_transaction()
            await producer.send_and_wait(topic, encode_event(ghost), **options)
            await producer.abort_transaction()
            (answer,) = (await publisher.resolve([ghost])).values()
            assert isinstance(answer, StillOpen)
            assert answer.reason == "the test says so; the log does not have it: it can only arrive late"
            async with producer.transaction():
                sent = await producer.send_and_wait(topic, encode_event(ghost), **options)
            assert await publisher.resolve([ghost]) == {key_of(ghost): InLog(3, sent.offset)}
        finally:
            await producer.stop()


async def test_closing_with_kafka_away_is_bounded_and_reported(stack, settings):
    publisher = DualPublisher(settings(close_timeout=0.5))
    await publisher.start()
    await publisher.publish_batch(events(5))
    await mute(stack.brokers[0])
    had, waiting = events(20, sources=1), events(7, sources=1)
    calls = [asyncio.create_task(publisher.publish_batch(had))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(publisher.publish_batch(waiting)))
    await until(lambda: publisher.stats().accepted == 32)
    async with asyncio.timeout(20):
        report = await publisher.close()
    assert list(report.unresolved) == [key_of(event) for event in had]
    assert list(report.rejected) == [key_of(event) for event in waiting]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknown, PublishRejected]
    with pytest.raises(PublishRejected, match="closed"):
        await publisher.publish(events(1)[0])


async def test_a_missing_topic_is_named_and_not_created(stack, settings):
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"topic 'absent' does not exist.*create it first"):
            await DualPublisher(settings(topic="absent")).start()


async def test_too_few_replicas_are_refused(stack, settings):
    stack.create_topic("starved", settings={"min.insync.replicas": "2"})
    with pytest.raises(ConfigError, match=r"1 replica.*min.insync.replicas=2"):
        await DualPublisher(settings(topic="starved")).start()


async def test_an_unreachable_kafka_is_named_in_bounded_time(settings):
    async with asyncio.timeout(30):
        with pytest.raises(StreamUnavailable, match=r"Kafka at 127.0.0.1:1 could not be reached"):
            await DualPublisher(settings(kafka_url="127.0.0.1:1")).start()


async def test_without_redis_it_is_kafka_alone(stack, settings):
    async with heard(stack.redis_url) as messages, DualPublisher(settings(redis_url=None)) as publisher:
        # "not given" means the environment, which the tests leave empty
        await publisher.publish_batch(events(10))
        assert await publisher.flush()
        assert publisher.stats().notified == 0
    assert not messages
