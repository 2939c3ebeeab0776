"""A simulated run as a run directory: judged, accounted for and drawn as a real one."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from dualstream_lab import analysis
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.ledger import Ledger
from dualstream_lab.recording import DROPS, RunDirectory
from dualstream_lab.recording import Outcome as Told
from dualstream_lab.simulation import Costs, Deployment, record, simulate
from dualstream_lab.verdict.verdict import judge
from dualstream_lab.workload import Workload

mpl.use("Agg")
FAULTS = (
    FaultSpec(name="redis.kill", at=2, length=1),
    FaultSpec(name="kafka.stop", at=6, length=1.5),
)


@pytest.fixture(scope="module")
def outcome():
    deployment = Deployment(
        publishers=2, brokers=3, partitions=9, shards=2, delivery_timeout=1, catch_up=True
    )
    return simulate(Workload(rate=4_000, duration=10), deployment, Costs(), FAULTS)


@pytest.fixture(scope="module")
def path(outcome, tmp_path_factory):
    return record(outcome, tmp_path_factory.mktemp("runs")).path


def test_the_verdict_has_the_same_counts(outcome, path):
    directory = RunDirectory.open(path)
    assert directory.manifest.engine == "simulation"
    verdict = judge(directory)
    assert not verdict.problems
    found = verdict.measures
    assert found["publish.intended"] == len(outcome)
    for name in ("durable", "rejected", "unknown", "no_room"):
        assert found[f"publish.{name}"] == (outcome.outcome == Told[name.upper()]).sum()
    assert found["live.dropped"] == (outcome.reason >= 0).sum()
    assert found["live.delivered"] == (~np.isnan(outcome.delivered)).sum()
    assert found["durable.consumed"] == (~np.isnan(outcome.consumed)).sum()
    durable = outcome.outcome == Told.DURABLE
    live = np.where(np.isnan(outcome.delivered), np.inf, outcome.delivered) - outcome.intended
    p50 = np.quantile(live[durable], 0.5, method="inverted_cdf")
    assert found["live.latency.p50"] == pytest.approx(p50 * 1e3, rel=0.01)
    answer = np.quantile((outcome.acked - outcome.intended)[durable], 0.99) * 1e3
    assert found["publish.latency_arrived.p99"] == pytest.approx(answer, rel=0.02)


@pytest.mark.parametrize(
    ("rate", "costs", "limit"),
    [
        (5_000, {}, "nothing was at its limit"),
        (300_000, {}, "your generator was the limit"),
        (50_000, {"record": 40e-6}, "Kafka was the limit"),
        (50_000, {"publish": 40e-6}, "Redis was busy"),
    ],
)
def test_the_verdict_says_what_was_the_limit(rate, costs, limit, tmp_path):
    small = Deployment(buffer_events=20_000, buffer_timeout=0.1)
    run = simulate(Workload(rate=rate, duration=2), small, Costs(**costs))
    assert limit in judge(record(run, tmp_path)).limit


def test_the_ledger_has_the_same_classes(outcome, path):
    ledger = Ledger.of(path)
    assert not ledger.problems
    assert (ledger.lost, ledger.orphans) == (0, 0)
    assert sum(entry.count for entry in ledger.entries) == len(outcome)
    in_log = ~np.isnan(outcome.logged)
    durable = outcome.outcome == Told.DURABLE
    unknown = outcome.outcome == Told.UNKNOWN
    live = ~np.isnan(outcome.delivered) & ~outcome.recovered
    assert ledger.count("unknown-in-log") == (unknown & in_log).sum() > 0
    assert ledger.count("unknown-not-in-log") == (unknown & ~in_log).sum()
    assert ledger.count("refused") == (outcome.outcome == Told.REJECTED).sum()
    assert ledger.count("delivered-after-giving-up") == (live & (outcome.reason >= 0)).sum()
    assert ledger.count("recovered") == outcome.recovered.sum() > 0
    assert ledger.count("undelivered") == (durable & np.isnan(outcome.delivered)).sum()
    causes = {entry.cause for entry in ledger.entries if entry.name == "undelivered"}
    assert causes <= {"reconnect gap", *(f"dropped by the publisher: {why}" for why in DROPS)}
    assert [recovery.fault for recovery in ledger.recoveries] == ["redis.kill", "kafka.stop"]
    assert all(recovery.detected is not None for recovery in ledger.recoveries)


def test_every_plot_is_drawn(path):
    frames = analysis.load(path)
    assert len(frames.events) == frames.events.seq.nunique()
    assert not frames.problems
    ledger = Ledger.of(path)
    for plot in (
        analysis.plot_timeline, analysis.plot_rates, analysis.plot_latency_over_time,
        analysis.plot_latency_heatmap, analysis.plot_lag_and_latency, analysis.plot_outcomes,
    ):  # fmt: skip
        plot(frames)
    analysis.plot_ledger(ledger)
    analysis.plot_recovery(ledger.recoveries)
    plt.close("all")


def test_what_does_not_know_its_case_has_no_directory(outcome, tmp_path):
    with pytest.raises(ConfigError, match="case"):
        record(replace(outcome, case=None), tmp_path)
