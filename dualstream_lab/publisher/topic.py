"""The topic while it is published to: partitions are added, it is made anew, its limits change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dualstream_lab.errors import ConfigError
from dualstream_lab.kafka_log import LogWatch

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log import LogIdentity, TopicInfo
    from dualstream_lab.publisher.delivery import Delivery
    from dualstream_lab.publisher.notifier import Notifier
    from dualstream_lab.publisher.record_batch import BatchLimit
    from dualstream_lab.publisher.route import Routes

__all__ = ["TopicWatch", "check_topic"]

log = logging.getLogger(__name__)


def check_topic(name: str, info: TopicInfo) -> None:
    """Raises ConfigError where nothing could ever be acknowledged; warns of what is not kept whole."""
    if info.min_insync_replicas > info.replicas:
        raise ConfigError(
            f"topic {name!r} has {info.replicas} replica(s) but min.insync.replicas="
            f"{info.min_insync_replicas}: nothing could ever be acknowledged; add replicas or lower "
            "min.insync.replicas"
        )
    for contradiction in info.contradictions():
        log.warning("topic %s: %s", name, contradiction)


class TopicWatch:
    """Looks at the topic every ``refresh_interval``, and makes the publisher follow it.

    :meth:`run` is its task.
    """

    def __init__(
        self,
        settings: Settings,
        info: TopicInfo,
        *,
        routes: Routes,
        limit: BatchLimit,
        delivery: Delivery,
        notifier: Notifier | None,
    ) -> None:
        self._topic = settings.topic
        self._routes = routes
        self._limit = limit
        self._delivery = delivery
        self._notifier = notifier
        self._watch = LogWatch(
            info.log, interval=settings.refresh_interval, ask=self._look, on_change=self._follow
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._watch.run()
            except Exception:
                # A bug here must not be the end of following the topic.
                log.exception("topic %s could not be looked at", self._topic)

    async def _look(self) -> LogIdentity:
        sender = self._delivery.sender
        sender.check_age()
        info = await sender.topic_info()
        self._limit.read(info.max_batch_bytes)
        return info.log

    def _follow(self, before: LogIdentity, after: LogIdentity) -> None:
        if after.epoch != before.epoch:
            log.warning("topic %s was made anew: what was in it is gone", self._topic)
            self._delivery.forget_offsets()
            if self._notifier is not None:
                self._notifier.start_anew(after.epoch)
        if after.partitions != self._routes.partitions:
            log.info("topic %s has %d partitions now", self._topic, after.partitions)
            self._routes.resize(after.partitions)
            self._delivery.sender.resize(after.partitions)
