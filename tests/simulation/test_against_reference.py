"""The fast model and the reference, of one text and of the same draws, event by event."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.recording import DROPS
from dualstream_lab.recording import Outcome as Said
from dualstream_lab.simulation import Costs, Deployment, Outcome, simulate
from dualstream_lab.workload import Workload
from tests.simulation.invariants import check, check_publishers
from tests.simulation.reference import reference

_EVENTS = 1500


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    """None that fall together with others: then the order would be a matter of rounding."""
    return st.integers(0, 10_000).map(lambda part: low + (high - low) * (part + 0.123_456_7) / 10_001)


COSTS = st.builds(
    Costs,
    call=seconds(1e-5, 1e-3), event=seconds(1e-6, 1e-4), turn=seconds(0, 1e-2), request=seconds(1e-4, 2e-2),
    batch=seconds(0, 1e-3), record=seconds(0, 1e-4), record_byte=seconds(0, 1e-7),
    broker_noise=seconds(0.05, 1), pauses=seconds(0, 10), pause=seconds(0, 0.05),
    kafka_rtt=seconds(0, 0.01), replica=seconds(0, 0.01), exchange=seconds(1e-5, 1e-2),
    publish=seconds(1e-6, 1e-3), deliver=seconds(1e-7, 1e-4), redis_noise=seconds(0.05, 1),
    redis_rtt=seconds(1e-5, 0.02), receive_delay=seconds(0, 0.01), poll=seconds(1e-4, 0.1),
    consume=seconds(0, 1e-3), fetch_delay=seconds(0, 0.01), receive=seconds(0, 5e-3), write=seconds(0, 1e-4),
)  # fmt: skip


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    brokers = draw(st.integers(1, 4))
    return Deployment(
        publishers=draw(st.integers(1, 4)), brokers=brokers, partitions=draw(st.integers(brokers, 12)),
        replication_factor=draw(st.integers(1, min(brokers, 3))), shards=draw(st.integers(1, 3)),
        subscribers=draw(st.integers(0, 5)), gateways=draw(st.integers(0, 2)),
        clients=draw(st.sampled_from([0.0, 10.0, 100.0])), callers=draw(st.sampled_from([0, 0, 1, 3, 10])),
        consumers=draw(st.integers(0, 3)),
        tick=draw(st.sampled_from([0.0, 0.005])), batch_bytes=draw(st.sampled_from([1024, 16_384, 262_144])),
        buffer_events=draw(st.sampled_from([25, 100, 150_000])), buffer_timeout=draw(seconds(0.01, 1)),
        delivery_timeout=draw(seconds(0.2, 3)), redis_timeout=draw(seconds(0.02, 0.3)),
        notify_queue=draw(st.sampled_from([20, 200, 50_000])),
        output_buffer=draw(st.sampled_from([1, 5, 50, 100_000])), catch_up=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    batch = draw(st.integers(1, 20))
    rate = batch * draw(seconds(20, 400))
    return Workload(
        rate=rate, duration=min(draw(seconds(0.5, 4)), _EVENTS / rate),
        plan=draw(st.sampled_from(["constant", "poisson", "burst"])), period=1.0, batch=batch,
        sources=draw(st.integers(1, 50)), payload=draw(st.sampled_from(["fixed", "lognormal"])),
        seed=draw(st.integers(0, 1000)),
    )  # fmt: skip


@st.composite
def faults(draw: st.DrawFn, of: str, replication_factor: int, duration: float) -> tuple[FaultSpec, ...]:
    """None, or one of this server."""
    names = {
        "redis": [
            "redis.kill", "redis.restart", "redis.flap", "redis.stop", "redis.slow", "redis.kill-clients",
            "redis.no-permission",
        ],
        "kafka": ["kafka.kill", "kafka.restart", "kafka.stop", "kafka.slow", "net.kafka.refuse"]
        + ["kafka.leader-lost"] * (replication_factor > 1),
    }[of]  # fmt: skip
    what = draw(st.sampled_from(["", *names]))
    if not what:
        return ()
    parameters = {}
    if what.endswith("slow"):
        parameters["delay_ms"] = draw(seconds(1, 200))
    if what.endswith("clients"):
        parameters["every_ms"] = draw(seconds(50, 500))
    if what.endswith("flap"):
        parameters = {"up_ms": draw(seconds(50, 900)), "down_ms": draw(seconds(50, 900))}
    length = 0.0 if what.endswith("restart") else draw(seconds(0.05, 9 if what.endswith("lost") else 3))
    return (
        FaultSpec(name=what, at=draw(seconds(0.05, 0.95)) * duration, length=length, parameters=parameters),
    )


def compare(expected: Outcome, found: Outcome) -> None:
    """Equal, up to rounding."""
    for name in (one.name for one in fields(Outcome)):
        mine, its = getattr(expected, name), getattr(found, name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_allclose(its, mine, rtol=0, atol=1e-9, err_msg=name)
    assert (found.resyncs, found.away) == (expected.resyncs, expected.away)


@settings(max_examples=100, phases=set(Phase) - {Phase.explain})  # which takes minutes
@given(data=st.data(), workload=workloads(), deployment=deployments(), costs=COSTS, seed=st.integers(0, 9999))
def test_every_event_fares_the_same(
    data: st.DataObject, workload: Workload, deployment: Deployment, costs: Costs, seed: int
) -> None:
    broken = tuple(
        fault
        for server in ("redis", "kafka")
        for fault in data.draw(faults(server, deployment.replication_factor, workload.duration))
    )
    expected = reference(workload, deployment, costs, broken, seed)
    check(expected)
    check_publishers(expected, deployment, batch=workload.batch)
    for said in Said:
        if (expected.outcome == said).any():
            event(said.name)
    for place, reason in enumerate(DROPS):
        if (expected.reason == place).any():
            event(reason)
    if expected.recovered.any():
        event("recovered")
    compare(expected, simulate(workload, deployment, costs, broken, seed))
