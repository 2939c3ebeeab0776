"""Batches that a real broker refuses: the guilty are rejected at once, their neighbours are appended once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.produce import ProduceResponse_v8
from aiokafka.record.memory_records import MemoryRecords

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import EventError, OutcomeUnknown, PublishRejected
from dualstream_lab.publisher import Durable, InLog, NotInLog, Rejected, encoder
from dualstream_lab.publisher.kafka import _Produce, _Produce_v7

from .helpers import Ledger, assert_in_order, events, ids_of, key_of, mute, read_log, until
from .kafka_admin import alter_topic


def sized(number: int, size: int = 1000, *, source: str = "o/x") -> Event:
    return Event(
        id=f"e{number}",
        type="t",
        source_type="repo",
        source_id=source,
        data={"n": number, "x": "x" * size},
    )


async def limit_reached(publisher: DualPublisher, size: int) -> None:
    """Wait until the broker takes no event of this size any more."""
    number = 0
    while True:
        number += 1
        try:
            await publisher.publish(sized(number, size, source="probe"))
        except (PublishRejected, EventError):
            return


# --- size


@pytest.mark.parametrize("way", ["singles", "batch"])
async def test_a_topic_with_a_lower_limit_than_batch_bytes_gets_smaller_batches(
    stack, settings, topic, way, caplog
):
    await alter_topic(stack.kafka_url, topic, max_message_bytes="50000")
    batch = [sized(number) for number in range(500)]
    async with DualPublisher(settings()) as publisher:
        with caplog.at_level(logging.WARNING, "dualstream_lab.publisher.sender"):
            if way == "singles":
                await asyncio.gather(*(publisher.publish(event) for event in batch))
            else:
                await publisher.publish_batch(batch)
        assert not caplog.records, "nothing was refused on the way"
        with pytest.raises(EventError, match="the topic takes at most 49900"):
            await publisher.publish(sized(0, 50_000))
        assert publisher.stats().producers == 1
    log = await read_log(stack.kafka_url, topic)
    assert ids_of(log) == [event.id for event in batch]


async def test_a_limit_that_sinks_is_learnt_and_a_small_event_does_not_fall_with_a_big_neighbour(
    stack, settings, topic
):
    async with DualPublisher(settings(refresh_interval=300)) as publisher:
        await publisher.publish_batch([sized(number) for number in range(100)])
        await alter_topic(stack.kafka_url, topic, max_message_bytes="5000")
        await limit_reached(publisher, 9000)
        # One big and many small ones, in one batch: they are published in the same turn of the loop.
        answers = await asyncio.gather(
            *(publisher.publish(sized(number, 9000 if number == 150 else 300)) for number in range(100, 200)),
            return_exceptions=True,
        )
        refused = answers.pop(50)
        assert isinstance(refused, PublishRejected)
        assert "MESSAGE_TOO_LARGE" in str(refused)
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        # Now it is known how small batches must be.
        await publisher.publish_batch([sized(number) for number in range(200, 300)])
        assert publisher.stats().producers == 1
    log = [record for record in await read_log(stack.kafka_url, topic) if record.key == b"o/x"]
    assert ids_of(log) == [f"e{number}" for number in range(300) if number != 150], "in order, and once"


async def test_the_topics_new_limit_is_heard_of_within_the_refresh_interval(stack, settings, topic):
    async with DualPublisher(settings(refresh_interval=0.2)) as publisher:
        limit = publisher._accumulator.sender._limit
        await alter_topic(stack.kafka_url, topic, max_message_bytes="5000")
        await until(lambda: limit.bytes == 5000)
        with pytest.raises(EventError, match="the topic takes at most 4900"):
            await publisher.publish(sized(1, 9000))
        await alter_topic(stack.kafka_url, topic, max_message_bytes="3000000")
        await until(lambda: limit.event_bytes == 2_999_900)
        await publisher.publish(sized(2, 2_000_000))


async def test_a_segment_that_is_too_small_splits_batches_too(stack, settings, topic):
    """RECORD_LIST_TOO_LARGE: nothing in the topic's limit of a batch says so before."""
    await alter_topic(stack.kafka_url, topic, segment_bytes=str(2**20))
    await alter_topic(stack.kafka_url, topic, segment_bytes=str(2**20), max_message_bytes=str(8 * 2**20))
    batch = [sized(number, 4000) for number in range(1000)]
    async with DualPublisher(settings(batch_bytes=4 * 2**20)) as publisher:
        await publisher.publish_batch(batch)
        with pytest.raises(PublishRejected, match="RECORD_LIST_TOO_LARGE"):
            await publisher.publish(sized(1, 2_000_000))
        assert publisher.stats().producers == 1
    assert ids_of(await read_log(stack.kafka_url, topic)) == [event.id for event in batch]


