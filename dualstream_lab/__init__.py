"""dualstream_lab: durable events on Kafka, live notifications on Redis Pub/Sub, and a lab around both.

Importing the package is light: aiokafka, redis and the rest are imported when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.event import Event, Notification
    from dualstream_lab.publisher import BatchReceipt, DualPublisher, Receipt
    from dualstream_lab.subscriber import StreamGap, Subscriber

__all__ = [
    "BatchReceipt",
    "DualPublisher",
    "Event",
    "Notification",
    "Receipt",
    "Settings",
    "StreamGap",
    "Subscriber",
]

_HOMES = {
    "BatchReceipt": "dualstream_lab.publisher",
    "DualPublisher": "dualstream_lab.publisher",
    "Event": "dualstream_lab.event",
    "Notification": "dualstream_lab.event",
    "Receipt": "dualstream_lab.publisher",
    "Settings": "dualstream_lab.config",
    "StreamGap": "dualstream_lab.subscriber",
    "Subscriber": "dualstream_lab.subscriber",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
