"""Records what one process of a run does: rows, counters, histograms, and how well the process itself is."""

from __future__ import annotations

import _thread
import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dualstream_lab.load.driver import Call
from dualstream_lab.publisher import DualPublisher, PublisherStats
from dualstream_lab.publisher.outcome import Durable, Unknown
from dualstream_lab.recording import DROPS, Interval, IntervalWriter, Meter, Outcome, RowWriter
from dualstream_lab.recording.rows import Int64
from dualstream_lab.workload import RunIds

_PROBE = 0.01
_CPU_KINDS = 8  # of psutil's; what guests use is within what users use
_NAMES = {outcome: outcome.name.lower() for outcome in Outcome}


class Recorder:
    """One process's meter and, with a directory, its rows and intervals.

    ``deliver`` gets every interval as it is cut; left out, they go to ``intervals-<writer>.jsonl``. Rows are
    of ``kind``, one event in ``every``; ``also``: other kinds, and their ``every``.
    :meth:`run` is the task that cuts one every ``period`` s; :meth:`close` cuts the last.
    """

    def __init__(
        self, directory: Path | None, kind: str, writer: str, *, also: Mapping[str, int] | None = None,
        every: int = 1, period: float = 1.0, deliver: Callable[[Interval], None] | None = None,
        start_thread: Callable[..., object] = _thread.start_new_thread,
    ) -> None:  # fmt: skip
        self.meter = Meter(writer)
        self._kind = kind
        self._period = period
        self._rows: dict[str, RowWriter] = {}
        self._file = None
        if directory is not None:
            for each, share in ({kind: every} | dict(also or {})).items():
                self._rows[each] = RowWriter(directory, each, writer, every=share, start_thread=start_thread)
            if deliver is None:
                self._file = IntervalWriter(directory, writer)
                deliver = self._file.write
        self._deliver = deliver or (lambda _interval: None)
        self._process = psutil.Process()
        self._cpu = (time.process_time(), time.monotonic())
        self._machine = _machine_seconds()

    def rows(self, seq: Int64, *, kind: str | None = None, **columns: Any) -> None:
        """Rows of this recorder's kind, or of another one that it was made for."""
        if rows := self._rows.get(kind or self._kind):
            rows.add(seq, **columns)

    def row_tuples(self, kind: str, names: Sequence[str], tuples: list[Any]) -> None:
        """The same of tuples, which are taken out of the list."""
        table = np.array(tuples, np.int64).reshape(-1, len(names)).T
        tuples.clear()
        columns = dict(zip(names, table, strict=True))
        self.rows(columns.pop("seq", table[0]), kind=kind, **columns)

    async def run(self) -> None:
        """Work until it is cancelled: cut intervals, and note how late this loop serves a timer.

        And how long Python's garbage collector stopped the process, at worst.
        """
        next_cut = time.monotonic() + self._period
        with _collection_watch(lambda ms: self.meter.peak(f"{self._kind}.gc_pause_ms", ms)):
            while True:
                before = time.monotonic()
                await asyncio.sleep(_PROBE)
                now = time.monotonic()
                self.meter.peak(f"{self._kind}.loop_lag_ms", max(0.0, now - before - _PROBE) * 1e3)
                if now >= next_cut:
                    self.cut()
                    next_cut = max(next_cut + self._period, now)

    def collect(self) -> None:
        """For subclasses: put into the meter what was kept aside."""

    def cut(self) -> None:
        """End the interval and deliver it."""
        self.collect()
        cpu, at = time.process_time(), time.monotonic()
        if at > self._cpu[1]:
            self.meter.level(f"{self._kind}.cpu", (cpu - self._cpu[0]) / (at - self._cpu[1]))
        self._cpu = cpu, at
        busy, idle = _machine_seconds()
        self.meter.count("machine.busy_ms", round((busy - self._machine[0]) * 1e3))
        self.meter.count("machine.idle_ms", round((idle - self._machine[1]) * 1e3))
        self._machine = busy, idle
        self.meter.level(f"{self._kind}.rss_mib", self._process.memory_info().rss / 2**20)
        for kind, rows in self._rows.items():
            self.meter.level(f"{kind}.rows_dropped", rows.dropped)
        self._deliver(self.meter.take())

    def close(self) -> None:
        """Cut the last interval and write the rest of the rows; blocks briefly. Raises OSError."""
        self.collect()  # it may have rows
        with ExitStack() as exits:
            if self._file is not None:
                exits.callback(self._file.close)
            exits.callback(self.cut)
            for rows in self._rows.values():
                exits.callback(rows.close)


@contextmanager
def _collection_watch(pause: Callable[[float], None]) -> Iterator[None]:
    """Call ``pause`` with the length (ms) of every collection within the block."""
    began = time.perf_counter()

    def watch(phase: str, _: object) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pause((time.perf_counter() - began) * 1e3)

    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)


