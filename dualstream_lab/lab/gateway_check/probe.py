"""Before the check: is there a gateway, and does it tell what is published here?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from dualstream_lab.errors import ConfigError, PublishError, StreamUnavailable
from dualstream_lab.lab.gateway_check.publishing import event_of
from dualstream_lab.subscriber.link import listen_sse, listen_ws
from dualstream_lab.subscriber.wire import Dropped, decode
from dualstream_lab.tasks import beside, end_tasks

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from yarl import URL

    from dualstream_lab.config import Settings
    from dualstream_lab.load.gateway_wire import Transport
    from dualstream_lab.publisher import DualPublisher

__all__ = ["probe"]

_WITHIN: Final = 20.0  # s to hear an event: what a gateway did not hear on Redis it finds by looking
_STRANGER: Final = 5.0  # s; the same, if it seems to read another log or another Redis
_AGAIN: Final = 0.1
_LISTEN: Final = {"ws": listen_ws, "sse": listen_sse}


async def probe(
    base: URL, via: Transport, ours: str, settings: Settings, publisher: DualPublisher, source: str
) -> None:
    """Subscribe to ``source``, publish to it, and hear it. ``ours``: the topic's identity.

    Raises ConfigError (no gateway there, another log, another Redis) and StreamUnavailable (nobody there,
    Redis takes nothing, nothing is told).
    """
    ear = _Ear(base)
    await _while_listening(base, via, source, "latest", ear, _hear(ear, ours, settings, publisher, source))
    if ear.log != ours:  # it hears the same Redis; whether it reads the same log is seen from the past
        again = _Ear(base)
        await _while_listening(base, via, source, "earliest", again, _remember(again, ours, settings))


async def _while_listening(
    base: URL, via: Transport, source: str, since: str, ear: _Ear, work: Coroutine[Any, Any, None]
) -> None:
    async with aiohttp.ClientSession() as session:
        listening = asyncio.create_task(
            _LISTEN[via](session, base / via, {}, {source: since}, 30.0, ear.deliver)
        )
        try:
            await beside([listening], work)
        except Dropped as error:
            raise StreamUnavailable(f"the gateway {base} could not be reached by {via}: {error}") from error
        finally:
            await end_tasks([listening])


class _Ear:
    """``log``: which one its cursors are of. ``remembered``: an event was told as of the past."""

    def __init__(self, base: URL) -> None:
        self._base = base
        self.log = ""
        self.subscribed = asyncio.Event()
        self.heard = asyncio.Event()
        self.remembered = asyncio.Event()

    async def deliver(self, text: str) -> None:
        try:
            message = decode(text)
        except Dropped as error:
            raise ConfigError(
                f"url: what is at {self._base} does not speak a gateway's wire: {error}"
            ) from error
        if message.kind == "subscribed":
            self.log = (message.cursor or "").partition(":")[0]
            self.subscribed.set()
        elif message.kind == "event":
            self.heard.set()
            if message.old:
                self.remembered.set()


async def _hear(ear: _Ear, ours: str, settings: Settings, publisher: DualPublisher, source: str) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WITHIN):
            await ear.subscribed.wait()
    except TimeoutError as error:
        raise StreamUnavailable(
            f"the gateway does not confirm a subscription within {_WITHIN:g} s"
        ) from error
    began = loop.time()
    while not (ear.heard.is_set() and publisher.stats().receivers):
        usual = ear.log == ours and publisher.stats().receivers
        if loop.time() > began + (_WITHIN if usual else _STRANGER):
            raise _unheard(ear, ours, settings, publisher)
        try:
            await publisher.publish(event_of(source, 0))
        except PublishError as error:
            raise StreamUnavailable(f"nothing can be published to topic {settings.topic}: {error}") from error
        await publisher.flush(1.0)
        await asyncio.sleep(_AGAIN)


async def _remember(ear: _Ear, ours: str, settings: Settings) -> None:
    try:
        async with asyncio.timeout(_STRANGER):
            await ear.remembered.wait()
    except TimeoutError as error:
        raise _stranger(ear, ours, settings) from error


def _unheard(
    ear: _Ear, ours: str, settings: Settings, publisher: DualPublisher
) -> ConfigError | StreamUnavailable:
    """Why nothing was heard, or not by Redis."""
    stats = publisher.stats()
    if not stats.notified:
        why = ", ".join(stats.dropped) or "no answer"
        return StreamUnavailable(f"Redis takes no notifications ({why}): check --redis")
    if ear.log != ours and not ear.heard.is_set():
        return _stranger(ear, ours, settings)
    if not stats.receivers:
        return ConfigError(
            "redis: nobody hears on this Redis what is published: give the Redis, and the channel_prefix, "
            "that the gateway reads"
        )
    return StreamUnavailable(
        f"the gateway told nothing of what was published to topic {settings.topic!r} for {_WITHIN:g} s"
    )


def _stranger(ear: _Ear, ours: str, settings: Settings) -> ConfigError:
    return ConfigError(
        f"topic, kafka: the gateway does not read what is published to topic {settings.topic!r} here; its "
        f"cursors are of log {ear.log or 'none'}, and this is {ours}: give the topic and Kafka that it reads"
    )
