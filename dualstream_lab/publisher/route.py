"""What repeats from event to event: a source's route, a type's header."""

from __future__ import annotations

import json
from typing import NamedTuple

from dualstream_lab.event import cloudevents_source
from dualstream_lab.publisher.record_format import encoded_header, prefixed


class EventType(NamedTuple):
    """A valid event type, as JSON, and as a record has it (after the headers that are always the same)."""

    json: str
    headers: bytes


class Route:
    """Where a source's events go: partition on Kafka, channel on Redis.

    ``key`` and ``header`` (``ce_source``) are as a record has them. ``command`` is the beginning of the
    packed PUBLISH, up to the length of the message. ``nonce`` and ``count`` make the notification's
    ``pub``: a route that was forgotten and is made anew has a new nonce.
    """

    __slots__ = ("command", "count", "header", "key", "nonce", "partition", "source", "source_id_json")

    def __init__(self, source_type: str, source_id: str, *, partition: int, channel: str, nonce: str) -> None:
        self.source = f"{source_type}:{source_id}"
        self.key = prefixed(source_id.encode())
        self.partition = partition
        self.header = encoded_header(("ce_source", cloudevents_source(source_type, source_id).encode()))
        self.source_id_json = json.dumps(source_id)  # in ASCII: as many characters as bytes
        self.command = f"*3\r\n$7\r\nPUBLISH\r\n${len(channel.encode())}\r\n{channel}\r\n$"
        self.nonce = nonce
        self.count = 0
