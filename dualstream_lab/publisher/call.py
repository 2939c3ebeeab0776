"""A call, and its events on their way, a slice a partition. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishError, PublishRejected
from dualstream_lab.event import event_key
from dualstream_lab.publisher.outcome import IN_FLIGHT, BatchReceipt, Durable, Outcome, Rejected
from dualstream_lab.publisher.route import Route


class State(Enum):
    """Where the events of a slice are."""

    WAITING = "waiting for room in a batch"
    IN_FLIGHT = "handed to Kafka"
    DURABLE = "acknowledged"
    REJECTED = "will not be in the log"
    LOST = "its batch failed without a definite answer"


class PartitionSlice:
    """The events of one call for one partition, in order. One that does not fit a batch is split.

    It knows its ``call`` from the acceptance until it is settled or reported unknown: for longer, that would
    be a cycle for the garbage collector, whose pauses every publish waits for. ``event_ids`` are all of the
    call's; the other lists have one entry an event of the slice.
    """

    __slots__ = (
        "base", "call", "event_ids", "floor", "indices", "partition", "reason", "records", "reported",
        "routes", "size", "state", "timestamp", "types",
    )  # fmt: skip

    call: PublishCall

    def __init__(self, event_ids: Sequence[str], partition: int, timestamp: int) -> None:
        self.event_ids = event_ids
        self.partition = partition
        self.timestamp = timestamp  # ms since the epoch
        self.indices: list[int] = []
        self.types: list[str] = []  # as JSON
        self.routes: list[Route] = []
        self.records: list[bytes] = []  # as Kafka wants them, from the key on; let go once handed over
        self.size = 0
        self.state = State.WAITING
        self.base = -1  # the offset of the first event, once durable
        self.floor = -1  # where to look for it: no event of it is in the log before this offset
        self.reason = ""
        self.reported = False  # as unknown, before this was settled

    def __len__(self) -> int:
        return len(self.indices)

    def ids(self) -> list[str]:
        """Of the slice's events alone."""
        return [self.event_ids[index] for index in self.indices]

    def event_keys(self) -> list[str]:
        """The identities of the events: their keys."""
        return [event_key(route.source, each) for route, each in zip(self.routes, self.ids(), strict=True)]

    def split(self, count: int) -> PartitionSlice:
        """Keep the first ``count`` events; returns the rest as a slice of the same call."""
        rest = PartitionSlice(self.event_ids, self.partition, self.timestamp)
        rest.call = self.call
        rest.indices, self.indices = self.indices[count:], self.indices[:count]
        rest.types, self.types = self.types[count:], self.types[:count]
        rest.routes, self.routes = self.routes[count:], self.routes[:count]
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
        return Rejected(self.reason) if self.state is State.REJECTED else IN_FLIGHT


class PublishCall:
    """One ``publish`` or ``publish_batch``."""

    __slots__ = ("bucket", "event_ids", "events", "future", "generation", "invalid", "open", "parts", "size")

    def __init__(self, event_ids: Sequence[str], generation: Generation) -> None:
        self.event_ids = event_ids
        self.generation = generation
        self.invalid: Mapping[int, str] = {}
        self.parts: list[PartitionSlice] = []
        self.open = 0  # slices that are not settled
        self.events = 0
        self.size = 0
        self.future: asyncio.Future[None]
        self.bucket: dict[PublishCall, None] = {}  # of the deadline that it waits for

    def outcomes(self) -> list[Outcome]:
        """What is known of each event, in input order."""
        known: dict[int, Outcome] = {index: Rejected(reason) for index, reason in self.invalid.items()}
        for part in self.parts:
            for place, index in enumerate(part.indices):
                known[index] = part.outcome(place)
        return [known[index] for index in range(len(self.event_ids))]

    def receipt(self) -> BatchReceipt:
        """Of a call whose valid events are all durable."""
        runs = [(part.partition, part.base, part.indices) for part in self.parts]
        return BatchReceipt(self.event_ids, runs, self.invalid)

    def error(self) -> PublishError | None:
        """What to raise; None when every valid event is durable."""
        for part in self.parts:
            if part.state is not State.DURABLE:
                break
        else:
            return None
        outcomes = self.outcomes()
        total = len(outcomes)
        if count := sum(outcome is IN_FLIGHT for outcome in outcomes):
            # Where there was an answer, that is the reason, and not the time.
            silent = "handed over, and not acknowledged in time"
            why = next((part.reason for part in self.parts if part.state is State.LOST), silent)
            message = f"{count} of {total} events may be in the log: {why}; resolve() finds out"
            return OutcomeUnknown(message, outcomes=outcomes)
        reason = next(part.reason for part in self.parts if part.state is State.REJECTED)
        count = sum(isinstance(outcome, Rejected) for outcome in outcomes)
        return PublishRejected(f"{count} of {total} events are not in the log: {reason}", outcomes=outcomes)

    def no_room(self, message: str) -> BufferFull:
        """The error for a call that was never accepted."""
        return BufferFull(message, outcomes=self.all_rejected("no room in the buffer"))

    def all_rejected(self, reason: str) -> list[Rejected]:
        """The outcomes of a call of which nothing was sent."""
        return [Rejected(reason)] * len(self.event_ids)


@dataclass(slots=True, eq=False)
class Generation:
    """The calls that were encoded while the topic had the same number of partitions.

    From one generation to the next a source may be in another partition, and Kafka keeps no order between
    partitions. So the calls of a generation are held until all of the one before are settled: acknowledged,
    refused, or reported unknown at their deadline. That bounds the wait; what was reported unknown may still
    arrive later.
    """

    before: Generation | None = None  # the one that is waited for; None: calls go on at once
    after: Generation | None = None
    open: int = 0  # calls made and not settled
    held: list[PublishCall] = field(default_factory=list)  # accepted calls that wait, in order

    def next(self) -> Generation:
        """The generation after this one, which is the newest."""
        settled = not self.open and self.before is None
        self.after = Generation(None if settled else self)
        return self.after

    def leave(self) -> Sequence[PublishCall]:
        """A call is settled. Returns those that may go on now, in the order in which they were accepted."""
        self.open -= 1
        if self.open or self.after is None:
            return ()
        freed: list[PublishCall] = []
        generation = self
        while not generation.open and generation.before is None and (after := generation.after) is not None:
            generation.after = None
            after.before = None
            freed += after.held
            after.held = []
            generation = after
        return freed