def _machine_seconds() -> tuple[float, float]:
    """CPU seconds of all cores together: busy (also for somebody else), and idle."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times[:_CPU_KINDS]) - idle, idle


class PublishRecorder(Recorder):
    """A driver's sink: rows of ``published``, and the histograms ``publish`` (intended to ack),
    ``publish_raw`` (sent to ack) and ``slip`` (intended to sent). With the run's ``ids``, also rows of
    ``dropped``, as the publisher tells them.
    """

    def __init__(
        self, directory: Path | None, writer: str, *, ids: RunIds | None = None, every: int = 1,
        **options: Any,
    ) -> None:  # fmt: skip
        also = {"dropped": every} if ids is not None else {}
        super().__init__(directory, "published", writer, every=every, also=also, **options)
        self._ids = ids
        self._dropped: list[tuple[int, int, int]] = []
        self._calls: list[tuple[int, int, int, int]] = []
        self.started = 0
        self._last = 0
        self._publisher: DualPublisher | None = None
        self._before: PublisherStats | None = None

    def watch(self, publisher: DualPublisher) -> None:
        """From now on, what the publisher counts goes into the intervals, too."""
        self._publisher, self._before = publisher, publisher.stats()
        if self._ids is not None:
            publisher.tell_drops(self._drop)

    def _drop(self, keys: list[str], reason: str) -> None:
        assert self._ids is not None  # noqa: S101  (or nobody would tell)
        ids = (key.rpartition(" ")[2] for key in keys)
        seqs = [seq for event_id in ids if (seq := self._ids.seq(event_id)) is not None]
        known, now = DROPS.index(reason) if reason in DROPS else 0, time.monotonic_ns()
        self._dropped += [(seq, now, known) for seq in seqs]

    def sending(self, seq: Int64, intended: int, in_flight: int) -> None:  # noqa: ARG002
        """Count what is sent, as :class:`Sink` wants."""
        self.meter.count("sent", len(seq))
        self.meter.peak("published.in_flight", in_flight)

    def settled(self, call: Call) -> None:
        """Write the rows of a call that ended, as :class:`Sink` wants."""
        now = self._last = call.acked or time.monotonic_ns()
        outcomes = None if call.error is None else _outcomes(call)
        acked: int | Int64 = call.acked
        outcome: int | Int64 = int(call.outcome)
        if outcomes is None:
            self._calls.append((len(call), call.intended, call.sent, call.acked))
            self.meter.count(_NAMES[call.outcome], len(call))
        else:
            # Its caller learned of those that are durable only now, with the others.
            acked, outcome = np.where(outcomes == Outcome.DURABLE, now, 0), outcomes
            for which in Outcome:
                if count := int(np.count_nonzero(outcomes == which)):
                    answered = now if which is Outcome.DURABLE else 0
                    self._calls.append((count, call.intended, call.sent, answered))
                    self.meter.count(_NAMES[which], count)
        self.rows(
            call.seq, intended=call.intended, sent=call.sent, acked=acked, outcome=outcome,
            source=call.source, size=call.size,
        )  # fmt: skip

    def unsent(self, count: int) -> None:
        """Count what was never sent, as :class:`Sink` wants."""
        self.meter.count("unsent", count)
        for name in ("publish", "publish_raw", "slip"):
            self.meter.histogram(name).missing += count

    def collect(self) -> None:
        """Put what was settled into histograms, and the publisher's counts into counters."""
        if self.started:
            # how long it took until the last answer
            self.meter.level("published.seconds", max(0, self._last - self.started) / 1e9)
        if self._calls:
            count, intended, sent, acked = np.array(self._calls, np.int64).T
            self._calls = []
            there = acked > 0
            failed = int(count[~there].sum())
            for name, begin in (("publish", intended), ("publish_raw", sent)):
                histogram = self.meter.histogram(name)
                histogram.record((acked - begin)[there], count[there])
                histogram.missing += failed
            self.meter.histogram("slip").record(np.maximum(sent - intended, 0), count)
        if self._ids is not None:
            self.row_tuples("dropped", ("seq", "at", "reason"), self._dropped)
        if self._publisher is not None and self._before is not None:
            now, before = self._publisher.stats(), self._before
            self._before = now
            for name in ("notified", "receivers", "late_acks"):
                self.meter.count(name, getattr(now, name) - getattr(before, name))
            for why, n in now.dropped.items():
                self.meter.count(f"dropped: {why}", n - before.dropped.get(why, 0))
            for name in ("buffered_events", "buffered_bytes", "queued_notifications"):
                self.meter.level(f"publisher.{name}", getattr(now, name))
            self.meter.level("publisher.redis_up", float(now.redis_up))


def _outcomes(call: Call) -> Int64 | None:
    """What the publisher says of each event of a call that failed; None where it does not."""
    outcomes = call.error.outcomes if call.error is not None else []
    if len(outcomes) != len(call):
        return None
    known: dict[type, Outcome] = {Durable: Outcome.DURABLE, Unknown: Outcome.UNKNOWN}
    refused = Outcome.NO_ROOM if call.outcome is Outcome.NO_ROOM else Outcome.REJECTED
    return np.array([known.get(type(each), refused) for each in outcomes], np.int64)
