"""dualstream_lab: durable events on Kafka, live notifications on Redis Pub/Sub, and a lab around both.

Importing the package is light: aiokafka, redis and the rest are imported when a name is first used.

Public are the names of ``__all__`` here and of the packages ``analysis``, ``faults``, ``lab`` (with
``lab.compare`` and ``lab.isolation``), ``replay``, ``simulation`` and ``testing``; everything else may change
without a word.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.errors import (
        BufferFull,
        ConfigError,
        DualStreamError,
        EventError,
        FaultInert,
        OutcomeUnknown,
        PublishError,
        PublishRejected,
        RecordingError,
        StackError,
        StoreConflict,
        StoreError,
        StreamUnavailable,
    )
    from dualstream_lab.event import Event, Notification, channel_of, encode_event
    from dualstream_lab.publisher import BatchReceipt, DualPublisher, Receipt
    from dualstream_lab.subscriber import StreamGap, Subscriber

    __version__: str

__all__ = [
    "BatchReceipt",
    "BufferFull",
    "ConfigError",
    "DualPublisher",
    "DualStreamError",
    "Event",
    "EventError",
    "FaultInert",
    "Notification",
    "OutcomeUnknown",
    "PublishError",
    "PublishRejected",
    "Receipt",
    "RecordingError",
    "Settings",
    "StackError",
    "StoreConflict",
    "StoreError",
    "StreamGap",
    "StreamUnavailable",
    "Subscriber",
    "__version__",
    "channel_of",
    "encode_event",
]

_PACKAGES = ("analysis", "faults", "lab", "replay", "simulation", "testing")
_HOMES = {
    **dict.fromkeys(__all__, "errors"),
    **{name: name for name in _PACKAGES},
    "BatchReceipt": "publisher",
    "DualPublisher": "publisher",
    "Event": "event",
    "Notification": "event",
    "Receipt": "publisher",
    "Settings": "config",
    "channel_of": "event",
    "encode_event": "event",
    "StreamGap": "subscriber",
    "Subscriber": "subscriber",
}
_EXTRAS = {"StreamGap": "gateway", "Subscriber": "gateway", "analysis": "report", "simulation": "simulation"}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("dualstream-lab")
    home = _HOMES.get(name)
    return attribute(__name__, name, home and f"{__name__}.{home}", extra=_EXTRAS.get(name, ""))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
