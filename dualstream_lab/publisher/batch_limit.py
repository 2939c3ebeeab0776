"""How large a batch may be. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["BatchLimit"]

_OVERHEAD: Final = 100  # the batch's header (61 bytes) and one record's framing


class BatchLimit:
    """The smaller of what the settings allow and what the topic takes, in bytes.

    ``bytes`` is for a batch of several events. ``event_bytes`` is the most that key, value and headers of one
    event may have together; an event of that size is sent alone.
    """

    def __init__(self, allowed: int, topic: int) -> None:
        self._allowed = allowed
        self._topic = topic
        self._learnt = topic
        self._update()

    def _update(self) -> None:
        self.bytes = min(self._allowed, self._topic, self._learnt)
        self.event_bytes = self._topic - _OVERHEAD

    def refused(self, size: int, events: int) -> None:
        """Kafka found a batch of this size too large: its limit is another than was thought."""
        self._learnt = min(self._learnt, size // 2 if events > 1 else size - 1)
        self._update()

    def read(self, topic: int) -> None:
        """What the topic's settings say now.

        Where that is no news, what was learnt is forgotten by halves: not everybody may read the settings,
        and a limit can be raised again.
        """
        self._learnt = min(topic, 2 * self._learnt) if topic == self._topic else topic
        self._topic = topic
        self._update()
