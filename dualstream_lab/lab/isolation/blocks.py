"""The processes of a proof, and its blocks: each a run directory of its own, and what it comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from dualstream_lab.analysis.paired import counts_of
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.injector import carry_out
from dualstream_lab.faults.spec import FaultSpec, fault_named
from dualstream_lab.ledger.seconds import UNREAD
from dualstream_lab.load.child import Child
from dualstream_lab.load.session import Session, cpu_seconds, new_manifest
from dualstream_lab.recording import IntervalWriter, Meter, RunDirectory, drops_of
from dualstream_lab.recording.joined import Joined, join
from dualstream_lab.tasks import until
from dualstream_lab.verdict.measures import totals_of
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    import numpy.typing as npt


HEALTHY = "healthy"

_READY = 60.0
_LEAD = 100_000_000  # ns between the order to start and a plan's zero
_CONCURRENCY = 256
_LIVE = 10.0  # s after the fault's end within which somebody must have received something
_KINDS = 8  # of psutil's CPU times; what guests use is within what users use


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The parts of a block, in seconds.

    ``warm_up``: load before it that is not recorded; ``head``: recorded, not judged; ``length``: judged, by
    intended time. A fault begins with the judged part and ends ``after`` before its end, so that the return
    of Redis is judged, too. ``first``: the warm-up before all blocks.
    """

    length: float = 4.0
    after: float = 1.0
    head: float = 0.1
    warm_up: float = 0.2
    first: float = 40.0


@asynccontextmanager
async def open_sender(publisher: Path | None, directory: Path) -> AsyncIterator[Child]:
    """Start the sending process, before there are brokers.

    Raises ConfigError for a publisher's file that cannot be used.
    """
    task = {"publisher": None if publisher is None else str(publisher)}
    async with Child("dualstream_lab.lab.isolation.generator", "sender", task, directory) as sender:
        await sender.expect("loaded", _READY)
        yield sender


@dataclass
class Blocks:
    """Makes blocks, one at a time, on a target that is ready for the faults.

    ``warm_up``: events that were sent before each, and are in no block.
    """

    sender: Child
    target: Target
    timing: Timing
    workload: Workload
    root: Path
    count: int = 0
    warm_up: int = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Start the observer, and make and warm the publisher; raises the error of either."""
        module, task = "dualstream_lab.lab.isolation.observer", {"settings": self.target.direct.model_dump()}
        async with Child(module, "witness", task, self.root) as self._observer:
            await self._observer.expect("ready", _READY)
            settings, first = self.target.settings.model_dump(), self.timing.first
            await self._warm(_READY + 3 * first, settings=settings, warm_up=first, run=self.root.name)
            yield

    async def _warm(self, timeout: float, **task: Any) -> int:
        """Tell the sender what is next, and wait until it is ready; how many events it sent for it."""
        self.sender.send(
            json.dumps(task | {"workload": self.workload.as_dict(), "concurrency": _CONCURRENCY})
        )
        sent: int = (await self.sender.expect("ready", timeout))["warm_up"]
        self.warm_up += sent
        return sent

    async def block(self, arm: str) -> RunDirectory:
        """Make one block, healthy or with a fault. Raises FaultInert, with the block's state ``void``.

        Cancelled, it ends orderly, and its state is ``interrupted``.
        """
        self.count += 1
        path = self.root / f"{self.count:03d}-{arm}"
        path.mkdir()
        users = {"concurrency": _CONCURRENCY, "subscribers": 1}
        manifest = new_manifest(self.target.direct, self.workload, name=arm, users=users, engine="prove")
        run = Session(path, manifest)
        task = {"directory": str(path), "ids": manifest.ids}
        self._observer.send(json.dumps(task | {"workload": self.workload.as_dict()}))
        await self._observer.expect("ready", _READY)
        manifest.warm_up = await self._warm(_READY, warm_up=self.timing.warm_up, **task)
        zero = run.start(self.sender, lead=_LEAD)
        background = _BackgroundLoad()
        state = "void"
        try:
            if arm != HEALTHY:
                await self._fault(arm, run.directory)
            await until(zero + round((self.timing.head + self.timing.length) * 1e9))
            state = "finished"
        except asyncio.CancelledError:
            state = "interrupted"
            raise
        finally:
            meter = Meter("machine")
            meter.level("machine.others", background.cores())
            self.sender.send("stop")
            await self.sender.expect("block", 2 * _READY)
            run.end(state)
            self._observer.send("end")
            await self._observer.expect("block", _READY)
            writer = IntervalWriter(path, "machine")
            writer.write(meter.take())
            writer.close()
        return run.directory

    async def _fault(self, name: str, directory: RunDirectory) -> None:
        """Inject the fault, and wait until an event that was published after its end is received."""
        timing, manifest = self.timing, directory.manifest
        length = 0.0 if fault_named(name).instant else timing.length - timing.after
        spec = FaultSpec(name=name, at=timing.head, length=length)
        await carry_out([spec], self.target, directory, lambda _line: None)
        ended = (manifest.faults[0].end - manifest.started) / 1e9
        batch = self.workload.batch
        first = (int(ended * self.workload.rate / batch) + 1) * batch
        self._observer.send(f"await {first} {_LIVE:g}")
        await self._observer.expect("live", _LIVE + _READY)


class _BackgroundLoad:
    """The CPU that programs use which are neither this one nor below it: of a block with much of it,
    latencies say nothing of the publisher.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all = _cpu_of_all()
        self._own = _cpu_of_own()

    def cores(self) -> float:
        """The cores that other programs used on average until now.

        What our own processes used that have ended since is counted as theirs; it is little.
        """
        own = sum(used - self._own.get(pid, 0.0) for pid, used in _cpu_of_own().items())
        seconds = max(1e-3, time.monotonic() - self._began)
        return max(0.0, _cpu_of_all() - self._all - own) / seconds


