#!/usr/bin/env bash
# aiokafka: one record that cannot be deserialized makes getmany() lose good records of *other* partitions.
#
# One would expect: a getmany() that raises has handed out nothing and moved nothing. The caller seeks past the bad
# record in its partition and reads on; the other partitions are not concerned.
# What happens: getmany() goes through what is buffered, partition by partition, and moves each position as it takes
# the records. At the bad one the deserializer's error leaves the call, and what it had taken of other partitions is
# neither returned nor read again: their positions are past it, and the next commit makes it final. Which partitions
# are hit depends on the order of the broker's answer (where the bad one's comes first, none is). getone() and `async
# for` lose nothing.
# Since: aiokafka 0.14.0. The broker here is librdkafka's own mock, which comes in the wheel of confluent-kafka: no
# Java.
# Why it matters: "catch, log, seek past it" is the usual treatment of a poison record. Here it loses records that
# have nothing wrong with them, and the consumer's lag says 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet aiokafka==0.14.0 confluent-kafka==2.16.1

venv/bin/python - <<'PY'
import asyncio
import json
import logging
import sys
from importlib.metadata import version

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

logging.disable(logging.CRITICAL)
PARTITIONS = [TopicPartition("events", partition) for partition in range(4)]
EACH, BAD, BAD_OFFSET = 100, PARTITIONS[2], 50
OTHERS = [partition for partition in PARTITIONS if partition != BAD]


def fill(producer):
    for partition in PARTITIONS:
        for offset in range(EACH):
            bad = partition == BAD and offset == BAD_OFFSET
            value = b"plain text" if bad else json.dumps(offset).encode()
            producer.produce("events", value, partition=partition.partition)
    assert producer.flush(10) == 0


async def read(servers, take):
    """How many records of each partition come until there are no more, and how many are behind the positions then."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", value_deserializer=json.loads)
    await asyncio.wait_for(consumer.start(), 20)
    consumer.assign(PARTITIONS)
    await asyncio.sleep(1)  # so that all partitions are buffered
    got = dict.fromkeys(PARTITIONS, 0)
    try:
        while True:
            try:
                records = await take(consumer)
            except ValueError:
                consumer.seek(BAD, BAD_OFFSET + 1)
                continue
            if not records:
                ends = await consumer.end_offsets(PARTITIONS)
                return got, sum([ends[partition] - await consumer.position(partition) for partition in PARTITIONS])
            for record in records:
                got[TopicPartition(record.topic, record.partition)] += 1
    finally:
        await consumer.stop()


async def many(consumer):
    return sum((await consumer.getmany(timeout_ms=2000)).values(), [])


async def one(consumer):
    try:
        return [await asyncio.wait_for(consumer.getone(), 2)]
    except TimeoutError:
        return []


def show(name, got, lag):
    counts = ", ".join(f"{got[partition]} of partition {partition.partition}" for partition in OTHERS)
    print(f"{name}: {counts}; lag afterwards {lag}")


async def main():
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    servers = [f"{broker.host}:{broker.port}" for broker in producer.list_topics(timeout=10).brokers.values()]
    fill(producer)
    print("aiokafka", version("aiokafka"), "- 100 records a partition, one bad one in partition 2; read of the others:")
    got, lag = await read(servers, one)
    show("getone() ", got, lag)
    whole = all(got[partition] == EACH for partition in OTHERS)
    for _ in range(8):  # one order of answers in four harms nobody
        got, lag = await read(servers, many)
        show("getmany()", got, lag)
        if lag == 0 and sum(got[partition] for partition in OTHERS) < EACH * len(OTHERS):
            break
    else:
        sys.exit("no longer so: getmany() loses nothing of other partitions")
    if not whole:
        sys.exit("no longer so: getone() loses records too")


asyncio.run(asyncio.wait_for(main(), 90))
PY
