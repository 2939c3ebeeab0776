"""What an application does with events, beside the store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.store import StoredEvent

__all__ = ["Handler", "handled"]

log = logging.getLogger(__name__)

_PAUSES: Final = (0.05, 0.2, None)  # s after each try of one event; three tries


class Handler(Protocol):
    """Is given every valid event, a batch at a time, in the order of each partition.

    At least once: after a crash, a rebalance or a failed batch it sees events again, with the same id. An
    event that is a duplicate for the store is given to it, too. While it works, nothing of its partition
    goes on; for longer than five minutes, and the partition goes to another processor.
    """

    async def handle(self, events: Sequence[StoredEvent]) -> None:
        """Do the work. An exception refuses the batch; then its events are tried alone, up to three times."""


async def handled(
    handler: Handler, events: Sequence[StoredEvent]
) -> tuple[list[StoredEvent], list[tuple[StoredEvent, str]]]:
    """Those that the handler took, and those that it refused, with the reason."""
    try:
        await handler.handle(events)
    except Exception as error:  # noqa: BLE001  (whatever an application raises)
        log.warning("%s refused %d events, trying each: %r", _name(handler), len(events), error)
    else:
        return list(events), []
    taken: list[StoredEvent] = []
    refused: list[tuple[StoredEvent, str]] = []
    for event in events:
        reason = await _refusal(handler, event)
        if reason is None:
            taken.append(event)
        else:
            refused.append((event, reason))
    return taken, refused


async def _refusal(handler: Handler, event: StoredEvent) -> str | None:
    reason = ""
    for pause in _PAUSES:
        try:
            await handler.handle([event])
        except Exception as error:  # noqa: BLE001
            reason = f"{_name(handler)} refused it {len(_PAUSES)} times, at last with {error!r}"
            if pause is not None:
                await asyncio.sleep(pause)
        else:
            return None
    return reason


def _name(handler: Handler) -> str:
    return type(handler).__name__
