"""The dual publisher: durable on Kafka, then announced on Redis Pub/Sub.

Read it in this order: ``publisher`` (what a caller sees), ``encoder`` (events into parts), ``delivery`` (a
call until its end), ``sender`` (parts into batches, answers into outcomes: ``refusals``, ``triage``),
``kafka`` and ``produce`` (the producer), ``topic`` (what happens when that changes: ``generation``,
``batch_limit``), ``notifier`` (the live half) and ``redis_link``.
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
