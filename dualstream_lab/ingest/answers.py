"""What a client is answered: receipts, or what is wrong and what would be right. JSON."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from dualstream_lab.errors import BufferFull, OutcomeUnknown
from dualstream_lab.http_server import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dualstream_lab.errors import PublishError
    from dualstream_lab.event import Event

__all__ = ["Refusal", "answer", "not_published", "receipts"]

_RETRY = "what follows the first `accepted`, later, with the ids given here: consumers deduplicate by id"


class Refusal(Exception):
    """What the client is answered instead: ``error`` says what is wrong, ``allowed`` what would be right.

    ``retry_after``: s. ``more``: further fields of the answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        allowed: str | None = None,
        *,
        retry_after: float | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.allowed = allowed
        self.retry_after = retry_after
        self.more = dict(more or {})

    def response(self) -> web.Response:
        """The answer."""
        fields: dict[str, object] = {"error": printable(str(self))}
        if self.allowed is not None:
            fields["allowed"] = self.allowed
        response = answer(self.status, fields | self.more)
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(max(1, ceil(self.retry_after)))
        return response


def answer(status: int, fields: Mapping[str, object]) -> web.Response:
    """The fields as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(fields), content_type="application/json")


def receipts(receipt: Any) -> list[dict[str, str | None]]:
    """Where each event of a batch is: its id, and ``pos``, ``partition:offset``.

    ``pos`` is null where Kafka acknowledged a repeated batch without saying where it is.
    """
    return [
        {"id": event_id, "pos": f"{partition}:{offset}" if offset >= 0 else None}
        for event_id, partition, offset in zip(
            receipt.event_ids, receipt.partitions, receipt.offsets, strict=True
        )
    ]


def not_published(
    error: PublishError, events: Sequence[Event], *, before: int, retry_after: float
) -> Refusal:
    """The answer when a batch did not become durable; ``before``: events of the request that were by then.

    ``accepted`` is that number; ``events`` says of each event of the batch where it is (``pos``), that it is
    not in the log (``rejected``), or that it may be (``unknown``).
    """
    if isinstance(error, BufferFull):
        reason = f"{before} events are durable and the rest was not sent: {error}"
        return Refusal(503, reason, "the rest, later", retry_after=retry_after, more={"accepted": before})
    known = [
        {"id": event.id} | _known(outcome) for event, outcome in zip(events, error.outcomes, strict=True)
    ]
    more = {"accepted": before, "events": known}
    if isinstance(error, OutcomeUnknown):
        unknown = sum("unknown" in entry for entry in known)
        reason = f"Kafka had {unknown} events and did not acknowledge them in time: they may be in the log"
        return Refusal(504, reason, _RETRY, retry_after=retry_after, more=more)
    return Refusal(503, str(error), _RETRY, retry_after=retry_after, more=more)


def _known(outcome: object) -> dict[str, object]:
    """An outcome of the publisher's (Durable, Rejected or Unknown), as fields."""
    fields: dict[str, Any] = msgspec.to_builtins(outcome)
    if fields["type"] == "Durable":
        return {"pos": f"{fields['partition']}:{fields['offset']}" if fields["offset"] >= 0 else None}
    if fields["type"] == "Rejected":
        return {"rejected": fields["reason"]}
    return {"unknown": True}