# --- after a refusal


async def test_after_refusals_the_same_producer_appends_once_and_in_order(stack, settings, topic):
    """Also where Kafka's sequence numbers begin again, after 2^31 of them."""
    async with DualPublisher(settings(refresh_interval=300)) as publisher:
        sequences = publisher._accumulator.sender._writer._sequences
        for partition in range(6):
            sequences.increment_sequence_number(TopicPartition(topic, partition), 2**31 - 200)
        await publisher.publish_batch(events(600))
        await alter_topic(stack.kafka_url, topic, max_message_bytes="5000")
        ledger, bigs = Ledger(), set()
        for start in range(1000, 7000, 100):
            batch = events(100, start=start, size=20)
            source = batch[start // 100 % 20].source_id
            big = Event(
                type="t", source_type="repo", source_id=source, data={"n": start + 99.5, "x": "x" * 9000}
            )
            bigs.add(big.id)
            await ledger.publish(publisher, [*batch, big])
        refused = ledger.of(Rejected)
        assert refused <= bigs
        assert len(refused) > 30, "once the broker knows the limit"
        assert len(ledger.of(Durable)) + len(refused) == len(ledger.outcomes)
        assert (publisher.stats().producers, publisher.stats().unknown) == (1, 0)
        numbers = [sequences.sequence_number(TopicPartition(topic, n)) for n in range(6)]
        assert any(number < 2**30 for number in numbers), "they have begun again"
    log = await read_log(stack.kafka_url, topic)
    assert len(log) == len(set(ids_of(log))) == 600 + len(ledger.of(Durable))
    assert ledger.of(Durable) < set(ids_of(log))
    assert_in_order(log)


# --- times


@pytest.fixture
def clock(monkeypatch):
    """The publisher's clock: set ``shifts``, in hours, of the calls to come."""
    shifts: deque[float] = deque()

    def time_ns() -> int:
        return time.time_ns() + int(3600e9 * (shifts.popleft() if shifts else 0))

    monkeypatch.setattr(encoder, "time", SimpleNamespace(time_ns=time_ns))
    return shifts


@pytest.mark.parametrize("version", [7, 8])
async def test_a_call_from_a_wrong_clock_is_rejected_alone(
    stack, settings, topic, clock, version, monkeypatch
):
    """Kafka names the records in version 8; where it does not, the calls are separated."""
    if version == 7:
        monkeypatch.setattr(_Produce, "_CLASSES", (_Produce_v7,))
    async with DualPublisher(settings()) as publisher:
        await publisher.publish_batch(events(20))
        clock += [0, 2, 0, 3]  # Kafka takes no more than an hour ahead
        started = time.monotonic()
        answers = await asyncio.gather(
            *(publisher.publish_batch(events(30, start=100 * number)) for number in range(1, 5)),
            return_exceptions=True,
        )
        assert time.monotonic() - started < 5, "no deadline is waited for"
        assert [type(answer) is PublishRejected for answer in answers] == [False, True, False, True]
        for error in answers[1::2]:
            assert "INVALID_TIMESTAMP" in str(error)
            assert ("out of range" in str(error)) == (version == 8), "Kafka's own words"
            assert {type(outcome) for outcome in error.outcomes} == {Rejected}
        stats = publisher.stats()
        assert (stats.durable, stats.rejected, stats.unknown, stats.producers) == (80, 60, 0, 1)
        await publisher.publish_batch(events(20, start=500))
    log = await read_log(stack.kafka_url, topic)
    assert len(log) == len(set(ids_of(log))) == 100
    assert_in_order(log)


async def test_each_call_of_a_clock_that_is_late_is_rejected_with_kafkas_reason(
    stack, settings, topic, clock
):
    await alter_topic(stack.kafka_url, topic, message_timestamp_before_max_ms="60000")
    async with DualPublisher(settings()) as publisher:
        for number in range(5):
            clock.append(-1)
            with pytest.raises(PublishRejected, match="INVALID_TIMESTAMP") as caught:
                await publisher.publish(events(1, start=number)[0])
            assert "in time" not in str(caught.value)
        assert publisher.stats().producers == 1
    assert await read_log(stack.kafka_url, topic) == []


# --- brokers that look into records, in front of the real one


class Inspector:
    """Answers for the broker where a batch has a record with the word in it; the others it passes on.

    ``names``: says which records are guilty.
    """

    def __init__(self, publisher: DualPublisher, code: int, word: bytes, *, names: bool) -> None:
        self.code, self.word, self.names = code, word, names
        self.asked = 0
        self.client = publisher._accumulator.sender._writer._producer.client
        self.passed_on = self.client.send
        self.client.send = self.send

    async def send(self, node: int, request: object, **options: object) -> object:
        if not isinstance(request, _Produce):
            return await self.passed_on(node, request, **options)
        self.asked += 1
        rows, others = [], []
        ((topic, partitions),) = request._topics
        for partition, data in partitions:
            guilty = [
                (place, "the inspector says so")
                for place, record in enumerate(MemoryRecords(b"".join(data)).next_batch())
                if self.word in record.value
            ]
            if guilty:
                rows.append((partition, self.code, -1, -1, 0, guilty if self.names else [], None))
            else:
                others.append((partition, data))
        answers = [(topic, rows)]
        if others:
            answer = await self.passed_on(node, _Produce([(topic, others)], 3000), **options)
            answers += answer.topics
        return ProduceResponse_v8(answers, 0)


@pytest.mark.parametrize("names", [True, False])
async def test_an_invalid_record_is_found_and_its_neighbours_are_appended(stack, settings, topic, names):
    async with DualPublisher(settings()) as publisher:
        inspector = Inspector(publisher, 87, b"forbidden", names=names)
        batch = events(600, sources=3)
        bad = {7, 8, 300, 599}
        batch = [
            Event(type="t", source_type="repo", source_id=event.source_id, data={"n": n, "x": "forbidden"})
            if n in bad
            else event
            for n, event in enumerate(batch)
        ]
        with pytest.raises(PublishRejected, match="4 of 600 events are not in the log") as caught:
            await publisher.publish_batch(batch)
        kinds = [type(outcome) for outcome in caught.value.outcomes]
        assert {n for n, kind in enumerate(kinds) if kind is Rejected} == bad
        assert kinds.count(Durable) == 596
        assert "INVALID_RECORD" in str(caught.value)
        assert ("the inspector says so" in str(caught.value)) == names
        assert inspector.asked <= (6 if names else 90)
        assert publisher.stats().producers == 1
    log = await read_log(stack.kafka_url, topic)
    assert sorted(ids_of(log)) == sorted(event.id for n, event in enumerate(batch) if n not in bad)
    assert_in_order(log)


@pytest.mark.parametrize(("code", "name"), [(44, "POLICY_VIOLATION"), (42, "INVALID_REQUEST")])
async def test_what_a_policy_forbids_rejects_the_batch_at_once(stack, settings, topic, code, name):
    async with DualPublisher(settings()) as publisher:
        inspector = Inspector(publisher, code, b'"x"', names=False)
        with pytest.raises(PublishRejected, match=name):
            await asyncio.wait_for(publisher.publish_batch(events(100, sources=1)), 5)
        assert inspector.asked == 1
        assert publisher.stats().producers == 1


async def test_a_server_error_is_unknown_and_not_blamed_on_time(stack, settings, topic):
    async with DualPublisher(settings()) as publisher:
        Inspector(publisher, -1, b'"x"', names=False)
        with pytest.raises(OutcomeUnknown, match="UNKNOWN_SERVER_ERROR") as caught:
            await asyncio.wait_for(publisher.publish_batch(events(100, sources=1)), 5)
        assert "in time" not in str(caught.value)
        await publisher.publish_batch(events(100, start=100))
        assert publisher.stats().producers == 2


async def test_a_refusal_after_an_attempt_that_was_not_answered_is_unknown_as_it_may_be_in_the_log(
    stack, settings, topic
):
    """Here it is: taking its sequence numbers back would let Kafka take the next batch for this one."""
    async with DualPublisher(settings()) as publisher:
        await publisher.publish_batch(events(20))
        inspector = Inspector(publisher, 29, b"n", names=False)
        real = inspector.passed_on

        async def lose_the_answer(node: int, request: object, **options: object) -> object:
            if not isinstance(request, _Produce):
                return await real(node, request, **options)
            inspector.client.send = inspector.send
            await real(node, request, **options)
            raise RequestTimedOutError

        inspector.client.send = lose_the_answer
        event = events(1, start=50)[0]
        with pytest.raises(OutcomeUnknown, match="TOPIC_AUTHORIZATION_FAILED"):
            await publisher.publish(event)
        answers = await publisher.resolve([event])
        assert isinstance(answers[key_of(event)], InLog)
        following = events(20, start=60)
        await publisher.publish_batch(following)
        assert publisher.stats().producers == 2
    log = ids_of(await read_log(stack.kafka_url, topic))
    assert len(log) == len(set(log)) == 41


async def test_what_was_reported_unknown_and_is_refused_then_is_resolved_as_not_in_the_log(
    stack, settings, topic
):
    async with DualPublisher(settings(delivery_timeout=1)) as publisher:
        await publisher.publish_batch(events(20))
        inspector = Inspector(publisher, 44, b'"x"', names=False)
        may_answer = asyncio.Event()

        async def hold(node: int, request: object, **options: object) -> object:
            if isinstance(request, _Produce):
                await may_answer.wait()
            return await inspector.send(node, request, **options)

        inspector.client.send = hold
        event = events(1, start=50)[0]
        with pytest.raises(OutcomeUnknown, match="in time"):
            await publisher.publish(event)
        may_answer.set()
        await until(lambda: not publisher.stats().buffered_events)
        (answer,) = (await publisher.resolve([event])).values()
        assert isinstance(answer, NotInLog)
        assert "POLICY_VIOLATION" in answer.reason
        stats = publisher.stats()
        assert (stats.accepted, stats.durable, stats.unknown, stats.rejected) == (21, 20, 1, 0)


# --- batches older than a broker's memory


async def test_a_batch_that_waits_too_long_for_its_answer_is_never_sent_again(
    stack, settings, topic, monkeypatch
):
    """A broker forgets a producer in a day, and would append a second time what it has."""
    monkeypatch.setattr("dualstream_lab.publisher.sender._MAX_FLIGHT", 1.0)
    where = settings(delivery_timeout=1, refresh_interval=0.2, request_timeout=1)
    async with DualPublisher(where) as publisher:
        await publisher.publish_batch(events(20))
        await mute(stack.brokers[0])
        with pytest.raises(OutcomeUnknown):
            await publisher.publish_batch(events(20, start=20))
        await until(lambda: not publisher._accumulator.sender.in_flight(), timeout=60)
        stack.brokers[0].resume()
        await until(lambda: publisher.stats().producers == 2, timeout=60)
        await publisher.publish_batch(events(20, start=40))
    log = ids_of(await read_log(stack.kafka_url, topic))
    assert len(log) == len(set(log))
