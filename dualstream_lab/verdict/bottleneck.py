"""Who saturated, and the figures that say so. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualstream_lab.verdict.measures import Totals

_SLIP = 20.0  # ms of schedule slip, p99: beyond it the plan was not kept
_BUSY = 0.9  # of a core
_FULL = 0.95  # of all cores
_BUFFER = 0.8  # of the publisher's room
_OUTPUT = 8 * 2**20  # bytes: Redis's soft limit for a subscriber
_SLOW_ANSWER = 200.0  # ms
_FULL_PARTS = (
    ("redis.cpu", _BUSY, "Redis was busy: {:.2f} of its one core"),
    ("redis.output_buffer", _OUTPUT, "Redis kept {mib:,.0f} MiB for a client that reads slowly"),
    ("delivered.cpu", _BUSY, "the subscribers' process was busy: {:.2f} of one core"),
    ("consumed.cpu", _BUSY, "the Kafka consumer was busy: {:.2f} of one core"),
)


def limit_sentence(
    measures: Mapping[str, float], whole: Totals, *, concurrency: int, batch: int, buffer_events: int,
    faults: bool = False,
) -> str:  # fmt: skip
    """Who saturated, with the figures that say so. ``concurrency``: open calls, at most, of ``batch``."""
    found: list[str] = []
    peaks = whole.peaks
    gauges = ("published.cpu", "published.loop_lag_ms", "published.in_flight", "publisher.buffered_events")
    cpu, lag, in_flight, buffered = (peaks.get(name, 0.0) for name in gauges)
    answer = measures.get("publish.latency_raw.p50", 0.0)
    slip = measures.get("generator.slip.p99", 0.0)
    rejected = measures.get("publish.rejected", 0.0)
    late, kept = slip > _SLIP, measures.get("publish.rate", 1.0) >= 0.95
    # Little's law: how many calls the answers kept open.
    busy = measures.get("publish.events_per_second", 0.0) / batch * answer / 1e3
    # All calls were open at some time: in an outage of Kafka; or as the generator had stalled so long.
    blocked = in_flight >= concurrency and slip > 2 * lag
    refused = measures.get("publish.no_room", 0) > 0
    full = refused or blocked or busy >= 0.7 * concurrency or buffered >= _BUFFER * buffer_events
    if rejected and math.isinf(answer):
        found.append(f"Kafka refused {rejected:,.0f} events")
    # Late though more calls could be open: then nobody but the generator itself held the events back.
    elif late and (cpu >= _BUSY or not full):
        found.append(
            f"your generator was the limit: {cpu:.2f} of one core, its loop up to {lag:,.0f} ms late, "
            f"events sent {slip:,.0f} ms after their time (p99)"
        )
    elif full and (late or not kept or refused):
        slowest = measures.get("publish.latency_raw.p99", 0.0)
        found.append(
            f"Kafka was the limit: answers took {_ms(answer)} (p50) and {_ms(slowest)} (p99), "
            f"{in_flight:,.0f} of {concurrency:,} calls were open, {buffered:,.0f} events waited in the "
            "buffer"
        )
    for gauge, most, text in _FULL_PARTS:
        if peaks.get(gauge, 0) >= most:
            found.append(text.format(peaks[gauge], mib=peaks[gauge] / 2**20))
    if peaks.get("kafka.answer_ms", 0) >= _SLOW_ANSWER and not found:
        found.append(f"Kafka answered a small request in {peaks['kafka.answer_ms']:,.0f} ms at worst")
    busy_ms, idle_ms = (whole.counters.get(f"machine.{kind}_ms", 0) for kind in ("busy", "idle"))
    used = busy_ms / max(1, busy_ms + idle_ms)
    if used >= _FULL:
        found.append(f"all cores of this machine were busy ({used:.0%}), whoever it was")
    if not found:
        return (
            f"nothing was at its limit: events sent {slip:.1f} ms after their time (p99), "
            f"generator at {cpu:.2f} of one core"
        )
    return "; ".join(found) + " (with faults on the way)" * faults


def _ms(value: float) -> str:
    return "for ever" if math.isinf(value) else f"{value:,.0f} ms"
