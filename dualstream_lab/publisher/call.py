"""A call's events on their way: its slices wait in their partitions' queues, one batch at a time. Pure."""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishError, PublishRejected
from dualstream_lab.event import event_key
from dualstream_lab.publisher.outcome import IN_FLIGHT, Durable, Outcome, Rejected
from dualstream_lab.publisher.record_batch import RecordBatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    from dualstream_lab.publisher.record_batch import Codec
    from dualstream_lab.publisher.route import Route

__all__ = ["Call", "Flight", "Generation", "Lane", "Note", "Part", "State"]

_NO_ANSWER = "handed over, and not acknowledged in time"

Note = tuple[str, str, "Route"]  # id, type as JSON, route: all that a notification needs


class State(Enum):
    """Where the events of a part are."""

    WAITING = "waiting for room in a batch"
    IN_FLIGHT = "handed to Kafka"
    DURABLE = "acknowledged"
    REJECTED = "will not be in the log"
    LOST = "its batch failed without a definite answer"


class Part:
    """The events of one call for one partition, in order. One that does not fit a batch is split."""

    __slots__ = (
        "base", "call", "floor", "indices", "notes", "partition", "reason", "records", "reported", "size",
        "state", "timestamp",
    )  # fmt: skip

    def __init__(self, call: Call, partition: int, timestamp: int) -> None:
        self.call = call
        self.partition = partition
        self.timestamp = timestamp  # ms since the epoch
        self.indices: list[int] = []
        self.notes: list[Note] = []
        self.records: list[bytes] = []  # as Kafka wants them, from the key on; let go once handed over
        self.size = 0
        self.state = State.WAITING
        self.base = -1  # the offset of the first event, once durable
        self.floor = -1  # where to look for it: no event of it is in the log before this offset
        self.reason = ""
        self.reported = False  # the caller has been told, before this was settled

    def __len__(self) -> int:
        return len(self.notes)

    def event_keys(self) -> list[str]:
        """The identities of the events: their keys."""
        return [event_key(route.source, event_id) for event_id, _, route in self.notes]

    def split(self, count: int) -> Part:
        """Keep the first ``count`` events; returns the rest as a part of the same call."""
        rest = Part(self.call, self.partition, self.timestamp)
        rest.indices, self.indices = self.indices[count:], self.indices[:count]
        rest.notes, self.notes = self.notes[count:], self.notes[:count]
        rest.records, self.records = self.records[count:], self.records[:count]
        rest.size = self.size * len(rest) // (len(rest) + count)
        self.size -= rest.size
        self.call.parts.append(rest)
        self.call.open += 1
        return rest

    def outcome(self, place: int) -> Outcome:
        """What is known of the event at ``place``."""
        if self.state is State.DURABLE:
            return Durable(self.partition, self.base + place if self.base >= 0 else -1)
        if self.state is State.REJECTED:
            return Rejected(self.reason)
        return IN_FLIGHT


class Call:
    """One ``publish`` or ``publish_batch``."""

    __slots__ = ("bucket", "event_ids", "events", "future", "generation", "invalid", "open", "parts", "size")

    def __init__(self, event_ids: Sequence[str], generation: Generation) -> None:
        self.event_ids = event_ids
        self.generation = generation
        self.invalid: Mapping[int, str] = {}
        self.parts: list[Part] = []
        self.open = 0  # parts that are not settled
        self.events = 0
        self.size = 0
        self.future: asyncio.Future[None]
        self.bucket: dict[Call, None] = {}

    def outcomes(self) -> list[Outcome]:
        """What is known of each event, in input order."""
        known: dict[int, Outcome] = {index: Rejected(reason) for index, reason in self.invalid.items()}
        for part in self.parts:
            for place, index in enumerate(part.indices):
                known[index] = part.outcome(place)
        return [known[index] for index in range(len(self.event_ids))]

    def error(self) -> PublishError | None:
        """What to raise; None when every valid event is durable."""
        if all(part.state is State.DURABLE for part in self.parts):
            return None
        outcomes = self.outcomes()
        total = len(outcomes)
        if count := sum(outcome is IN_FLIGHT for outcome in outcomes):
            # Where there was an answer, it is told, and nothing of time.
            why = next((part.reason for part in self.parts if part.state is State.LOST), _NO_ANSWER)
            message = f"{count} of {total} events may be in the log: {why}; resolve() finds out"
            return OutcomeUnknown(message, outcomes=outcomes)
        reason = next(part.reason for part in self.parts if part.state is State.REJECTED)
        count = sum(isinstance(outcome, Rejected) for outcome in outcomes)
        return PublishRejected(f"{count} of {total} events are not in the log: {reason}", outcomes=outcomes)

    def no_room(self, message: str) -> BufferFull:
        """The error for a call that was never accepted."""
        return BufferFull(message, outcomes=[Rejected("no room in the buffer")] * len(self.event_ids))


