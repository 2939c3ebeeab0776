"""The live half: notifications to Redis, behind a bounded queue. It drops and counts; nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from dualstream_lab import notifier_policy as policy
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.event import event_key, resync_channel
from dualstream_lab.publisher.call import PartitionSlice
from dualstream_lab.publisher.core import publish_commands
from dualstream_lab.publisher.redis_link import RedisLink
from dualstream_lab.publisher.route import Route

log = logging.getLogger(__name__)

_PROBE = 10.0
_CLOSE_TIMEOUT = 2.0
_WARN_EVERY = 5.0
_MAX_SKIPPED = 10_000
_RESYNC_SOURCES = 500


class Notifier:
    """Sends what :meth:`enqueue` takes, in order, through one connection owned by one task.

    Full queue: the oldest are dropped, as live news ages. A failed or timed-out exchange is never
    repeated: Redis may have done it. After five failures in a row everything is dropped for 1.5 s, then one
    trial is made. The sources of what was dropped are announced when Redis is back. ``epoch``: the log that
    notifications are of. ``prefix``: of every channel.
    """

    def __init__(
        self, link: RedisLink, *, nonce: str, limit: int, epoch: str, details: bool = True, prefix: str = ""
    ) -> None:
        self._link = link
        self._nonce = nonce
        self._epoch = epoch
        self._resync = resync_channel(prefix)
        self._limit = limit
        self._details = details
        # Packed commands, as plain strings: of a long queue of objects the garbage collector would make
        # pauses of tens of milliseconds, and every publish would wait for them. Their routes, beside.
        self._queue: deque[str] = deque()
        self._routes: deque[Route] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._open_until = self._recovering_until = self._refused_until = 0.0
        self._skipped: dict[str, None] = {}
        self._all_skipped = False
        self._warned_at = float("-inf")
        self._unreported: Counter[str] = Counter()
        self.sent = self.receivers = self.resyncs = 0
        self.dropped: Counter[str] = Counter()
        self.on_drop: Callable[[list[str], str], None] | None = None
        """Gets the events' keys and the reason of all that is dropped; must be quick, and not raise."""

    @property
    def up(self) -> bool:
        """Whether the last exchange went well."""
        return self._link.connected and not self._failures

    @property
    def queued(self) -> int:
        """How many notifications wait."""
        return len(self._queue)

    @property
    def skipped_sources(self) -> int:
        """Sources with skipped notifications, not yet announced; past the bound it stays there."""
        return len(self._skipped)

    @property
    def _has_skipped(self) -> bool:
        return self._all_skipped or bool(self._skipped)

    async def start(self) -> None:
        """Try to connect, within the link's timeouts, and go on either way. Raises ConfigError only."""
        try:
            await self._link.connect()
        except StreamUnavailable as error:
            self._failed(str(error))
        self._task = asyncio.create_task(self._work(), name="dualstream-notifier")

    def enqueue(self, parts: Sequence[PartitionSlice], ts: int) -> None:
        """Take what was acknowledged together, at ``ts`` (wall clock, ns). Never fails, never waits."""
        routes = [route for part in parts for route in part.routes]
        if self._open_until:
            # They take their numbers all the same, so that a subscriber sees a hole.
            for route in routes:
                route.count += 1
            self._drop(routes, "redis down", (event_id for part in parts for event_id in part.ids()))
            return
        for part in parts:
            self._queue += publish_commands(part, self._epoch, ts, details=self._details)
        self._routes += routes
        if (over := len(self._queue) - self._limit) > 0:
            self._drop_queued(over, "queue full")
            self._warn("the queue of notifications is full")
        self._idle.clear()
        self._wake.set()

    def start_anew(self, epoch: str) -> None:
        """The log was made anew: from now on notifications are of this one, and all sources are announced."""
        self._epoch = epoch
        self._all_skipped = True
        self._wake.set()

    async def drain(self, timeout: float) -> bool:
        """Wait until all that was taken is answered or dropped. False if that takes longer."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop at once; what is queued is dropped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT)
        self._drop_queued(self._limit, "closed")
        await self._link.close()
        self._idle.set()

    async def _work(self) -> None:
        while True:
            try:
                await self._step()
            except StreamUnavailable as error:
                self._failed(str(error))
            except ConfigError as error:
                self._failed(str(error), for_good=True)
            except Exception:
                # A bug here must not end the live half for good.
                log.exception("the notifier failed; its connection is made anew")
                self._failed("unexpected error", for_good=True)

    async def _step(self) -> None:
        if self._open_until:
            await asyncio.sleep(max(0.0, self._open_until - time.monotonic()))
        elif self._failures:
            await asyncio.sleep(policy.RETRY_PAUSE)
        if not await self._link.check():
            await self._link.connect()
            self._open_until = 0.0
        if self._queue and (began := time.monotonic()) < self._recovering_until:
            await self._flush(policy.RECOVERING_IN_EXCHANGE)
            await asyncio.sleep(min(time.monotonic() - began, policy.RECOVERING_PAUSE))
        elif self._queue:
            await self._flush(
                min(max(policy.LEAST_IN_EXCHANGE, len(self._queue) // 4), policy.MOST_IN_EXCHANGE)
            )
        elif self._has_skipped and time.monotonic() >= self._refused_until:
            await self._announce()
        else:
            self._idle.set()
            await self._sleep_until_woken()

    async def _sleep_until_woken(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(policy.ANNOUNCE_PAUSE if self._has_skipped else _PROBE):
                await self._wake.wait()
        except TimeoutError:
            if self._has_skipped or not await self._link.check():
                return
            if (role := await self._link.role()) not in {"master", "unknown"}:
                self._warn(f"Redis is a {role}: only its own subscribers receive what is published there")

    def _take(self, most: int) -> tuple[list[str], list[Route]]:
        """The oldest commands, at most so many, and their routes."""
        count = range(min(most, len(self._queue)))
        return [self._queue.popleft() for _ in count], [self._routes.popleft() for _ in count]

    async def _flush(self, most: int) -> None:
        """Send the oldest, in one exchange."""
        commands, routes = self._take(most)
        try:
            replies = await self._link.exchange("".join(commands).encode(), len(commands))
        except BaseException as error:
            timed_out = isinstance(error.__cause__, TimeoutError)
            self._drop(routes, "redis timeout" if timed_out else "redis connection", map(_id_in, commands))
            raise
        self._recovered()
        try:
            self.receivers += sum(replies)
            self.sent += len(commands)
        except TypeError:
            self._count_replies(commands, routes, replies)

    def _count_replies(self, commands: list[str], routes: list[Route], replies: list[Any]) -> None:
        """Some were refused (no permission, loading, …): those sources are skipped."""
        places = [place for place, reply in enumerate(replies) if not isinstance(reply, int)]
        self.sent += len(replies) - len(places)
        self.receivers += sum(reply for reply in replies if isinstance(reply, int))
        self._drop(
            [routes[place] for place in places],
            "redis refused",
            (_id_in(commands[place]) for place in places),
        )
        self._warn(f"Redis refused notifications: {replies[places[0]]}")

    def _drop_queued(self, most: int, reason: str) -> None:
        """The oldest, at most so many."""
        commands, routes = self._take(most)
        self._drop(routes, reason, map(_id_in, commands))

    def _drop(self, routes: list[Route], reason: str, ids: Iterable[str]) -> None:
        """Count them as dropped, and their sources as skipped. ``ids`` are made only if anybody asks."""
        if not routes:
            return
        self._mark_skipped(route.source for route in routes)
        self.dropped[reason] += len(routes)
        self._unreported[reason] += len(routes)
        if self.on_drop is not None:
            keys = [event_key(route.source, event_id) for route, event_id in zip(routes, ids, strict=True)]
            self.on_drop(keys, reason)

    def _mark_skipped(self, sources: Iterable[str]) -> None:
        for source in sources:
            if self._all_skipped:
                return
            if len(self._skipped) < _MAX_SKIPPED:
                self._skipped[source] = None
            else:
                self._all_skipped = source not in self._skipped

    def _recovered(self) -> None:
        if self._failures:
            self._failures = 0
            self._recovering_until = time.monotonic() + policy.RECOVERING_FOR

    def _failed(self, reason: str, *, for_good: bool = False) -> None:
        self._failures = max(self._failures, policy.MAX_FAILURES if for_good else 0) + 1
        self._recovering_until = math.inf
        if self._failures >= policy.MAX_FAILURES:
            self._open_until = time.monotonic() + policy.OPEN_FOR
            self._drop_queued(self._limit, "redis down")
            self._idle.set()
        self._warn(f"Redis: {reason}")

    def _warn(self, what: str) -> None:
        now = time.monotonic()
        if now - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = now
        lost = ", ".join(f"{count} ({reason})" for reason, count in self._unreported.items()) or "none"
        log.warning("%s. Publishing goes on. Notifications dropped since the last warning: %s", what, lost)
        self._unreported.clear()

    async def _announce(self) -> None:
        """Name the skipped sources on the resync channel, once; all of them where they are too many."""
        skipped, everything = list(self._skipped), self._all_skipped
        starts = [0] if everything else range(0, len(skipped), _RESYNC_SOURCES)
        named = [[] if everything else skipped[start : start + _RESYNC_SOURCES] for start in starts]
        commands = [self._announcement(sources) for sources in named]
        # Cleared first: what is dropped meanwhile is for the next announcement.
        self._skipped, self._all_skipped = {}, False
        refused: list[Any] = []
        announced = False
        try:
            replies = await self._link.exchange(b"".join(commands), len(commands))
            refused = [reply for reply in replies if not isinstance(reply, int)]
            announced = not refused
        finally:
            if not announced:
                self._mark_skipped(skipped)
                self._all_skipped |= everything
        self._recovered()
        if refused:
            self._refused_until = time.monotonic() + policy.ANNOUNCE_PAUSE
            self._warn(f"Redis refused to announce skipped sources: {refused[0]}")
            return
        self.resyncs += 1
        log.info("announced %s skipped sources on %s", "all" if everything else len(skipped), self._resync)

    def _announcement(self, sources: list[str]) -> bytes:
        """PUBLISH of the sources (``type:id``) to repair; an empty list with ``all`` means every one."""
        message = {"sources": sources, "all": not sources, "publisher": self._nonce, "log": self._epoch}
        body, channel = msgspec.json.encode(message), self._resync.encode()
        sizes_and_texts = len(channel), channel, len(body), body
        return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % sizes_and_texts


def _id_in(command: str) -> str:
    """The event's id in a packed PUBLISH, whose last line is ``{"id":"…",…}``."""
    body = command.rsplit("\r\n", 2)[1]
    return body[7 : body.index('"', 7)]
