"""What was really published: read back from the topic, never taken from the publisher's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dualstream_lab.lab.gateway_check.history import SourceLog, by_partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.kafka_log import Records

__all__ = ["EventNumbers", "TopicLog"]


class EventNumbers:
    """Event ids as numbers: a record of a million deliveries holds each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, event_id: str) -> int:
        """The id's number."""
        return self._numbers.setdefault(event_id, len(self._numbers))

    def names(self) -> list[str]:
        """The ids by number."""
        return list(self._numbers)


class _Value(msgspec.Struct):
    id: str
    source_type: str
    source_id: str
    data: Any = None


_decode = msgspec.json.Decoder(_Value).decode


class TopicLog:
    """Keeps the events of some sources that a LogReader reads."""

    def __init__(self, sources: Sequence[str], numbers: EventNumbers) -> None:
        self._rows: dict[str, list[tuple[int, int, int, int, float]]] = {source: [] for source in sources}
        self._numbers = numbers

    def __call__(self, part: Records, _now: int) -> None:
        """See :class:`LogReader`."""
        for record in part.records:
            try:
                value = _decode(record.value or b"")
            except (msgspec.DecodeError, UnicodeError):
                continue  # somebody else's
            rows = self._rows.get(f"{value.source_type}:{value.source_id}")
            if rows is not None:
                writer = value.data if isinstance(value.data, int) else -1
                event, at = self._numbers(value.id), record.timestamp / 1000
                rows.append((part.partition, record.offset, event, writer, at))

    def logs(self) -> dict[str, dict[int, SourceLog]]:
        """By source, and partition."""
        return {source: by_partition(rows) for source, rows in self._rows.items()}
