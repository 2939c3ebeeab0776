"""Whether the topic is still the log that it was, and has still as many partitions."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dualstream_lab.errors import ConfigError, StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dualstream_lab.kafka_log.topic import LogIdentity

__all__ = ["LogWatch"]

log = logging.getLogger(__name__)


class LogWatch:
    """Looks at the topic every ``interval`` seconds; ``identity`` is what it saw last.

    ``ask`` is asked for the identity, for example :meth:`LogConsumer.identity`. ``on_change(before, after)``
    is called in the loop when it has more partitions (``before.epoch == after.epoch``) or was made anew. A
    Kafka that does not answer changes nothing. :meth:`run` is its task.
    """

    def __init__(
        self,
        identity: LogIdentity,
        *,
        interval: float,
        ask: Callable[[], Awaitable[LogIdentity]],
        on_change: Callable[[LogIdentity, LogIdentity], None],
    ) -> None:
        self.identity = identity
        self._interval = interval
        self._ask = ask
        self._on_change = on_change

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except (StreamUnavailable, ConfigError) as error:
                log.info("the topic could not be looked at: %s", error)

    async def look(self) -> LogIdentity:
        """Look now, and tell of a change. Raises StreamUnavailable; ConfigError where the topic is gone."""
        before, after = self.identity, await self._ask()
        if after.epoch == before.epoch and after.partitions < before.partitions:
            return before  # a broker that does not know of the growth yet
        if after != before:
            self.identity = after
            self._on_change(before, after)
        return after
