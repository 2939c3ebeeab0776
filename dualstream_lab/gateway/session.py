"""A client's conversation: which sources it follows, and what it asks for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dualstream_lab.errors import DualStreamError
from dualstream_lab.gateway.clients import Connection, ConnectionLimit, StateFrame, state_frame
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.feed import Feed
from dualstream_lab.gateway.since import Refused, Since, check_source
from dualstream_lab.http_server import RateLimit, public_reason

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access, Grant
    from dualstream_lab.gateway.hub import Hub

log = logging.getLogger(__name__)

_tasks: set[asyncio.Task[None]] = set()  # the loop itself holds none


def keep(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """Hold it until it has ended, also when who made it is gone."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What a WebSocket client may say: one of the first three."""

    subscribe: str | None = None
    unsubscribe: str | None = None
    token: str | None = None
    since: str | None = None


_commands = msgspec.json.Decoder(Command)


def parse_command(text: str) -> Command:
    """The command in a WebSocket message. Raises Refused, with the close code 4400."""
    form = 'send {"subscribe": "type:id", "since": CURSOR}, {"unsubscribe": "type:id"} or {"token": …}'
    try:
        command = _commands.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(f"not a command: {error}; {form}", 4400) from error
    if sum(value is not None for value in (command.subscribe, command.unsubscribe, command.token)) != 1:
        raise Refused(f"not a command; {form}", 4400)
    return command


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a gateway's sessions share.

    ``limit``: how many clients may be connected, and what may wait for them; ``rate``: how often one client
    may subscribe, over all its connections.
    """

    settings: ServeSettings
    access: Access
    hub: Hub
    entry: Entry
    limit: ConnectionLimit
    rate: RateLimit


class Session:
    """The sources of one connection, each on its way in or live. Owns the tasks that bring it in."""

    def __init__(self, sessions: Sessions, connection: Connection, grant: Grant, client: str) -> None:
        self._hub, self._entry, self._rate = sessions.hub, sessions.entry, sessions.rate
        self._most = sessions.settings.max_subscriptions
        self._connection, self._grant, self._client = connection, grant, client
        self._entering: dict[str, asyncio.Task[None]] = {}
        self._feeds: dict[str, Feed] = {}
        self._closed = False

    def subscribe(self, wanted: Sequence[tuple[str, Since]]) -> None:
        """Begin to follow sources that :meth:`check` has let pass."""
        for source, since in wanted:
            self._entering[source] = keep(asyncio.create_task(self._enter(source, since)))

    def check(self, sources: Sequence[str]) -> None:
        """Raises Refused for sources that cannot be followed, too, or not yet. What is let pass counts."""
        for index, source in enumerate(sources):
            if source in self._feeds or source in self._entering or source in sources[:index]:
                raise Refused(f"{source} is followed already")
            check_source(source)
            if not self._grant.may_read(source):
                raise Refused(f"the token does not allow to read {source}", 4403)
        if len(self._feeds) + len(self._entering) + len(sources) > self._most:
            raise Refused(f"at most {self._most} sources can be followed on one connection", 4429)
        now = time.monotonic()
        if wait := self._rate.wait(self._client, now):
            raise Refused(
                f"too many subscriptions: at most {self._rate.rate:g}/s (DUALSTREAM_SUBSCRIBE_RATE); "
                f"try again in {wait:.1f} s",
                retry_after=wait,
            )
        self._rate.take(self._client, len(sources), now)

    def unsubscribe(self, source: str) -> None:
        """Stop following this source. Raises Refused where it is not followed."""
        if source in self._entering:
            self._entering.pop(source).cancel()
        elif source in self._feeds:
            self._hub.release(self._feeds.pop(source), self._connection)
        else:
            raise Refused(f"{source!r} is not followed")
        self._say(source, StateFrame("unsubscribed", source))

    def complain(self, reason: str, source: str | None = None) -> None:
        """Tell the client what was wrong with what it asked for."""
        self._say(source or "", StateFrame("error", source, error=reason))

    def close(self) -> None:
        """Follow no source any more. It waits for nothing: no second cancellation can leave a feed behind."""
        self._closed = True
        self._connection.end()
        for task in self._entering.values():
            task.cancel()  # it gives back what it holds
        for feed in self._feeds.values():
            self._hub.release(feed, self._connection)
        self._feeds.clear()

    async def _enter(self, source: str, since: Since) -> None:
        try:
            feed = await self._entry.enter(self._connection, source, since)
            if self._closed or self._entering.get(source) is not asyncio.current_task():
                self._hub.release(feed, self._connection)  # it was not wanted any more
            else:
                self._feeds[source] = feed
        except Refused as error:
            self.complain(str(error), source)
        except DualStreamError as error:
            log.info("a client could not be let into %s: %s", source, error)
            self.complain(f"{public_reason(error)}; try again", source)
        finally:
            if self._entering.get(source) is asyncio.current_task():
                del self._entering[source]

    def _say(self, source: str, message: StateFrame) -> None:
        self._connection.send([state_frame(message)], {}, source)
