"""From a call to its end: room in the buffer, deadlines, and what its caller gets."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from dualstream_lab.config import Settings
from dualstream_lab.errors import PublishError, PublishRejected
from dualstream_lab.publisher.buffer import Buffer, Deadlines
from dualstream_lab.publisher.call import PartitionSlice, PublishCall, State
from dualstream_lab.publisher.kafka import KafkaWriter
from dualstream_lab.publisher.record_batch import BatchLimit
from dualstream_lab.publisher.sender import Sender


class Accumulator:
    """Takes calls, has their slices sent, and settles every one by its deadline.

    ``acknowledged(parts, ack_ns)`` is called for the slices of every durable batch, in the order of the log.
    """

    def __init__(
        self,
        settings: Settings,
        writer: KafkaWriter,
        *,
        partitions: int,
        limit: BatchLimit,
        acknowledged: Callable[[list[PartitionSlice], int], None],
    ) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.sender = Sender(
            settings,
            writer,
            partitions=partitions,
            limit=limit,
            settled=self._settled,
            acknowledged=acknowledged,
            announced=self._wake_if_empty,
        )
        self._open = Deadlines[PublishCall](settings.delivery_timeout)
        self._in_line = Deadlines[PublishCall](max(settings.buffer_timeout, 0.001))
        self._alarm: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._closing = False
        self.buffer = Buffer[PublishCall](max_events=settings.buffer_events, max_bytes=settings.buffer_bytes)
        self.unresolved: OrderedDict[str, tuple[PartitionSlice, int]] = OrderedDict()
        """Events reported unknown, by their key: their slice, and their place in it."""
        self.accepted = self.durable = self.rejected = self.unknown = self.late_acks = self.refused = 0

    async def deliver(self, call: PublishCall) -> None:
        """Returns when every slice is durable; raises PublishError otherwise. Cancelling does not unsend."""
        if self._closing:
            self.refused += call.events
            raise PublishRejected("the publisher is closed", outcomes=call.all_rejected("closed"))
        if not self.buffer.can_ever_hold(call.events, call.size):
            self.refused += call.events
            raise call.no_room(
                f"{call.events} events of {call.size} bytes are more than the whole buffer (buffer_events="
                f"{self.buffer.max_events}, buffer_bytes={self.buffer.max_bytes}): split the call"
            )
        call.future = self._loop.create_future()
        call.generation.open += 1
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
            if call in self.buffer.waiting:
                call.bucket.pop(call, None)
                self._admit(self.buffer.withdraw(call))
                self._leave(call)
            raise
        except PublishError:
            del call.future  # it has the error, whose traceback has this frame, which has the call
            raise

    async def settle(self, timeout: float) -> bool:
        """Wait until nothing is open. False if that takes longer."""
        deadline = self._loop.time() + timeout
        while self.buffer.events or self.buffer.waiting or self.sender.acked:
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
        rejected: list[PartitionSlice] = []
        for call in self._in_line.due(float("inf")):
            self.buffer.withdraw(call)
            self._refuse(call, "the publisher was closed")
            rejected += call.parts
        unresolved = _keys_of(self.sender.in_flight())
        for call in self._open.due(float("inf")):
            rejected += [part for part in call.parts if part.state is State.WAITING]
            self._expire(call, "the publisher was closed before it was handed to Kafka")
        if self._alarm is not None:
            self._alarm.cancel()
        await self.sender.close()
        return _keys_of(rejected), unresolved

    def forget_offsets(self) -> None:
        """The topic was made anew: offsets of before mean nothing."""
        self.sender.forget_offsets()
        for part, _ in self.unresolved.values():
            part.floor = -1

    # Taking calls

    def _accept(self, call: PublishCall) -> None:
        self.accepted += call.events
        if not call.parts:
            self._leave(call)
            call.future.set_result(None)
            return
        for part in call.parts:
            part.call = call
        call.bucket = self._open.add(call, self._loop.time())
        if call.generation.before is None:
            self.sender.enqueue(call.parts)
        else:
            call.generation.held.append(call)
        if self._alarm is None:
            self._set_alarm()

    def _admit(self, calls: Iterable[PublishCall]) -> None:
        for call in calls:
            call.bucket.pop(call, None)
            self._accept(call)

    def _refuse(self, call: PublishCall, message: str) -> None:
        self.refused += call.events
        self._leave(call)
        if not call.future.done():
            call.future.set_exception(call.no_room(message))

    def _release(self, events: int, size: int) -> None:
        self._admit(self.buffer.release(events, size))
        self._wake_if_empty()

    def _wake_if_empty(self) -> None:
        if not (self.buffer.events or self.sender.acked or self._empty is None or self._empty.done()):
            self._empty.set_result(None)

    # The end of a slice, and of a call

    def _settled(self, parts: Iterable[PartitionSlice]) -> None:
        """These have come to their end together, and with some their calls."""
        ended: list[PublishCall] = []
        events = size = 0
        for part in parts:
            count = len(part.indices)
            events += count
            size += part.size
            if part.reported:
                self.late_acks += count if part.state is State.DURABLE else 0
                continue
            if part.state is State.DURABLE:
                self.durable += count
            elif part.state is State.REJECTED:
                self.rejected += count
            else:
                self._report_unknown(part)
            call = part.call
            del part.call
            call.open -= 1
            if not call.open:
                call.bucket.pop(call, None)
                self._leave(call)
                ended.append(call)
        if ended:
            # A few turns of the loop later: what waits in the queues goes to Kafka first, which then works
            # while the callers that are woken encode their next batches.
            soon = self._loop.call_soon
            soon(soon, soon, self._finish, ended)
        self._release(events, size)

    def _leave(self, call: PublishCall) -> None:
        for freed in call.generation.leave():
            self.sender.enqueue(part for part in freed.parts if part.state is State.WAITING)

    def _finish(self, calls: Iterable[PublishCall]) -> None:
        for call in calls:
            if call.future.done():
                continue
            if (error := call.error()) is None:
                call.future.set_result(None)
            else:
                call.future.set_exception(error)

    def _report_unknown(self, part: PartitionSlice) -> None:
        part.reported = True
        self.unknown += len(part)
        for place, key in enumerate(part.event_keys()):
            self.unresolved[key] = (part, place)
        while len(self.unresolved) > self.buffer.max_events:
            self.unresolved.popitem(last=False)

    # Deadlines

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = [when for when in (self._open.next_due(), self._in_line.next_due()) if when is not None]
        self._alarm = self._loop.call_at(min(due), self._ring) if due else None

    def _ring(self) -> None:
        now, settings = self._loop.time(), self._settings
        for call in self._in_line.due(now):
            self._admit(self.buffer.withdraw(call))
            self._refuse(
                call,
                f"no room for {call.events} events within buffer_timeout={settings.buffer_timeout:g} s "
                f"({self.buffer.events} events of {self.buffer.bytes} bytes wait for Kafka); retry later",
            )
        for call in self._open.due(now):
            why = f": {self.sender.trouble}" if self.sender.trouble else ""
            limit = f"delivery_timeout={settings.delivery_timeout:g} s"
            self._expire(call, f"not handed to Kafka within {limit}{why}")
        self._alarm = None
        self._set_alarm()

    def _expire(self, call: PublishCall, reason: str) -> None:
        for part in call.parts:
            if part.state is State.WAITING:
                part.state, part.reason, part.records = State.REJECTED, reason, []
                self.rejected += len(part)
                del part.call
                self._release(len(part), part.size)
            elif part.state is State.IN_FLIGHT and not part.reported:
                self._report_unknown(part)
                del part.call
        self._leave(call)
        self._finish([call])


def _keys_of(parts: Iterable[PartitionSlice]) -> list[str]:
    return [key for part in parts for key in part.event_keys()]
