"""Local fan-out: one subscription a source, however many clients follow it, and joined writes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from dualstream_lab.errors import EventError
from dualstream_lab.event import RESYNC_CHANNEL, decode_notification
from dualstream_lab.gateway.channels import Channels
from dualstream_lab.gateway.feed import Feed
from dualstream_lab.gateway.repair import Repairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.event import Notification
    from dualstream_lab.gateway.feed import Client
    from dualstream_lab.gateway.handover import Join
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.gateway.repair import Log
    from dualstream_lab.gateway.upstream import Upstream
    from dualstream_lab.kafka_log import LogIdentity
    from dualstream_lab.store import Row

__all__ = ["Hub", "HubStats"]

_RESYNC: Final = RESYNC_CHANNEL.encode()
_MANY_PENDING: Final = 2000  # events told and not compared, after which a stream is compared before its time


class _Resync(msgspec.Struct):
    """What a publisher says on ``events:_resync``: whose notifications it skipped."""

    sources: list[str]
    all: bool = False


_resyncs: Final = msgspec.json.Decoder(_Resync)


@dataclass(slots=True)
class HubStats:
    """Counters since the start. ``latency`` is given s from Kafka's ack to the write, one sample a flush."""

    heard: int = 0
    foreign: int = 0
    told: int = 0
    joined: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    latency: Callable[[float], None] = lambda _seconds: None


