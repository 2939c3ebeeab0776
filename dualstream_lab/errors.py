"""The error tree. Foreign exceptions are mapped to it where they arise.

    DualStreamError
    ├─ ConfigError (also ValueError)     a bad setting, named, with what is allowed
    ├─ EventError (also ValueError)      an event or bytes that cannot be published or decoded
    ├─ PublishError                      .outcomes: what is known of each event
    │  ├─ BufferFull                     nothing was handed to Kafka; safe to retry
    │  ├─ PublishRejected                Kafka refused; not written
    │  └─ OutcomeUnknown                 the deadline passed; may or may not be in the log
    ├─ StackError                        a local broker could not be installed, started or stopped
    ├─ StreamUnavailable                 Kafka or Redis could not be reached for longer than allowed
    ├─ RecordingError                    an unreadable or truncated run directory
    ├─ FaultInert                        an injected fault does not bite, or is not over
    └─ StoreError                        the recent-events store cannot be opened, read or written
       └─ StoreConflict                  another processor has moved a partition's position

Loss, duplication and reordering are observations, never exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = [
    "BufferFull",
    "ConfigError",
    "DualStreamError",
    "EventError",
    "FaultInert",
    "OutcomeUnknown",
    "PublishError",
    "PublishRejected",
    "RecordingError",
    "StackError",
    "StoreConflict",
    "StoreError",
    "StreamUnavailable",
]


class DualStreamError(Exception):
    """Whatever this package raises on purpose."""


class ConfigError(DualStreamError, ValueError):
    """A bad setting or argument. The message names it and says what is allowed."""


class EventError(DualStreamError, ValueError):
    """An event that cannot be published, or bytes that are not an event.

    ``invalid`` maps the index of every bad event of the call to its reason.
    """

    def __init__(self, message: str, *, invalid: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.invalid: dict[int, str] = dict(invalid or {})


class PublishError(DualStreamError):
    """A publish that did not end in "durable" for every event.

    ``outcomes`` has one entry an event of the call, in input order.
    """

    def __init__(self, message: str, *, outcomes: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.outcomes: list[object] = list(outcomes)


class BufferFull(PublishError):
    """No room in the buffer within ``buffer_timeout``. Nothing was handed to Kafka; safe to retry."""


class PublishRejected(PublishError):
    """Some events are not in the log and will not be; the others are durable."""


class OutcomeUnknown(PublishError):
    """The deadline passed while Kafka had some of the events. ``resolve()`` finds out what became of them."""


class StackError(DualStreamError):
    """A local broker could not be installed, started or stopped."""


class StreamUnavailable(DualStreamError):
    """Kafka or Redis could not be reached, or was gone for longer than allowed."""


class FaultInert(DualStreamError):
    """A fault that was injected does not bite, or would not end. The message says what was seen."""


class RecordingError(DualStreamError):
    """A run directory that cannot be read, or only in part."""


class StoreError(DualStreamError):
    """The recent-events store cannot be opened, read or written, or holds another log."""


class StoreConflict(StoreError):
    """Another processor has moved the partition's position: nothing was written."""
