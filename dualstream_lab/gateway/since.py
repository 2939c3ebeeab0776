"""Where a client wants to begin, and whether the log has such a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import DualStreamError, EventError

if TYPE_CHECKING:
    from dualstream_lab.gateway.log import Log
    from dualstream_lab.gateway.past import Positions

__all__ = ["EARLIEST", "Refused", "Since", "check_partitions", "is_foreign", "known_by", "parse_since"]

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


def parse_since(text: str | None) -> Since:
    """From what was given. Raises Refused."""
    if text in {None, "", "latest"}:
        return None
    if text == EARLIEST:
        return EARLIEST
    try:
        return Cursor.parse(text or "")
    except EventError as error:
        raise Refused(f"since: {error}; or: latest, earliest") from error


def known_by(since: Since) -> Positions | None:
    """The offsets that are known; empty: none is; None: only new ones are wanted."""
    return since.by_partition if isinstance(since, Cursor) else None if since is None else {}


def is_foreign(since: Since, log: Log) -> bool:
    """Whether it is a cursor of another log."""
    return isinstance(since, Cursor) and not log.identity.is_named(since.epoch)


async def check_partitions(log: Log, partitions: Positions, what: str) -> None:
    """Raises Refused where the log does not have these partitions. Looks, where some may have been added."""
    if not await log.has(partitions):
        raise Refused(
            f"{what}: names partition {max(partitions)}; the topic has {log.identity.partitions} (from 0)"
        )
