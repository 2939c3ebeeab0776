"""librdkafka by confluent-kafka: so many calls open as the shape says, each until it has all its reports.

Without Redis. The events are encoded within the clock, as everywhere.
"""

from confluent_kafka import KafkaException, Producer

from benchmarks.peers.common import Clock, Task, event_headers
from dualstream_lab.event import encode_event


class Calls:
    """Counts reports; ``free``: calls that may begin."""

    def __init__(self, in_flight: int) -> None:
        self.free = in_flight
        self.acked = 0

    def reports(self, count: int):
        """What is told of each event of a call of so many."""
        waiting = count

        def report(error: object, _message: object) -> None:
            nonlocal waiting
            waiting -= 1
            self.acked += error is None
            if not waiting:
                self.free += 1

        return report


def main() -> None:
    task = Task.read()
    producer = Producer(
        {
            "bootstrap.servers": task.kafka,
            "enable.idempotence": True,
            "linger.ms": 1 if task.batch else 0.1,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 200_000,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": False,
        }
    )
    if task.topic not in producer.list_topics(task.topic, timeout=10).topics:
        raise KafkaException(task.topic)
    events = task.make()
    step = task.batch or 1
    calls = Calls(task.in_flight)
    clock = Clock()
    for first in range(0, len(events), step):
        while not calls.free:
            producer.poll(0.1)
        calls.free -= 1
        batch = events[first : first + step]
        report = calls.reports(len(batch))
        for event in batch:
            producer.produce(
                task.topic, key=event.source_id.encode(), value=encode_event(event),
                headers=event_headers(event), on_delivery=report,
            )  # fmt: skip
    producer.flush(60)
    clock.stop()
    clock.report(acked=calls.acked)


main()
