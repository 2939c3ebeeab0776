"""What the subscribers of one process receive: rows, latencies, and what they missed."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dualstream_lab.load.recorder import Recorder
from dualstream_lab.load.subscriber import Listening, all_ready
from dualstream_lab.recording import Clocks, Ending
from dualstream_lab.tasks import end_tasks
from dualstream_lab.workload import RunIds

_DRAIN = 10.0  # s
_OPEN = 1_000_000  # events that were sent here and may still be received


class ReceiveRecorder(Recorder):
    """A recorder of ``delivered`` and ``listening``, to be called with every notification.

    Whoever publishes in the same process tells it with :meth:`expect` what is to be received: then it
    measures ``live`` (intended to received by the first) and ``live_raw`` (from sent). ``details``: it also
    looks into each notification, for ``live_delay`` (Kafka's ack to received, by the wall clock) and for
    holes in a source's running number (``skipped``). ``complete``: somebody here receives everything, so that
    what is expected and never received is missing. ``epoch``: which log the run writes; notifications of
    another one, from whoever shares the Redis, are ignored and counted (``other_epoch``). ``also``: more
    kinds of rows, and their ``every``.
    """

    def __init__(
        self, directory: Path | None, writer: str, ids: RunIds, *, details: bool = False,
        complete: bool = False, epoch: str | None = None, also: Mapping[str, int] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(directory, "delivered", writer, also={"listening": 1, **(also or {})}, **options)
        self._prefix = ids.prefix.encode()
        self._log = b"" if epoch is None else b'"log":"%s"' % epoch.encode()  # "" is in every message
        self._other_epoch = 0
        self._details = details
        self._complete = complete
        self._seqs, self._times, self._numbers = array("q"), array("q"), array("q")
        self._spent = {"live": array("q"), "live_raw": array("q"), "live_delay": array("q")}
        self._listened: list[tuple[int, int, int, int, int]] = []
        self._open: dict[int, tuple[int, int]] = {}
        self._places: dict[tuple[int, bytes], tuple[int, int]] = {}
        self._lost = 0
        clocks = Clocks.now()
        self._wall = clocks.wall - clocks.monotonic
        self.subscribers: Sequence[Listening] = ()
        self._last = time.monotonic_ns()

    @property
    def quiet(self) -> float:
        """Seconds since something was received."""
        return (time.monotonic_ns() - self._last) / 1e9

    @asynccontextmanager
    async def of(
        self, subscribers: Sequence[Listening], timeout: float, **naming: str
    ) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Their tasks, once all are subscribed; at the end of the block all that they receive is recorded.

        Raises StreamUnavailable. ``naming``: as of :func:`all_ready`.
        """
        running = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
        try:
            await all_ready(subscribers, timeout, **naming)
            self.subscribers = subscribers
            yield running
            await self.drain()
            self.close()
        finally:
            await end_tasks(running)

    async def drain(self, quiet: float = 0.5) -> None:
        """Wait until nothing has come for ``quiet`` s: then nothing more does. At most ten seconds."""
        deadline = time.monotonic() + _DRAIN
        while self.quiet < quiet and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def __call__(self, number: int, message: bytes, now: int) -> None:
        """Subscriber ``number`` read a notification at ``now`` (ns, monotonic)."""
        if (seq := self._arrived(message, now)) is None:
            return
        self._seqs.append(seq)
        self._times.append(now)
        self._numbers.append(number)
        if self._details:
            self._inspect(number, message, now)

    def _arrived(self, message: bytes, now: int) -> int | None:
        """The event's number in the plan; None for one of another run, or of another log."""
        # These bytes cannot be within a text: a quote is escaped there. A bare notification names no log.
        if self._log not in message and b'"log":"' in message:
            self._other_epoch += 1
            return None
        # It begins with {"id":"…", and the id ends with the event's number.
        if message[7:31] != self._prefix:
            return None
        seq = int(message[31:43], 16)
        self._last = now
        if expected := self._open.pop(seq, None):
            self._spent["live"].append(now - expected[0])
            self._spent["live_raw"].append(now - expected[1])
        return seq

    def listening(self, subscriber: Listening, begin: int, end: int, why: Ending) -> None:
        """Note that a subscription began or ended."""
        for source in subscriber.sources:
            self._listened.append((subscriber.number, source, begin, end, why))

    def _inspect(self, number: int, message: bytes, now: int) -> None:
        """Look at a notification's end, which is ,"pub":"nonce:17","ts":1234}."""
        at = message.rfind(b'"ts":')
        if at < 0:
            return
        self._spent["live_delay"].append(max(0, now + self._wall - int(message[at + 5 : -1])))
        colon = message.rfind(b":", 0, at - 2)
        nonce = message[message.rfind(b'"', 0, colon) + 1 : colon]
        count = int(message[colon + 1 : at - 2])
        joined = self.subscribers[number].joined if number < len(self.subscribers) else 0
        last = self._places.get((number, nonce))
        if last is not None and last[0] == joined and count > last[1] + 1:
            self.meter.count("skipped", count - last[1] - 1)
        self._places[number, nonce] = joined, count

    def expect(self, seqs: Sequence[int], intended: int, sent: int) -> None:
        """These events are being published: subscribers here should receive them."""
        waiting = self._open
        times = (intended, sent)
        for seq in seqs:
            waiting[seq] = times
        while len(waiting) > _OPEN:
            waiting.pop(next(iter(waiting)))
            self._miss(1)

    def forget(self, seqs: Sequence[int]) -> None:
        """Expect these events no more: they were not published after all."""
        for seq in seqs:
            self._open.pop(seq, None)

    def _miss(self, count: int) -> None:
        if self._complete and count:
            self.meter.histogram("live").missing += count
            self.meter.histogram("live_raw").missing += count

    def collect(self) -> None:
        """Put what was received since the last call into rows and histograms."""
        seqs = np.asarray(self._seqs, np.int64)
        self.meter.count("delivered", len(seqs))
        self.meter.count("other_epoch", self._other_epoch)
        self._other_epoch = 0
        self.rows(seqs, at=np.asarray(self._times, np.int64), subscriber=np.asarray(self._numbers, np.int64))
        self._seqs, self._times, self._numbers = array("q"), array("q"), array("q")
        self.row_tuples("listening", ("subscriber", "source", "begin", "end", "why"), self._listened)
        for name, spent in self._spent.items():
            if spent:
                self.meter.histogram(name).record(np.asarray(spent, np.int64))
                self._spent[name] = array("q")
        lost = sum(one.lost for one in self.subscribers)
        self.meter.count("subscriptions_lost", lost - self._lost)
        self._lost = lost
        self.meter.level("delivered.subscriptions", sum(one.ready.is_set() for one in self.subscribers))

    def close(self) -> None:
        """What is still expected was missed, and nobody listens any longer."""
        now = time.monotonic_ns()
        for one in self.subscribers:
            one.over(Ending.CLOSED, now)
        self._miss(len(self._open))
        self._open.clear()
        self.collect()
        super().close()
