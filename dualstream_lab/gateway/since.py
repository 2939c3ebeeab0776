"""What a client asks for: a source, where it wants to begin, and whether the log has such a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import DualStreamError, EventError
from dualstream_lab.event import source_invalid_reason
from dualstream_lab.gateway.past import Positions

if TYPE_CHECKING:
    from dualstream_lab.gateway.log import Log

EARLIEST: Final = "earliest"
Since: TypeAlias = Cursor | Literal["earliest"] | None
"""After a cursor, from all that is kept, or (None) new events only."""


class Refused(DualStreamError):
    """What a client asked for is not to be had.

    ``code``: the WebSocket's close code; None: it may go on. ``retry_after``: s until it may be had.
    """

    def __init__(self, reason: str, code: int | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.retry_after = retry_after


def check_source(source: str) -> None:
    """Raises Refused for a source (``type:id``) that cannot be followed."""
    source_type, colon, source_id = source.partition(":")
    if not colon:
        raise Refused(f"source {source!r}: must be type:id, for example repo:owner/name")
    if reason := source_invalid_reason(source_type, source_id):
        raise Refused(reason)


def parse_since(text: str | None) -> Since:
    """Where to begin, from the text that the client gave. Raises Refused."""
    if not text or text == "latest":
        return None
    if text == EARLIEST:
        return EARLIEST
    try:
        return Cursor.parse(text)
    except EventError as error:
        raise Refused(f"since: {error}; or: latest, earliest") from error


def known_by(since: Since) -> Positions | None:
    """The offsets that are known; empty: none is; None: only new ones are wanted."""
    return since.by_partition if isinstance(since, Cursor) else None if since is None else {}


async def check_partitions(log: Log, partitions: Positions, field: str) -> None:
    """Raises Refused where the log does not have these partitions. Looks, where some may have been added."""
    if not await log.has(partitions):
        has = f"the topic has {log.identity.partitions} (from 0)"
        raise Refused(f"{field}: names partition {max(partitions)}; {has}")


async def check_since(log: Log, since: Since) -> bool:
    """Whether it is a cursor of another log. Raises Refused for partitions that ours does not have."""
    other_log = isinstance(since, Cursor) and not log.identity.is_named(since.epoch)
    if not other_log:
        await check_partitions(log, known_by(since) or {}, "since")
    return other_log
