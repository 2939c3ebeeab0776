"""From the lanes to Kafka and back: batches handed over, answers sorted out, a failed producer replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import KafkaError

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.publisher.call import Flight, Lane, Part, State
from dualstream_lab.publisher.kafka import Barred, KafkaWriter, RepeatFilter
from dualstream_lab.publisher.record_batch import CODECS
from dualstream_lab.publisher.refusals import BatchRefused, Blame, triage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log import TopicInfo
    from dualstream_lab.publisher.record_batch import BatchLimit

__all__ = ["Sender"]

log = logging.getLogger(__name__)
log.addFilter(RepeatFilter())

_PAUSES: Final = (0.5, 2.0)  # s until a new producer is tried again: first, and at most
# What waits longer for its answer is not sent again: brokers forget a producer after a day
# (producer.id.expiration.ms), and then write again what they have.
_MAX_FLIGHT: Final = 3600.0  # s
_GONE: Final = "the topic was made anew, with fewer partitions"
_UNSEEN: Final = "TOPIC_AUTHORIZATION_FAILED: Kafka does not let this user see the topic any more"


class Sender:
    """Sends what waits in the lanes, one batch a partition, and settles every part that Kafka answers for.

    While a batch of a partition is in flight the next one fills: that is all the batching there is, and no
    timer. ``settled(part)`` is told of every part that is durable, rejected or lost, once, and
    ``acknowledged(part, ack_ns)`` of the durable ones, in the order of the log, when there is time;
    ``announced()`` after that.
    """

    def __init__(
        self,
        settings: Settings,
        writer: KafkaWriter,
        *,
        partitions: int,
        limit: BatchLimit,
        settled: Callable[[Part], None],
        acknowledged: Callable[[Part, int], None],
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
        self._lanes = [Lane(partition) for partition in range(partitions)]
        self._partitions = partitions
        self._ready: dict[Lane, None] = {}
        self._acked: list[tuple[Part, int]] = []
        self._pumping = False
        self._replacement: asyncio.Task[None] | None = None
        self._closing = False
        self._bar = ""
        self.trouble = ""
        """Why nothing can be sent now; empty when something can."""
        self.producers = 1

    @property
    def has_acked(self) -> bool:
        """Whether acknowledged parts are still to be told."""
        return bool(self._acked)

    def enqueue(self, parts: Iterable[Part]) -> None:
        """Take the parts of a call, each to be sent after all that its lane has."""
        for part in parts:
            lane = self._lanes[part.partition]
            lane.waiting.append(part)
            if lane.flight is None:
                self._ready[lane] = None
        self._schedule_pump()

    # The topic changes

    def resize(self, partitions: int) -> None:
        """The topic has so many partitions now; what waits for one that is gone is rejected."""
        for number in range(len(self._lanes), partitions):
            self._lanes.append(Lane(number))
        self._partitions = partitions
        self._ready |= dict.fromkeys(self._lanes[partitions:])
        self._schedule_pump()

    def forget_offsets(self) -> None:
        """The topic was made anew: offsets of before mean nothing."""
        for lane in self._lanes:
            lane.next_offset = -1
            for part in lane.flight.parts if lane.flight is not None else ():
                part.floor = -1

    async def topic_info(self) -> TopicInfo:
        """The topic as it is now. Raises StreamUnavailable, and ConfigError where it is gone."""
        if self._replacement is not None:
            raise StreamUnavailable(self.trouble)
        return await self._writer.topic_info()

    def _bar_of(self, partition: int) -> str:
        """Why nothing can be sent to a partition; empty when something can, or may be able to soon."""
        return self._bar or ("" if partition < self._partitions else _GONE)

    def in_flight(self) -> list[Part]:
        """What Kafka has, and has not answered for."""
        return [part for lane in self._lanes if lane.flight is not None for part in lane.flight.parts]

    # Handing over

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            # At the end of this turn of the loop, so that all who publish in it share a batch.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._ready and (self._replacement is None or self._bar):
            lane, _ = self._ready.popitem()
            if bar := self._bar_of(lane.partition):
                for part in lane.take_all():
                    self._reject(part, bar)
            elif lane.flight is None:
                self._hand_over(lane)
        # Announced only now, while Kafka works on what it was just given.
        acked, self._acked = self._acked, []
        for part, ack in acked:
            self._acknowledged(part, ack)
        self._announced()

    def _hand_over(self, lane: Lane) -> None:
        parts, batch = lane.next_batch(self._limit.bytes, self._codec)
        if not parts:
            return
        try:
            future = self._writer.send(lane.partition, batch)
        except KafkaError as error:
            lane.give_back([parts])
            self._replace(f"the producer died ({error})")
            return
        for part in parts:
            part.state = State.IN_FLIGHT
            part.floor = lane.next_offset
            part.records = []  # the batch has them now
        lane.flight = Flight(parts, batch, future, self._loop.time())
        future.add_done_callback(partial(self._landed, lane, lane.flight))

    # Answers

    def _landed(self, lane: Lane, flight: Flight, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if lane.flight is not flight:  # given up, with its producer
            return
        lane.flight = None
        if error is None:
            self._durable(lane, flight, future.result().offset)
        elif isinstance(error, BatchRefused):
            self._refused(lane, flight, error)
        elif flight.batch.in_doubt:
            self._lost(flight, f"its answer leaves that open ({error})")
            self._replace(f"a batch for partition {lane.partition} failed ({error!r})")
        else:
            self._untaken(lane, flight, error)
        if lane.waiting or lane.again:
            self._ready[lane] = None
        self._schedule_pump()

    def _durable(self, lane: Lane, flight: Flight, offset: int) -> None:
        ack = time.time_ns()
        for part in flight.parts:
            part.state = State.DURABLE
            part.base = offset
            if offset >= 0:
                offset += len(part.notes)
            self._acked.append((part, ack))
            self._settled(part)
        lane.next_offset = offset
        self.trouble = ""

    def _refused(self, lane: Lane, flight: Flight, refused: BatchRefused) -> None:
        """Nothing of it is in the log: the guilty are rejected, the others are sent again."""
        self._writer.take_back(lane.partition, flight.batch)
        if refused.answer.blame is Blame.SIZE:
            self._limit.refused(flight.batch.size(), flight.batch.record_count())
        log.warning(
            "Kafka refused a batch of %d events for partition %d: %s",
            flight.batch.record_count(),
            lane.partition,
            refused.reason,
        )
        flight.return_to_waiting()
        rejected, again = triage(flight.parts, refused)
        for part, reason in rejected:
            self._reject(part, f"Kafka refused it: {reason}")
        lane.give_back(again)

    def _untaken(self, lane: Lane, flight: Flight, error: BaseException) -> None:
        """It never left this process, for want of a leader: it waits on, until its deadline."""
        self._writer.take_back(lane.partition, flight.batch)
        self.trouble = f"partition {lane.partition} has no leader ({error})"
        bar = self._bar_of(lane.partition) or (_UNSEEN if self._writer.refuses_topic() else "")
        flight.return_to_waiting()
        for part in flight.parts:
            if bar or part.reported:
                self._reject(part, bar or self.trouble)
        lane.give_back([flight.parts])

    def _lost(self, flight: Flight, reason: str) -> None:
        for part in flight.parts:
            part.state, part.reason = State.LOST, reason
            self._settled(part)

    def _reject(self, part: Part, reason: str) -> None:
        part.state, part.reason, part.records = State.REJECTED, reason, []
        self._settled(part)

    # Replacing the producer

    def check_age(self) -> None:
        """Give up a producer whose batches are older than a broker might remember."""
        oldest = min(
            (lane.flight.began for lane in self._lanes if lane.flight is not None), default=float("inf")
        )
        if self._loop.time() - oldest > _MAX_FLIGHT:
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
        flying = [lane.flight.future for lane in self._lanes if lane.flight is not None]
        if flying:
            await asyncio.wait(flying, timeout=self._settings.delivery_timeout)
            await asyncio.sleep(0)  # let them land
        await self._writer.abort()
        for lane in self._lanes:
            if (flight := lane.flight) is not None:
                lane.flight = None
                self._lost(flight, f"its producer was given up ({reason})")
        self._writer = await self._opened()
        self.producers += 1
        self._replacement = None
        self._bar = self.trouble = ""
        self._ready = dict.fromkeys(lane for lane in self._lanes if lane.waiting or lane.again)
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
                self._ready = dict.fromkeys(self._lanes)
                self._schedule_pump()
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    async def close(self) -> None:
        """Close the producer: hard where it still has batches. Enqueue nothing after this."""
        self._closing = True
        if self._replacement is not None:
            self._replacement.cancel()
            await asyncio.wait([self._replacement])
        await (self._writer.abort() if self.in_flight() else self._writer.close())
