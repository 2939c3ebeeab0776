"""DualPublisher: Kafka first, and it must succeed; then a word on Redis, which may not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Literal, Self

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, EventError, StreamUnavailable
from dualstream_lab.event import Event
from dualstream_lab.kafka_log import LogIdentity, LogWatch, TopicInfo, topic_info
from dualstream_lab.publisher.accumulator import Accumulator
from dualstream_lab.publisher.call import PartitionSlice, State
from dualstream_lab.publisher.core import NAME
from dualstream_lab.publisher.encoder import Encoder, checked_headers, skips_invalid
from dualstream_lab.publisher.kafka import KafkaWriter, limit_aiokafka
from dualstream_lab.publisher.notifier import Notifier
from dualstream_lab.publisher.outcome import BatchReceipt, CloseReport, PublisherStats, Receipt, Resolution
from dualstream_lab.publisher.record_batch import CODECS, BatchLimit
from dualstream_lab.publisher.redis_link import RedisLink
from dualstream_lab.publisher.resolution import find_in_log, named_slices, resolution
from dualstream_lab.publisher.routes import Routes
from dualstream_lab.tasks import end_tasks

log = logging.getLogger(__name__)

_DRAIN = 0.5  # seconds that closing gives to notifications


class DualPublisher:
    """Publishes events: durable on Kafka, then announced on Redis Pub/Sub.

    ``settings``: where, and within which bounds; from the environment if left out. Without a
    ``redis_url`` nothing is announced. Use it as an async context manager, in one event loop, by as many
    tasks as you like.

    Guarantees: an event is announced only after Kafka acknowledged it (acks=all, idempotent). Events of
    one source are in the log in the order of the calls. Whatever happens on Redis neither fails nor
    delays a publish. Every call ends within ``buffer_timeout`` + ``delivery_timeout``; when Kafka or
    Redis returns, so does this, without a restart. Cancelling a call does not unsend its events.
    Partitions that are added to the topic, and a topic that is made anew, are noticed within
    ``refresh_interval``; events of a source keep their order when its partition changes, except for one
    that was reported unknown and arrives after all.

    ``headers``: at most 16 names and values that each record gets besides its own. Raises ConfigError for
    headers that cannot be used.
    """

    def __init__(
        self, settings: Settings | None = None, *, headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        self._settings = settings if settings is not None else Settings.load()
        self._headers = checked_headers(headers)
        self._accumulator: Accumulator | None = None
        self._encoder: Encoder
        self._routes: Routes
        self._limit: BatchLimit
        self._notifier: Notifier | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[CloseReport] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect to Kafka, look at the topic, and try Redis. Bounded by ``start_timeout`` a step.

        Raises ConfigError (no such topic, too few replicas, a Redis Cluster or Sentinel) and
        StreamUnavailable (Kafka does not answer, or lets this user write nothing; this publisher was
        closed). A Redis that does not answer is only a warning.
        """
        if self._closing is not None:
            raise StreamUnavailable("the publisher was closed: it cannot be started again, make a new one")
        if self._accumulator is not None:
            return
        limit_aiokafka()
        settings = self._settings
        info = await topic_info(settings)
        check_topic(settings.topic, info)
        self._routes = Routes(settings, partitions=info.partitions)
        notifier = _notifier(settings, self._routes.nonce, info.log.epoch)
        if notifier is not None:
            await notifier.start()
        try:
            writer = await KafkaWriter.open(settings)
        except BaseException:
            if notifier is not None:
                await notifier.close()
            raise
        self._notifier = notifier
        self._limit = BatchLimit(settings.batch_bytes, info.max_batch_bytes)
        self._encoder = Encoder(
            self._routes, limit=self._limit, codec=CODECS[settings.compression], headers=self._headers
        )
        self._accumulator = Accumulator(
            settings, writer, partitions=info.partitions, limit=self._limit, acknowledged=self._acknowledged
        )
        self._watching = asyncio.create_task(self._watch_topic(info.log), name="dualstream-topic")

    async def publish(self, event: Event) -> Receipt:
        """Returns when the event is durable.

        Raises EventError (the event is invalid; nothing was sent), BufferFull, PublishRejected or
        OutcomeUnknown.
        """
        accumulator = self._started()
        try:
            call = self._encoder.call((event,))
        except EventError:
            accumulator.refused += 1
            raise
        await accumulator.deliver(call)
        part = call.parts[0]
        return Receipt(event.id, part.partition, part.base)

    async def publish_batch(
        self, events: Iterable[Event], *, on_invalid: Literal["refuse", "skip"] = "refuse"
    ) -> BatchReceipt:
        """Returns when every event is durable; the receipt is in the order of ``events``, any iterable.

        An invalid event refuses the whole batch before anything is sent (EventError; ``.invalid`` maps
        every bad index to its reason), or is left out with ``on_invalid="skip"``. Otherwise raises as
        :meth:`publish`; ``.outcomes`` has one entry an event, in input order.
        """
        accumulator = self._started()
        skip_invalid = skips_invalid(on_invalid)
        try:
            batch = events if isinstance(events, (list, tuple)) else list(events)
            call = self._encoder.call(batch, skip_invalid=skip_invalid)
        except EventError as error:
            accumulator.refused += len(error.invalid)
            raise
        accumulator.refused += len(call.invalid)
        await accumulator.deliver(call)
        return call.receipt()

    async def resolve(self, events: Iterable[Event | str], *, timeout: float = 10.0) -> dict[str, Resolution]:
        """What became of events that were reported unknown. Ends within about ``timeout`` seconds.

        ``events``: Events, keys as :func:`dualstream_lab.event.event_key` makes them, or bare ids; the answer
        has strings as they were given, and an Event by its key. ``InLog``: acknowledged since, or found in
        the log. ``NotInLog``: Kafka refused it for good, or it was never handed over. ``StillOpen``: it may
        still arrive. Raises EventError for what this publisher did not report unknown (it remembers the last
        ``buffer_events``), and for a bare id that several sources have.
        """
        asked = named_slices(events, self._started().unresolved)
        still_open = {
            key: part for key, part, _ in asked.values() if part.state in {State.IN_FLIGHT, State.LOST}
        }
        found: dict[str, tuple[int, int]] = {}
        if still_open:
            parts = list({id(part): part for part in still_open.values()}.values())
            found = await find_in_log(self._settings, still_open, parts, timeout=timeout)
        return {name: resolution(part, place, found.get(key)) for name, (key, part, place) in asked.items()}

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until every accepted event is settled and every notification answered or dropped.

        ``timeout`` in seconds, ``close_timeout`` if left out. False if it was not enough.
        """
        accumulator = self._started()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._settings.close_timeout if timeout is None else timeout)
        settled = await accumulator.settle(deadline - loop.time())
        if self._notifier is None:
            return settled
        return await self._notifier.drain(max(0.0, deadline - loop.time())) and settled

    def tell_drops(self, callback: Callable[[list[str], str], None]) -> None:
        """From now on, call ``callback(keys, reason)`` with the events whose notifications are given up.

        It is called within the event loop, and must be quick and not raise. Redis may have delivered them all
        the same, where the reason is ``redis timeout`` or ``redis connection``.
        """
        self._started()
        if self._notifier is not None:
            self._notifier.on_drop = callback

    def stats(self) -> PublisherStats:
        """The counters now."""
        accumulator, notifier = self._started(), self._notifier
        return PublisherStats(
            accepted=accumulator.accepted,
            durable=accumulator.durable,
            rejected=accumulator.rejected,
            unknown=accumulator.unknown,
            late_acks=accumulator.late_acks,
            refused=accumulator.refused,
            producers=accumulator.sender.producers,
            notified=notifier.sent if notifier else 0,
            receivers=notifier.receivers if notifier else 0,
            dropped=dict(notifier.dropped) if notifier else {},
            resyncs=notifier.resyncs if notifier else 0,
            buffered_events=accumulator.buffer.events,
            buffered_bytes=accumulator.buffer.bytes,
            queued_notifications=notifier.queued if notifier else 0,
            dirty_sources=notifier.skipped_sources if notifier else 0,
            redis_up=notifier.up if notifier else False,
            core=NAME,
        )

    async def close(self) -> CloseReport:
        """Take no more events, settle what is open for at most ``close_timeout`` s, and say what is left.

        Then notifications have half a second. Bounded by ``close_timeout`` plus a few seconds. Calls that
        are still open end with what is known. A second call gets the same report.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="dualstream-close")
        return await asyncio.shield(self._closing)

    async def _close(self) -> CloseReport:
        if self._accumulator is None:
            return CloseReport(durable=0, rejected=(), unresolved=(), dropped_notifications=0)
        if self._watching is not None:
            await end_tasks([self._watching])
        accumulator, notifier = self._accumulator, self._notifier
        durable = accumulator.durable + accumulator.late_acks
        rejected, unresolved = await accumulator.close(self._settings.close_timeout)
        dropped = 0
        if notifier is not None:
            before = notifier.dropped.total()
            await notifier.drain(_DRAIN)
            await notifier.close()
            dropped = notifier.dropped.total() - before
        return CloseReport(
            durable=accumulator.durable + accumulator.late_acks - durable,
            rejected=rejected,
            unresolved=unresolved,
            dropped_notifications=dropped,
        )

    def _started(self) -> Accumulator:
        if self._accumulator is None:
            raise StreamUnavailable("the publisher is not started: use `async with DualPublisher(settings)`")
        return self._accumulator

    def _acknowledged(self, parts: list[PartitionSlice], ack: int) -> None:
        if self._notifier is not None:
            self._notifier.enqueue(parts, ack)

    async def _watch_topic(self, identity: LogIdentity) -> None:
        """Until cancelled, look at the topic every ``refresh_interval``, and follow it."""
        interval = self._settings.refresh_interval
        watch = LogWatch(identity, interval=interval, ask=self._look_at_topic, on_change=self._follow_topic)
        while True:
            try:
                await watch.run()
            except Exception:
                # A bug here must not be the end of following the topic.
                log.exception("topic %s could not be looked at", self._settings.topic)

    async def _look_at_topic(self) -> LogIdentity:
        sender = self._started().sender
        sender.check_age()
        info = await sender.topic_info()
        self._limit.read(info.max_batch_bytes)
        return info.log

    def _follow_topic(self, before: LogIdentity, after: LogIdentity) -> None:
        accumulator, topic = self._started(), self._settings.topic
        if after.epoch != before.epoch:
            log.warning("topic %s was made anew: what was in it is gone", topic)
            accumulator.forget_offsets()
            if self._notifier is not None:
                self._notifier.start_anew(after.epoch)
        if after.partitions != self._routes.partitions:
            log.info("topic %s has %d partitions now", topic, after.partitions)
            self._routes.resize(after.partitions)
            accumulator.sender.resize(after.partitions)


def check_topic(name: str, info: TopicInfo) -> None:
    """Raises ConfigError where nothing could ever be acknowledged; warns of what is not kept whole."""
    if info.min_insync_replicas > info.replicas:
        raise ConfigError(
            f"topic {name!r} has {info.replicas} replica(s) but min.insync.replicas="
            f"{info.min_insync_replicas}: nothing could ever be acknowledged; add replicas or lower "
            "min.insync.replicas"
        )
    info.warn_of_contradictions(name)


def _notifier(settings: Settings, nonce: str, epoch: str) -> Notifier | None:
    if settings.redis_url is None:
        return None
    return Notifier(
        RedisLink(settings.redis_url, timeout=settings.redis_timeout),
        nonce=nonce,
        limit=settings.notify_queue,
        epoch=epoch,
        details=settings.notify_details,
        prefix=settings.channel_prefix,
    )
