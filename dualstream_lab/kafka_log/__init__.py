"""The log itself: which one it is, how far it goes, and what is in it. What all who read ask of Kafka.

``consumer`` is the one adapter of aiokafka's consumer (``group`` of its group member), on ``client``, which
asks, also where partitions end, and ``fetched``, which takes apart what was fetched: what is private to
aiokafka, and how it behaves in trouble, is known there, in ``topic`` and in ``topics`` alone. ``topic``:
the topic's identity and settings, and whether these change; ``topics``: what an administrator does with
topics. ``connection``: how one connects, and why that fails. ``repeat_filter``: what
keeps a log readable in an outage.
"""

from __future__ import annotations

from dualstream_lab.kafka_log.client import Bounds, LogClient, LogEnds
from dualstream_lab.kafka_log.connection import (
    client_options,
    close_producer,
    connecting,
    open_admin,
    refusal,
)
from dualstream_lab.kafka_log.consumer import LogConsumer, open_consumer, read_range
from dualstream_lab.kafka_log.fetched import LogRecord, Records
from dualstream_lab.kafka_log.group import GroupConsumer
from dualstream_lab.kafka_log.repeat_filter import RepeatFilter, Repeats
from dualstream_lab.kafka_log.topic import (
    LogIdentity,
    LogWatch,
    TopicInfo,
    info_of,
    is_there,
    log_identity,
    partition_of,
    topic_info,
)
from dualstream_lab.kafka_log.trouble import PartitionTrouble

__all__ = [
    "Bounds",
    "GroupConsumer",
    "LogClient",
    "LogConsumer",
    "LogEnds",
    "LogIdentity",
    "LogRecord",
    "LogWatch",
    "PartitionTrouble",
    "Records",
    "RepeatFilter",
    "Repeats",
    "TopicInfo",
    "client_options",
    "close_producer",
    "connecting",
    "info_of",
    "is_there",
    "log_identity",
    "open_admin",
    "open_consumer",
    "partition_of",
    "read_range",
    "refusal",
    "topic_info",
]
