"""How far one source has come, and what of it was received already. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dualstream_lab.cursor import Cursor

__all__ = ["Progress", "Recent"]

_ABOVE: Final = 50_000  # ids above a confirmed cursor
_RECENT: Final = 20_000


class Recent:
    """The last ids, of all sources."""

    __slots__ = ("_ids", "_limit")

    def __init__(self, limit: int = _RECENT) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, event_id: str) -> None:
        """Remember it, and forget the oldest above the limit."""
        ids = self._ids
        ids[event_id] = None
        if len(ids) > self._limit:
            del ids[next(iter(ids))]


class Progress:
    """``confirmed``: every event of the source up to it was received, or was not asked for; None: unknown.

    A resumed connection tells again what is above ``confirmed``: those ids are kept, for as long as they
    are above it, but at most ``limit``. What is not above is among the recent ones only: a publisher that
    retried may have announced an event twice. An offset alone never says that an event is a repeat.
    """

    __slots__ = ("_above", "_limit", "_recent", "confirmed")

    def __init__(self, recent: Recent, *, limit: int = _ABOVE) -> None:
        self.confirmed: Cursor | None = None
        self._above: dict[str, int] = {}
        self._recent = recent
        self._limit = limit

    def __len__(self) -> int:
        return len(self._above)

    def fresh(self, event_id: str, offset: int | None) -> bool:
        """Whether an event is received for the first time; it is remembered."""
        above = self._above
        if event_id in above or event_id in self._recent:
            return False
        if offset is None:
            self._recent.add(event_id)
            return True
        above[event_id] = offset
        if len(above) > self._limit:
            self._retire(next(iter(above)))
        return True

    def confirm(self, cursor: Cursor) -> None:
        """The gateway's word that everything up to ``cursor`` was told. Never goes back in the same log."""
        before = self.confirmed
        if before is not None and before.epoch == cursor.epoch and before.offset >= cursor.offset:
            return
        self.restart(cursor)

    def restart(self, cursor: Cursor) -> None:
        """Go on from ``cursor``, also if that is behind or in another log."""
        if self.confirmed is not None and self.confirmed.epoch != cursor.epoch:
            through = None  # other offsets than those remembered
        else:
            through = cursor.offset
        self.confirmed = cursor
        above = self._above
        # Nearly in the order of offsets: what stands behind a higher one waits for that.
        while above:
            event_id = next(iter(above))
            if through is not None and above[event_id] > through:
                break
            self._retire(event_id)

    def _retire(self, event_id: str) -> None:
        del self._above[event_id]
        self._recent.add(event_id)
