"""What the load's reading of a connection leaves out: the id of every server-sent event, and a goodbye."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dualstream_lab.load.gateway_wire import SseIncoming
from dualstream_lab.subscriber.wire import SseParser

if TYPE_CHECKING:
    from dualstream_lab.subscriber.wire import ServerEvent

__all__ = ["CLOSE", "IdentifiedEvents"]

CLOSE: Final = b"\x88\x82\0\0\0\0\x03\xe8"
"""A client's WebSocket frame: it leaves, normally (1000)."""


class IdentifiedEvents(SseIncoming):
    """``ids``: what each message of the last call of :meth:`feed` would be resumed from."""

    def __init__(self) -> None:
        super().__init__()
        self._parser: _Identifying = _Identifying()

    def feed(self, data: bytes) -> list[bytes]:
        """As of every Incoming."""
        self._parser.ids = []
        return super().feed(data)

    @property
    def ids(self) -> list[str]:
        """One a message."""
        return self._parser.ids


class _Identifying(SseParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        events = super().feed(chunk)
        self.ids += [event.id for event in events]
        return events
