"""The task of a Subscriber: it stays connected."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, Literal

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.subscriber.receiver import TooFarBehind
from dualstream_lab.subscriber.sse import listen_sse
from dualstream_lab.subscriber.wire import Dropped, TokenRefused
from dualstream_lab.subscriber.ws import listen_ws

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from dualstream_lab.subscriber.api import Api
    from dualstream_lab.subscriber.received import SubscriberStats
    from dualstream_lab.subscriber.receiver import Receiver

__all__ = ["Link", "Transport", "pause"]

log = logging.getLogger(__name__)

Transport = Literal["ws", "sse"]

_BACKOFF: Final = (0.1, 10.0)  # s: a pause is drawn from 0 to this, doubled at every failure, at most that


def pause(failures: int) -> float:
    """Seconds before the next try, drawn so that clients that lost the same gateway spread."""
    most = min(_BACKOFF[1], _BACKOFF[0] * 2 ** min(failures, 16))
    return random.uniform(0, most)  # noqa: S311


class Link:
    """Connects, lets ``receiver`` understand what comes, and connects again."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api: Api,
        base: URL,
        receiver: Receiver,
        stats: SubscriberStats,
        *,
        transport: Transport,
        silence: float,
        give_up: float | None,
    ) -> None:
        self._session = session
        self._api = api
        self._base = base
        self._receiver = receiver
        self._stats = stats
        self._listen = listen_ws if transport == "ws" else listen_sse
        self._url = base / transport
        self._silence = silence
        self._give_up = give_up

    async def run(self) -> None:
        """Until cancelled. Raises ConfigError or StreamUnavailable when another try is no use."""
        loop = asyncio.get_running_loop()
        failures, renew = 0, False
        while True:
            began = loop.time()
            try:
                await self._connection(renew=renew)
            except TokenRefused as error:
                # One that was good until now has expired; a new one that is refused is refused for good.
                if not (self._api.renews and self._receiver.welcomed):
                    raise
                renew, why = True, str(error)
                self._receiver.welcomed = False
            except Dropped as error:
                renew, why = False, str(error)
            self._receiver.away()
            self._stats.drops += 1
            now = loop.time()
            if now - began > _BACKOFF[1]:
                failures = 0
            if failures == 0:
                log.warning("%s: %s. Connecting again", self._base, why)
            wait = pause(failures)
            failures += 1
            if self._give_up is not None:
                left = self._receiver.heard_at + self._give_up - now
                if left <= 0:
                    raise StreamUnavailable(f"{self._base} is away for {self._give_up:g} s: {why}")
                wait = min(wait, left)
            await asyncio.sleep(wait)

    async def _connection(self, *, renew: bool) -> None:
        headers = await self._api.headers(renew=renew)
        self._stats.connections += 1
        receiver = self._receiver
        while True:
            try:
                await self._listen(
                    self._session, self._url, headers, receiver.ask(), self._silence, receiver.deliver
                )
            except TooFarBehind as error:
                receiver.away()
                await receiver.read_pages(error.source, self._api)