class Hub:
    """The feeds of one gateway, and who follows them. All of it runs in one loop, without waiting."""

    def __init__(self, settings: ServeSettings, log_is: LogIdentity, reads: Reads, log: Log) -> None:
        self._log_is = log_is
        self._channels = Channels(settings)
        self._tick = settings.tick
        self._linger = settings.linger
        self.pattern = self._channels.pattern
        self.feeds: dict[str, Feed] = {}
        self._on_channel: dict[bytes, set[Feed]] = {}
        self._own: dict[bytes, Feed] = {}  # of the channels that are one source's
        self.stats = HubStats()
        self.upstream: Upstream | None = None
        self.repairs = Repairs(settings, reads, log, feeds=self.feeds.values, touch=self._touch)
        self._why_lost: str | None = "Redis is not connected yet"
        self._dirty: set[Feed] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._newest = 0

    # --- who follows what

    def acquire(self, source: str) -> Feed:
        """The source's feed, kept for one more user until :meth:`release`."""
        feed = self.feeds.get(source)
        if feed is None:
            partition = self._log_is.partition_of(source)
            feed = Feed(source, partition, self._log_is.epoch, self._channels.channel(source))
            self.feeds[source] = feed
            self._on_channel.setdefault(feed.channel, set()).add(feed)
            if not self._channels.shared:
                self._own[feed.channel] = feed
        if feed.leaving is not None:
            feed.leaving.cancel()
            feed.leaving = None
        feed.users += 1
        return feed

    def admit(self, client: Client, feed: Feed, join: Join, rows: Sequence[Row]) -> None:
        """The client's step into the stream: its past, what was heard since, and it is live."""
        self._write(feed)
        # While a client without a past came in, what it might have heard was told to others and compared.
        after = max(join.after, feed.stream.confirmed)
        refusal = join.refusal.value if join.refusal else None
        about = {"recovered": refusal is None, "reason": refusal}
        frames = [
            *feed.found(rows, old=True),
            feed.state("subscribed", cursor=feed.cursor_at(after), **about),
            *feed.stream.heard_after(after),  # only now: their cursors may be beyond a past that is refused
        ]
        if feed.degraded:
            frames.append(feed.state("degraded", reason=feed.degraded))
        client.catch_up(frames, feed.source)
        feed.live.add(client)
        self.stats.told += len(rows)
        self.stats.joined += 1
        if refusal:
            self.stats.refused[refusal] += 1

    def release(self, feed: Feed, client: Client | None = None) -> None:
        """A user left. The last one's feed stays subscribed for a while: people reload pages."""
        if client is not None:
            feed.live.discard(client)
        feed.users -= 1
        if not feed.users:
            feed.leaving = asyncio.get_running_loop().call_later(self._linger, self._drop, feed)

    def _drop(self, feed: Feed) -> None:
        if feed.users:
            return
        del self.feeds[feed.source]
        self.repairs.forget(feed)
        others = self._on_channel[feed.channel]
        others.discard(feed)
        if not others:
            del self._on_channel[feed.channel]
            self._own.pop(feed.channel, None)
            if self.upstream is not None:
                self.upstream.unsubscribe(feed.channel)

    # --- what Redis says

    def hear(self, channel: bytes, message: bytes) -> None:
        """A message of the upstream."""
        try:
            note = decode_notification(message)
        except EventError:
            self._hear_other(channel, message)
            return
        feed = self._own.get(channel) or self._feed_of(channel, note)
        if feed is None:
            return
        offset = feed.offset_of(note.pos)
        if offset is None:
            self._hear_elsewhere(feed, note)
            return
        self.stats.heard += 1
        stream = feed.stream
        if note.pub is not None:
            stream.count(note.pub, offset)  # a hole is one of its needs, below
        frame = feed.heard(note)
        if stream.hear(offset, frame):
            self._newest = note.ts or self._newest
            if feed.live:
                if not feed.frames:
                    self._touch(feed)
                feed.frames.append(frame)
        if stream.needs is not None or stream.pending > _MANY_PENDING:
            self.repairs.look(feed)

    def _hear_elsewhere(self, feed: Feed, note: Notification) -> None:
        """Without a place in the source's partition it says only that there is something."""
        try:
            _ = note.position
        except EventError:
            self.stats.foreign += 1
            return
        self.stats.heard += 1
        self.repairs.fence([feed])

    def _feed_of(self, channel: bytes, note: Notification) -> Feed | None:
        return self.feeds.get(self._channels.source(channel, note)) if self._channels.shared else None

    def _hear_other(self, channel: bytes, message: bytes) -> None:
        """What is no notification: a publisher's word on what it skipped, or nothing of ours."""
        try:
            said = _resyncs.decode(message) if channel == _RESYNC else None
        except msgspec.DecodeError:
            said = None
        if said is None:
            self.stats.foreign += 1
            return
        named = self.feeds if said.all else said.sources
        self.repairs.fence(self.feeds[source] for source in named if source in self.feeds)

    def confirmed(self, channels: Iterable[bytes]) -> None:
        """The upstream's subscriptions to these channels are in effect, from now on."""
        self._why_lost = None
        feeds = [feed for channel in channels for feed in self._on_channel.get(channel, ())]
        for feed in feeds:
            feed.subscribed = True
        # One that is not degraded and only begins asks for its fence itself, after this.
        self.repairs.fence(feed for feed in feeds if feed.begun or feed.degraded)

    def lost(self, reason: str) -> None:
        """Nothing is heard any more."""
        self._why_lost = reason
        for feed in self.feeds.values():
            feed.subscribed = False
            self.degrade(feed)

    def degrade(self, feed: Feed) -> None:
        """Serve the feed from the store, and say so."""
        if feed.degraded is None:
            feed.degraded = self._why_lost or "Redis does not confirm the subscription"
            feed.say([feed.state("degraded", reason=feed.degraded)])
            self._touch(feed)
            self.repairs.poll()

    # --- writing

    def _touch(self, feed: Feed) -> None:
        """It has something to write: at once after a pause, else with all that comes within a tick."""
        self._dirty.add(feed)
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(
                max(0.0, self._flushed_at + self._tick - loop.time()), self._flush
            )

    def _flush(self) -> None:
        self._flushing = None
        dirty, self._dirty = self._dirty, set()
        self.stats.told += sum(feed.flush() for feed in dirty)
        self._flushed_at = asyncio.get_running_loop().time()
        if self._newest:
            self.stats.latency(max(0.0, (time.time_ns() - self._newest) / 1e9))
            self._newest = 0

    def _write(self, feed: Feed) -> None:
        self.stats.told += feed.flush()
