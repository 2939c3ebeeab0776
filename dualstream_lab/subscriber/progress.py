"""How far one source has come, and what of it was received already. No I/O."""

from __future__ import annotations

from typing import Final

from dualstream_lab.cursor import Cursor
from dualstream_lab.event import event_key

_ABOVE: Final = 50_000  # ids above a confirmed cursor
_RECENT: Final = 20_000


class Recent(dict[str, None]):
    """The last events, of all sources, by their keys (source and id)."""

    def __init__(self, limit: int = _RECENT) -> None:
        super().__init__()
        self._limit = limit

    def add(self, key: str) -> None:
        """Remember it, and forget the oldest above the limit."""
        self[key] = None
        if len(self) > self._limit:
            del self[next(iter(self))]


class Progress:
    """``confirmed``: every event of the source up to it was received, or was not asked for; None: unknown.

    A resumed connection tells again what is above ``confirmed``: those ids are kept, for as long as they
    are above it in their partition, but at most ``limit`` of all. What is not above is among the recent ones
    only: a publisher that retried may have announced an event twice. An offset alone never says that an
    event is a repeat.
    """

    __slots__ = ("_above", "_kept", "_limit", "_recent", "_source", "confirmed")

    def __init__(self, source: str, recent: Recent, *, limit: int = _ABOVE) -> None:
        self.confirmed: Cursor | None = None
        self._source = source
        self._above: dict[int, dict[str, int]] = {}  # by partition: id to offset
        self._kept = 0
        self._recent = recent
        self._limit = limit

    def __len__(self) -> int:
        return self._kept

    def fresh(self, event_id: str, position: tuple[int, int] | None) -> bool:
        """Whether an event is received for the first time; it is remembered. ``position``: where it is in
        Kafka, (partition, offset), as far as is known.
        """
        key = event_key(self._source, event_id)
        if key in self._recent or any(event_id in above for above in self._above.values()):
            return False
        if position is None:
            self._recent.add(key)
            return True
        partition, offset = position
        above = self._above.setdefault(partition, {})
        above[event_id] = offset
        self._kept += 1
        if self._kept > self._limit:
            self._retire(above)
        return True

    def confirm(self, cursor: Cursor) -> None:
        """The gateway's word that everything up to ``cursor`` was told. Goes back nowhere in the same log."""
        before = self.confirmed
        if before is not None and before.epoch == cursor.epoch:
            if cursor == before:
                return
            cursor = before.merged(cursor)
        self.restart(cursor)

    def restart(self, cursor: Cursor) -> None:
        """Go on from ``cursor``, also if that is behind or in another log."""
        other_log = self.confirmed is not None and self.confirmed.epoch != cursor.epoch
        self.confirmed = cursor
        through = cursor.by_partition
        for partition, above in self._above.items():
            # Nearly in the order of offsets: what stands behind a higher one waits for that.
            while above and (other_log or next(iter(above.values())) <= through.get(partition, -1)):
                self._retire(above)

    def _retire(self, above: dict[str, int]) -> None:
        event_id = next(iter(above))
        del above[event_id]
        self._kept -= 1
        self._recent.add(event_key(self._source, event_id))
