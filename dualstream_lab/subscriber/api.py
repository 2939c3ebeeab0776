"""The gateway's HTTP API, with the caller's token: whole events, and pages of a long past."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from dualstream_lab.cursor import position_of
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.event import Event, decode_event
from dualstream_lab.subscriber.received import Received, SubscriberStats
from dualstream_lab.subscriber.wire import CONNECT_TIMEOUT, Dropped, TokenRefused, pause, refused

if TYPE_CHECKING:
    from yarl import URL


log = logging.getLogger(__name__)

_PAUSE: Final = (0.05, 2.0)  # s between tries: first, and at most
# s for one answer; the gateway's own wait for its store is within it
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15.0, connect=CONNECT_TIMEOUT)
_PAGE: Final = 1000


class Page(msgspec.Struct, frozen=True):
    """Events of one source in the log's order, and the cursor behind them.

    Not ``recovered``: by ``reason`` some before these events are missing, or there may be more after them.
    """

    events: list[msgspec.Raw]
    cursor: str
    more: bool
    recovered: bool = True
    reason: str | None = None


_pages: Final = msgspec.json.Decoder(Page)


@dataclass(slots=True, repr=False)
class Api:
    """``token``: as given to the Subscriber. What it yields is kept until the gateway refuses it."""

    session: aiohttp.ClientSession
    base: URL
    token: str | Callable[[], str | Awaitable[str]] | None
    stats: SubscriberStats
    _headers: dict[str, str] | None = None

    @property
    def renews(self) -> bool:
        """Whether a token that was refused can be replaced."""
        return callable(self.token)

    async def headers(self, *, renew: bool = False) -> Mapping[str, str]:
        """``Authorization``, where there is a token. ``renew``: ask the caller's function anew."""
        if self._headers is None or renew:
            token = self.token() if callable(self.token) else self.token
            if inspect.isawaitable(token):
                token = await token
            self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self._headers

    async def event(self, announced: Received, *, within: float) -> Event | None:
        """The whole event; None when the gateway does not have it ``within`` so many s, or has another one.

        Waits as long as it takes for a gateway that is away. Raises ConfigError when it is not allowed.
        """
        asked = {"id": announced.id, "source": announced.source}
        if announced.offset is not None:
            asked["pos"] = f"{announced.partition}:{announced.offset}"
        url = (self.base / "event").with_query(asked)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        for failures in itertools.count():
            try:
                status, body, headers = await self._get(url)
                if status == HTTPStatus.OK:
                    return self._checked(announced, decode_event(body), headers.get("X-Position"))
                retry = status != HTTPStatus.NOT_FOUND or "Retry-After" in headers
                if not retry or loop.time() > deadline:
                    return None
            except EventError:
                return None
            except Dropped:
                deadline = loop.time() + within  # behind a gateway that comes back, the store may lag anew
            await asyncio.sleep(pause(failures, *_PAUSE))
        return None

    def _checked(self, announced: Received, event: Event, pos: str | None) -> Event | None:
        """The event, if it is the one that was announced: who may write one source speaks for no other."""
        # What a source has twice is announced twice, and the store keeps the first: never one behind it.
        source = f"{event.source_type}:{event.source_id}"
        place = position_of(pos)
        behind = place and place[0] == announced.partition and place[1] > (announced.offset or 0)
        if (source, event.id) == (announced.source, announced.id) and not behind:
            return event
        self.stats.refused += 1
        log.warning(
            "event %s of %s at %s:%s was asked for, and the gateway's answer is %s of %s at %s",
            *(announced.id, announced.source, announced.partition, announced.offset),
            *(event.id, source, pos),
        )
        return None

    async def page(self, source: str, since: str) -> Page:
        """The first events after a cursor. Raises Dropped, ConfigError."""
        url = (self.base / "events").with_query({"source": source, "since": since, "limit": str(_PAGE)})
        status, body, _ = await self._get(url)
        if status != HTTPStatus.OK:
            raise Dropped(f"the gateway answers {status} for the past")
        try:
            return _pages.decode(body)
        except msgspec.DecodeError as error:
            raise StreamUnavailable(f"the gateway's page of events cannot be read: {error}") from error

    async def _get(self, url: URL) -> tuple[int, bytes, Mapping[str, str]]:
        """(status, body, headers). Raises Dropped when it is away, ConfigError where it refuses for good."""
        renew = False
        while True:
            authorization = await self.headers(renew=renew)
            try:
                async with self.session.get(url, headers=authorization, timeout=_TIMEOUT) as answer:
                    status, body, headers = answer.status, await answer.read(), answer.headers
            except (aiohttp.ClientError, OSError) as error:  # time-outs among them
                raise Dropped(str(error) or type(error).__name__) from error
            if status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
                return status, body, headers
            refusal = refused(status, body[:500].decode(errors="replace"))
            if isinstance(refusal, Dropped):
                return status, body, headers
            if renew or not (isinstance(refusal, TokenRefused) and self.renews):
                raise refusal
            renew = True
