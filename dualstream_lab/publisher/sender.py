"""From the queues to Kafka and back: batches handed over, answers sorted out, a failed producer replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import RepeatFilter, TopicInfo
from dualstream_lab.publisher.call import PartitionSlice, State
from dualstream_lab.publisher.kafka import Barred, KafkaWriter
from dualstream_lab.publisher.partition_queue import InFlightBatch, PartitionQueue
from dualstream_lab.publisher.record_batch import CODECS, BatchLimit
from dualstream_lab.publisher.refusals import BatchRefused, Blame, triage

log = logging.getLogger(__name__)
log.addFilter(RepeatFilter())

_PAUSES: Final = (0.5, 2.0)  # s until a new producer is tried again: first, and at most
# What waits longer for its answer is not sent again: brokers forget a producer after a day
# (producer.id.expiration.ms), and then write again what they have.
_MAX_FLIGHT: Final = 3600.0  # s
_GONE: Final = "the topic was made anew, with fewer partitions"
_UNSEEN: Final = "TOPIC_AUTHORIZATION_FAILED: Kafka does not let this user see the topic any more"


class Sender:
    """Sends what waits, one batch a partition, and settles every slice that Kafka answers for.

    While a batch of a partition is in flight the next one fills: that is all the batching there is, and no
    timer. ``settled(parts)`` is called once for every slice that is durable, rejected or lost,
    ``acknowledged(parts, ack_ns)`` for those of a durable batch, in the order of the log, when there is time,
    and ``announced()`` after that.
    """

    def __init__(
        self,
        settings: Settings,
        writer: KafkaWriter,
        *,
        partitions: int,
        limit: BatchLimit,
        settled: Callable[[list[PartitionSlice]], None],
        acknowledged: Callable[[list[PartitionSlice], int], None],
        announced: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._limit = limit
        self._codec = CODECS[settings.compression]
        self._settled = settled
        self._acknowledged = acknowledged
        self._announced = announced
        self._loop = asyncio.get_running_loop()
        self._queues = [PartitionQueue(partition) for partition in range(partitions)]
        self._partitions = partitions
        self._ready: dict[PartitionQueue, None] = {}
        self.acked: list[tuple[list[PartitionSlice], int]] = []
        """Acknowledged batches that are still to be announced, and when they were."""
        self._pumping = False
        self._replacement: asyncio.Task[None] | None = None
        self._closing = False
        self._bar = ""
        self.trouble = ""
        """Why nothing can be sent now; empty when something can."""
        self.producers = 1

    def enqueue(self, parts: Iterable[PartitionSlice]) -> None:
        """Take the slices of a call, each to be sent after all that its queue has."""
        for part in parts:
            queue = self._queues[part.partition]
            queue.waiting.append(part)
            if queue.in_flight is None:
                self._ready[queue] = None
        self._schedule_pump()

    # The topic changes

    def resize(self, partitions: int) -> None:
        """The topic has so many partitions now; what waits for one that is gone is rejected."""
        self._queues += map(PartitionQueue, range(len(self._queues), partitions))
        self._partitions = partitions
        self._ready |= dict.fromkeys(self._queues[partitions:])
        self._schedule_pump()

    def forget_offsets(self) -> None:
        """The topic was made anew: offsets of before mean nothing."""
        for queue in self._queues:
            queue.next_offset = -1
        for part in self.in_flight():
            part.floor = -1

    async def topic_info(self) -> TopicInfo:
        """The topic as it is now. Raises StreamUnavailable, and ConfigError where it is gone."""
        if self._replacement is not None:
            raise StreamUnavailable(self.trouble)
        return await self._writer.topic_info()

    def _bar_of(self, partition: int) -> str:
        """Why nothing can be sent to a partition; empty when something can, or may be able to soon."""
        return self._bar or ("" if partition < self._partitions else _GONE)

    def in_flight(self) -> list[PartitionSlice]:
        """What Kafka has, and has not answered for."""
        return [part for batch in self._batches() for part in batch.parts]

    def _batches(self) -> list[InFlightBatch]:
        return [queue.in_flight for queue in self._queues if queue.in_flight is not None]

    # Handing over

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            # At the end of this turn of the loop, so that all who publish in it share a batch.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._ready and (self._replacement is None or self._bar):
            queue, _ = self._ready.popitem()
            if bar := self._bar_of(queue.partition):
                self._reject(queue.take_all(), bar)
            elif queue.in_flight is None:
                self._hand_over(queue)
        # Announced only now, while Kafka works on what it was just given.
        acked, self.acked = self.acked, []
        for parts, ack in acked:
            self._acknowledged(parts, ack)
        self._announced()

    def _hand_over(self, queue: PartitionQueue) -> None:
        parts, batch = queue.next_batch(self._limit.bytes, self._codec)
        if not parts:
            return
        try:
            future = self._writer.send(queue.partition, batch)
        except KafkaError as error:
            queue.give_back([parts])
            self._replace(f"the producer died ({error})")
            return
        for part in parts:
            part.state = State.IN_FLIGHT
            part.floor = queue.next_offset
            part.records = []  # the batch has them now
        queue.in_flight = InFlightBatch(parts, batch, future, self._loop.time())
        future.add_done_callback(partial(self._answered, queue, queue.in_flight))

    # Answers

    def _answered(self, queue: PartitionQueue, sent: InFlightBatch, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if queue.in_flight is not sent:  # given up, with its producer
            return
        queue.in_flight = None
        if error is None:
            self._durable(queue, sent, future.result().offset)
        elif isinstance(error, BatchRefused):
            self._refused(queue, sent, error)
        elif sent.batch.in_doubt:
            self._lost(sent, f"its answer leaves that open ({error})")
            self._replace(f"a batch for partition {queue.partition} failed ({error!r})")
        else:
            self._untaken(queue, sent, error)
        if queue.waiting or queue.again:
            self._ready[queue] = None
        self._schedule_pump()

    def _durable(self, queue: PartitionQueue, sent: InFlightBatch, offset: int) -> None:
        ack = time.time_ns()
        for part in sent.parts:
            part.state = State.DURABLE
            part.base = offset
            if offset >= 0:
                offset += len(part.indices)
        self.acked.append((sent.parts, ack))
        self._settled(sent.parts)
        queue.next_offset = offset
        self.trouble = ""

    def _refused(self, queue: PartitionQueue, sent: InFlightBatch, refused: BatchRefused) -> None:
        """Nothing of it is in the log: the guilty are rejected, the others are sent again."""
        self._writer.take_back(queue.partition, sent.batch)
        count = sent.batch.record_count()
        if refused.answer.blame is Blame.SIZE:
            self._limit.refused(sent.batch.size(), count)
        partition, reason = queue.partition, refused.reason
        log.warning("Kafka refused a batch of %d events for partition %d: %s", count, partition, reason)
        sent.return_to_waiting()
        rejected, again = triage(sent.parts, refused)
        for part, why in rejected:
            self._reject([part], f"Kafka refused it: {why}")
        queue.give_back(again)

    def _untaken(self, queue: PartitionQueue, sent: InFlightBatch, error: BaseException) -> None:
        """It never left this process, for want of a leader: it waits on, until its deadline."""
        self._writer.take_back(queue.partition, sent.batch)
        self.trouble = f"partition {queue.partition} has no leader ({error})"
        bar = self._bar_of(queue.partition) or (_UNSEEN if self._writer.refuses_topic() else "")
        sent.return_to_waiting()
        self._reject([part for part in sent.parts if bar or part.reported], bar or self.trouble)
        queue.give_back([sent.parts])

    def _lost(self, sent: InFlightBatch, reason: str) -> None:
        for part in sent.parts:
            part.state, part.reason = State.LOST, reason
        self._settled(sent.parts)

    def _reject(self, parts: list[PartitionSlice], reason: str) -> None:
        for part in parts:
            part.state, part.reason, part.records = State.REJECTED, reason, []
        self._settled(parts)

    # Replacing the producer

    def check_age(self) -> None:
        """Give up a producer whose batches are older than a broker might remember."""
        now = self._loop.time()
        if any(now - batch.began > _MAX_FLIGHT for batch in self._batches()):
            self._replace(f"a batch has waited for {_MAX_FLIGHT:g} s for its answer")

    def _replace(self, reason: str) -> None:
        """The sequence numbers of a lost batch are used up: its producer can never write there again."""
        if self._replacement is None and not self._closing:
            log.warning("%s: a new producer is made; what waits is held meanwhile", reason)
            self.trouble = reason
            self._replacement = asyncio.create_task(self._make_anew(reason), name="dualstream-new-producer")

    async def _make_anew(self, reason: str) -> None:
        # The other partitions' batches may still be acknowledged: a second producer before that could
        # overtake them.
        if open_batches := [batch.future for batch in self._batches()]:
            await asyncio.wait(open_batches, timeout=self._settings.delivery_timeout)
            await asyncio.sleep(0)  # for their answers
        await self._writer.close(hard=True)
        for queue in self._queues:
            if (sent := queue.in_flight) is not None:
                queue.in_flight = None
                self._lost(sent, f"its producer was given up ({reason})")
        self._writer = await self._opened()
        self.producers += 1
        self._replacement = None
        self._bar = self.trouble = ""
        self._ready = {queue: None for queue in self._queues if queue.waiting or queue.again}
        self._schedule_pump()

    async def _opened(self) -> KafkaWriter:
        """A new producer, as soon as there can be one. While Kafka says why not, nobody waits for it."""
        pause, most = _PAUSES
        while True:
            try:
                return await KafkaWriter.open(self._settings)
            except Exception as error:  # noqa: BLE001  (whatever it is: calls end by their deadlines)
                log.warning("no new producer yet: %s", error)
                self.trouble = f"there is no producer: {error}"
                self._bar = self.trouble if isinstance(error, Barred) else ""
            if self._bar:
                self._ready = dict.fromkeys(self._queues)
                self._schedule_pump()
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    async def close(self) -> None:
        """Close the producer: hard where it still has batches. Enqueue nothing after this."""
        self._closing = True
        if self._replacement is not None:
            self._replacement.cancel()
            await asyncio.wait([self._replacement])
        await self._writer.close(hard=bool(self.in_flight()))
