"""From accepted calls to settled ones: buffer, lanes, deadlines, the replacement of a poisoned producer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from dualstream_lab.errors import DualStreamError, PublishRejected
from dualstream_lab.publisher.buffer import Buffer
from dualstream_lab.publisher.deadlines import Deadlines
from dualstream_lab.publisher.kafka import DEFINITE, KafkaWriter
from dualstream_lab.publisher.lane import Call, Flight, Lane, Part, State
from dualstream_lab.publisher.outcome import Rejected
from dualstream_lab.publisher.record_batch import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dualstream_lab.config import Settings

__all__ = ["Delivery"]

log = logging.getLogger(__name__)

_RETRY_PAUSE = 0.5


class Delivery:
    """Takes calls, hands their parts to Kafka one batch a partition, and settles every one by its deadline.

    ``acknowledged(part, ack_ns)`` is told of every durable part, in the order of the log. While a batch of a
    partition is in flight the next one fills: that is all the batching there is, and no timer.
    """

    def __init__(
        self,
        settings: Settings,
        writer: KafkaWriter,
        *,
        partitions: int,
        acknowledged: Callable[[Part, int], None],
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._acknowledged = acknowledged
        self._loop = asyncio.get_running_loop()
        self._lanes = [Lane(partition) for partition in range(partitions)]
        self._ready: dict[Lane, None] = {}
        self._acked: list[tuple[Part, int]] = []
        self._pumping = False
        self._replacement: asyncio.Task[None] | None = None
        self._open = Deadlines[Call](settings.delivery_timeout)
        self._in_line = Deadlines[Call](max(settings.buffer_timeout, 0.001))
        self._alarm: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._closing = False
        self.buffer = Buffer[Call](max_events=settings.buffer_events, max_bytes=settings.buffer_bytes)
        self.questions: OrderedDict[str, tuple[Part, int]] = OrderedDict()
        """Events reported unknown, by their key: their part, and their place in it."""
        self.accepted = self.durable = self.rejected = self.unknown = self.late = self.refused = 0
        self.producers = 1

    async def deliver(self, call: Call) -> None:
        """Returns when every part is durable; raises PublishError otherwise. Cancelling does not unsend."""
        if self._closing:
            raise PublishRejected("the publisher is closed", outcomes=_rejected(call, "closed"))
        if not self.buffer.can_ever_hold(call.events, call.size):
            self.refused += call.events
            raise call.no_room(
                f"{call.events} events of {call.size} bytes are more than the whole buffer (buffer_events="
                f"{self.buffer.max_events}, buffer_bytes={self.buffer.max_bytes}): split the call"
            )
        call.future = self._loop.create_future()
        if self.buffer.reserve(call.events, call.size):
            self._accept(call)
        else:
            self.buffer.wait(call, call.events, call.size)
            call.bucket = self._in_line.add(call, self._loop.time())
            self._set_alarm()
        try:
            await call.future
        except asyncio.CancelledError:
            # What was handed over goes on; a call still in line leaves it.
            if self.buffer.is_waiting(call):
                call.bucket.pop(call, None)
                self._admit(self.buffer.withdraw(call))
            raise

    async def settle(self, timeout: float) -> bool:
        """Wait until nothing is open. False if that takes longer."""
        deadline = self._loop.time() + timeout
        while self.buffer.events or self.buffer.waiting or self._acked:
            if self._empty is None or self._empty.done():
                self._empty = self._loop.create_future()
            done, _ = await asyncio.wait([self._empty], timeout=max(0.0, deadline - self._loop.time()))
            if not done:
                return False
        return True

    async def close(self, timeout: float) -> tuple[list[str], list[str]]:
        """Take no more, settle for ``timeout`` seconds, give the rest up.

        Returns the keys of the events never handed over, and of those that Kafka had.
        """
        self._closing = True
        await self.settle(timeout)
        rejected: list[str] = []
        unresolved: list[str] = []
        for call in self._in_line.due(float("inf")):
            self.buffer.withdraw(call)
            self._refuse(call, "the publisher was closed")
            rejected += [key for part in call.parts for key in part.event_keys()]
        for lane in self._lanes:
            rejected += [
                key for part in lane.waiting if part.state is State.WAITING for key in part.event_keys()
            ]
            if lane.flight is not None:
                unresolved += [key for part in lane.flight.parts for key in part.event_keys()]
        for call in self._open.due(float("inf")):
            self._expire(call, "the publisher was closed before it was handed to Kafka")
        if self._alarm is not None:
            self._alarm.cancel()
        if self._replacement is not None:
            self._replacement.cancel()
            await asyncio.wait([self._replacement])
        await (self._writer.abort() if unresolved else self._writer.close())
        return rejected, unresolved

    # Taking calls

    def _accept(self, call: Call) -> None:
        self.accepted += call.events
        if not call.parts:
            call.future.set_result(None)
            return
        call.bucket = self._open.add(call, self._loop.time())
        for part in call.parts:
            lane = self._lanes[part.partition]
            lane.waiting.append(part)
            if lane.flight is None:
                self._ready[lane] = None
        if self._alarm is None:
            self._set_alarm()
        self._schedule_pump()

    def _admit(self, calls: Iterable[Call]) -> None:
        for call in calls:
            call.bucket.pop(call, None)
            self._accept(call)

    def _refuse(self, call: Call, message: str) -> None:
        self.refused += call.events
        if not call.future.done():
            call.future.set_exception(call.no_room(message))

    def _release(self, part: Part) -> None:
        self._admit(self.buffer.release(len(part), part.size))
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not (self.buffer.events or self._acked or self._empty is None or self._empty.done()):
            self._empty.set_result(None)

    # Handing over

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            # At the end of this turn of the loop, so that all who publish in it share a batch.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._ready and self._replacement is None:
            lane, _ = self._ready.popitem()
            if lane.flight is None:
                self._hand_over(lane)
        # Announced only now, while Kafka works on what it was just given.
        acked, self._acked = self._acked, []
        for part, ack in acked:
            self._acknowledged(part, ack)
        self._tell_if_empty()

    def _hand_over(self, lane: Lane) -> None:
        parts: list[Part] = []
        batch = RecordBatch(self._settings.batch_bytes)
        while lane.waiting:
            part = lane.waiting.popleft()
            if part.state is not State.WAITING:  # its caller has been told that it was given up
                continue
            taken = batch.add(part.records, part.timestamp)
            if taken < len(part):
                rest = part.split(taken) if taken else part
                lane.waiting.appendleft(rest)
                if taken:
                    parts.append(part)
                break
            parts.append(part)
        if not parts:
            return
        try:
            future = self._writer.send(lane.partition, batch)
        except KafkaError as error:
            lane.waiting.extendleft(reversed(parts))
            self._replace(f"the producer died ({error})")
            return
        for part in parts:
            part.state = State.IN_FLIGHT
            part.floor = lane.next_offset
            part.records = []  # the batch has them now
        lane.flight = Flight(parts, future)
        future.add_done_callback(partial(self._landed, lane, lane.flight))

    # Settling

    def _landed(self, lane: Lane, flight: Flight, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if lane.flight is not flight:  # given up, with its producer
            return
        lane.flight = None
        if error is not None or future.cancelled():
            self._failed(lane, flight, error)
            return
        ack = time.time_ns()
        offset = future.result().offset
        for part in flight.parts:
            part.state = State.DURABLE
            part.base = offset
            if offset >= 0:
                offset += len(part)
            if part.reported:
                self.late += len(part)
            else:
                self.durable += len(part)
                self._settled(part)
            self._acked.append((part, ack))
            self._release(part)
        lane.next_offset = offset
        if lane.waiting:
            self._ready[lane] = None
        self._schedule_pump()

    def _failed(self, lane: Lane, flight: Flight, error: BaseException | None) -> None:
        """The batch's sequence numbers are used up: the producer can never write to this partition again."""
        definite = isinstance(error, DEFINITE)
        for part in flight.parts:
            part.state = State.REJECTED if definite else State.LOST
            part.reason = f"Kafka refused it: {error!r}"
            if not part.reported:
                if definite:
                    self.rejected += len(part)
                else:
                    self._report_unknown(part)
                self._settled(part)
            self._release(part)
        self._replace(f"a batch for partition {lane.partition} failed ({error!r})")

    def _settled(self, part: Part) -> None:
        call = part.call
        call.open -= 1
        if not call.open:
            call.bucket.pop(call, None)
            # A few turns of the loop later: what waits in the lanes goes to Kafka first, which then works
            # while the callers that are woken encode their next batches.
            soon = self._loop.call_soon
            soon(soon, soon, self._finish, call)

    def _finish(self, call: Call) -> None:
        if call.future.done():
            return
        error = call.error()
        if error is None:
            call.future.set_result(None)
        else:
            call.future.set_exception(error)

    def _report_unknown(self, part: Part) -> None:
        part.reported = True
        self.unknown += len(part)
        for place, key in enumerate(part.event_keys()):
            self.questions[key] = (part, place)
        while len(self.questions) > self.buffer.max_events:
            self.questions.popitem(last=False)

    # Deadlines

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = [when for when in (self._open.next_due(), self._in_line.next_due()) if when is not None]
        self._alarm = self._loop.call_at(min(due), self._ring) if due else None

    def _ring(self) -> None:
        now = self._loop.time()
        for call in self._in_line.due(now):
            self._admit(self.buffer.withdraw(call))
            self._refuse(
                call,
                f"no room for {call.events} events within buffer_timeout={self._settings.buffer_timeout:g} s "
                f"({self.buffer.events} events of {self.buffer.bytes} bytes wait for Kafka); retry later",
            )
        for call in self._open.due(now):
            self._expire(
                call,
                f"not handed to Kafka within delivery_timeout={self._settings.delivery_timeout:g} s",
            )
        self._alarm = None
        self._set_alarm()

    def _expire(self, call: Call, reason: str) -> None:
        for part in call.parts:
            if part.state is State.WAITING:
                part.state, part.reason, part.records = State.REJECTED, reason, []
                self.rejected += len(part)
                self._release(part)
            elif part.state is State.IN_FLIGHT and not part.reported:
                self._report_unknown(part)
        self._finish(call)

    # Replacing the producer

    def _replace(self, reason: str) -> None:
        if self._replacement is None and not self._closing:
            log.warning("%s: a new producer is made; what waits is held meanwhile", reason)
            self._replacement = asyncio.create_task(self._make_anew(), name="dualstream-new-producer")

    async def _make_anew(self) -> None:
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
                self._failed(lane, flight, None)
        while True:
            try:
                self._writer = await KafkaWriter.open(self._settings)
                break
            except DualStreamError as error:
                log.warning("no new producer yet: %s", error)
                await asyncio.sleep(_RETRY_PAUSE)
        self.producers += 1
        self._replacement = None
        self._ready = dict.fromkeys(lane for lane in self._lanes if lane.waiting)
        self._schedule_pump()


def _rejected(call: Call, reason: str) -> list[Rejected]:
    return [Rejected(reason)] * len(call.event_ids)
