"""Closed forms: against the model, and what more of a part never does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.simulation import Costs, Deployment, Outcome, simulate
from dualstream_lab.simulation.analytic.capacity import STATIONS, Traffic, capacity, listening
from dualstream_lab.workload import Workload

SMALL = settings(max_examples=60, deadline=None)
COSTS = Costs()

deployments = st.builds(
    lambda replication_factor, more, own, **parts: Deployment(
        replication_factor=replication_factor, brokers=replication_factor + more,
        partitions=(replication_factor + more) * own, **parts
    ),
    replication_factor=st.integers(1, 3), more=st.integers(0, 4), own=st.integers(1, 12),
    publishers=st.integers(1, 20), shards=st.integers(1, 8), consumers=st.integers(1, 8),
    gateways=st.integers(1, 50), clients=st.floats(0.01, 1000),
)  # fmt: skip
traffics = st.builds(
    Traffic, rate=st.floats(100, 2_000_000), batch=st.integers(1, 100), size=st.floats(256, 50_000),
    selective=st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "batch", "parts"),
    [
        (2_000, 1, {"publishers": 2, "consumers": 2}),
        (5_000, 5, {"publishers": 3, "partitions": 6, "brokers": 3, "replication_factor": 2, "shards": 3}),
        (20_000, 20, {"partitions": 12, "brokers": 3, "gateways": 2, "clients": 10}),
        (30_000, 1, {"publishers": 8, "brokers": 2, "consumers": 2, "subscribers": 5}),
        (50_000, 10, {"publishers": 4, "partitions": 12, "brokers": 3, "replication_factor": 3, "shards": 2}),
        (
            100_000,
            50,
            {"publishers": 8, "partitions": 16, "brokers": 4, "replication_factor": 3, "consumers": 2},
        ),
    ],
)
def test_stations_are_as_busy_as_in_the_model(rate, batch, parts):
    deployment = Deployment(**parts)
    workload = Workload(rate=rate, duration=1.5, batch=batch, zipf=0, sources=50_000)
    outcome = simulate(workload, deployment, COSTS)
    assert isinstance(outcome, Outcome)
    found = capacity(Traffic(rate=rate, batch=batch), deployment, COSTS)
    for name, station in found.items():
        utilization = outcome.utilization[name][:, 0].mean()
        # Answers to one call come together where calls are rare: fewer, bigger batches follow them.
        rel = 0.17 if name in {"shard", "consumer"} else 0.06
        assert station.utilization == pytest.approx(utilization, rel=rel), name


@pytest.mark.parametrize(
    ("station", "begin", "end", "dear"),
    [
        ("publisher", "intended", "sent", {"call": 1e-3}),
        ("broker", "entered", "acked", {"record": 50e-6}),
        ("shard", "acked", "delivered", {"publish": 50e-6}),
        ("gateway", "acked", "delivered", {"write": 50e-6}),
        ("consumer", "logged", "consumed", {"consume": 50e-6}),
    ],
)
def test_a_station_keeps_up_below_its_ceiling_and_does_not_above(station, begin, end, dear):
    deployment = Deployment(publishers=2, gateways=2, clients=2)
    costs = replace(COSTS, pauses=0, **dear)
    ceiling = capacity(Traffic(rate=1000), deployment, costs)[station].ceiling
    recovered = []
    for share in (0.85, 1.3):
        workload = Workload(rate=ceiling * share, duration=1.0, sources=50_000, zipf=0)
        outcome = simulate(workload, replace(deployment, redis_timeout=60), costs)
        recovered.append((getattr(outcome, end) - getattr(outcome, begin))[-100:].mean())
    assert recovered[0] < 0.1
    assert recovered[1] > 0.18


@SMALL
@given(traffic=traffics, deployment=deployments, name=st.sampled_from(STATIONS), more=st.integers(1, 5))
def test_more_of_a_part_never_raises_its_load_or_its_work(traffic, deployment, name, more):
    field = name + "s"
    parts = {field: getattr(deployment, field) + more}
    if name == "broker":  # the partitions of a broker stay
        parts["partitions"] = parts["brokers"] * deployment.partitions // deployment.brokers
    before = capacity(traffic, deployment, COSTS)[name]
    after = capacity(traffic, replace(deployment, **parts), COSTS)[name]
    assert after.load <= before.load * (1 + 1e-9)
    # The shares that the consumers have of brokers' answers depend on their common divisors.
    if name != "consumer":
        assert after.utilization <= before.utilization * (1 + 1e-6)


@SMALL
@given(traffic=traffics, deployment=deployments, more=st.integers(1, 5))
def test_more_partitions_never_lower_the_ceiling(traffic, deployment, more):
    wider = replace(deployment, partitions=deployment.partitions + more * deployment.brokers)
    before, after = (capacity(traffic, its, COSTS) for its in (deployment, wider))
    for name in STATIONS:
        # A request of more partitions takes longer: it is under way when the next call has something for it.
        rounding = 0.1 if name == "publisher" else 1e-9
        assert after[name].ceiling >= before[name].ceiling * (1 - rounding), name


@SMALL
@given(traffic=traffics, deployment=deployments, factor=st.floats(1, 10))
def test_a_higher_rate_or_higher_costs_never_lower_a_load(traffic, deployment, factor):
    loads = {name: station.load for name, station in capacity(traffic, deployment, COSTS).items()}
    faster = capacity(replace(traffic, rate=traffic.rate * factor), deployment, COSTS)
    dearer = Costs(
        **{n: getattr(COSTS, n) * factor for n in ("call", "event", "record", "publish", "consume", "write")}
    )
    for name, load in loads.items():
        assert faster[name].load >= load * (1 - 1e-9)
        assert capacity(traffic, deployment, dearer)[name].load >= load * (1 - 1e-9)


@given(gateways=st.integers(1, 100_000), clients=st.floats(0, 1e6, allow_subnormal=False))
def test_no_more_gateways_listen_than_there_are_or_have_clients(gateways, clients):
    delivered = listening(gateways, clients)
    assert 0 <= delivered <= min(gateways, clients) * (1 + 1e-9) + 1e-9
    assert listening(gateways + 1, clients) >= delivered * (1 - 1e-9)
    assert (listening(1, 0.5), listening(1, 5)) == (0.5, 1)
    assert listening(1000, 2) == pytest.approx(1000 * (1 - 0.999**2))
