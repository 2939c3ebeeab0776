"""The dual publisher: durable on Kafka, then announced on Redis Pub/Sub.

Read it in this order: ``publisher`` (what a caller sees, and how it follows the topic), ``encoder`` and
``route`` (events into slices of a ``call``), ``accumulator`` (a call until its end, with room in the
``buffer``), ``sender`` (slices into a ``record_batch``, answers into outcomes: ``refusals``), ``kafka`` (the
producer), ``resolution`` (what became of the unknown), ``notifier`` (the live half) and ``redis_link``.
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
