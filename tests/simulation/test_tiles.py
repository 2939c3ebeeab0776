"""Long runs, put together from a tile: against the same runs event by event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualstream_lab import analysis
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.ledger import Ledger
from dualstream_lab.simulation import Bins, Costs, Deployment, record, simulate
from dualstream_lab.simulation.engine import long_run
from dualstream_lab.simulation.engine import simulate as model
from dualstream_lab.simulation.engine.outcome import LATENCIES
from dualstream_lab.verdict.verdict import judge
from dualstream_lab.workload import Workload

WORK = Workload(rate=20_000, duration=30, batch=20, sources=100_000, zipf=0)
WIDE = Deployment(publishers=4, brokers=3, partitions=12, shards=4, consumers=2, catch_up=True)
COSTS = Costs()
KILLED = FaultSpec(name="redis.kill", at=10, length=5)
STOPPED = FaultSpec(name="redis.stop", at=10, length=5)


@pytest.fixture
def small(monkeypatch):
    """Long runs begin early."""
    monkeypatch.setattr(model, "_MOST", 100_000)
    monkeypatch.setattr(long_run, "_EVENTS", 120_000)


@pytest.mark.parametrize(
    ("fault", "deployment"),
    [
        (None, WIDE),
        (KILLED, WIDE),
        (STOPPED, WIDE),
        (replace(KILLED, at=27), WIDE),
        (KILLED, replace(WIDE, gateways=2, clients=10)),
    ],
)
def test_a_long_run_is_as_the_same_one_event_by_event(fault, deployment, monkeypatch):
    faults = [fault] if fault else []
    every = simulate(WORK, deployment, COSTS, faults=faults, sample=1)
    monkeypatch.setattr(model, "_MOST", 100_000)
    monkeypatch.setattr(long_run, "_EVENTS", 120_000)
    tiled = simulate(WORK, deployment, COSTS, faults=faults)
    assert isinstance(every, Bins)
    assert isinstance(tiled, Bins)
    sums, told = ({n: int(c.sum()) for n, c in bins.counts.items()} for bins in (every, tiled))
    for name in ("sent", "durable", "consumed"):
        assert sums[name] == told[name] == WORK.expected
    drops = sum(count for name, count in told.items() if name.startswith("dropped"))
    assert told["delivered"] + told["caught_up"] + tiled.missing["live"] == WORK.expected
    assert drops >= told["caught_up"]
    for name, count in sums.items():
        assert told.get(name, 0) == pytest.approx(count, rel=0.02, abs=500), name
    assert tiled.missing["live"] == pytest.approx(every.missing["live"], rel=0.02, abs=500)
    for name in LATENCIES:
        for share in (0.5, 0.9, 0.99):
            assert tiled.quantile(name, share) == pytest.approx(every.quantile(name, share), rel=0.021), (
                name,
                share,
            )
    seconds = min(every.seconds, tiled.seconds)
    for name in ("delivered", "caught_up"):
        apart = np.abs(tiled.counts[name][:seconds] - every.counts[name][:seconds])
        assert apart.max() <= 0.05 * WORK.rate, name


def test_its_rows_are_a_sample_with_the_same_fates(small, tmp_path):
    bins = simulate(WORK, WIDE, COSTS, faults=[KILLED])
    assert bins.every > 1
    rows = bins.rows
    assert (np.diff(rows.seq) > 0).all()
    assert rows.intended == pytest.approx(rows.seq // WORK.batch * WORK.batch / WORK.rate, abs=1e-6)
    assert rows.recovered.mean() * WORK.expected == pytest.approx(bins.counts["caught_up"].sum(), rel=0.05)
    directory = record(bins, tmp_path)
    verdict = judge(directory)
    assert verdict.measures["publish.durable"] == WORK.expected
    assert verdict.measures["live.latency.p50"] == pytest.approx(bins.quantile("live", 0.5) * 1e3, rel=0.02)
    ledger = Ledger.of(directory)
    assert (ledger.lost, ledger.orphans) == (0, 0)
    assert {entry.name for entry in ledger.entries} <= {
        "delivered",
        "undelivered",
        "delivered-after-giving-up",
    }
    assert not [
        mark.name
        for mark in ledger.marks
        if mark.name not in {"recovered", "before-consumer", "missed-in-gap"}
    ]
    assert len(analysis.load(directory).events) == len(rows)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"plan": "sine"}, "plan: "),
        ({"duration": 29.5}, "duration: "),
        ({"rate": 20_001}, "rate: .* whole calls"),
    ],
)
def test_a_long_run_that_does_not_repeat_itself_is_refused(small, change, what):
    with pytest.raises(ConfigError, match=what):
        simulate(replace(WORK, **change), WIDE, COSTS)


def test_a_long_run_is_refused_where_parts_do_not_keep_up_or_kafka_breaks(small):
    with pytest.raises(ConfigError, match="rate: publishers or brokers"):
        simulate(replace(WORK, rate=400_000), replace(WIDE, publishers=1), COSTS)
    with pytest.raises(ConfigError, match=r"faults: .*kafka\.kill"):
        simulate(WORK, WIDE, COSTS, faults=[FaultSpec(name="kafka.kill", at=1, length=1)])


def test_a_long_run_is_refused_where_gateways_lose_their_connections(small):
    recovered = replace(WIDE, gateways=1, clients=1, tick=0, output_buffer=200)
    with pytest.raises(ConfigError, match=r"rate: shards or gateways .* gateways at"):
        simulate(WORK, recovered, replace(COSTS, receive=1e-3))


def test_outages_too_long_for_memory_are_refused_with_what_fits(small, monkeypatch):
    monkeypatch.setattr(long_run, "_OUTAGES", 50_000)
    with pytest.raises(ConfigError, match=r"faults: .* can last 6 s together"):
        simulate(WORK, WIDE, COSTS, faults=[KILLED])
