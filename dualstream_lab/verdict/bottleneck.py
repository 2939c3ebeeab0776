"""Who saturated, and the figures that say so: rules that compare what the processes had to do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from dualstream_lab.verdict.measures import Totals, machine_share
from dualstream_lab.verdict.rules import Rule, sentences

_SLIP = 20.0  # ms of schedule slip, p99: beyond it the plan was not kept
_BUSY = 0.9  # of a core
_FULL = 0.95  # of all cores
_BUFFER = 0.8  # of the publisher's room
_OUTPUT = 8.0  # MiB: Redis's soft limit for a subscriber
_SLOW_ANSWER = 200.0  # ms
_PAUSE = 3.0  # ms of a collection: with what follows it, more than the brokers take


class Load:
    """The figures that the rules compare: times in ms, CPU as a share of one core; 0 where unknown."""

    def __init__(
        self, measures: Mapping[str, float], whole: Totals, concurrency: int, batch: int, buffer_events: int
    ) -> None:
        def measure(name: str) -> float:
            return measures.get(name, 0.0)

        def peak(gauge: str) -> float:
            return whole.peaks.get(gauge, 0.0)

        self.cpu, self.lag = peak("published.cpu"), peak("published.loop_lag_ms")
        self.subscribers_cpu, self.consumer_cpu = peak("delivered.cpu"), peak("consumed.cpu")
        self.redis_cpu, self.redis_output = peak("redis.cpu"), peak("redis.output_buffer") / 2**20
        self.kafka_answer = peak("kafka.answer_ms")
        self.pause, self.subscribers_pause = peak("published.gc_pause_ms"), peak("delivered.gc_pause_ms")
        self.publish, self.live = measure("publish.latency.p99"), measure("live.latency.p99")
        self.in_flight, self.concurrency = peak("published.in_flight"), concurrency
        self.buffered = peak("publisher.buffered_events")
        self.machine = machine_share(whole.counters)
        self.slip, self.rejected = measure("generator.slip.p99"), measure("publish.rejected")
        self.answer, self.slowest = measure("publish.latency_raw.p50"), measure("publish.latency_raw.p99")
        self.late = self.slip > _SLIP
        self.refused = measure("publish.no_room") > 0
        self.behind = self.late or self.refused or measures.get("publish.rate", 1.0) < 0.95
        # Little's law: how many calls the answers kept open.
        needed = measure("publish.events_per_second") / batch * self.answer / 1e3
        # All calls were open at some time: in an outage of Kafka; or as the generator had stalled so long.
        blocked = self.in_flight >= concurrency and self.slip > 2 * self.lag
        waiting = self.buffered >= _BUFFER * buffer_events
        self.full = self.refused or blocked or waiting or needed >= 0.7 * concurrency

    @property
    def answers(self) -> str:
        """How long Kafka took to acknowledge."""
        p50, p99 = ("for ever" if math.isinf(t) else f"{t:,.0f} ms" for t in (self.answer, self.slowest))
        return f"{p50} (p50) and {p99} (p99)"


PUBLISHING: Final[Sequence[Rule[Load]]] = (
    Rule("refusals", lambda load: load.rejected and math.isinf(load.answer),
         "Kafka refused {0.rejected:,.0f} events"),
    # Late though more calls could be open: then nobody but the generator itself held the events back.
    Rule("generator", lambda load: load.late and (load.cpu >= _BUSY or not load.full),
         "your generator was the limit: {0.cpu:.2f} of one core, its loop up to {0.lag:,.0f} ms late, "
         "events sent {0.slip:,.0f} ms after their time (p99)"),
    Rule("Kafka", lambda load: load.full and load.behind,
         "Kafka was the limit: answers took {0.answers}, {0.in_flight:,.0f} of {0.concurrency:,} calls were "
         "open, {0.buffered:,.0f} events waited in the buffer"),
)  # fmt: skip
"""Of these, the first that applies is said."""

PARTIES: Final[Sequence[Rule[Load]]] = (
    Rule("Redis", lambda load: load.redis_cpu >= _BUSY,
         "Redis was busy: {0.redis_cpu:.2f} of its one core"),
    Rule("slow client", lambda load: load.redis_output >= _OUTPUT,
         "Redis kept {0.redis_output:,.0f} MiB for a client that reads slowly"),
    Rule("subscribers", lambda load: load.subscribers_cpu >= _BUSY,
         "the subscribers' process was busy: {0.subscribers_cpu:.2f} of one core"),
    Rule("consumer", lambda load: load.consumer_cpu >= _BUSY,
         "the Kafka consumer was busy: {0.consumer_cpu:.2f} of one core"),
)  # fmt: skip
"""Of these, each that applies is said."""

ANSWERS: Final = Rule[Load](
    "slow answers", lambda load: load.kafka_answer >= _SLOW_ANSWER,
    "Kafka answered a small request in {0.kafka_answer:,.0f} ms at worst",
)  # fmt: skip
"""Said where none of those above is."""
MACHINE: Final = Rule[Load](
    "machine", lambda load: load.machine >= _FULL,
    "all cores of this machine were busy ({0.machine:.0%}), whoever it was",
)  # fmt: skip
PAUSES: Final[Sequence[Rule[Load]]] = (
    Rule("collector", lambda load: load.pause >= max(_PAUSE, load.publish / 2),
         "latencies have the generator's own pauses: Python's garbage collector stopped it for up to "
         "{0.pause:.0f} ms"),
    Rule("collector of subscribers", lambda load: load.subscribers_pause >= max(_PAUSE, load.live / 2),
         "live latencies have the subscribers' own pauses: the garbage collector stopped them for up to "
         "{0.subscribers_pause:.0f} ms"),
)  # fmt: skip
"""Said beside all else: what the measuring itself added, where it is half of what was measured (p99)."""
_NOTHING: Final = (
    "nothing was at its limit: events sent {0.slip:.1f} ms after their time (p99), generator at {0.cpu:.2f} "
    "of one core"
)


def limit_sentence(
    measures: Mapping[str, float], whole: Totals, *, concurrency: int, batch: int, buffer_events: int,
    faults: bool = False,
) -> str:  # fmt: skip
    """Who saturated, with the figures that say so. ``concurrency``: calls of ``batch`` events that may be
    open at once; ``buffer_events``: the room in the publisher's buffer; ``faults``: some were on the way.
    """
    load = Load(measures, whole, concurrency, batch, buffer_events)
    found = sentences(PUBLISHING, load)[:1] + sentences(PARTIES, load)
    found = (found or sentences([ANSWERS], load)) + sentences([MACHINE], load)
    limit = "; ".join(found) + " (with faults on the way)" * faults if found else _NOTHING.format(load)
    return "; ".join([limit, *sentences(PAUSES, load)])