class Flight:
    """A batch that Kafka has, since a moment of the loop's clock."""

    __slots__ = ("batch", "began", "future", "parts")

    def __init__(
        self, parts: list[Part], batch: RecordBatch, future: asyncio.Future[Any], began: float
    ) -> None:
        self.parts = parts
        self.batch = batch
        self.future = future
        self.began = began

    def return_to_waiting(self) -> None:
        """Nothing of the batch is in the log: its events wait again, with what is to be sent of them."""
        records = iter(self.batch.records())
        for part in self.parts:
            part.state = State.WAITING
            part.records = list(islice(records, len(part)))


class Lane:
    """One partition: what waits for it, and the one batch in flight.

    ``again``: what Kafka gave back, each to be a batch of its own (or several), before all that waits.
    """

    __slots__ = ("again", "flight", "next_offset", "partition", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.again: deque[deque[Part]] = deque()
        self.waiting: deque[Part] = deque()
        self.flight: Flight | None = None
        self.next_offset = -1  # after the last event acknowledged; -1 before the first

    def take_all(self) -> list[Part]:
        """All that waits, in order; nothing does any more."""
        groups = (*self.again, self.waiting)
        waiting = [part for group in groups for part in group if part.state is State.WAITING]
        self.again.clear()
        self.waiting.clear()
        return waiting

    def give_back(self, groups: Iterable[Iterable[Part]]) -> None:
        """Send these again, in this order, before all else."""
        self.again.extendleft(reversed([deque(group) for group in groups]))

    def next_batch(self, limit: int, codec: Codec | None) -> tuple[list[Part], RecordBatch]:
        """The next events, as many as have room in a batch; no parts where nothing waits."""
        parts: list[Part] = []
        batch = RecordBatch(limit, codec)
        while self.again and not parts:
            group = self.again[0]
            _move(group, parts, batch)
            if not group:
                self.again.popleft()
        if not parts:
            _move(self.waiting, parts, batch)
        return parts, batch


def _move(queue: deque[Part], parts: list[Part], batch: RecordBatch) -> None:
    """Parts into a batch, until it is full; one that does not fit as a whole is split."""
    while queue:
        part = queue.popleft()
        if part.state is not State.WAITING:  # its caller has been told that it was given up
            continue
        taken = batch.add(part.records, part.timestamp)
        if taken < len(part.notes):
            queue.appendleft(part.split(taken) if taken else part)
            if taken:
                parts.append(part)
            return
        parts.append(part)


class Generation:
    """The calls that were encoded while the topic had the same number of partitions.

    From one generation to the next a source may be in another partition, and Kafka keeps no order between
    partitions. So the calls of a generation are held until all of the one before are settled: acknowledged,
    refused, or reported unknown at their deadline. That bounds the wait; what was reported unknown may still
    arrive later.
    """

    __slots__ = ("after", "before", "held", "open")

    def __init__(self, before: Generation | None = None) -> None:
        self.open = 0
        """Calls made and not settled."""
        self.before = before
        """The one that is waited for; None: calls go on at once."""
        self.after: Generation | None = None
        self.held: list[Call] = []
        """Accepted calls that wait, in order."""

    def next(self) -> Generation:
        """The generation after this one, which is the newest."""
        settled = not self.open and self.before is None
        self.after = Generation(None if settled else self)
        return self.after

    def leave(self) -> Sequence[Call]:
        """A call is settled. Returns those that may go on now, in the order in which they were accepted."""
        self.open -= 1
        if self.open or self.after is None:
            return ()
        freed: list[Call] = []
        generation = self
        while not generation.open and generation.before is None and (after := generation.after) is not None:
            generation.after = None
            after.before = None
            freed += after.held
            after.held = []
            generation = after
        return freed
