"""The named measures of a run, from its directory alone.

Latencies are in ms and count what never arrived as +inf; beside them stand the share that is missing and, as
``…_arrived``, the percentiles of those that did arrive. Without a suffix they begin at the *intended* time;
``…_raw`` begins at the time of sending.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dualstream_lab.ledger import Ledger
from dualstream_lab.recording import Interval, LatencyHistogram, RunDirectory, drops_of
from dualstream_lab.recording.joined import Joined, durable_lag, join
from dualstream_lab.recording.rows import Int64
from dualstream_lab.workload import Workload

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

_LATENCIES: Final = {
    "publish.latency": ("publish", "from when an event was due until Kafka acknowledged it"),
    "publish.latency_raw": ("publish_raw", "from when an event was sent until Kafka acknowledged it"),
    "live.latency": ("live", "from when an event was due until a subscriber received it"),
    "live.latency_raw": ("live_raw", "from when an event was sent until a subscriber received it"),
    "live.delay": ("live_delay", "from Kafka's acknowledgement until a subscriber received it"),
    "durable.latency": ("durable", "from when an event was due until the Kafka consumer read it"),
    "generator.slip": ("slip", "from when an event was due until it was sent"),
}

_COUNTS: Final = {
    "publish.intended": "events that the plan wanted sent",
    "publish.durable": "events that Kafka acknowledged",
    "publish.rejected": "events that Kafka refused",
    "publish.unknown": "events not acknowledged by the deadline",
    "publish.no_room": "events that found the publisher's buffer full",
    "publish.unsent": "events that were due and not sent when the run was stopped",
    "publish.errors": "all of these",
    "publish.rate": "durable events/s as a share of the intended rate",
    "publish.events_per_second": "durable events/s",
    "publish.missing": "share of the intended events that are not durable",
    "live.notified": "notifications that Redis took",
    "live.dropped": "notifications that the publisher gave up",
    "live.delivered": "notifications that subscribers received, and events that a gateway gave them later",
    "live.missing": "share of the durable events that no subscriber received",
    "live.repeated": "notifications that a subscriber received again",
    "live.skipped": "notifications that a subscriber missed between others that it received (Locust)",
    "live.gaps": "times that a gateway could not tell a subscriber what it had missed (Locust, --via ws|sse)",
    "live.recovered": "events that a gateway found by repair, not as they happened (Locust, --via ws|sse)",
    "live.other_epoch": "notifications of another log on the same Redis, which were ignored",
    "live.subscriptions": "connections that were subscribed, at most",
    "durable.consumed": "records that the Kafka consumer read",
    "durable.repeated": "records that were in the log again",
    "durable.lag.messages.max": "records that the consumer was behind, at worst",
    "ledger.lost": "acknowledged events that are not in Kafka",
    "ledger.orphan": "events that were delivered, and are not in Kafka",
    "generator.cpu": "CPU of the generator, the worst second, in cores",
    "redis.cpu": "CPU of Redis, the worst second, in cores",
    "redis.output_buffer": "bytes that Redis kept for its slowest client, at most",
    "publisher.buffered_events": "events in the publisher's buffer, at most",
}
_WAITS: Final = {
    "durable.lag.max": "how long the oldest acknowledged record waited for the consumer, at worst",
    "durable.lag.p99": "the same, 99 % of the time",
    "generator.loop_lag": "how late the generator's event loop served a timer, at worst",
    "generator.gc_pause": "how long Python's garbage collector stopped the generator, at worst",
    "durable.gc_pause": "how long Python's garbage collector stopped the Kafka consumer, at worst",
    "live.gc_pause": "how long Python's garbage collector stopped the subscribers' process, at worst",
    "kafka.answer": "Kafka's answer to a small request, at worst",
    "redis.answer": "Redis's answer to a small request, at worst",
}

_UNITS: Final = {
    "publish.rate": "share", "publish.missing": "share", "live.missing": "share",
    "generator.cpu": "cores", "redis.cpu": "cores", **dict.fromkeys(_WAITS, "ms"),
}  # fmt: skip

_PEAKS: Final = {
    "live.subscriptions": "delivered.subscriptions", "durable.lag.messages.max": "consumed.lag_messages",
    "generator.cpu": "published.cpu", "generator.loop_lag": "published.loop_lag_ms",
    "generator.gc_pause": "published.gc_pause_ms", "live.gc_pause": "delivered.gc_pause_ms",
    "durable.gc_pause": "consumed.gc_pause_ms",
    "redis.cpu": "redis.cpu", "redis.output_buffer": "redis.output_buffer",
    "kafka.answer": "kafka.answer_ms", "redis.answer": "redis.answer_ms",
    "publisher.buffered_events": "publisher.buffered_events",
}  # fmt: skip
"""Measures that are a gauge at its worst."""

_ARRIVED: Final = ("publish.latency", "live.latency")
_PARTS: Final = {"p50": "half", "p90": "90 %", "p99": "99 %", "p99.9": "99.9 %", "max": "all"}

MEASURES: Final[Mapping[str, str]] = {
    **{
        f"{name}.{q}": f"{says}: {_PARTS[q]} took at most so long"
        for name, says in (
            *((name, says) for name, (_, says) in _LATENCIES.items()),
            *((f"{name}_arrived", f"the same as {name}, of those alone that arrived") for name in _ARRIVED),
        )
        for q in QUANTILES
    },
    **_COUNTS,
    **_WAITS,
}
"""Every name that a threshold may use, and what it is."""


def unit_of(name: str) -> str:
    """``ms``, ``share`` (0 to 1) or ``cores``; empty for what is counted, and for what is no measure."""
    kind = ".".join(name.split(".")[:2]).removesuffix("_arrived")
    return "ms" if kind in _LATENCIES else _UNITS.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The intervals of all processes, added up. ``peaks``: the highest value of every gauge.

    ``since``: gauges count only of intervals that ended after it (ns): what went before is no load.
    """

    since: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    peaks: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, LatencyHistogram] = field(default_factory=dict)

    def add(self, interval: Interval) -> None:
        """Add an interval to the totals."""
        self.counters.update(interval.counters)
        for name, histogram in interval.histograms.items():
            self.histograms.setdefault(name, LatencyHistogram()).add(histogram)
        if interval.end > self.since:
            for name, value in interval.gauges.items():
                self.peaks[name] = max(value, self.peaks.get(name, value))


