"""The processor: Kafka, through handlers, into the store."""

from __future__ import annotations

from dualstream_lab.processor.batch import Handler
from dualstream_lab.processor.processor import Processor, ProcessorStats

__all__ = ["Handler", "Processor", "ProcessorStats"]
