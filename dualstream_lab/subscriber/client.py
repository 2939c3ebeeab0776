"""Subscriber: follow sources through a gateway, for as long as you like; nothing is lost silently."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Self, get_args

import aiohttp

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.event import Event
from dualstream_lab.subscriber.api import Api
from dualstream_lab.subscriber.link import Transport, stay_connected
from dualstream_lab.subscriber.received import NOT_FETCHED, Gap, Received, StreamGap, SubscriberStats
from dualstream_lab.subscriber.receiver import Arrival, Confirmed, Inbox, Receiver, State
from dualstream_lab.subscriber.wanted import checked_since, checked_sources, checked_url
from dualstream_lab.tasks import beside, end_tasks

log = logging.getLogger(__name__)

_INBOX: Final = 1000  # received and not handed out; then the socket is not read
_FETCHES: Final = 16  # whole events asked for at once, and kept in advance
_FETCH_WITHIN: Final = 90.0  # s: a transaction that holds one back may be open for a minute and ten seconds
_CLOSE: Final = 3.0


class Subscriber:
    """Events of some sources, as they happen, through the gateway at ``url``::

        async for event in Subscriber("http://127.0.0.1:8080", source="repo:octo/hello"):
            print(event.id, event.type, event.data)

    Or ``async with Subscriber(…) as events:`` to look at :attr:`cursors`, :attr:`states` and :attr:`stats`
    meanwhile, and to go on after a StreamGap. One task at a time may iterate.

    ``since``: where to begin: ``"latest"``, ``"earliest"``, a cursor, or ``{source: cursor}``, such as the
    :attr:`cursors` of an earlier one (sources that are not in it begin with the latest). ``fetch``: get
    each whole event, 16 at a time; without it you have what a notification says. ``token``: the bearer
    token, or a function (also async) that makes one, called again whenever the gateway refuses the last.

    What it guarantees. It connects again for ever, or until the gateway was ``give_up`` seconds away
    (StreamUnavailable), and resumes where it was. Every event of a source is handed out once, unless a
    gap is told; by the order in the log but for ``late`` ones, and for two publishers of one source, whose
    notifications may cross. Repeats are removed by source and id, which together are an event's identity;
    what the gateway hands out under another source or id is refused, and a gap. A process that begins again
    with saved cursors may get the last few again: at least once.

    A gap is never passed over: iterating raises StreamGap there (iterate on, and it continues behind it),
    or calls ``on_gap`` (also async) instead. While the gateway's store lags behind its cursor, or Kafka does
    not answer the gateway, the subscriber asks again: for ``recover_within`` seconds before that is a gap.

    If you are slow, the socket is not read; the gateway then closes it, and the subscriber resumes.
    ``silence``: seconds without a sign of life (the gateway gives one every 15) until it connects anew.

    Raises ConfigError for bad arguments at once, and while iterating when the gateway refuses the token or a
    source. Closing takes about 3 s at most; what was received but not handed out is not in the cursors.
    """

    def __init__(
        self,
        url: str,
        *,
        source: str | None = None,
        sources: Sequence[str] = (),
        transport: Transport = "ws",
        token: str | Callable[[], str | Awaitable[str]] | None = None,
        since: str | Mapping[str, str] = "latest",
        fetch: bool = True,
        on_gap: Callable[[Gap], Awaitable[None] | None] | None = None,
        give_up: float | None = None,
        recover_within: float = 60.0,
        silence: float = 30.0,
    ) -> None:
        if transport not in get_args(Transport):
            raise ConfigError(f"transport {transport!r}: must be one of {', '.join(get_args(Transport))}")
        for name, seconds in (("give_up", give_up), ("recover_within", recover_within), ("silence", silence)):
            if seconds is not None and not 0 < seconds <= 365 * 86_400:
                raise ConfigError(f"{name}: must be seconds above 0 (is {seconds!r})")
        self._base = checked_url(url)
        self._sources = checked_sources(source, sources)
        self._since = checked_since(since, self._sources)
        self._token = token
        self._fetch = fetch
        self._on_gap = on_gap
        self._recover_within = recover_within
        self._stay = partial(stay_connected, transport=transport, silence=silence, give_up=give_up)
        self._cursors = {source: place for source, place in self._since.items() if ":" in place}
        self._in_hand: Received | None = None
        self._session: aiohttp.ClientSession | None = None
        self._api: Api
        self._receiver: Receiver | None = None
        self._task: asyncio.Task[None] | None = None
        self._inbox: Inbox
        self._window: deque[tuple[Arrival, asyncio.Task[Event | None] | None]] = deque()
        self.stats = SubscriberStats()
        """Counters since the subscriber was made."""

    @property
    def cursors(self) -> dict[str, str]:
        """Where each source can be resumed, also tomorrow, as ``since=``.

        Everything up to there was handed out and dealt with: the event in hand is not, until the next one
        is asked for. Sources of which nothing is known yet are missing.
        """
        return dict(self._cursors)

    @property
    def states(self) -> dict[str, State]:
        """Of each source: ``away``, ``catching up``, ``live``, or ``degraded`` (by the gateway's store)."""
        if self._receiver is None:
            return dict.fromkeys(self._sources, "away")
        return {source.name: source.state for source in self._receiver.sources.values()}

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ConfigError("this Subscriber is already in use")
        self._inbox = Inbox(_INBOX)
        self._session = aiohttp.ClientSession()
        self._api = Api(self._session, self._base, self._token, self.stats)
        since = self._since | self._cursors
        self._receiver = Receiver(since, self._inbox, self.stats, recover_within=self._recover_within)
        self._task = asyncio.create_task(self._stay(self._api, self._receiver))
        self._task.add_done_callback(self._inbox.wake)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect, within about 3 s. The iteration ends. Entered again, it resumes from its cursors."""
        task, self._task = self._task, None
        if task is None or self._session is None:
            return
        self._in_hand = None
        tasks = [task, *(fetch for _, fetch in self._window if fetch is not None)]
        self._window.clear()
        await end_tasks(tasks, _CLOSE)
        self._receiver = None
        self._inbox.wake()
        await self._session.close()

    async def wait_live(self, timeout: float = 10.0) -> None:
        """Until every source is subscribed: what is published from now on will arrive.

        With a past to catch up, iterate meanwhile. Raises StreamUnavailable after ``timeout`` seconds, and
        whatever ended the subscriber.
        """
        if self._task is None or self._receiver is None:
            raise ConfigError("this Subscriber is not open: use `async with`")
        try:
            async with asyncio.timeout(timeout):
                await beside([self._task], self._receiver.live.wait())
        except TimeoutError as error:
            raise StreamUnavailable(f"not live within {timeout:g} s: {self.states}") from error

    def __aiter__(self) -> AsyncIterator[Received]:
        return self._alone() if self._task is None else self

    async def _alone(self) -> AsyncIterator[Received]:
        async with self:
            async for received in self:
                yield received

    async def __anext__(self) -> Received:
        """Waits for the next event. Nothing is lost if this is cancelled."""
        received, self._in_hand = self._in_hand, None
        if received is not None and received.cursor is not None:
            self._cursors[received.source] = received.cursor  # it was dealt with
        while True:
            arrival = await self._next()
            if isinstance(arrival, Received):
                self._in_hand = arrival
                return arrival
            if isinstance(arrival, Confirmed):
                self._cursors[arrival.source] = arrival.cursor
            else:
                await self._report_gap(arrival)

    async def _report_gap(self, gap: Gap) -> None:
        if gap.until is not None:
            self._cursors[gap.source] = gap.until
        if self._on_gap is None:
            raise StreamGap(gap)
        told = self._on_gap(gap)
        if inspect.isawaitable(told):
            await told

    async def _next(self) -> Arrival:
        """The next of a source in its order, whole where it is to be; sources do not wait for each other."""
        while (place := self._ready()) is None:
            if self._task is None:
                raise StopAsyncIteration
            if self._task.done() and not self._window:
                self._task.result()
            if len(self._window) < _FETCHES:
                await self._inbox.wait()  # what arrives meanwhile is asked for, too
            else:
                fetches = [fetch for _, fetch in self._window if fetch is not None]
                await asyncio.wait(fetches, return_when=asyncio.FIRST_COMPLETED)
        if self._task is None:  # closed by another task meanwhile
            raise StopAsyncIteration
        arrival, fetch = self._window[place]
        del self._window[place]
        if fetch is None or not isinstance(arrival, Received):
            return arrival
        if event := fetch.result():
            return replace(arrival, event=event)
        self.stats.gaps += 1
        gap = Gap(source=arrival.source, reason=NOT_FETCHED, until=arrival.cursor, event=arrival)
        log.warning("%s", gap)
        return gap

    def _ready(self) -> int | None:
        """Where in the window the first is that is there and has none of its source before it."""
        window, inbox = self._window, self._inbox
        while len(window) < _FETCHES and not inbox.empty():
            arrival = inbox.get_nowait()
            fetch = None
            if self._fetch and isinstance(arrival, Received) and arrival.event is None:
                fetch = asyncio.create_task(self._api.event(arrival, within=_FETCH_WITHIN))
                fetch.add_done_callback(inbox.wake)
            window.append((arrival, fetch))
        waiting: set[str] = set()
        for place, (arrival, fetch) in enumerate(window):
            if arrival.source in waiting:
                continue
            if fetch is None or fetch.done():
                return place
            waiting.add(arrival.source)
        return None