def machine_share(counters: Mapping[str, int]) -> float:
    """The share of all cores that anybody used, from a run's sums."""
    busy, idle = (counters.get(f"machine.{kind}_ms", 0) for kind in ("busy", "idle"))
    return busy / max(1, busy + idle)


def totals_of(directory: RunDirectory) -> Totals:
    """The totals of a run, whose gauges count from the begin of its load on."""
    whole = Totals(since=directory.manifest.started)
    for interval in directory.intervals():
        whole.add(interval)
    return whole


def measures(directory: RunDirectory, whole: Totals, ledger: Ledger) -> dict[str, float]:
    """Every measure that the run has. A measure that it cannot have (no rows, no listener) is left out."""
    joined = join(directory)
    histograms = dict(whole.histograms)
    _add_live(histograms, whole, joined)
    found = _counted(directory, whole, joined)
    if ledger.lost is not None and len(joined):
        found["ledger.lost"] = ledger.lost
    if ledger.orphans is not None and len(joined) and "delivered" in whole.counters:
        found["ledger.orphan"] = ledger.orphans
    for name, (key, _) in _LATENCIES.items():
        if histogram := histograms.get(key):
            for q, share in QUANTILES.items():
                found[f"{name}.{q}"] = histogram.quantile(share)
                if name in _ARRIVED:
                    found[f"{name}_arrived.{q}"] = histogram.quantile(share, arrived_only=True)
    if "live" in histograms and histograms["live"].count:
        found["live.missing"] = histograms["live"].missing / histograms["live"].count
    _add_lag(found, joined, whole)
    return found


