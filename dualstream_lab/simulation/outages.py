"""Faults as the model knows them: when a server is down, mute or slow. Pure; s of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec, check_overlaps, fault_named
from dualstream_lab.simulation.parameters import Deployment

Spans: TypeAlias = npt.NDArray[np.float64]
"""Shape (n, 2): begins and ends, s, in order, apart from each other. Of slowness (n, 3): and its delay, s."""

NEVER: Final[Spans] = np.empty((0, 2))
_NEVER_SLOW: Final[Spans] = np.empty((0, 3))

_REDIS_RESTART = 0.1  # s
_CUT = 1e-3  # s
_KAFKA_RESTART = 6.0  # s; a Java process, and its log
_MISSED = 6.0  # s until a dead leader's partitions have another


class Modes(NamedTuple):
    """What is wrong with a server, and when; begins belong to a span, ends do not."""

    down: Spans = NEVER  # all that it has is lost, and what comes fails at once
    mute: Spans = NEVER  # it stands still, and goes on where it was
    slow: Spans = _NEVER_SLOW  # a delay is added to each way
    refusing: Spans = NEVER  # it answers, and does nothing


class Outages(NamedTuple):
    """What is wrong with all servers of a run."""

    redis: Modes = Modes()  # every shard
    first_broker: Modes = Modes()  # broker 0
    brokers: Modes = Modes()  # each other broker
    moved: Spans = NEVER  # requests for broker 0 go to broker 1 (a dead leader's partitions)

    def broker(self, number: int) -> Modes:
        """What is wrong with the broker of this number."""
        return self.brokers if number else self.first_broker


def outages(faults: Iterable[FaultSpec], deployment: Deployment) -> Outages:
    """The spans of these faults: Redis's are of every shard; of Kafka's, slowness, the network and too few
    replicas are of every broker, and the other ones of broker 0, as in the catalogue.

    Raises ConfigError for a fault that is not modelled, naming those that are, for two at once on the
    same server, and for a lost leader without a second copy.
    """
    faults = tuple(faults)
    check_overlaps(faults)
    found: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
    for spec in faults:
        if spec.name not in _MODELLED:
            raise ConfigError(
                f"faults: {spec.name} is not simulated; those that are: {', '.join(sorted(_MODELLED))}"
            )
        if spec.name in _REPLICATED and deployment.replication_factor < 2:
            raise ConfigError(
                f"replication_factor: {spec.name} needs 2 or more (is {deployment.replication_factor})"
            )
        for mode, spans_of in _MODELLED[spec.name].items():
            found[mode] += spans_of(spec)
    slow, all_down = _slowness(found["kafka slow"]), found["kafka all down"]
    return Outages(
        redis=Modes(
            down=united(found["redis down"]), mute=united(found["redis mute"]),
            slow=_slowness(found["redis slow"]), refusing=united(found["redis refusing"]),
        ),
        first_broker=Modes(
            down=united(found["kafka down"] + all_down), mute=united(found["kafka mute"]), slow=slow
        ),
        brokers=Modes(down=united(all_down), slow=slow), moved=united(found["kafka moved"]),
    )  # fmt: skip


def united(spans: Iterable[Sequence[float]]) -> Spans:
    """The same time as spans in order: those that overlap or touch are one, empty ones are none."""
    merged: list[list[float]] = []
    for begin, end in sorted((float(begin), float(end)) for begin, end in spans):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        elif begin < end:
            merged.append([begin, end])
    return np.array(merged, dtype=np.float64).reshape(-1, 2)


def _slowness(spans: list[tuple[float, ...]]) -> Spans:
    return np.array(sorted(spans), dtype=np.float64).reshape(-1, 3)


_SpansOf: TypeAlias = "Callable[[FaultSpec], list[tuple[float, ...]]]"


def _as_given(spec: FaultSpec) -> list[tuple[float, ...]]:
    return list(spec.spans)


def _at_once(length: float) -> _SpansOf:
    """The spans of a fault that has no length, but takes effect for so many seconds."""
    return lambda spec: [(begin, begin + length) for begin, _ in spec.spans]


def _parameter(spec: FaultSpec, name: str) -> float:
    """A parameter of a fault that is given in ms, in s."""
    default = next(one.default for one in fault_named(spec.name).parameters if one.name == name)
    return spec.parameters.get(name, default) / 1e3


def _flaps(spec: FaultSpec) -> list[tuple[float, ...]]:
    """The spans in which a flapping server is away: first when the fault begins, and never after its end."""
    up, down = _parameter(spec, "up_ms"), _parameter(spec, "down_ms")
    return [
        (away, min(away + down, end))
        for begin, end in spec.spans
        for away in np.arange(begin, end, up + down).tolist()
    ]


def _cuts(spec: FaultSpec) -> list[tuple[float, ...]]:
    """The moments at which connections are cut: whoever had one can connect again."""
    every = _parameter(spec, "every_ms")
    return [(at, at + _CUT) for begin, end in spec.spans for at in np.arange(begin, end, every).tolist()]


def _delays(spec: FaultSpec) -> list[tuple[float, ...]]:
    return [(*span, _parameter(spec, "delay_ms")) for span in spec.spans]


def _until_missed(spec: FaultSpec) -> list[tuple[float, ...]]:
    return [(begin, min(begin + _MISSED, end)) for begin, end in spec.spans]


def _after_missed(spec: FaultSpec) -> list[tuple[float, ...]]:
    return [(min(begin + _MISSED, end), end) for begin, end in spec.spans]


_REPLICATED: Final = {"kafka.leader-lost", "kafka.not-enough-replicas"}
_FAULTS: Final[tuple[tuple[str, dict[str, _SpansOf]], ...]] = (
    ("redis.kill net.redis.reset net.redis.refuse", {"redis down": _as_given}),
    ("redis.restart", {"redis down": _at_once(_REDIS_RESTART)}),
    ("redis.flap", {"redis down": _flaps}),
    ("redis.kill-clients", {"redis down": _cuts}),
    ("redis.stop redis.busy net.redis.blackhole", {"redis mute": _as_given}),
    ("redis.slow net.redis.delay net.redis.jitter", {"redis slow": _delays}),
    ("redis.no-permission", {"redis refusing": _as_given}),
    # These do nothing to PUBLISH, nor to who is connected.
    ("redis.oom redis.readonly redis.maxclients redis.script-flush", {}),
    ("kafka.kill", {"kafka down": _as_given}),
    ("kafka.restart", {"kafka down": _at_once(_KAFKA_RESTART)}),
    ("kafka.stop", {"kafka mute": _as_given}),
    ("kafka.slow net.kafka.delay net.kafka.jitter", {"kafka slow": _delays}),
    ("net.kafka.blackhole net.kafka.reset net.kafka.refuse", {"kafka all down": _as_given}),
    ("kafka.not-enough-replicas", {"kafka all down": _as_given}),
    ("kafka.leader-lost", {"kafka down": _until_missed, "kafka moved": _after_missed}),
)
_MODELLED: Final = {name: modes for names, modes in _FAULTS for name in names.split()}
