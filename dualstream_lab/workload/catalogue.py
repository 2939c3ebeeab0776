"""Turns the slots of a plan into events, cheaply: about a microsecond or two each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

import msgspec

from dualstream_lab.event import Event, encode_event
from dualstream_lab.workload.payloads import filler
from dualstream_lab.workload.popularity import source_name

_MAX = 1 << 48
_TAIL = b'"}'
_VARIETY = 257  # the prose begins at one of so many places
_KEPT = 50_000
_SHORT = 1000  # bytes: longer bodies would fill the memory


class RunIds:
    """The ids of one run: UUIDs of version 8 (RFC 9562) whose last 48 bits are the sequence number."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @classmethod
    def of_run(cls, run: UUID) -> Self:
        """The ids of the run with this UUID; two runs share none."""
        text = str(run)
        return cls(f"{text[:14]}8{text[15:19]}{'89ab'[int(text[19], 16) % 4]}{text[20:24]}")

    def of(self, seq: int) -> str:
        """The id of an event, ``seq`` from 0 to 2^48 - 1."""
        if not 0 <= seq < _MAX:
            raise ValueError(f"sequence number {seq} is not from 0 to 2^48 - 1")
        return f"{self.prefix}{seq:012x}"

    def seq(self, event_id: str) -> int | None:
        """The sequence number in an id; None where the id is of another run or of another make."""
        if len(event_id) != 36 or not event_id.startswith(self.prefix):
            return None
        try:
            return int(event_id[24:], 16)
        except ValueError:
            return None


class Catalogue:
    """The sources and types of a workload, and its events.

    ``whole``: a slot's size is that of the whole encoded value; else that of ``data`` alone. Sizes are met
    exactly, but for a source whose names alone need more room.
    """

    def __init__(self, *, ids: RunIds, sources: int, types: Sequence[str], whole: bool) -> None:
        self.ids = ids
        self.types = tuple(types)
        self.sources = [source_name(rank) for rank in range(sources)]
        self._whole = whole
        self._actions = [_head(name) for name in self.types]
        self._subjects = [_subject(kind, name, rich=not whole) for kind, name in self.sources]
        self._prose = b""
        empty = Event(id=ids.of(0), type="", source_type="", source_id="", occurred_at=_SOME_TIME)
        self._envelope = len(encode_event(empty)) - len(b"null")
        # Making an event must cost little beside publishing it: what repeats is kept, up to a bound.
        self._frames: dict[int, tuple[bytes, int, str, str, str]] = {}
        self._bodies: dict[tuple[int, int], bytes] = {}

    def events(
        self, seqs: list[int], sources: list[int], kinds: list[int], sizes: list[int], occurred_at: datetime
    ) -> list[Event]:
        """The events of some slots, all of one time."""
        made: list[Event] = []
        prefix, frames, bodies, types = self.ids.prefix, self._frames, self._bodies, len(self.types)
        raw = msgspec.Raw
        numbers = b"".join([seq.to_bytes(8, "big") for seq in seqs]).hex()  # 16 digits each
        at = 4
        for seq, source, kind, size in zip(seqs, sources, kinds, sizes, strict=True):
            frame = frames.get(source * types + kind) or self._frame(source, kind)
            head, spent, name, source_type, source_id = frame
            place = (seq % _VARIETY, size - spent)
            body = bodies.get(place) or self._body(place)
            made.append(
                Event(
                    id=prefix + numbers[at : at + 12], type=name, source_type=source_type,
                    source_id=source_id, occurred_at=occurred_at, data=raw(head + body),
                )
            )  # fmt: skip
            at += 16
        return made

    def _frame(self, source: int, kind: int) -> tuple[bytes, int, str, str, str]:
        """(the beginning of the data, bytes that are not prose, type, source type, source id)."""
        source_type, source_id = self.sources[source]
        name = self.types[kind]
        head = self._actions[kind] + self._subjects[source]
        spent = len(head) + len(_TAIL)
        if self._whole:
            spent += self._envelope + len(name) + len(source_type) + len(source_id)
        if len(self._frames) >= _KEPT:
            self._frames.clear()
        frame = self._frames[source * len(self.types) + kind] = (head, spent, name, source_type, source_id)
        return frame

    def _body(self, place: tuple[int, int]) -> bytes:
        """The prose from one of its places on, of so many bytes, and the end of the data."""
        start, room = place[0], max(place[1], 0)
        if start + room > len(self._prose):
            self._prose = filler(start + room + 32_768)
        body = self._prose[start : start + room] + _TAIL
        if room < _SHORT:
            if len(self._bodies) >= _KEPT:
                self._bodies.clear()
            self._bodies[place] = body
        return body


# written with microseconds, as nearly every time is
_SOME_TIME = datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def _head(event_type: str) -> bytes:
    """The beginning of the data: the action where the type has one."""
    _, _, action = event_type.partition(".")
    return b'{"action":' + (msgspec.json.encode(action) if action else b"null") + b","


def _subject(source_type: str, source_id: str, *, rich: bool) -> bytes:
    """The part of the data that is about the source; ends inside an open string, for the prose."""
    if not rich:
        return b'"text":"'
    owner = source_id.partition("/")[0]
    about: dict[str, object] = {"sender": {"login": owner, "type": "User", "site_admin": False}}
    if source_type == "repo":
        url = f"https://api.github.com/repos/{source_id}"
        about["repository"] = {
            "full_name": source_id, "private": False, "owner": {"login": owner}, "url": url,
            "commits_url": f"{url}/commits{{/sha}}", "issues_url": f"{url}/issues{{/number}}",
        }  # fmt: skip
    elif source_type == "org":
        about["organization"] = {"login": source_id}
    return msgspec.json.encode(about)[1:-1] + b',"body":"'
