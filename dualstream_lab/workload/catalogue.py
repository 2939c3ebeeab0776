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

    def event(self, seq: int, source: int, kind: int, size: int, occurred_at: datetime) -> Event:
        """The event of one slot, numbered ``seq``."""
        source_type, source_id = self.sources[source]
        name = self.types[kind]
        head = self._actions[kind] + self._subjects[source]
        room = size - len(head) - len(_TAIL)
        if self._whole:
            room -= self._envelope + len(name) + len(source_type) + len(source_id)
        room = max(room, 0)
        start = seq % _VARIETY
        if start + room > len(self._prose):
            self._prose = filler(start + room + 32_768)
        return Event(
            id=self.ids.of(seq),
            type=name,
            source_type=source_type,
            source_id=source_id,
            occurred_at=occurred_at,
            data=msgspec.Raw(head + self._prose[start : start + room] + _TAIL),
        )


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
