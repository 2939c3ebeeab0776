"""The routes and types of one publisher, each worked out once."""

from __future__ import annotations

import json
from collections import OrderedDict
from uuid import uuid4

from aiokafka.partitioner import murmur2

from dualstream_lab.config import Settings
from dualstream_lab.errors import EventError
from dualstream_lab.event import channel_of, shard_channel, source_invalid_reason, type_invalid_reason
from dualstream_lab.publisher.call import Generation
from dualstream_lab.publisher.record_format import COMMON_HEADERS, encoded_header
from dualstream_lab.publisher.route import EventType, Route

_MAX_ROUTES = 50_000  # about 60 MB at most
_MAX_TYPES = 10_000


class Routes:
    """The routes and types of one publisher, made when first used; the oldest are forgotten.

    ``nonce`` names the publisher. The partition is Java's default: murmur2 of the key. ``generation`` is that
    of the calls that are encoded with them.
    """

    def __init__(self, settings: Settings, *, partitions: int) -> None:
        self.nonce = uuid4().hex[:12]
        self.partitions = partitions
        self.generation = Generation()
        self._shards = settings.channel_shards if settings.channel_policy == "shard" else None
        self._prefix = settings.channel_prefix
        self.routes: OrderedDict[tuple[str, str], Route] = OrderedDict()
        self._former: OrderedDict[tuple[str, str], Route] = OrderedDict()  # of another number of partitions
        self.types: OrderedDict[str, EventType] = OrderedDict()
        self._made = 0

    def route(self, source_type: str, source_id: str) -> Route:
        """Raises EventError for a source that cannot be published to."""
        try:
            return self.routes[source_type, source_id]
        except (KeyError, TypeError):
            return self._make(source_type, source_id)

    def type(self, name: str) -> EventType:
        """Raises EventError for a type that cannot be used."""
        try:
            return self.types[name]
        except (KeyError, TypeError):
            if reason := type_invalid_reason(name):
                raise EventError(reason) from None
        if len(self.types) >= _MAX_TYPES:
            self.types.popitem(last=False)
        headers = COMMON_HEADERS + encoded_header(("ce_type", name.encode()))
        event_type = self.types[name] = EventType(json.dumps(name), headers)
        return event_type

    def resize(self, partitions: int) -> None:
        """The topic has so many partitions now. The sources keep their counts."""
        self.partitions = partitions
        self.generation = self.generation.next()
        self._former |= self.routes
        while len(self._former) > _MAX_ROUTES:
            self._former.popitem(last=False)
        self.routes = OrderedDict()

    def _partition_of(self, key: bytes) -> int:
        return (murmur2(key) & 0x7FFFFFFF) % self.partitions  # type: ignore[no-any-return]

    def _make(self, source_type: str, source_id: str) -> Route:
        if reason := source_invalid_reason(source_type, source_id):
            raise EventError(reason)
        if len(self.routes) >= _MAX_ROUTES:
            self.routes.popitem(last=False)
        if (former := self._former.pop((source_type, source_id), None)) is not None:
            former.partition = self._partition_of(source_id.encode())
            self.routes[source_type, source_id] = former
            return former
        self._made += 1
        if self._shards is None:
            channel = channel_of(source_type, source_id, self._prefix)
        else:
            channel = shard_channel(source_type, source_id, self._shards, self._prefix)
        partition, nonce = self._partition_of(source_id.encode()), f"{self.nonce}{self._made:x}"
        route = Route(source_type, source_id, partition=partition, channel=channel, nonce=nonce)
        self.routes[source_type, source_id] = route
        return route
