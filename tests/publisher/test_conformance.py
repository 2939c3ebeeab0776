"""What holds for any publisher: the real one on Kafka, and the one in memory, for other people's tests."""

from __future__ import annotations

import pytest

from dualstream_lab import DualPublisher, Event, Settings
from dualstream_lab.errors import (
    BufferFull,
    ConfigError,
    EventError,
    OutcomeUnknown,
    PublishError,
    PublishRejected,
    StreamUnavailable,
)
from dualstream_lab.kafka_log import partition_of
from dualstream_lab.publisher import InLog, NotInLog, Rejected, Unknown
from dualstream_lab.testing import MemoryPublisher

from .helpers import events
from .test_contract import BAD

PARTITIONS = 6  # of the tests' topics


@pytest.fixture(params=["kafka", "memory"])
def make(request):
    """Makes publishers of one kind, of a topic that is empty."""
    settings = Settings if request.param == "memory" else request.getfixturevalue("settings")

    def publisher(*, compression="none", **options):
        if request.param == "memory":
            return MemoryPublisher(settings(compression=compression), partitions=PARTITIONS, **options)
        return DualPublisher(settings(compression=compression), **options)

    return publisher


async def test_receipts_are_in_the_order_of_the_calls(make):
    first, *batch = events(50)
    async with make() as publisher:
        one = await publisher.publish(first)
        many = await publisher.publish_batch(iter(batch))
        assert [one.event_id, *(receipt.event_id for receipt in many)] == [e.id for e in (first, *batch)]
        offsets: dict[int, list[int]] = {}
        for receipt in (one, *many):
            offsets.setdefault(receipt.partition, []).append(receipt.offset)
        assert all(places == list(range(len(places))) for places in offsets.values())
        assert await publisher.flush() is True


async def test_a_source_has_its_partition(make):
    """As Java's default partitioner has it: murmur2 of the key."""
    sources = ["a", "owner/repo", "Ünï"]
    async with make() as publisher:
        for source_id in sources:
            receipt = await publisher.publish(Event(type="t", source_type="repo", source_id=source_id))
            assert receipt.partition == partition_of(f"repo:{source_id}", PARTITIONS)


async def test_bad_events_are_refused_by_the_same_words(make):
    batch = [bad for bad, _ in BAD] + events(1)
    async with make() as publisher:
        with pytest.raises(EventError, match="none was sent") as caught:
            await publisher.publish_batch(batch)
        assert sorted(caught.value.invalid) == list(range(len(BAD)))
        for index, (_, reason) in enumerate(BAD):
            assert reason in caught.value.invalid[index]
        receipt = await publisher.publish_batch(batch, on_invalid="skip")
        assert [one.offset for one in receipt] == [0]
        with pytest.raises(ConfigError, match="on_invalid must be 'refuse' or 'skip'"):
            await publisher.publish_batch(batch, on_invalid="ignore")


def test_bad_headers_are_refused_before_the_start(make):
    with pytest.raises(ConfigError, match="ce_id"):
        make(headers=[("ce_id", b"x")])


async def test_a_large_event_may_be_small_as_it_is_sent(make):
    event = Event(type="t", source_type="repo", source_id="a", data="x" * 2_000_000)
    async with make(compression="lz4") as publisher:
        assert (await publisher.publish(event)).offset == 0


async def test_only_between_start_and_close(make):
    publisher = make()
    with pytest.raises(StreamUnavailable, match="is not started"):
        await publisher.publish(events(1)[0])
    await publisher.start()
    await publisher.start()
    report = await publisher.close()
    assert (report.durable, list(report.rejected), list(report.unresolved)) == (0, [], [])
    with pytest.raises(PublishRejected, match="closed"):
        await publisher.publish(events(1)[0])
    with pytest.raises(StreamUnavailable, match="cannot be started again"):
        await publisher.start()


async def test_only_what_was_reported_unknown_is_resolved(make):
    async with make() as publisher:
        await publisher.publish(events(1)[0])
        with pytest.raises(EventError, match="1 events were not reported unknown"):
            await publisher.resolve(events(1))


@pytest.mark.parametrize(
    ("failure", "error", "outcome"),
    [
        ("no room", BufferFull, Rejected),
        ("rejected", PublishRejected, Rejected),
        ("unknown", OutcomeUnknown, Unknown),
    ],
)
async def test_the_next_call_fails_as_it_was_told_to(failure, error, outcome):
    batch = events(3)
    async with MemoryPublisher() as publisher:
        publisher.fail_next(failure)
        with pytest.raises(error) as caught:
            await publisher.publish_batch(batch)
        assert [type(one) for one in caught.value.outcomes] == [outcome] * 3
        assert publisher.events == []
        assert len(await publisher.publish_batch(batch)) == 3, "and the one after it does not"
        assert publisher.events == batch
        with pytest.raises(ConfigError, match="'no room', 'rejected' or 'unknown'"):
            publisher.fail_next("gone")


@pytest.mark.parametrize("in_log", [True, False])
async def test_the_unknown_is_resolved(in_log):
    event = events(1)[0]
    async with MemoryPublisher() as publisher:
        publisher.fail_next("unknown", in_log=in_log)
        with pytest.raises(PublishError, match="may be in the log"):
            await publisher.publish(event)
        (found,) = (await publisher.resolve([event])).values()
        assert type(found) is (InLog if in_log else NotInLog)
        assert publisher.events == ([event] if in_log else [])
