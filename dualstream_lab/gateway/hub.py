"""Local fan-out: one subscription a source, however many clients follow it, and joined writes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dualstream_lab.config import ServeSettings
from dualstream_lab.cursor import position_of
from dualstream_lab.errors import EventError
from dualstream_lab.event import Notification, decode_notification
from dualstream_lab.gateway.clients import Connection, Frame
from dualstream_lab.gateway.feed import Feed
from dualstream_lab.gateway.handover import Join
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.past import Refusal, later
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.repair import Claim, Claims, Repairs
from dualstream_lab.gateway.upstream import Channels, Upstream
from dualstream_lab.kafka_log import LogIdentity
from dualstream_lab.store import Row

_MANY_PENDING: Final = 2000  # events told and not compared, after which a stream is compared before its time


class _Resync(msgspec.Struct):
    """What a publisher says on ``events:_resync``: whose notifications it skipped, of which log."""

    sources: list[str]
    all: bool = False
    log: str | None = None


_resyncs: Final = msgspec.json.Decoder(_Resync)


@dataclass(slots=True)
class HubStats:
    """Counters since the start. ``latency`` is given s from Kafka's ack to the write, one sample a flush.

    Messages on Redis: ``received`` of this log, ``other_epoch`` of another one, ``unrecognized`` that are
    none of ours, ``bare`` (of those received) that do not say where their event is. Clients: ``sent``
    messages, ``joined`` sources, and ``refused`` of these, whose past could not be told whole, by the reason.
    """

    received: int = 0
    other_epoch: int = 0
    unrecognized: int = 0
    bare: int = 0
    sent: int = 0
    joined: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    latency: Callable[[float], None] = lambda _seconds: None


class Hub:
    """The feeds of one gateway, and who follows them. All of it runs in one loop, without waiting."""

    def __init__(self, settings: ServeSettings, reads: Reads, log: Log) -> None:
        self._log = log
        self._reach = log.reach
        self._channels = Channels(settings)
        self._tick = settings.tick
        self._linger = settings.linger
        self.pattern = self._channels.pattern
        self.resync = self._channels.resync
        self.feeds: dict[str, Feed] = {}
        self._on_channel: dict[bytes, set[Feed]] = {}
        self._own: dict[bytes, Feed] = {}  # of the channels that are one source's
        self.stats = HubStats()
        self.upstream: Upstream | None = None
        self.repairs = Repairs(settings, reads, log, self.feeds.values, self._say)
        self.claims = Claims(log, take=self._take_verified, fence=self.repairs.fence)
        self._why_lost: str | None = "Redis is not connected yet"
        self._unwritten: set[Feed] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._newest = 0

    def acquire(self, source: str) -> Feed:
        """The source's feed, kept for one more user until :meth:`release`."""
        feed = self.feeds.get(source)
        if feed is None:
            channel = self._channels.channel(source)
            feed = Feed(source, self._log.homes(source), self._log.identity.epoch, channel)
            self.feeds[source] = feed
            self._on_channel.setdefault(feed.channel, set()).add(feed)
            if not self._channels.shared:
                self._own[feed.channel] = feed
        if feed.leaving is not None:
            feed.leaving.cancel()
            feed.leaving = None
        feed.users += 1
        return feed

    def admit(self, client: Connection, feed: Feed, join: Join, rows: Sequence[Row]) -> None:
        """The client's step into the stream: its past, what was received since, and it is live."""
        self.stats.sent += feed.flush()
        # While a client without a past came in, what it might have received was told to others and compared.
        after = later(join.after, feed.stream.confirmed)
        refusal = join.refusal.value if join.refusal else None
        about = {"recovered": refusal is None, "reason": refusal}
        frames = [
            *feed.stored(rows, join.known, old=True),
            feed.state("subscribed", cursor=feed.cursor_at(after, join.fence), **about),
            # only now: their cursors may be beyond a past that is refused
            *feed.stream.received_after(after),
        ]
        if feed.degraded:
            frames.append(feed.state("degraded", reason=feed.degraded))
        client.catch_up(frames, feed.source)
        feed.live.add(client)
        self.stats.sent += len(rows)
        self.stats.joined += 1
        if refusal:
            self.stats.refused[refusal] += 1

    def release(self, feed: Feed, client: Connection | None = None) -> None:
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

    def receive(self, channel: bytes, message: bytes) -> None:
        """Take in a message that Redis has sent on a channel."""
        try:
            note = decode_notification(message)
        except EventError:
            self._receive_other(channel, message)
            return
        feed = self._own.get(channel)
        if feed is None and self._channels.shared:
            feed = self.feeds.get(self._channels.source(channel, note))
        if feed is None:
            return
        if note.log != feed.epoch or note.source_id != feed.source_id or note.pos is None:
            self._receive_hint(feed, note)
            return
        place = position_of(note.pos)
        if place is None:
            self.stats.unrecognized += 1
            return
        partition, offset = place
        if offset < self._reach.get(partition, 0) and not self.claims.holds(feed, partition):
            self._take(feed, note, partition, offset)
        else:
            self.claims.verify(Claim(feed, note, partition, offset))

    def _take_verified(self, claim: Claim) -> None:
        """Unless it was left, or its log made anew, since Kafka was asked."""
        if self.feeds.get(claim.feed.source) is claim.feed and claim.note.log == claim.feed.epoch:
            self._take(*claim)

    def _take(self, feed: Feed, note: Notification, partition: int, offset: int) -> None:
        self.stats.received += 1
        stream = feed.stream
        if note.pub is not None:
            stream.count(note.pub)
        frame = feed.announced(note)
        if stream.receive(partition, offset, note.id, frame):
            self._newest = note.ts or self._newest
            if feed.live:
                if not feed.frames:
                    self._touch(feed)
                feed.frames.append(frame)
        if stream.doubtful:
            stream.doubtful = False
            self.repairs.fence([feed])
        if stream.needs or stream.pending > _MANY_PENDING:
            self.repairs.reconcile(feed)

    def _receive_hint(self, feed: Feed, note: Notification) -> None:
        """Of another log it says nothing; without a place in ours only that there may be something."""
        if note.log not in {None, feed.epoch}:
            self.stats.other_epoch += 1
        elif note.source_id != feed.source_id:
            self.stats.unrecognized += 1
        else:
            self.stats.received += 1
            self.stats.bare += 1
            self.repairs.fence([feed])

    def _receive_other(self, channel: bytes, message: bytes) -> None:
        """What is no notification: a publisher's word on what it skipped, or nothing of ours."""
        try:
            said = _resyncs.decode(message) if channel == self.resync else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            said = None
        if said is None:
            self.stats.unrecognized += 1
        elif said.log not in {None, self._log.identity.epoch}:
            self.stats.other_epoch += 1
        else:
            named = self.feeds if said.all else said.sources
            self.repairs.fence(self.feeds[source] for source in named if source in self.feeds)

    def change(self, before: LogIdentity, after: LogIdentity) -> None:
        """The log has more partitions; or it was made anew, and all of it is new to everybody."""
        for feed in self.feeds.values():
            homes = self._log.homes(feed.source)
            if before.epoch == after.epoch:
                feed.grow(homes)
                continue
            feed.renew(after.epoch, homes)
            why = Refusal.EPOCH_CHANGED.value
            self._say(feed, [feed.state("subscribed", cursor=feed.cursor, recovered=False, reason=why)])
        self.repairs.fence(feed for feed in self.feeds.values() if feed.begun)

    def confirmed(self, channels: Iterable[bytes]) -> None:
        """The upstream's subscriptions to these channels are in effect, from now on."""
        self._why_lost = None
        feeds = [feed for channel in channels for feed in self._on_channel.get(channel, ())]
        for feed in feeds:
            feed.subscribed = True
        # One that is not degraded and only begins asks for its fence itself, after this.
        self.repairs.fence(feed for feed in feeds if feed.begun or feed.degraded)

    def lost(self, reason: str) -> None:
        """The connection to Redis is gone: serve every feed from the store until it is back."""
        self._why_lost = reason
        for feed in self.feeds.values():
            feed.subscribed = False
            self.degrade(feed)

    def refused(self, channels: Iterable[bytes], reason: str) -> None:
        """Redis does not let this gateway subscribe to these channels; the others are not concerned."""
        for channel in channels:
            for feed in self._on_channel.get(channel, ()):
                feed.subscribed = False
                self.degrade(feed, reason)

    def degrade(self, feed: Feed, reason: str | None = None) -> None:
        """Serve the feed from the store from now on, and tell its clients why."""
        if feed.degraded is None:
            feed.degraded = reason or self._why_lost or "Redis does not confirm the subscription"
            self._say(feed, [feed.state("degraded", reason=feed.degraded)])
            self.repairs.poll()

    def _say(self, feed: Feed, frames: list[Frame]) -> None:
        """Tell every live client of the feed, in order, at the next flush."""
        if feed.live:
            feed.frames += frames
        self._touch(feed)

    def _touch(self, feed: Feed) -> None:
        """It has something to write: at once after a pause, else with all that comes within a tick."""
        self._unwritten.add(feed)
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            pause = max(0.0, self._flushed_at + self._tick - loop.time())
            self._flushing = loop.call_later(pause, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        unwritten, self._unwritten = self._unwritten, set()
        self.stats.sent += sum(feed.flush() for feed in unwritten)
        self._flushed_at = asyncio.get_running_loop().time()
        if self._newest:
            self.stats.latency(max(0.0, (time.time_ns() - self._newest) / 1e9))
            self._newest = 0
