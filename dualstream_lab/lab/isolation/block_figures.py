"""What one block comes to, from its run directory alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.analysis.paired import counts_of
from dualstream_lab.ledger.seconds import UNREAD
from dualstream_lab.load.measures import totals_of
from dualstream_lab.recording.joined import Joined, join

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.lab.isolation.blocks import Timing
    from dualstream_lab.recording import RunDirectory

__all__ = ["Figures", "figures_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Times in ms, but ``live_again``: s from the fault's end until a subscriber received an event that was
    published after it, None where that did not happen (or there was no fault).

    ``spent``: publish, from the intended time, of the events intended in the judged part, as counted by
    :mod:`dualstream_lab.analysis.paired`; a failed one counts as +inf. ``p50``, ``p99``: of it.
    ``missing``: acknowledged and not in the topic; ``twice``: more than once in it. ``nameless``: records
    without an id; ``wrong_source``: with an event's id and another source, which are other events.
    ``unread``: what of the topic was not read, and why. ``notified`` is None, and ``dropped`` empty, where
    the publisher has no counters. ``stall``: the longest that the publisher's event loop did not serve a
    timer. ``others``: cores that other programs used meanwhile. ``rss``: MiB, at the begin and the end.
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
    heard: int
    orphans: int
    stall: float
    rss: tuple[float, float]
    others: float
    live_again: float | None
    bite: str

    @property
    def unaccounted(self) -> int:
        """Durable events that were neither notified nor counted as dropped."""
        return 0 if self.notified is None else self.durable - self.notified - sum(self.dropped.values())


def figures_of(directory: RunDirectory, timing: Timing) -> Figures:
    """Raises RecordingError."""
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
        durable=counted["durable"] + (counted["late"] if ours else 0),
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
        dropped=of_kind("dropped: "),
        heard=counted["heard"],
        orphans=joined.orphans,
        stall=peak("published.loop_lag_ms", 0.0),
        rss=(peak("published.rss_begin_mib", 0.0), peak("published.rss_mib", 0.0)),
        others=peak("machine.others", 0.0),
        live_again=_live_again(joined, fault.end) if fault is not None else None,
        bite=fault.bite if fault is not None else "",
    )


def _publish(joined: Joined, zero: int, timing: Timing, *, unsent: int) -> npt.NDArray[np.float64]:
    """From intended to acknowledged, ms, of the judged part; +inf for what failed."""
    begin = zero + round(timing.head * 1e9)
    end = begin + round(timing.length * 1e9)
    judged = (joined.intended >= begin) & (joined.intended < end)
    spent = np.where(joined.durable, (joined.acked - joined.intended) / 1e6, np.inf)[judged]
    # What was never sent fell due last, and mostly in the judged part.
    return np.concatenate([spent, np.full(unsent, np.inf)])


def _live_again(joined: Joined, ended: int) -> float | None:
    heard = joined.heard[(joined.sent > ended) & (joined.heard > 0)]
    return float(heard.min() - ended) / 1e9 if ended and len(heard) else None
