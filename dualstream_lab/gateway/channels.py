"""Which Redis channel says what happened to a source, by the kind of upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.event import channel_of, resync_channel, shard_channel, source_invalid_reason

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.event import Notification

__all__ = ["Channels", "source_problem"]


def source_problem(source: str) -> str | None:
    """Why a source (``type:id``) that a client named cannot be followed; None when it can."""
    source_type, colon, source_id = source.partition(":")
    if not colon:
        return f"source {source!r}: must be type:id, for example repo:owner/name"
    return source_invalid_reason(source_type, source_id)


class Channels:
    """``source``: a channel each. ``aggregate``: the publisher's shard channels. ``pattern``: all by one.

    ``shared``: whether a channel is several sources'.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._prefix = settings.channel_prefix
        self._head = len(f"{self._prefix}events:".encode())
        self._shards = settings.channel_shards if settings.upstream == "aggregate" else None
        self.shared = self._shards is not None
        self.resync = resync_channel(self._prefix).encode()
        self.pattern = f"{self._prefix}events:*".encode() if settings.upstream == "pattern" else None

    def channel(self, source: str) -> bytes:
        """Where the source is announced."""
        source_type, _, source_id = source.partition(":")
        if self._shards is None:
            return channel_of(source_type, source_id, self._prefix).encode()
        return shard_channel(source_type, source_id, self._shards, self._prefix).encode()

    def source(self, channel: bytes, note: Notification) -> str:
        """Whom a message on a shared channel is about."""
        source_type = channel[self._head :].partition(b":")[0].decode("utf-8", "replace")
        return f"{source_type}:{note.source_id}"
