"""Runs too big for a row an event: counts and histograms by second, of all events, and rows of a sample."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualstream_lab.recording import DROPS, sampled
from dualstream_lab.recording import Outcome as Told
from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from dualstream_lab.simulation.engine.simulate import Outcome

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["EDGES", "LATENCIES", "Bins", "bin_of", "binned", "tally"]

_LEAST: Final = 1e-6  # s
_WIDTH: Final = float(np.log(1.01))
_BINS: Final = 2400  # up to 6 hours
EDGES: Final = _LEAST * np.exp(_WIDTH * np.arange(_BINS + 1))
"""Of the histograms' bins, s; the first bin has all that is smaller, the last all that is bigger."""

LATENCIES: Final = {
    "publish": ("intended", "acked"),
    "publish_raw": ("sent", "acked"),
    "slip": ("intended", "sent"),
    "live": ("intended", "heard"),
    "live_raw": ("sent", "heard"),
    "live_delay": ("acked", "heard"),
    "durable": ("intended", "consumed"),
}
"""Names of the histograms, and from what to what; each is counted in the second of its end."""

_OUTCOMES: Final = {
    "durable": Told.DURABLE,
    "rejected": Told.REJECTED,
    "unknown": Told.UNKNOWN,
    "no_room": Told.NO_ROOM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """One entry a second, from the plan's zero, in every array.

    ``counts``: events that were ``sent``, ``durable``, ``rejected``, ``unknown``, ``no_room``, ``consumed``,
    ``heard`` (live), ``caught_up`` (heard by repair) and ``dropped: <reason>``. ``latencies``: uint32,
    (seconds, len(EDGES) - 1), by name (``LATENCIES``). ``missing``: durable events that never were heard or
    consumed, of the whole run, for ``live`` and ``durable``. ``levels``, at the end of each second:
    ``buffered`` (events, of all publishers), ``lag`` (records in the log and not consumed) and ``queued``
    (notifications, of all publishers; of a long run the most in each second of an outage, else 0). ``busy``:
    as in Outcome. ``rows``: one event in ``every``.
    """

    counts: Mapping[str, Integers]
    latencies: Mapping[str, npt.NDArray[np.uint32]]
    missing: Mapping[str, int]
    levels: Mapping[str, Integers]
    busy: Mapping[str, Floats]
    rows: Outcome
    every: int

    @property
    def seconds(self) -> int:
        """How many there are."""
        return len(self.counts["sent"])

    def quantile(self, name: str, share: float) -> float:
        """Of all latencies of this name that have an end, s, as the upper edge of a bin; NaN of none."""
        counts = self.latencies[name].sum(axis=0, dtype=np.int64)
        if not counts.any():
            return float("nan")
        place = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return float(EDGES[place + 1])


@kernel
def bin_of(latency: float) -> int:
    """Which bin it belongs to."""
    if latency <= _LEAST:
        return 0
    return min(int(np.log(latency / _LEAST) / _WIDTH), _BINS - 1)


@kernel
def tally(into: npt.NDArray[np.uint32], begin: Floats, end: Floats, weight: int) -> None:
    """Add the latencies from ``begin`` to ``end``, each ``weight`` times; those that are NaN are none."""
    for place in range(len(end)):
        if not np.isnan(end[place]):
            into[int(end[place]), bin_of(end[place] - begin[place])] += weight


def binned(outcome: Outcome, every: int = 1) -> Bins:
    """Of all rows of a run; one in ``every`` is kept as a row."""
    ends = (outcome.settled, outcome.heard, outcome.consumed)
    seconds = int(max(np.nanmax(end, initial=0.0) for end in ends)) + 1
    live = np.where(outcome.late, np.nan, outcome.heard)

    def by_second(times: Floats) -> Integers:
        return np.bincount(times[~np.isnan(times)].astype(np.int64), minlength=seconds)

    counts = {"sent": by_second(outcome.sent), "consumed": by_second(outcome.consumed)}
    for name, told in _OUTCOMES.items():
        counts[name] = by_second(outcome.settled[outcome.outcome == told])
    counts["heard"], counts["caught_up"] = by_second(live), by_second(outcome.heard[outcome.late])
    for reason in np.unique(outcome.reason[outcome.reason >= 0]).tolist():
        counts[f"dropped: {DROPS[reason]}"] = by_second(outcome.dropped[outcome.reason == reason])
    latencies = {}
    for name, (begin, end) in LATENCIES.items():
        latencies[name] = np.zeros((seconds, _BINS), np.uint32)
        tally(latencies[name], getattr(outcome, begin), getattr(outcome, end), 1)
    durable = outcome.outcome == Told.DURABLE
    left = np.isnan(outcome.entered) | np.isnan(outcome.settled)
    gone = np.fmin(outcome.dropped, live)
    waits = durable & ~np.isnan(gone)
    return Bins(
        counts=counts,
        latencies=latencies,
        missing={
            "live": int(np.isnan(outcome.heard[durable]).sum()),
            "durable": int(np.isnan(outcome.consumed[durable]).sum()),
        },
        levels={
            "buffered": np.cumsum(by_second(outcome.entered[~left]) - by_second(outcome.settled[~left])),
            "lag": np.cumsum(by_second(outcome.logged) - counts["consumed"]),
            "queued": np.cumsum(by_second(outcome.acked[waits]) - by_second(gone[waits])),
        },
        busy={name: busy[:, :seconds] for name, busy in outcome.busy.items()},
        rows=outcome if every == 1 else _some(outcome, sampled(outcome.seq, every)),
        every=every,
    )


def _some(outcome: Outcome, which: npt.NDArray[np.bool_]) -> Outcome:
    """Only those rows."""
    arrays = [one.name for one in fields(outcome) if isinstance(getattr(outcome, one.name), np.ndarray)]
    return replace(outcome, busy={}, **{name: getattr(outcome, name)[which] for name in arrays})
