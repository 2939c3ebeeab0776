"""A call's events on their way: its parts wait in their partitions' lanes, one batch at a time. Pure."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishError, PublishRejected
from dualstream_lab.event import event_key
from dualstream_lab.publisher.outcome import IN_FLIGHT, Durable, Outcome, Rejected

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from dualstream_lab.publisher.route import Route

__all__ = ["Call", "Flight", "Lane", "Note", "Part", "State"]

Note = tuple[str, str, "Route"]  # id, type as JSON, route: all that a notification needs


class State(Enum):
    """Where the events of a part are."""

    WAITING = "waiting for room in a batch"
    IN_FLIGHT = "handed to Kafka"
    DURABLE = "acknowledged"
    REJECTED = "will not be in the log"
    LOST = "its batch failed without a definite refusal"


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

    __slots__ = ("bucket", "event_ids", "events", "future", "invalid", "open", "parts", "size")

    def __init__(self, event_ids: Sequence[str]) -> None:
        self.event_ids = event_ids
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
        unknown = sum(part.state in {State.IN_FLIGHT, State.LOST} for part in self.parts)
        if unknown:
            count = sum(outcome is IN_FLIGHT for outcome in outcomes)
            return OutcomeUnknown(
                f"{count} of {total} events were handed to Kafka and not acknowledged in time; "
                "resolve() finds out what became of them",
                outcomes=outcomes,
            )
        reason = next(part.reason for part in self.parts if part.state is State.REJECTED)
        count = sum(isinstance(outcome, Rejected) for outcome in outcomes)
        return PublishRejected(f"{count} of {total} events are not in the log: {reason}", outcomes=outcomes)

    def no_room(self, message: str) -> BufferFull:
        """The error for a call that was never accepted."""
        return BufferFull(message, outcomes=[Rejected("no room in the buffer")] * len(self.event_ids))


class Flight:
    """A batch that Kafka has."""

    __slots__ = ("future", "parts")

    def __init__(self, parts: list[Part], future: asyncio.Future[Any]) -> None:
        self.parts = parts
        self.future = future


class Lane:
    """One partition: what waits for it, and the one batch in flight."""

    __slots__ = ("flight", "next_offset", "partition", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.waiting: deque[Part] = deque()
        self.flight: Flight | None = None
        self.next_offset = -1  # after the last event acknowledged; -1 before the first
