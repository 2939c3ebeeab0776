"""What was really published: read back from the topic, never taken from the publisher's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.lab.check_gateway.history import SourceLog
from dualstream_lab.replay import Start, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dualstream_lab.config import Settings
    from dualstream_lab.lab.check_gateway.place import Names

__all__ = ["log_ends", "read_log"]


class _Value(msgspec.Struct):
    id: str
    source_type: str
    source_id: str
    data: Any = None


_decode = msgspec.json.Decoder(_Value).decode


async def log_ends(settings: Settings) -> dict[int, int]:
    """Where every partition ends now. Raises ConfigError, StreamUnavailable."""
    async with read(settings, Start()) as reading:
        return dict(reading.begin)


async def read_log(
    settings: Settings, begin: Mapping[int, int], sources: Sequence[str], names: Names
) -> dict[str, SourceLog]:
    """The events of these sources from ``begin`` to the end as it is now. Raises StreamUnavailable."""
    rows: dict[str, list[tuple[int, int, int, float]]] = {source: [] for source in sources}
    partitions: dict[str, int] = {}
    async with read(settings, Start(positions=begin)) as reading:
        if reading.removed:
            raise StreamUnavailable(
                f"{reading.removed:,} events were removed from topic {settings.topic} before they could be "
                "read back: let it keep more, or publish less"
            )
        async for chunk in reading.chunks():
            for record in chunk:
                try:
                    value = _decode(record.value or b"")
                except msgspec.DecodeError:
                    continue  # somebody else's
                source = f"{value.source_type}:{value.source_id}"
                if source in rows:
                    writer = value.data if isinstance(value.data, int) else -1
                    rows[source].append((record.offset, names(value.id), writer, record.timestamp / 1000))
                    partitions[source] = record.partition
    return {source: SourceLog(partitions.get(source, -1), found) for source, found in rows.items()}
