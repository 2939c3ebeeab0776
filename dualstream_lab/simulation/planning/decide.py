"""Which stream an event belongs on: the pattern's decision tree, with the figures behind each answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import listening, station
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.planning.plan import PUBLISHED, way
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.simulation.planning.sizing import size
from dualstream_lab.simulation.planning.trial_run import rehearse
from dualstream_lab.units import count, many, percent, seconds

_FAST: Final = 10_000  # events/s, from which one call and one exchange an event cost too much
_MANY: Final = 100  # subscribers of a channel; with fewer there are hardly more of them than gateways
_LONG: Final = 1e-3  # s that Redis may write one event to its subscribers: everybody else waits meanwhile
_BUSY: Final = 0.6  # of Redis's one thread
_CHANNELS: Final = 10_000  # that are subscribed to anew after each reconnect
_OUTAGE: Final = 90.0  # s


class Stream(StrEnum):
    """Which stream events go to."""

    KAFKA = "Kafka only"
    REDIS = "Redis only"
    BOTH = "dual stream, Kafka first, then Redis"
    NEITHER = "neither"


class Form(StrEnum):
    """What else it takes where rates, subscribers or channels are many."""

    BATCHED = "batched Redis"
    LOCAL_FAN_OUT = "Redis with local fan-out"
    AGGREGATES = "aggregates or patterns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What is wanted of events of one kind. Raises ConfigError naming the field that is out of bounds."""

    must_not_lose: bool  # whether somebody would miss a single event
    at_once: bool  # whether somebody waits for it now
    rate: float = 100.0  # events/s
    per_channel: float = 1.0  # subscribers of a channel
    channels: int = 100

    def __post_init__(self) -> None:
        for name, low, high in (("rate", 1, 10_000_000), ("per_channel", 0, 100_000_000),
                                ("channels", 1, 1_000_000_000)):  # fmt: skip
            within(name, getattr(self, name), low, high)
        if (subscribers := self.per_channel * self.channels) > 1e9:
            raise ConfigError(
                f"per_channel: {count(self.per_channel)} of each of {self.channels:,} channels are "
                f"{count(subscribers)} subscribers; at most {count(1e9)} are planned"
            )
        if self.at_once and not self.per_channel:
            raise ConfigError("per_channel: must be above 0 where events are seen at once (is 0)")


class Reason(NamedTuple):
    """Why, in words, and the figure behind it."""

    why: str
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The stream that events belong on, and why."""

    wants: Wants
    stream: Stream
    forms: tuple[Form, ...]  # what else it takes
    reasons: tuple[Reason, ...]  # those for the stream, and then one a form
    calibration: Calibration


def decide(wants: Wants, calibration: Calibration | None = None) -> Decision:
    """The recommended stream. Raises ConfigError where no number of parts carries the rate."""
    calibration = calibration or Calibration.shipped()
    costs = calibration.costs
    if wants.must_not_lose:
        stream = Stream.BOTH if wants.at_once else Stream.KAFKA
    else:
        stream = Stream.REDIS if wants.at_once else Stream.NEITHER
    if stream is Stream.NEITHER:
        reason = Reason("nobody misses an event, and nobody waits for one: ask for the state when it matters",
                        "nothing to simulate")  # fmt: skip
        return Decision(wants=wants, stream=stream, forms=(), reasons=(reason,), calibration=calibration)
    needs = Requirements(
        rate=wants.rate, subscribers=max(1, round(wants.per_channel * wants.channels)),
        sources=wants.channels, batch=10 if wants.rate > _FAST else 1,
    )  # fmt: skip
    deployment = size(needs, costs)
    forms = tuple(_forms(wants, needs, deployment, costs)) if wants.at_once else ()
    return Decision(
        wants=wants, stream=stream, forms=tuple(form for form, _ in forms), calibration=calibration,
        reasons=(*_reasons(stream, needs, deployment, costs), *(reason for _, reason in forms)),
    )  # fmt: skip


def _reasons(stream: Stream, needs: Requirements, deployment: Deployment, costs: Costs) -> Iterator[Reason]:
    if stream is Stream.REDIS:
        spent = sum(time for _, time in way(needs, costs)[PUBLISHED:])
        yield Reason(
            "what is seen at once or not at all needs no log: a signal that nobody would replay; this is "
            "outside of the pattern",
            f"a client has it {seconds(spent)} after it was published, the gateway's tick included",
        )
        yield Reason(
            "what Redis loses is gone",
            f"an outage of {seconds(_OUTAGE)} loses {many(needs.rate * _OUTAGE, 'event')} for good",
        )
        return
    trial = rehearse(needs, deployment, costs)
    yield Reason(
        "what must not be lost is acknowledged only when Kafka has it, and can be read again",
        f"acknowledged p99 {seconds(trial.quantile('publish', 0.99))}, {needs.replication_factor} replicas",
    )
    if stream is Stream.KAFKA:
        yield Reason(
            "whoever needs it reads the log; nobody waits for it now",
            f"a consumer has it p99 {seconds(trial.quantile('durable', 0.99))}",
        )
        return
    yield Reason(
        "a light notification on Redis tells at once that it is there",
        f"a client has it p99 {seconds(trial.quantile('live', 0.99))} after it was meant to be sent",
    )
    yield Reason(
        "what Redis loses is repaired from Kafka, and no publish waits for Redis",
        f"in an outage of {seconds(_OUTAGE)}, {many(needs.rate * _OUTAGE, 'event')} are recovered, none lost",
    )


def _forms(
    wants: Wants, needs: Requirements, deployment: Deployment, costs: Costs
) -> Iterator[tuple[Form, Reason]]:
    gateways = many(deployment.gateways, "gateway")
    reached = listening(deployment.gateways, deployment.clients)
    each = costs.publish + costs.deliver * reached
    if wants.rate > _FAST:
        single = costs.exchange + each
        ceiling = station("shard", needs.traffic, deployment, costs).ceiling / deployment.shards
        more = f": it takes {deployment.shards:,}, each with its sources" if deployment.shards > 1 else ""
        reason = Reason(
            f"more than {_FAST:,} events/s: many notifications in one exchange",
            f"one at a time, a Redis carries {count(1 / single)}/s: this is {percent(wants.rate * single)} "
            f"of it; in batches it carries {count(ceiling)}/s" + more,
        )
        yield Form.BATCHED, reason
    direct = costs.publish + costs.deliver * wants.per_channel
    if wants.per_channel >= _MANY and (direct > _LONG or wants.rate * direct > _BUSY):
        reason = Reason(
            "many subscribers of a channel: Redis tells gateways, each gateway its own clients",
            f"to write an event to {count(wants.per_channel)} takes Redis {seconds(direct)}, and all else "
            f"waits; to {reached:.3g} of {gateways} {seconds(each)}",
        )
        yield Form.LOCAL_FAN_OUT, reason
    if wants.channels > _CHANNELS:
        reason = Reason(
            "many channels: shared ones (channel_policy=shard, upstream=aggregate), or one pattern",
            f"one each makes {count(wants.channels * reached)} subscriptions of {gateways}, all of them made "
            "again after each outage",
        )
        yield Form.AGGREGATES, reason
