"""The dual publisher: durable on Kafka, then announced on Redis Pub/Sub.

Read it in this order: ``publisher`` (what a caller sees), ``encoder`` (events into parts), ``delivery``
(parts into batches, outcomes), ``kafka`` and ``redis_link`` (the two clients), ``notifier`` (the live half).
"""

from __future__ import annotations

from dualstream_lab.publisher.outcome import (
    BatchReceipt,
    CloseReport,
    Durable,
    InLog,
    NotInLog,
    Outcome,
    PublisherStats,
    Receipt,
    Rejected,
    Resolution,
    StillOpen,
    Unknown,
)
from dualstream_lab.publisher.publisher import DualPublisher

__all__ = [
    "BatchReceipt",
    "CloseReport",
    "DualPublisher",
    "Durable",
    "InLog",
    "NotInLog",
    "Outcome",
    "PublisherStats",
    "Receipt",
    "Rejected",
    "Resolution",
    "StillOpen",
    "Unknown",
]
