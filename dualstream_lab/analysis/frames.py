"""A run directory as tidy frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from dualstream_lab.analysis.tally import HasPath, open_run
from dualstream_lab.ledger.seconds import UNREAD
from dualstream_lab.recording import Manifest, RunDirectory
from dualstream_lab.recording.joined import Joined, join
from dualstream_lab.recording.rows import Flags, Int64

if TYPE_CHECKING:
    import numpy.typing as npt


_KINDS: Final = ("published", "delivered", "consumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One run. Times ``…_s`` are seconds after the plan's zero; latencies ``…_ms`` are ms, NaN for "never".

    ``events``: a row a recorded event, by intended time:

    ==================  =======================================================================
    ``seq``             its number in the plan
    ``source``          the popularity rank of its source, 0 the most popular
    ``outcome``         0 pending, 1 durable, 2 rejected, 3 unknown, 4 no room
    ``intended_s``      when the plan wanted it sent
    ``slip_ms``         intended to sent
    ``publish_ms``      intended to Kafka's acknowledgement; ``publish_raw_ms``: from sent
    ``live_ms``         intended to the first subscriber's read; ``live_raw_ms``: from sent
    ``delay_ms``        acknowledgement to the first subscriber's read (may be just below zero)
    ``consumed_ms``     intended to the Kafka consumer's read
    ==================  =======================================================================

    """

    name: str
    events: pd.DataFrame
    seconds: pd.DataFrame  #: a row an interval: ``writer``, ``at_s``, ``length_s``, every counter and gauge
    faults: pd.DataFrame  #: ``fault``, ``begin_s``, ``end_s``
    manifest: Manifest
    sample: int  #: one event in so many has a row
    problems: tuple[str, ...]  #: what could not be read
    has: frozenset[str]  #: which of ``published``, ``delivered`` and ``consumed`` were recorded

    @property
    def duration(self) -> float:
        """Seconds, as planned."""
        return float(self.manifest.workload["duration"])

    @property
    def length(self) -> float:
        """Seconds until the last answer, where that was a second or more after the plan's end."""
        answered = self.seconds.get("published.seconds")
        last = 0.0 if answered is None else float(answered.max())
        return last if last >= self.duration + 1 else self.duration


def load(run: HasPath | Path | str) -> Frames:
    """Read a run: a ``Run``, or the path of a run directory, also one whose writers died.

    Raises RecordingError for what is not a run directory. Ten million events take seconds and < 2 GB.
    """
    directory = open_run(run)
    manifest, joined = directory.manifest, join(directory)
    zero = manifest.started or (int(joined.intended.min()) if len(joined) else 0)
    has = frozenset(kind for kind in _KINDS if any(directory.path.glob(f"{kind}-*.parquet")))
    events = _events(joined, zero)
    del joined
    pa.default_memory_pool().release_unused()  # it would keep as much again as the frame is big
    seconds = _seconds(directory, zero)
    unread = [name for name in seconds.columns if name.startswith(UNREAD)]
    problems = [*directory.problems]
    problems += [f"the Kafka consumer did not read all: {name.removeprefix(UNREAD)}" for name in unread]
    problems += [f"no {kind} rows were recorded" for kind in _KINDS if kind not in has]
    if manifest.state == "running":
        problems.append("the run did not end: its writers died, or it still runs")
    return Frames(
        name=manifest.name, events=events, seconds=seconds.drop(columns=unread), manifest=manifest,
        faults=_faults(manifest, zero), sample=manifest.sample, problems=tuple(problems), has=has,
    )  # fmt: skip


class _Judged(Protocol):
    @property
    def measures(self) -> Mapping[str, float]: ...
    @property
    def limit(self) -> str: ...
    @property
    def directory(self) -> RunDirectory: ...


def compare(runs: Iterable[_Judged]) -> pd.DataFrame:
    """A row a run, by ``rate``: its workload's ``rate`` and ``plan``, every measure (ms, counts, shares), and
    ``limit``, the sentence about who saturated.
    """
    rows = [
        {
            "run": run.directory.path.name,
            "rate": float(run.directory.manifest.workload["rate"]),
            "plan": run.directory.manifest.workload["plan"],
            **run.measures,
            "limit": run.limit,
        }
        for run in runs
    ]
    return pd.DataFrame(rows).sort_values("rate", ignore_index=True)


def _events(joined: Joined, zero: int) -> pd.DataFrame:
    def spent(begin: Int64, end: Int64, among: Flags | None = None) -> npt.NDArray[np.float32]:
        found = (end - begin).astype(np.float32)
        found /= 1e6
        found[end == 0] = np.nan
        if among is not None:
            found[~among] = np.nan
        return found

    durable = joined.durable
    frame = pd.DataFrame(
        {
            "seq": joined.seq,
            "source": joined.source.astype(np.int32),
            "outcome": joined.outcome.astype(np.int8),
            "intended_s": (joined.intended - zero) / 1e9,
            "slip_ms": spent(joined.intended, joined.sent),
            "publish_ms": spent(joined.intended, joined.acked, durable),
            "publish_raw_ms": spent(joined.sent, joined.acked, durable),
            "live_ms": spent(joined.intended, joined.delivered),
            "live_raw_ms": spent(joined.sent, joined.delivered),
            "delay_ms": spent(joined.acked, joined.delivered, durable),
            "consumed_ms": spent(joined.intended, joined.consumed),
        },
        copy=False,
    )
    if not frame["intended_s"].is_monotonic_increasing:
        frame = frame.sort_values("intended_s", kind="stable", ignore_index=True)
    return frame


def _seconds(directory: RunDirectory, zero: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "writer": interval.writer,
            "at_s": (interval.end - zero) / 1e9,
            "length_s": (interval.end - interval.begin) / 1e9,
            **interval.counters,
            **interval.gauges,
        }
        for interval in directory.intervals()
    ]
    frame = pd.DataFrame(rows, columns=None if rows else ["writer", "at_s", "length_s"])
    return frame.sort_values("at_s", ignore_index=True)


def _faults(manifest: Manifest, zero: int) -> pd.DataFrame:
    end = manifest.ended or max((fault.begin for fault in manifest.faults), default=0)
    rows = [
        {"fault": f.name, "begin_s": (f.begin - zero) / 1e9, "end_s": ((f.end or end) - zero) / 1e9}
        for f in manifest.faults
    ]
    return pd.DataFrame(rows, columns=["fault", "begin_s", "end_s"])
