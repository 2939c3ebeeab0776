"""One source at this gateway: its stream, who follows it, and what is about to be written to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from dualstream_lab.cursor import Cursor
from dualstream_lab.gateway.frames import EventFrame, Frame, StateFrame, event_frame, state_frame
from dualstream_lab.gateway.handover import Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from dualstream_lab.event import Notification
    from dualstream_lab.store import Row

__all__ = ["Client", "Feed"]

_DIGITS: Final = 19  # of the largest offset


class Client(Protocol):
    """Somebody who is told; telling never blocks and never raises."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """To be told a source's past: one source at a time, and not before there is room."""

    def tell(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:
        """Write the frames, all of one source. ``shared``: bytes made for others of the same frames."""

    def catch_up(self, frames: list[Frame], source: str) -> None:
        """Write the past, as much as it may be."""


class Feed:
    """``live``: clients that follow the stream. ``users``: those, and clients on their way in.

    ``subscribed``: Redis confirmed it, and it is heard. ``degraded``: why it is polled from the store
    instead, or None.
    """

    __slots__ = (
        "_cursor",
        "_partition",
        "begun",
        "channel",
        "degraded",
        "epoch",
        "frames",
        "leaving",
        "live",
        "source",
        "stream",
        "subscribed",
        "synced",
        "users",
    )

    def __init__(self, source: str, partition: int, epoch: str, channel: bytes) -> None:
        self.source = source
        self.epoch = epoch
        self.channel = channel
        self.stream: Stream[Frame] = Stream(source, partition)
        self.live: set[Client] = set()
        self.users = 0
        self.begun = False
        self.subscribed = False
        self.degraded: str | None = None
        self.frames: list[Frame] = []
        self.synced = -1
        self.leaving: asyncio.TimerHandle | None = None
        self._cursor = -1, self.cursor_at(-1)
        self._partition = f"{partition}:"

    @property
    def cursor(self) -> str:
        """Where the stream's clients resume."""
        confirmed = self.stream.confirmed
        if self._cursor[0] != confirmed:
            self._cursor = confirmed, self.cursor_at(confirmed)
        return self._cursor[1]

    def cursor_at(self, offset: int) -> str:
        """The cursor of a place."""
        return str(Cursor(self.epoch, self.stream.partition, offset))

    def offset_of(self, pos: str | None) -> int | None:
        """The offset in ``partition:offset``; None where it is not one of the source's partition."""
        if pos is None or not pos.startswith(self._partition):
            return None
        text = pos[len(self._partition) :]
        return int(text) if text.isdecimal() and len(text) <= _DIGITS else None

    def heard(self, note: Notification) -> Frame:
        """An event that Redis announced."""
        return event_frame(EventFrame(self.source, note.id, note.type, note.pos or "", self.cursor, note.ts))

    def found(self, rows: Iterable[Row], *, old: bool = False) -> list[Frame]:
        """Events of the store: late, or from before the client came.

        Each names its own place, and not what is confirmed with the last of them: who is cut off between two
        resumes there. What is before it was told.
        """
        partition = self.stream.partition
        return [
            event_frame(
                EventFrame(
                    self.source,
                    row.id,
                    row.type,
                    f"{partition}:{row.offset}",
                    self.cursor_at(row.offset),
                    row.ts,
                    late=not old,
                    old=old,
                )
            )
            for row in rows
        ]

    def state(self, kind: str, *, cursor: str | None = None, **about: object) -> Frame:
        """Word of the source's state."""
        return state_frame(StateFrame(kind, self.source, cursor, **about))  # type: ignore[arg-type]

    def say(self, frames: list[Frame]) -> None:
        """For every live client, in order, at the next flush."""
        if self.live:
            self.frames += frames

    def flush(self) -> int:
        """Write what was said; how many deliveries that makes."""
        frames, self.frames = self.frames, []
        if not frames:
            return 0
        shared: dict[str, bytes] = {}
        for client in self.live:  # telling never removes one
            client.tell(frames, shared, self.source)
        return len(frames) * len(self.live)
