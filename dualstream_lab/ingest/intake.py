"""The events of one request: every one is checked before any is sent."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Final

import msgspec

from dualstream_lab.errors import EventError
from dualstream_lab.ingest.answers import Refusal
from dualstream_lab.ingest.lines import parse_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from dualstream_lab.event import Event

__all__ = ["Intake", "malformed"]

_NAMED = 20  # bad events spelled out in an answer
_AT_ONCE = 500  # events checked before others have their turn
_EVENT: Final = (
    'an event with "type", "source_type", "source_id", and "id", "occurred_at", "data", "traceparent" where '
    "you have them"
)


def malformed(error: EventError) -> bool:
    """Whether the bytes were no JSON at all, rather than JSON of another form."""
    cause = error.__cause__
    return cause is not None and not isinstance(cause, msgspec.ValidationError)


class Intake:
    """Takes events one by one; :meth:`batches` gives them when none was bad.

    ``authorize(source)`` is asked once a source and raises for one that may not be written. ``unit`` is what
    a bad event is counted as: line or event, from 1. What was good is kept as bytes: a small event as an
    object is ten times as large.
    """

    def __init__(self, authorize: Callable[[str], Awaitable[None]], *, unit: str) -> None:
        self._authorize = authorize
        self._unit = unit
        self._lines: list[bytes] = []
        self._numbers = array("q")
        self._sources: set[str] = set()
        self._bad: list[tuple[int, str]] = []
        self._status = 422
        self._taken = 0

    async def add(self, line: bytes) -> None:
        """Check the next one; an empty line only counts. Raises Refusal when too many are bad."""
        self._taken += 1
        if self._taken % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if not line or line.isspace():
            return
        try:
            event = parse_line(line, "event")
        except EventError as error:
            if not self._bad and malformed(error):
                self._status = 400
            self._bad.append((self._taken, str(error)))
            if len(self._bad) == _NAMED:
                raise self._refusal() from error
            return
        source = f"{event.source_type}:{event.source_id}"
        if source not in self._sources:
            await self._authorize(source)
            self._sources.add(source)
        self._lines.append(line)
        self._numbers.append(self._taken)

    def batches(self, *, max_events: int, max_bytes: int) -> Iterator[tuple[Sequence[int], list[Event]]]:
        """(numbers, events) of the whole request, in order. Raises Refusal if one is bad or there is none."""
        if self._bad:
            raise self._refusal()
        if not self._lines:
            raise Refusal(400, "the body has no event", _EVENT)
        return self._batches(max_events, max_bytes)

    def _batches(self, max_events: int, max_bytes: int) -> Iterator[tuple[Sequence[int], list[Event]]]:
        start = size = 0
        for end, line in enumerate(self._lines):
            if end > start and (end - start == max_events or size + len(line) > max_bytes):
                yield self._batch(start, end)
                start, size = end, 0
            size += len(line)
        yield self._batch(start, len(self._lines))

    def _batch(self, start: int, end: int) -> tuple[Sequence[int], list[Event]]:
        return self._numbers[start:end], [parse_line(line, "event") for line in self._lines[start:end]]

    def _refusal(self) -> Refusal:
        return self.refuse(self._bad, status=self._status)

    def refuse(self, bad: Sequence[tuple[int, str]], *, status: int = 422, accepted: int = 0) -> Refusal:
        """The answer that names bad events, each by its number and the reason."""
        number, reason = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        sent = f"{accepted} events before it are durable" if accepted else "nothing was sent"
        named = [{self._unit: number, "reason": reason} for number, reason in bad[:_NAMED]]
        return Refusal(
            status,
            f"{self._unit} {number}: {reason}{more}; {sent}",
            _EVENT,
            more={"accepted": accepted, "invalid": named},
        )
