"""One source at this gateway: its stream, who follows it, and what is about to be written to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dualstream_lab.cursor import Cursor
from dualstream_lab.gateway.clients import Connection, EventFrame, Frame, StateFrame, event_frame, state_frame
from dualstream_lab.gateway.handover import Stream
from dualstream_lab.gateway.past import Positions

if TYPE_CHECKING:
    from dualstream_lab.event import Notification
    from dualstream_lab.store import Page, Row


class Feed:
    """``live``: clients that follow the stream. ``users``: those, and clients on their way in.

    ``homes``: the partitions that publishers write the source to; ``partitions``: those, and where the store
    has seen it. ``placed``: whether the store was asked. ``subscribed``: Redis confirmed it, and it delivers.
    ``degraded``: why it is polled from the store instead, or None.
    """

    __slots__ = (
        "_cursor", "begun", "channel", "degraded", "epoch", "frames", "homes", "leaving", "live",
        "partitions", "placed", "source", "source_id", "stream", "subscribed", "synced", "users",
    )  # fmt: skip

    def __init__(self, source: str, homes: tuple[int, ...], epoch: str, channel: bytes) -> None:
        self.source = source
        self.source_id = source.partition(":")[2]
        self.channel = channel
        self.live: set[Connection] = set()
        self.users = 0
        self.subscribed = False
        self.degraded: str | None = None
        self.frames: list[Frame] = []
        self.leaving: asyncio.TimerHandle | None = None
        self.renew(epoch, homes)
        self.begun = False

    def renew(self, epoch: str, homes: tuple[int, ...]) -> None:
        """It is of another log now, of which everything is new."""
        self.epoch = epoch
        self.homes = homes
        self.partitions = tuple(sorted(homes))
        self.placed = False
        self.begun = True
        self.stream: Stream[Frame] = Stream(self.source)
        self.synced = ""
        self._cursor: tuple[Positions, tuple[int, ...], str] = {}, (), ""

    def grow(self, homes: tuple[int, ...]) -> None:
        """Publishers may write it to other partitions, too."""
        self.homes = homes
        self.partitions = tuple(sorted({*self.partitions, *homes}))

    def learn(self, page: Page) -> None:
        """Note in which partitions the store has seen the source."""
        self.placed = True
        if not all(partition in self.partitions for partition in page.first):
            self.partitions = tuple(sorted({*self.partitions, *page.first}))

    @property
    def cursor(self) -> str:
        """The cursor from which the stream's live clients would resume."""
        confirmed = self.stream.confirmed
        if self._cursor[0] is not confirmed or self._cursor[1] is not self.partitions:
            self._cursor = confirmed, self.partitions, self.cursor_at(confirmed)
        return self._cursor[2]

    def cursor_at(self, offsets: Positions, more: Iterable[int] = ()) -> str:
        """The cursor of these places: of the source's partitions, and of ``more``."""
        named = sorted({*self.partitions, *more}) if more else self.partitions
        return str(Cursor(self.epoch, tuple((partition, offsets.get(partition, -1)) for partition in named)))

    def announced(self, note: Notification) -> Frame:
        """The frame of an event that Redis has announced."""
        return event_frame(EventFrame(self.source, note.id, note.type, note.pos or "", self.cursor, note.ts))

    def stored(self, rows: Iterable[Row], known: Positions, *, old: bool = False) -> list[Frame]:
        """Events of the store: late, or from before the client came, who had been told up to ``known``.

        Each names its own place, and not what is confirmed with the last: who is cut off between two resumes
        there. A partition that is not known is not named before it has an event.
        """
        at = dict(known)
        frames = []
        for row in rows:
            at[row.partition] = row.offset
            place = f"{row.partition}:{row.offset}"
            cursor = str(Cursor.of(self.epoch, at)) if len(at) > 1 else f"{self.epoch}:{place}"
            about = EventFrame(self.source, row.id, row.type, place, cursor, row.ts, late=not old, old=old)
            frames.append(event_frame(about))
        return frames

    def state(self, kind: str, *, cursor: str | None = None, **about: object) -> Frame:
        """The frame of a message about the source itself, such as ``degraded`` or ``sync``."""
        return state_frame(StateFrame(kind, self.source, cursor, **about))  # type: ignore[arg-type]

    def flush(self) -> int:
        """Write the frames that wait to every live client; returns how many deliveries that makes."""
        frames, self.frames = self.frames, []
        if not frames:
            return 0
        shared: dict[str, bytes] = {}
        for client in self.live:  # telling never removes one
            client.send(frames, shared, self.source)
        return len(frames) * len(self.live)
