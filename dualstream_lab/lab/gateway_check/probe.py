"""Before the check: is there a gateway, and does it tell what is published here?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, PublishError, StreamUnavailable
from dualstream_lab.lab.gateway_check.topic import event_of
from dualstream_lab.load.gateway_wire import Transport
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.subscriber.link import listen_sse, listen_ws
from dualstream_lab.subscriber.wire import Dropped, decode
from dualstream_lab.tasks import beside, end_tasks

if TYPE_CHECKING:
    from yarl import URL


_WITHIN: Final = 20.0  # s to deliver an event: what a gateway did not get from Redis it finds by looking
_STRANGER: Final = 5.0  # s; the same, if it seems to read another log or another Redis
_AGAIN: Final = 0.1
_LISTEN: Final = {"ws": listen_ws, "sse": listen_sse}


@dataclass
class Probe:
    """Asks one gateway by one transport. ``epoch``: the identity of the topic that ``publisher`` writes.

    ``log``: which one the gateway's cursors are of; ``past``: an event was delivered as one of the past.
    """

    base: URL
    via: Transport
    epoch: str
    settings: Settings
    publisher: DualPublisher
    source: str
    log: str = ""
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    received: asyncio.Event = field(default_factory=asyncio.Event)
    past: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Subscribe to ``source``, publish to it, and receive it.

        Raises ConfigError (no gateway there, another log, another Redis) and StreamUnavailable (nobody there,
        Redis takes nothing, nothing is delivered).
        """
        await self._listen("latest", self._receive)
        if self.log != self.epoch:  # it has the same Redis; whether it reads the same log the past shows
            self.past.clear()
            await self._listen("earliest", self._receive_past)

    async def _listen(self, since: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work while listening to the gateway, which is asked for all events since this cursor."""
        async with aiohttp.ClientSession() as session:
            url, sources = self.base / self.via, {self.source: since}
            connection = _LISTEN[self.via](session, url, {}, sources, 30.0, self._deliver)
            listening = asyncio.create_task(connection)
            try:
                await beside([listening], work())
            except Dropped as error:
                raise StreamUnavailable(
                    f"the gateway {self.base} could not be reached by {self.via}: {error}"
                ) from error
            finally:
                await end_tasks([listening])

    async def _deliver(self, text: str) -> None:
        try:
            message = decode(text)
        except Dropped as error:
            raise ConfigError(
                f"url: what is at {self.base} does not speak a gateway's wire: {error}"
            ) from error
        if message.kind == "subscribed":
            self.log = (message.cursor or "").partition(":")[0]
            self.subscribed.set()
        elif message.kind == "event":
            self.received.set()
            if message.old:
                self.past.set()

    async def _receive(self) -> None:
        """Publish until the gateway has delivered an event, and a subscriber on Redis has received one."""
        loop, publisher = asyncio.get_running_loop(), self.publisher
        try:
            async with asyncio.timeout(_WITHIN):
                await self.subscribed.wait()
        except TimeoutError as error:
            text = f"the gateway does not confirm a subscription within {_WITHIN:g} s"
            raise StreamUnavailable(text) from error
        began = loop.time()
        while not (self.received.is_set() and publisher.stats().receivers):
            usual = self.log == self.epoch and publisher.stats().receivers
            if loop.time() > began + (_WITHIN if usual else _STRANGER):
                raise self._not_received()
            try:
                await publisher.publish(event_of(self.source, 0))
            except PublishError as error:
                text = f"nothing can be published to topic {self.settings.topic}: {error}"
                raise StreamUnavailable(text) from error
            await publisher.flush(1.0)
            await asyncio.sleep(_AGAIN)

    async def _receive_past(self) -> None:
        """Wait until the gateway delivers an event of the past."""
        try:
            async with asyncio.timeout(_STRANGER):
                await self.past.wait()
        except TimeoutError as error:
            raise self._other_log() from error

    def _not_received(self) -> ConfigError | StreamUnavailable:
        """The error that says why the gateway, or nobody on this Redis, received anything."""
        stats = self.publisher.stats()
        if not stats.notified:
            why = ", ".join(stats.dropped) or "no answer"
            return StreamUnavailable(f"Redis takes no notifications ({why}): check --redis")
        if self.log != self.epoch and not self.received.is_set():
            return self._other_log()
        if not stats.receivers:
            return ConfigError(
                "redis: nobody receives on this Redis what is published: give the Redis, and the "
                "channel_prefix, that the gateway reads"
            )
        topic = self.settings.topic
        return StreamUnavailable(
            f"the gateway told nothing of what was published to topic {topic!r} for {_WITHIN:g} s"
        )

    def _other_log(self) -> ConfigError:
        topic, log = self.settings.topic, self.log or "none"
        return ConfigError(
            f"topic, kafka: the gateway does not read what is published to topic {topic!r} here; its cursors "
            f"are of log {log}, and this is {self.epoch}: give the topic and Kafka that it reads"
        )