def _add_live(histograms: dict[str, LatencyHistogram], whole: Totals, joined: Joined) -> None:
    """Add the latencies that two processes measured together, from their rows."""
    durable = joined.durable
    if not len(joined):
        return
    pairs: dict[str, tuple[Int64, Int64]] = {}
    if "live" not in histograms and "delivered" in whole.counters:
        pairs |= {
            "live": (joined.intended, joined.delivered),
            "live_raw": (joined.sent, joined.delivered),
            "live_delay": (joined.acked, joined.delivered),
        }
    if "consumed" in whole.counters:
        pairs["durable"] = (joined.intended, joined.consumed)
    for name, (begin, end) in pairs.items():
        there = durable & (end > 0)
        histogram = histograms[name] = LatencyHistogram()
        # An ack and its notification cross two sockets: a subscriber may be before the caller.
        spent = end[there] - begin[there]
        histogram.record(np.maximum(spent, 0) if name == "live_delay" else spent)
        histogram.missing = int(np.count_nonzero(durable & (end == 0)))


def _counted(directory: RunDirectory, whole: Totals, joined: Joined) -> dict[str, float]:
    counters, peaks = whole.counters, whole.peaks
    names = ("durable", "rejected", "unknown", "no_room", "unsent")
    found: dict[str, float] = {f"publish.{name}": counters[name] for name in names}
    durable = counters["durable"]
    found["publish.intended"] = intended = sum(counters[name] for name in (*names, "pending"))
    found["publish.errors"] = intended - durable
    if intended:
        found["publish.missing"] = 1 - durable / intended
        found |= _rates(directory, durable, whole)
    found["live.notified"] = counters["notified"]
    found["live.dropped"] = sum(drops_of(counters).values())
    if "delivered" in counters:
        found["live.delivered"] = counters["delivered"] + counters["caught_up"]
        found["live.repeated"] = joined.delivered_again
        more = ("gaps", "recovered") if peaks.get("delivered.via_gateway") else ("skipped",)
        found |= {f"live.{name}": counters[name] for name in ("other_epoch", *more)}
    if "consumed" in counters:
        found["durable.consumed"] = counters["consumed"]
        found["durable.repeated"] = joined.consumed_again
    return found | {name: peaks[gauge] for name, gauge in _PEAKS.items() if gauge in peaks}


def _rates(directory: RunDirectory, durable: int, whole: Totals) -> dict[str, float]:
    """The rate that was achieved, and its share of the intended one, over the same stretch: until the plan's
    end or the last answer.
    """
    manifest = directory.manifest
    workload = Workload.load(manifest.workload)
    seconds = whole.peaks.get("published.seconds", math.nan)
    if not seconds > 0:
        return {}
    rate = durable / max(seconds, 1e-9)
    if workload.plan == "closed":
        return {"publish.events_per_second": rate}
    stopped = manifest.state != "finished" and seconds < workload.duration
    planned = min(seconds, workload.duration) if stopped else workload.duration
    grid = np.linspace(0, planned, 4097)
    mean = float(np.trapezoid(workload.intended_rate(grid), grid)) / planned
    # One answer's time after the end of the plan is not a lower rate.
    late = max(0.0, seconds - planned - 1.0)
    achieved = durable / (planned + late)
    return {"publish.events_per_second": achieved, "publish.rate": achieved / mean}


def _add_lag(values: dict[str, float], joined: Joined, whole: Totals) -> None:
    if "consumed" not in whole.counters or not len(joined):
        return
    durable = joined.durable
    acked, consumed = joined.acked[durable], joined.consumed[durable]
    if not len(acked):
        return
    at = np.arange(acked.min(), max(acked.max(), consumed.max()), 10_000_000)
    lag = durable_lag(acked, consumed, at) * 1e3
    if len(lag):
        values["durable.lag.max"] = float(lag.max())
        values["durable.lag.p99"] = float(np.quantile(lag, 0.99))