def _cpu_of_all() -> float:
    """The CPU seconds that the whole machine has used."""
    times = psutil.cpu_times()
    return float(sum(times[:_KINDS])) - times.idle - getattr(times, "iowait", 0.0)


def _cpu_of_own() -> dict[int, float]:
    """The CPU seconds of this process and of all below it, by process id."""
    own = psutil.Process()
    pids = [own.pid, *(child.pid for child in own.children(recursive=True))]
    return cpu_seconds(dict(zip(pids, pids, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one block.

    Times are in ms, but ``live_again``: s from the fault's end until a subscriber received an event that was
    published after it, None where that did not happen (or there was no fault).

    ``spent``: publish, from the intended time, of the events intended in the judged part, as counted by
    :mod:`dualstream_lab.analysis.paired`; a failed one counts as +inf. ``p50``, ``p99``: of it.
    ``missing``: acknowledged and not in the topic; ``twice``: more than once in it. ``nameless``: records
    without an id; ``wrong_source``: with an event's id and another source, which are other events.
    ``unread``: what of the topic was not read, and why. ``notified`` is None, and ``dropped`` empty, where
    the publisher has no counters. ``stall``: the longest that the publisher's event loop did not serve a
    timer. ``background``: cores that other programs used meanwhile. ``rss``: MiB, at the begin and the end.
    """

    arm: str
    state: str
    begin: int
    seconds: float
    events: int
    durable: int
    failed: int
    errors: dict[str, int]
    missing: int
    twice: int
    nameless: int
    wrong_source: int
    caught_up: bool
    unread: tuple[str, ...]
    spent: npt.NDArray[np.float64] = field(compare=False, repr=False)
    p50: float
    p99: float
    notified: int | None
    dropped: dict[str, int]
    delivered: int
    orphans: int
    stall: float
    rss: tuple[float, float]
    background: float
    live_again: float | None
    bite: str

    @property
    def unaccounted(self) -> int:
        """Durable events that were neither notified nor counted as dropped."""
        return 0 if self.notified is None else self.durable - self.notified - sum(self.dropped.values())


def figures_of(directory: RunDirectory, timing: Timing) -> Figures:
    """Measure the block that is recorded in a directory. Raises RecordingError."""
    manifest, joined, totals = directory.manifest, join(directory), totals_of(directory)
    counted, peak = Counter(totals.counters), totals.peaks.get
    ours = "publisher.redis_up" in totals.peaks
    caught_up = bool(peak("consumed.caught_up", 0))
    fault = manifest.faults[0] if manifest.faults else None
    spent = _publish(joined, manifest.started, timing, unsent=counted["unsent"])
    p50, p99 = np.quantile(spent, [0.5, 0.99], method="inverted_cdf") if len(spent) else (np.nan, np.nan)

    def of_kind(prefix: str) -> dict[str, int]:
        return {n.removeprefix(prefix): count for n, count in counted.items() if n.startswith(prefix)}

    return Figures(
        arm=manifest.name,
        state=manifest.state,
        begin=manifest.started,
        seconds=max(0, manifest.ended - manifest.started) / 1e9,
        events=len(joined) + counted["unsent"],
        durable=counted["durable"] + (counted["late_acks"] if ours else 0),
        failed=sum(counted[kind] for kind in ("rejected", "unknown", "no_room", "pending", "unsent")),
        errors=of_kind("error: "),
        missing=int(np.count_nonzero(joined.durable & (joined.consumed == 0))) if caught_up else 0,
        twice=joined.consumed_again,
        nameless=counted["nameless"],
        wrong_source=counted["wrong_source"],
        caught_up=caught_up,
        unread=tuple(of_kind(UNREAD)),
        spent=counts_of(spent),
        p50=float(p50),
        p99=float(p99),
        notified=counted["notified"] if ours else None,
        dropped=drops_of(counted),
        delivered=counted["delivered"],
        orphans=joined.orphans,
        stall=peak("published.loop_lag_ms", 0.0),
        rss=(peak("published.rss_begin_mib", 0.0), peak("published.rss_mib", 0.0)),
        background=peak("machine.others", 0.0),
        live_again=_live_again(joined, fault.end) if fault is not None else None,
        bite=fault.bite if fault is not None else "",
    )


def _publish(joined: Joined, zero: int, timing: Timing, *, unsent: int) -> npt.NDArray[np.float64]:
    """From intended to acknowledged, ms, of each event of the judged part; +inf for one that failed."""
    begin = zero + round(timing.head * 1e9)
    end = begin + round(timing.length * 1e9)
    judged = (joined.intended >= begin) & (joined.intended < end)
    spent = np.where(joined.durable, (joined.acked - joined.intended) / 1e6, np.inf)[judged]
    # What was never sent fell due last, and mostly in the judged part.
    return np.concatenate([spent, np.full(unsent, np.inf)])


def _live_again(joined: Joined, ended: int) -> float | None:
    delivered = joined.delivered[(joined.sent > ended) & (joined.delivered > 0)]
    return float(delivered.min() - ended) / 1e9 if ended and len(delivered) else None
