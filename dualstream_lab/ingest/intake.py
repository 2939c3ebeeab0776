"""The events of one request: every one is checked before any is sent, and what became of them is said."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from dualstream_lab.errors import BufferFull, EventError, OutcomeUnknown, PublishError
from dualstream_lab.event import Event
from dualstream_lab.http_server import HttpRefusal
from dualstream_lab.ingest.lines import parse_line
from dualstream_lab.units import quantity

_NAMED = 20  # bad events spelled out in an answer
_AT_ONCE = 500  # events checked before others have their turn
_BLANKS = 100_000  # empty lines of one request
_SOURCES = 10_000  # that are known to be allowed: asked again, they cost less than they would here
_EVENT: Final = (
    'an event with "type", "source_type", "source_id", and "id", "occurred_at", "data", "traceparent" where '
    "you have them"
)

_RETRY = "what follows the first `accepted`, later, with the ids given here: consumers deduplicate by id"


def malformed(error: EventError) -> bool:
    """Find whether the bytes were no JSON at all, rather than JSON of another form."""
    cause = error.__cause__
    return cause is not None and not isinstance(cause, msgspec.ValidationError)


class Intake:
    """Takes events one by one; :meth:`batches` gives them when none was bad. ``unit``: line or event.

    What was good is kept as bytes, one after the other: small events are as large again as objects.
    """

    def __init__(self, may_write: Callable[[str], bool], *, unit: str) -> None:
        self._may_write = may_write
        self._unit = unit
        self._events = bytearray()
        self._ends = array("q")
        self._numbers = array("q")
        self._sources: set[str] = set()
        self._bad: list[tuple[int, str]] = []
        self._status = 422
        self._taken = 0
        self._blanks = 0

    @property
    def count(self) -> int:
        """How many events came in so far."""
        return len(self._ends)

    async def add(self, line: bytes) -> None:
        """Check the next one; an empty line only counts. Raises HttpRefusal when too many are bad."""
        self._taken += 1
        if self._taken % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if not line or line.isspace():
            self._blanks += 1
            if self._blanks > _BLANKS:
                raise HttpRefusal(413, f"more than {_BLANKS:,} empty lines", "an event a line")
            return
        try:
            event = parse_line(line, "event")
        except EventError as error:
            if not self._bad and malformed(error):
                self._status = 400
            self._bad.append((self._taken, str(error)))
            if len(self._bad) == _NAMED:
                raise self.refuse(self._bad, status=self._status) from error
            return
        source = f"{event.source_type}:{event.source_id}"
        if source not in self._sources:
            self._authorize(source)
        self._events += line
        self._ends.append(len(self._events))
        self._numbers.append(self._taken)

    def _authorize(self, source: str) -> None:
        if not self._may_write(source):
            raise HttpRefusal(403, f"the token does not allow to write {source}")
        if len(self._sources) == _SOURCES:
            self._sources.clear()
        self._sources.add(source)

    def batches(self, *, max_events: int, max_bytes: int) -> Iterator[tuple[Sequence[int], list[Event]]]:
        """Give (numbers, events), batch by batch. Raises HttpRefusal if an event is bad or there is none."""
        if self._bad:
            raise self.refuse(self._bad, status=self._status)
        if not self._ends:
            raise HttpRefusal(400, "the body has no event", _EVENT)
        first = begin = before = 0
        for number, end in enumerate(self._ends):
            if number > first and (number - first == max_events or end - begin > max_bytes):
                yield self._batch(first, number)
                first, begin = number, before
            before = end
        yield self._batch(first, len(self._ends))

    def _batch(self, first: int, last: int) -> tuple[Sequence[int], list[Event]]:
        ends = [self._ends[first - 1] if first else 0, *self._ends[first:last]]
        lines = [bytes(self._events[begin:end]) for begin, end in pairwise(ends)]
        return self._numbers[first:last], [parse_line(line, "event") for line in lines]

    def refuse(self, bad: Sequence[tuple[int, str]], *, status: int = 422, accepted: int = 0) -> HttpRefusal:
        """Make the answer that names bad events, each by its number and the reason."""
        number, reason = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        durable = quantity(accepted, "event before it is durable", "events before it are durable")
        sent = durable if accepted else "nothing was sent"
        error = f"{self._unit} {number}: {reason}{more}; {sent}"
        named = [{self._unit: number, "reason": reason} for number, reason in bad[:_NAMED]]
        return HttpRefusal(status, error, _EVENT, accepted=accepted, invalid=named)


def receipts(receipt: Any) -> list[dict[str, str | None]]:
    """Say where each event of a batch is; ``pos`` is null where Kafka does not say it of a repeated batch."""
    places = zip(receipt.event_ids, receipt.partitions, receipt.offsets, strict=True)
    return [{"id": event_id, "pos": _pos(partition, offset)} for event_id, partition, offset in places]


def _pos(partition: int, offset: int) -> str | None:
    return f"{partition}:{offset}" if offset >= 0 else None


def not_published(
    error: PublishError, events: Sequence[Event], *, before: int, retry_after: float
) -> HttpRefusal:
    """Make the answer when a batch did not become durable; ``before``: events of the request that were."""
    if isinstance(error, BufferFull):
        durable = quantity(before, "event is durable", "events are durable")
        reason = f"{durable} and the rest was not sent: {error}"
        return HttpRefusal(503, reason, "the rest, later", retry_after=retry_after, accepted=before)
    outcomes = zip(events, error.outcomes, strict=True)
    known = [{"id": event.id} | _known(outcome) for event, outcome in outcomes]
    status, reason = 503, str(error)
    if isinstance(error, OutcomeUnknown):
        unknown = sum("unknown" in entry for entry in known)
        status = 504
        had = quantity(
            unknown,
            "event and did not acknowledge it in time: it may be in the log",
            "events and did not acknowledge them in time: they may be in the log",
        )
        reason = f"Kafka had {had}"
    return HttpRefusal(status, reason, _RETRY, retry_after=retry_after, accepted=before, events=known)


def _known(outcome: object) -> dict[str, object]:
    fields: dict[str, Any] = msgspec.to_builtins(outcome)
    if fields["type"] == "Durable":
        return {"pos": _pos(fields["partition"], fields["offset"])}
    if fields["type"] == "Rejected":
        return {"rejected": fields["reason"]}
    return {"unknown": True}
