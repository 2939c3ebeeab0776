"""A batch that Kafka refused for good: who of it is rejected, and who is sent again. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from dualstream_lab.publisher.refusals import Blame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.publisher.lane import Part
    from dualstream_lab.publisher.refusals import BatchRefused

__all__ = ["Triage", "triage"]


class Triage(NamedTuple):
    """``rejected`` with their reasons. ``again``: in order, each to be sent in a batch of its own."""

    rejected: list[tuple[Part, str]]
    again: list[list[Part]]


def triage(parts: list[Part], refused: BatchRefused) -> Triage:
    """Who is to blame, as far as Kafka says; where it does not, they are separated until it is known.

    A part that was reported unknown is never sent again: its caller may have done so.
    """
    reported = [(part, refused.reason) for part in parts if part.reported]
    named = _named(parts, refused.records)
    if named:
        return Triage(reported + named.rejected, named.again)
    suspects = [part for part in parts if not part.reported]
    again = _separated(suspects, refused.answer.blame)
    if again is None:
        return Triage(reported + [(part, refused.reason) for part in suspects], [])
    return Triage(reported, again)


def _named(parts: list[Part], records: Mapping[int, str]) -> Triage | None:
    """The records that Kafka names are cut out, the others go on. None if it names none of these."""
    if not any(0 <= place < sum(map(len, parts)) for place in records):
        return None
    rejected: list[tuple[Part, str]] = []
    innocent: list[Part] = []
    first = 0
    for part in parts:
        reasons = [records.get(first + place) for place in range(len(part))]
        first += len(part)
        if part.reported:
            continue
        rest: Part | None = part
        for reason, run in groupby(reasons):
            assert rest is not None  # noqa: S101  (the runs are as long as the part)
            size = len(list(run))
            piece, rest = rest, rest.split(size) if size < len(rest) else None
            if reason is None:
                innocent.append(piece)
            else:
                rejected.append((piece, reason))
    return Triage(rejected, [innocent] if innocent else [])


def _separated(parts: list[Part], blame: Blame) -> list[list[Part]] | None:
    """Smaller batches of them, of which the innocent will pass; None for those that cannot be separated."""
    if sum(map(len, parts)) <= 1:
        return None
    if blame is Blame.SIZE:
        return [parts]  # as many as have room: by now the limit is lower
    if blame is Blame.CALL:
        calls = [list(of_call) for _, of_call in groupby(parts, key=lambda part: id(part.call))]
        return calls if len(calls) > 1 else None
    return _halves(parts) if blame is Blame.RECORD else None


def _halves(parts: list[Part]) -> list[list[Part]]:
    """The first and the second half of their events."""
    left = sum(map(len, parts)) // 2
    halves: tuple[list[Part], list[Part]] = [], []
    for part in parts:
        count = min(left, len(part))
        left -= count
        if count == len(part):
            halves[0].append(part)
        else:
            halves[1].append(part.split(count) if count else part)
            if count:
                halves[0].append(part)
    return list(halves)
