"""confluent-kafka (librdkafka) in a loop, without Redis."""

import gc
import time

from confluent_kafka import Producer

from benchmarks.peers.common import Task, event_headers, report
from dualstream_lab.event import encode_event


def main() -> None:
    task = Task.read()
    producer = Producer(
        {
            "bootstrap.servers": task.kafka,
            "enable.idempotence": True,
            "linger.ms": 2,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 200_000,
            "partitioner": "murmur2_random",
        }
    )
    producer.list_topics(task.topic, timeout=10)
    events = task.make()
    acked = 0

    def landed(error: object, _message: object) -> None:
        nonlocal acked
        acked += error is None

    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    for number, event in enumerate(events):
        headers = event_headers(event)
        while True:
            try:
                producer.produce(
                    task.topic,
                    key=event.source_id.encode(),
                    value=encode_event(event),
                    headers=headers,
                    on_delivery=landed,
                )
                break
            except BufferError:
                producer.poll(0.01)
        if number % 100 == 0:
            producer.poll(0)
    producer.flush(60)
    report(acked=acked, notified=0, dropped=0, seconds=time.perf_counter() - started)


main()
