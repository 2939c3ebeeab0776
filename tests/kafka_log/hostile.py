"""A topic as real ones are: what it holds, and what every reader is to make of it."""

from __future__ import annotations

import asyncio
import struct
import zlib
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from dualstream_lab.event import Event, encode_event

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
PARTITIONS = 4


@dataclass(frozen=True)
class Opinion:
    """What a record is: an event of a source, by its id; or no event, for a reason that has these words."""

    partition: int
    offset: int
    source: str = ""
    id: str = ""
    reason: str = ""
    value: bytes = b""


def event(number, source="o/r", **fields):
    when = datetime(2026, 1, 1, tzinfo=UTC)
    what = {"type": "push", "source_type": "repo", "source_id": source, "data": {"n": number}}
    return Event(id=f"e{number}", occurred_at=when, **(what | fields))


def nested(depth):
    return b'{"id":"deep","type":"t","source_type":"repo","source_id":"o/r","data":%b%b}' % (
        b"[" * depth,
        b"]" * depth,
    )


GOOD = encode_event(event(0))
WRONG = {
    "no id": (b"o/r", b'{"type":"t","source_type":"repo","source_id":"o/r"}', "missing required field `id`"),
    "a local time": (b"o/r", GOOD.replace(b"Z", b""), "must be a datetime with a time zone"),
    "a tombstone": (b"o/r", None, "tombstone"),
    "another's key": (b"o/other", GOOD, "is not its source_id"),
    "noise": (b"o/r", b"\x00\xff", "not an event"),
    "noise without a key": (None, b"noise", "not an event"),
    "nested too deep": (b"o/r", nested(700), "nested too deep"),
    "an array": (b"o/r", b"[1]", "not an event"),
}


class Writer:
    """Writes to a topic, and keeps what its readers are to think."""

    def __init__(self, url, topic):
        self.url = url
        self.topic = topic
        self.opinions = []

    @asynccontextmanager
    async def producer(self, **options):
        made = AIOKafkaProducer(bootstrap_servers=self.url, acks="all", **options)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()

    async def send(self, producer, item, *, key=b"", partition=None, value=None):
        """An event; with ``key`` and ``partition`` as another producer would."""
        key = item.source_id.encode() if key == b"" else key
        value = value or encode_event(item)
        sent = await (await producer.send(self.topic, value, key=key, partition=partition))
        self.opinions.append(
            Opinion(sent.partition, sent.offset, f"repo:{item.source_id}", item.id, value=value)
        )
        return sent

    async def send_batch(self, producer, items, partition):
        """Events in one batch, all of one partition."""
        batch = producer.create_batch()
        values = [encode_event(item) for item in items]
        for item, value in zip(items, values, strict=True):
            assert batch.append(key=item.source_id.encode(), value=value, timestamp=None)
        batch.close()
        first = (await (await producer.send_batch(batch, self.topic, partition=partition))).offset
        self.opinions += [
            Opinion(partition, first + place, f"repo:{item.source_id}", item.id, value=value)
            for place, (item, value) in enumerate(zip(items, values, strict=True))
        ]
        return first

    async def send_wrong(self, producer, partition):
        for key, value, reason in WRONG.values():
            sent = await producer.send_and_wait(self.topic, value, key=key, partition=partition)
            self.opinions.append(Opinion(partition, sent.offset, reason=reason, value=value or b""))

    async def transaction(self, items, *, commit, partition=0):
        """A transaction, committed or aborted."""
        async with self.producer(transactional_id=f"tx-{uuid4().hex}") as producer:
            await producer.begin_transaction()
            before = len(self.opinions)
            for item in items:
                await self.send(producer, item, partition=partition)
            if commit:
                await producer.commit_transaction()
            else:
                await producer.abort_transaction()
                del self.opinions[before:]

    def sorted(self):
        return sorted(self.opinions, key=lambda opinion: (opinion.partition, opinion.offset))


async def write_hostile(url, topic):
    """Of everything some, into four partitions; the returned writer knows what it is."""
    writer = Writer(url, topic)
    numbers = iter(range(1, 10_000))
    for codec in CODECS:
        async with writer.producer(compression_type=codec, linger_ms=20) as producer:
            for partition in range(PARTITIONS):
                items = [event(next(numbers), f"o/p{partition}") for _ in range(3)]
                await writer.send_batch(producer, items, partition)
    async with writer.producer() as producer:
        for _ in range(PARTITIONS):
            by_crc32 = event(next(numbers), "o/crc32")
            await writer.send(
                producer, by_crc32, partition=zlib.crc32(by_crc32.source_id.encode()) % PARTITIONS
            )
            item = event(next(numbers), "o/everywhere")
            await writer.send(producer, item, partition=int(item.id[1:]) % PARTITIONS, key=None)
        for partition in (0, 3):
            await writer.send_wrong(producer, partition)
        for source in ("o/one", "o/two"):  # the same id in two sources
            await writer.send(producer, event(0, source), partition=1)
    await writer.transaction([event(next(numbers)) for _ in range(2)], commit=True)
    await writer.transaction([event(next(numbers)) for _ in range(2)], commit=False)
    async with writer.producer() as producer:
        await writer.send(producer, event(next(numbers)), partition=0)
    return writer


COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.001",
    "segment.ms": "100",
    "delete.retention.ms": "100",
}


async def write_compacted(url, topic):
    """Two sources' events into partition 0, of which the log cleaner has removed most; where it ends.

    The returned writer knows of all that was written.
    """
    writer = Writer(url, topic)
    targets = [TopicPartition(topic, 0)]
    async with writer.producer() as producer, asyncio.timeout(60):
        for number in range(20):
            await writer.send(producer, event(number, f"o/{number % 2}"), partition=0)
        while True:
            await asyncio.sleep(0.3)
            last = await writer.send(producer, event(100 + len(writer.opinions), "o/0"), partition=0)
            async with consumer(url, auto_offset_reset="earliest") as reader:
                reader.assign(targets)
                reader.seek(targets[0], 0)
                first = (await reader.getone()).offset
            if first > 10:
                return writer, last.offset + 1


@asynccontextmanager
async def admin(url):
    made = AIOKafkaAdminClient(bootstrap_servers=url)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def scatter(url):
    """A topic of three partitions, of which each broker has one alone."""
    name = f"test-{uuid4().hex[:12]}"
    async with admin(url) as client:
        configs = {"min.insync.replicas": "1"}
        alone = {partition: [partition + 1] for partition in range(3)}
        await client.create_topics([NewTopic(name, -1, -1, replica_assignments=alone, topic_configs=configs)])
    return name


async def grow(url, topic, partitions):
    async with admin(url) as client:
        await client.create_partitions({topic: NewPartitions(partitions)})
        async with asyncio.timeout(20):
            while True:
                (found,) = await client.describe_topics([topic])
                if len(found["partitions"]) == partitions and all(
                    one["leader"] >= 0 for one in found["partitions"]
                ):
                    return
                await asyncio.sleep(0.05)


async def delete_records(url, topic, before):
    """The log of each partition begins there."""
    async with admin(url) as client:
        await client.delete_records({TopicPartition(topic, p): RecordsToDelete(o) for p, o in before.items()})


async def make_anew(stack, topic, partitions=6):
    """Delete a topic, and create one of the same name."""
    async with admin(stack.kafka_url) as client, asyncio.timeout(60):
        await client.delete_topics([topic])
        while (await client.describe_topics([topic]))[0]["error_code"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    stack.create_topic(topic, partitions=partitions)


# Damage to a broker's file: what a disk, or a broker with an error, gives. Places in a batch, format 2.
_LENGTH, _CRC, _ATTRIBUTES = 8, 17, 21


def _flip(batch):
    batch[-5] ^= 0xFF


def _unknown_codec(batch):
    batch[_ATTRIBUTES + 1] |= 7
    _seal(batch)


def _last_record(batch):
    batch[-1] = 1  # it says that it has -1 headers
    _seal(batch)


def _seal(batch):
    struct.pack_into(">I", batch, _CRC, calc_crc32c(bytes(batch[_ATTRIBUTES:])) & 0xFFFFFFFF)


DAMAGES = {
    "checksum": (_flip, "wrong CRC"),
    "codec": (_unknown_codec, "Unknown compression codec"),
    "record": (_last_record, "invalid number of record headers"),
}


@contextmanager
def damaged(stack, topic, partition, offset, kind):
    """The batch that has this offset, damaged in the broker's file, and mended again."""
    (path,) = stack.directory.glob(f"kafka-1/data/{topic}-{partition}/*0.log")
    data = path.read_bytes()
    place = 0
    while sum(struct.unpack_from(">q15xi", data, place)) < offset:  # its first, and how many follow
        place += 12 + struct.unpack_from(">i", data, place + _LENGTH)[0]
    whole = data[place : place + 12 + struct.unpack_from(">i", data, place + _LENGTH)[0]]
    broken = bytearray(whole)
    DAMAGES[kind][0](broken)

    def write(batch):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(batch)

    write(broken)
    try:
        yield
    finally:
        write(whole)


async def stable_ends(url, topic, partitions=PARTITIONS):
    """Where the partitions end, once no transaction is open: markers come after the commit's answer."""
    targets = [TopicPartition(topic, partition) for partition in range(partitions)]
    async with consumer(url) as high, consumer(url, isolation_level="read_committed") as stable:
        async with asyncio.timeout(30):
            while (ends := await high.end_offsets(targets)) != await stable.end_offsets(targets):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    return {target.partition: end for target, end in ends.items()}


@asynccontextmanager
async def consumer(url, **options):
    made = AIOKafkaConsumer(bootstrap_servers=url, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def mute(process):
    """SIGSTOP; returns when it stands still."""
    process.pause()
    async with asyncio.timeout(20):
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
