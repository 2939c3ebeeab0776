"""What one block comes to, from its run directory alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dualstream_lab.analysis.paired import counts_of
from dualstream_lab.ledger.seconds import UNREAD
from dualstream_lab.load.measures import totals_of
from dualstream_lab.recording.joined import join

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.lab.isolation.blocks import Timing
    from dualstream_lab.recording import RunDirectory
    from dualstream_lab.recording.joined import Joined

__all__ = ["Figures", "figures_of"]

_PREFIX = "error: "
_FAILED = ("rejected", "unknown", "no_room", "pending", "unsent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Times in ms, but ``live_again``: s from the fault's end until a subscriber heard of an event that was
    published after it, None where that did not happen (or there was no fault).

    ``spent``: publish, from the intended time, of the events intended in the judged part, as counted by
    :mod:`dualstream_lab.analysis.paired`; a failed one counts as +inf. ``p50``, ``p99``: of it.
    ``failed``: by kind. ``missing``: acknowledged and not in the topic; ``twice``: more than once in it.
    ``nameless``: records without an id; ``wrong_source``: with an event's id and another source, which are
    other events. ``unread``: what of the topic was not read, and why. ``notified`` is None, and ``dropped``
    empty, where the publisher has no counters. ``stall``: the longest that the publisher's event loop did not
    serve a timer. ``others``: cores that other programs used meanwhile.
    """

    arm: str
    state: str
    begin: int
    seconds: float
    intended: int
    durable: int
    failed: dict[str, int]
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
    longest: float
    notified: int | None
    dropped: dict[str, int]
    heard: int
    orphans: int
    stall: float
    cpu: float
    rss: tuple[float, float]
    others: float = 0.0
    live_again: float | None = None
    bite: str = ""
    over: str = ""
    example: tuple[str, ...] = field(default=())

    @property
    def unaccounted(self) -> int:
        """Durable events that were neither notified nor counted as dropped."""
        return 0 if self.notified is None else self.durable - self.notified - sum(self.dropped.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self) | {"unaccounted": self.unaccounted}
        del found["spent"]
        return found


def figures_of(directory: RunDirectory, timing: Timing, *, names: bool = True) -> Figures:
    """Raises RecordingError. ``names``: also the ids of some events that are missing."""
    manifest = directory.manifest
    joined = join(directory)
    totals = totals_of(directory)
    count, peak = totals.counters.get, totals.peaks.get
    ours = any(name == "publisher.redis_up" for name in totals.peaks)
    lost = joined.durable & (joined.consumed == 0)
    caught_up = bool(peak("consumed.caught_up", 0))
    fault = manifest.faults[0] if manifest.faults else None
    spent = _publish(joined, manifest.started, timing, unsent=count("unsent", 0))
    p50, p99, longest = _percentiles(spent)
    late = count("late", 0) if ours else 0
    return Figures(
        arm=manifest.name,
        state=manifest.state,
        begin=manifest.started,
        seconds=max(0, manifest.ended - manifest.started) / 1e9,
        intended=len(joined) + count("unsent", 0),
        durable=count("durable", 0) + late,
        failed={kind: number for kind in _FAILED if (number := count(kind, 0))},
        errors={n.removeprefix(_PREFIX): c for n, c in totals.counters.items() if n.startswith(_PREFIX)},
        missing=int(np.count_nonzero(lost)) if caught_up else 0,
        twice=joined.consumed_again,
        nameless=count("nameless", 0),
        wrong_source=count("wrong_source", 0),
        caught_up=caught_up,
        unread=tuple(name.removeprefix(UNREAD) for name in totals.counters if name.startswith(UNREAD)),
        spent=counts_of(spent),
        p50=p50,
        p99=p99,
        longest=longest,
        notified=count("notified", 0) if ours else None,
        dropped={
            n.removeprefix("dropped: "): c for n, c in totals.counters.items() if n.startswith("dropped: ")
        },
        heard=count("heard", 0),
        orphans=joined.orphans,
        stall=peak("published.loop_lag_ms", 0.0),
        cpu=peak("published.cpu", 0.0),
        rss=(peak("published.rss_begin_mib", 0.0), peak("published.rss_mib", 0.0)),
        others=peak("machine.others", 0.0),
        live_again=_live_again(joined, fault.end) if fault is not None else None,
        bite=fault.bite if fault is not None else "",
        over=fault.over if fault is not None else "",
        example=tuple(f"{manifest.ids}{seq:012x}" for seq in joined.seq[lost][:3].tolist()) if names else (),
    )


def _publish(joined: Joined, zero: int, timing: Timing, *, unsent: int) -> npt.NDArray[np.float64]:
    """From intended to acknowledged, ms, of the judged part; +inf for what failed."""
    begin = zero + round(timing.head * 1e9)
    end = begin + round(timing.length * 1e9)
    judged = (joined.intended >= begin) & (joined.intended < end)
    spent = np.where(joined.durable, (joined.acked - joined.intended) / 1e6, np.inf)[judged]
    if unsent:  # what was never sent fell due last, and mostly in the judged part
        spent = np.concatenate([spent, np.full(unsent, np.inf)])
    return spent


def _percentiles(spent: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """p50, p99 and maximum."""
    if not len(spent):
        return float("nan"), float("nan"), float("nan")
    p50, p99, longest = np.quantile(spent, [0.5, 0.99, 1.0], method="inverted_cdf")
    return float(p50), float(p99), float(longest)


def _live_again(joined: Joined, ended: int) -> float | None:
    heard = joined.heard[(joined.sent > ended) & (joined.heard > 0)]
    return float(heard.min() - ended) / 1e9 if ended and len(heard) else None
