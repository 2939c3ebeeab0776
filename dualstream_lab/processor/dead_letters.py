"""Records that cannot be processed, into a topic of their own: as they were, with the reason."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.admin import NewTopic

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError
from dualstream_lab.kafka_log import TopicInfo, client_options, close_producer, is_there, open_admin
from dualstream_lab.record import Record

log = logging.getLogger(__name__)

_PAUSE: Final = 1.0  # s between tries
_AT_ONCE: Final = 500
_MAX_REASON: Final = 2000  # characters
_OUR_HEADERS: Final = 64 * 1024  # bytes: room for what is added to a record that was as big as allowed
_NO_LIMIT: Final = 2**31 - 1
_LEFT_OUT: Final = b"left out: larger than this topic takes"
_TOO_BIG: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class DeadLetter(NamedTuple):
    """A record, where it is, and why it could not be processed."""

    topic: str
    partition: int
    record: Record
    reason: str

    def headers(self) -> list[tuple[str, bytes]]:
        """The headers that are added to the record's own."""
        return [
            ("dead_letter_reason", self.reason[:_MAX_REASON].encode(errors="replace")),
            ("dead_letter_topic", self.topic.encode()),
            ("dead_letter_partition", str(self.partition).encode()),
            ("dead_letter_offset", str(self.record.offset).encode()),
        ]


class DeadLetters:
    """Writes to the dead-letter topic, at least once. ``trouble``: why it cannot be written to now."""

    def __init__(self, topic: str, producer: AIOKafkaProducer) -> None:
        self._topic = topic
        self._producer = producer
        self.trouble: str | None = None

    @classmethod
    async def open(cls, settings: ServeSettings, main: TopicInfo) -> Self:
        """Make the topic if it is not there, like ``main``, and connect.

        Raises KafkaError, OSError, ConfigError.
        """
        await _ensure_topic(settings, main)
        # Not idempotent: after a refused batch such a producer could never write to its partition again.
        options = client_options(settings)
        letters = cls(
            settings.dead_letters, AIOKafkaProducer(**options, acks="all", max_request_size=_NO_LIMIT)
        )
        try:
            await letters._producer.start()
        except BaseException:
            await letters.close()
            raise
        return letters

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when Kafka has all of them; waits through outages. They may be there twice then."""
        for begin in range(0, len(letters), _AT_ONCE):
            await asyncio.gather(*map(self._deliver, letters[begin : begin + _AT_ONCE]))

    async def _deliver(self, letter: DeadLetter) -> None:
        record = letter.record
        key, value, headers = record.key, record.value, [*record.headers, *letter.headers()]
        if key is None and value is None:
            value = b""  # aiokafka writes no record without both
        partition: int | None = None
        while True:
            try:
                await self._producer.send_and_wait(
                    self._topic, value, key=key, partition=partition, headers=headers
                )
            except kafka_errors.KafkaError as error:
                if isinstance(error, _TOO_BIG) and value != _LEFT_OUT:
                    key, value, headers = None, _LEFT_OUT, letter.headers()
                    continue
                trouble = f"dead-letter topic {self._topic} cannot be written to: {error!r}"
                if self.trouble != trouble:
                    log.warning("%s; trying on", trouble)
                self.trouble = trouble
                await asyncio.sleep(_PAUSE)
                partition = self._another_partition()
            else:
                self.trouble = None
                place = letter.topic, letter.partition, record.offset
                log.warning("%s partition %d offset %d is in %s: %s", *place, self._topic, letter.reason)
                return

    def _another_partition(self) -> int | None:
        """One that has a leader: letters need no order, and one broker that is away stops nobody."""
        led = self._producer.client.cluster.available_partitions_for_topic(self._topic)
        return random.choice(sorted(led)) if led else None  # noqa: S311

    async def close(self) -> None:
        """Disconnect, within seconds; what is not written by then is given up."""
        await close_producer(self._producer)


async def _ensure_topic(settings: ServeSettings, main: TopicInfo) -> None:
    """Like the main topic: as many partitions and copies, and a little room for our headers."""
    async with open_admin(settings) as admin:
        if await is_there(admin._client, settings.dead_letters):  # noqa: SLF001
            return
        configs = {"max.message.bytes": str(main.max_batch_bytes + _OUR_HEADERS)}
        new = NewTopic(settings.dead_letters, main.partitions, main.replicas, topic_configs=configs)
        answer = await admin.create_topics([new], timeout_ms=round(settings.request_timeout * 1000))
        _, code, message = answer.topic_errors[0][:3]
        reason = kafka_errors.for_code(code)
        if code and reason is not kafka_errors.TopicAlreadyExistsError:
            raise ConfigError(
                f"dead-letter topic {settings.dead_letters!r} does not exist and could not be made "
                f"({message or reason.__name__}); make it, or set DUALSTREAM_DEAD_LETTER_TOPIC to another"
            )
