"""A publisher in memory: without brokers, with the real one's checks, errors and answers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Self, TypeAlias

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, PublishRejected, StreamUnavailable
from dualstream_lab.event import Event
from dualstream_lab.publisher import BatchReceipt, CloseReport, Receipt, Resolution
from dualstream_lab.publisher.call import PartitionSlice, PublishCall, State
from dualstream_lab.publisher.encoder import Encoder, checked_headers, skips_invalid
from dualstream_lab.publisher.record_batch import CODECS, BatchLimit
from dualstream_lab.publisher.resolution import named_slices, resolution
from dualstream_lab.publisher.routes import Routes

Failure: TypeAlias = Literal["no room", "rejected", "unknown"]
_TOPIC_BYTES: Final = 1_048_588  # Kafka's default of max.message.bytes


class MemoryPublisher:
    """A publisher that keeps what it is given: ``events``, in the order of the calls.

    Events are checked and put into partitions by the real publisher's code; offsets count from 0 in each
    partition. ``partitions``: how many the topic has. :meth:`fail_next` makes a call end as Kafka may have it
    end. Nothing is announced, as on Redis nothing is promised: for that, give it to a MemoryGateway.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        headers: Iterable[tuple[str, bytes]] = (),
        partitions: int = 6,
    ) -> None:
        settings = settings if settings is not None else Settings()
        limit = BatchLimit(settings.batch_bytes, _TOPIC_BYTES)
        routes = Routes(settings, partitions=partitions)
        codec = CODECS[settings.compression]
        self._encoder = Encoder(routes, limit=limit, codec=codec, headers=checked_headers(headers))
        self._ends: Counter[int] = Counter()
        self._failures: deque[tuple[Failure, bool]] = deque()
        self._unresolved: dict[str, tuple[PartitionSlice, int]] = {}
        self._state: Literal["new", "started", "closed"] = "new"
        self.partitions = partitions
        self.events: list[Event] = []
        self.followers: list[Callable[[Sequence[Event]], None]] = []
        """Each is called with the events of a call that are in the log, before the call returns."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Take events from now on. Raises StreamUnavailable for one that was closed."""
        if self._state == "closed":
            raise StreamUnavailable("the publisher was closed: it cannot be started again, make a new one")
        self._state = "started"

    def fail_next(self, failure: Failure, *, in_log: bool = False) -> None:
        """Have the next call (of several of these: the next ones, in turn) end with an error.

        ``no room``: BufferFull; ``rejected``: PublishRejected; ``unknown``: OutcomeUnknown, and the events
        are in the log all the same if ``in_log``, as ``resolve`` then says. Raises ConfigError for another.
        """
        if failure not in {"no room", "rejected", "unknown"}:
            raise ConfigError(f"failure must be 'no room', 'rejected' or 'unknown' (is {failure!r})")
        self._failures.append((failure, in_log))

    async def publish(self, event: Event) -> Receipt:
        """As :meth:`DualPublisher.publish`: EventError, BufferFull, PublishRejected or OutcomeUnknown."""
        self._check_started()
        call = self._encoder.call((event,))
        self._deliver(call, (event,))
        return Receipt(event.id, call.parts[0].partition, call.parts[0].base)

    async def publish_batch(
        self, events: Iterable[Event], *, on_invalid: Literal["refuse", "skip"] = "refuse"
    ) -> BatchReceipt:
        """As :meth:`DualPublisher.publish_batch`."""
        self._check_started()
        skip_invalid, batch = skips_invalid(on_invalid), list(events)
        call = self._encoder.call(batch, skip_invalid=skip_invalid)
        self._deliver(call, batch)
        return call.receipt()

    async def resolve(
        self,
        events: Iterable[Event | str],
        *,
        timeout: float = 10.0,  # noqa: ARG002  (as the real one's)
    ) -> dict[str, Resolution]:
        """As :meth:`DualPublisher.resolve`, at once: of what :meth:`fail_next` had reported unknown."""
        self._check_started()
        asked = named_slices(events, self._unresolved)
        return {name: resolution(part, place, None) for name, (_, part, place) in asked.items()}

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ARG002  (as the real one's)
        """There is nothing to wait for: True."""
        self._check_started()
        return True

    async def close(self) -> CloseReport:
        """Take no more events."""
        self._state = "closed"
        return CloseReport(durable=0, rejected=(), unresolved=(), dropped_notifications=0)

    def _check_started(self) -> None:
        if self._state == "new":
            raise StreamUnavailable("the publisher is not started: use `async with MemoryPublisher()`")

    def _deliver(self, call: PublishCall, events: Iterable[Event]) -> None:
        if self._state == "closed":
            raise PublishRejected("the publisher is closed", outcomes=call.all_rejected("closed"))
        failure, in_log = self._failures.popleft() if self._failures else (None, True)
        if failure == "no room":
            raise call.no_room("no room within buffer_timeout")
        if failure == "unknown":
            for part in call.parts:
                part.state, part.reason = State.LOST, "handed over, and not acknowledged in time"
                self._unresolved |= {key: (part, place) for place, key in enumerate(part.event_keys())}
        error = call.error() if failure == "unknown" else None
        if failure == "rejected" or not in_log:
            for part in call.parts:
                part.state, part.reason = State.REJECTED, "not in the log, as the test asked for"
        else:
            kept = [event for index, event in enumerate(events) if index not in call.invalid]
            self.events += kept
            for part in call.parts:
                part.state, part.base = State.DURABLE, self._ends[part.partition]
                self._ends[part.partition] += len(part)
            for follow in self.followers:
                follow(kept)
        if error := error or call.error():
            raise error
