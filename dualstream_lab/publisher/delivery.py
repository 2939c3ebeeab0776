"""From a call to its end: room in the buffer, deadlines, and what its caller is told."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from dualstream_lab.errors import PublishRejected
from dualstream_lab.publisher.buffer import Buffer, Deadlines
from dualstream_lab.publisher.call import Call, Part, State
from dualstream_lab.publisher.outcome import Rejected
from dualstream_lab.publisher.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dualstream_lab.config import Settings
    from dualstream_lab.publisher.kafka import KafkaWriter
    from dualstream_lab.publisher.record_batch import BatchLimit

__all__ = ["Delivery"]


class Delivery:
    """Takes calls, has their parts sent, and settles every one by its deadline.

    ``acknowledged(part, ack_ns)`` is told of every durable part, in the order of the log.
    """

    def __init__(
        self,
        settings: Settings,
        writer: KafkaWriter,
        *,
        partitions: int,
        limit: BatchLimit,
        acknowledged: Callable[[Part, int], None],
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
            announced=self._tell_if_empty,
        )
        self._open = Deadlines[Call](settings.delivery_timeout)
        self._in_line = Deadlines[Call](max(settings.buffer_timeout, 0.001))
        self._alarm: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._closing = False
        self.buffer = Buffer[Call](max_events=settings.buffer_events, max_bytes=settings.buffer_bytes)
        self.questions: OrderedDict[str, tuple[Part, int]] = OrderedDict()
        """Events reported unknown, by their key: their part, and their place in it."""
        self.accepted = self.durable = self.rejected = self.unknown = self.late = self.refused = 0

    async def deliver(self, call: Call) -> None:
        """Returns when every part is durable; raises PublishError otherwise. Cancelling does not unsend."""
        if self._closing:
            self.refused += call.events
            raise PublishRejected("the publisher is closed", outcomes=_rejected(call, "closed"))
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
            if self.buffer.is_waiting(call):
                call.bucket.pop(call, None)
                self._admit(self.buffer.withdraw(call))
                self._leave(call)
            raise

    async def settle(self, timeout: float) -> bool:
        """Wait until nothing is open. False if that takes longer."""
        deadline = self._loop.time() + timeout
        while self.buffer.events or self.buffer.waiting or self.sender.has_acked:
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
        for call in self._in_line.due(float("inf")):
            self.buffer.withdraw(call)
            self._refuse(call, "the publisher was closed")
            rejected += [key for part in call.parts for key in part.event_keys()]
        unresolved = [key for part in self.sender.in_flight() for key in part.event_keys()]
        for call in self._open.due(float("inf")):
            waiting = [part for part in call.parts if part.state is State.WAITING]
            rejected += [key for part in waiting for key in part.event_keys()]
            self._expire(call, "the publisher was closed before it was handed to Kafka")
        if self._alarm is not None:
            self._alarm.cancel()
        await self.sender.close()
        return rejected, unresolved

    def forget_offsets(self) -> None:
        """The topic was made anew: offsets of before mean nothing."""
        self.sender.forget_offsets()
        for part, _ in self.questions.values():
            part.floor = -1

    # Taking calls

    def _accept(self, call: Call) -> None:
        self.accepted += call.events
        if not call.parts:
            self._leave(call)
            call.future.set_result(None)
            return
        call.bucket = self._open.add(call, self._loop.time())
        if call.generation.before is None:
            self.sender.enqueue(call.parts)
        else:
            call.generation.held.append(call)
        if self._alarm is None:
            self._set_alarm()

    def _admit(self, calls: Iterable[Call]) -> None:
        for call in calls:
            call.bucket.pop(call, None)
            self._accept(call)

    def _refuse(self, call: Call, message: str) -> None:
        self.refused += call.events
        self._leave(call)
        if not call.future.done():
            call.future.set_exception(call.no_room(message))

    def _release(self, part: Part) -> None:
        self._admit(self.buffer.release(len(part.notes), part.size))
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not (self.buffer.events or self.sender.has_acked or self._empty is None or self._empty.done()):
            self._empty.set_result(None)

    # The end of a part, and of a call

    def _settled(self, part: Part) -> None:
        count, call = len(part.notes), part.call
        if part.reported:
            self.late += count if part.state is State.DURABLE else 0
        else:
            if part.state is State.DURABLE:
                self.durable += count
            elif part.state is State.REJECTED:
                self.rejected += count
            else:
                self._report_unknown(part)
            call.open -= 1
            if not call.open:
                call.bucket.pop(call, None)
                self._leave(call)
                # A few turns of the loop later: what waits in the lanes goes to Kafka first, which then works
                # while the callers that are woken encode their next batches.
                soon = self._loop.call_soon
                soon(soon, soon, self._finish, call)
        self._release(part)

    def _leave(self, call: Call) -> None:
        for freed in call.generation.leave():
            self.sender.enqueue(part for part in freed.parts if part.state is State.WAITING)

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
            why = f": {self.sender.trouble}" if self.sender.trouble else ""
            self._expire(
                call,
                f"not handed to Kafka within delivery_timeout={self._settings.delivery_timeout:g} s{why}",
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
        self._leave(call)
        self._finish(call)


def _rejected(call: Call, reason: str) -> list[Rejected]:
    return [Rejected(reason)] * len(call.event_ids)
