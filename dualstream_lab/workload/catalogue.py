"""Turns the slots of a plan into events, cheaply: about a microsecond or two each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from dualstream_lab.event import Event, encode_event
from dualstream_lab.workload.payloads import filler
from dualstream_lab.workload.popularity import source_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.workload.ids import RunIds

_TAIL = b'"}'
_VARIETY = 257  # the prose begins at one of so many places
_KEPT = 50_000
_SHORT = 1000  # bytes: longer bodies would fill the memory


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

    def event(self, seq: int, source: int, kind: int, size: int, occurred_at: datetime) -> Event:
        """The event of one slot, numbered ``seq``."""
        return self.events([seq], [source], [kind], [size], occurred_at)[0]

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
                    id=prefix + numbers[at : at + 12],
                    type=name,
                    source_type=source_type,
                    source_id=source_id,
                    occurred_at=occurred_at,
                    data=raw(head + body),
                )
            )
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


_SOME_TIME = datetime(
    2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC
)  # written with microseconds, as nearly every time is


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
            "full_name": source_id,
            "private": False,
            "owner": {"login": owner},
            "url": url,
            "commits_url": f"{url}/commits{{/sha}}",
            "issues_url": f"{url}/issues{{/number}}",
        }
    elif source_type == "org":
        about["organization"] = {"login": source_id}
    return msgspec.json.encode(about)[1:-1] + b',"body":"'
