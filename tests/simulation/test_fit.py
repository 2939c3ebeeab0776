"""Costs come back from the runs that were made with them; what runs cannot tell is not told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation import Costs, Deployment, record, simulate
from dualstream_lab.simulation.analytic.capacity import Traffic, turns_per_call
from dualstream_lab.simulation.calibration import COSTS
from dualstream_lab.simulation.fitting.fit import fit
from dualstream_lab.simulation.fitting.least_squares import normal
from dualstream_lab.simulation.fitting.observations import observe
from dualstream_lab.simulation.fitting.stalls import pauses_matched
from dualstream_lab.simulation.parameters import most_of
from dualstream_lab.workload import Workload

from .sweep import TRUE, sweep

NEVER = {"replica", "receive", "write"}
"""Nothing is replicated, and there are no gateways."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def found(runs):
    return fit(runs)


def test_a_sweep_tells_every_cost_that_it_has(found):
    assert found.calibration.observed == set(COSTS) - NEVER
    assert all(count > 0 for count in found.observations.values())


@pytest.mark.parametrize("name", sorted(set(COSTS) - NEVER))
def test_the_costs_come_back_within_their_intervals(found, name):
    its, true = found.calibration, getattr(TRUE, name)
    low, value, high = (getattr(one, name) for one in (its.low, its.costs, its.high))
    half = (high - low) / 2
    assert low - half / 2 <= true <= high + half / 2  # of twenty intervals of 95 %, one misses
    rough = {"pauses", "pause", "record", "record_byte"}
    assert value == pytest.approx(true, rel=0.5 if name in rough else 0.2)


def test_most_intervals_hold_the_truth(found):
    its = found.calibration
    held = [getattr(its.low, name) <= getattr(TRUE, name) <= getattr(its.high, name) for name in COSTS]
    assert np.mean(held) > 0.85


def test_what_is_not_told_is_a_default_with_a_wide_interval(found):
    for name in NEVER:
        default = getattr(Costs(), name)
        assert getattr(found.calibration.costs, name) == pytest.approx(default)
        assert getattr(found.calibration.low, name) <= default / 5
        assert getattr(found.calibration.high, name) >= default * 5


def test_where_and_what_was_measured_is_known(found):
    its = found.calibration
    assert its.machine == "simulated"
    assert its.ranges["rate"] == (3_000, 15_000)
    assert its.ranges["payload_bytes"] == (300, 6_000)
    assert its.covers("publishers", 3)
    assert not its.covers("publishers", 5)


def turns(rate: float) -> float:
    """Of a call of ten events."""
    return turns_per_call(Traffic(rate=rate, batch=10), Deployment(), TRUE)


def test_one_run_tells_sums_only(runs):
    its = fit(runs[1:2]).calibration  # calls of ten events, by one publisher
    assert not {"call", "event", "kafka_rtt", "request", "publish", "deliver"} & its.observed
    loop = {"call": 1, "event": 10, "turn": turns(10_000)}
    for parts in (loop, {"kafka_rtt": 1, "request": 1, "batch": 6}):
        total, true = (sum(getattr(c, n) * k for n, k in parts.items()) for c in (its.costs, TRUE))
        assert total == pytest.approx(true, rel=0.1)
    for name in ("call", "event", "kafka_rtt", "request", "publish", "deliver", "fetch_delay"):
        assert getattr(its.low, name) <= getattr(TRUE, name) <= getattr(its.high, name)


def test_runs_at_the_same_time_on_one_broker_tell_its_work_from_the_way_there(runs, tmp_path):
    workload = Workload(rate=20_000, duration=3, batch=10, plan="poisson")
    both = record(simulate(workload, Deployment(publishers=2), TRUE), tmp_path).path
    halves = [_half(both, tmp_path / f"half-{number}", number) for number in range(2)]
    alone = fit([*runs[:2], runs[4]]).calibration
    assert not {"request", "kafka_rtt"} & alone.observed
    its = fit([*runs[:2], runs[4], *halves]).calibration
    assert {"request", "kafka_rtt"} <= its.observed
    assert its.costs.request == pytest.approx(TRUE.request, rel=0.1)
    assert its.costs.kafka_rtt == pytest.approx(TRUE.kafka_rtt, rel=0.25)
    assert its.covers("publishers", 2)


def test_no_more_pauses_are_told_than_there_can_be(runs, monkeypatch):
    """A fake of an overloaded machine, where no number of pauses would be enough."""
    fitting = "dualstream_lab.simulation.fitting.fit"
    monkeypatch.setattr(f"{fitting}._machine", lambda _seen: "busy")
    monkeypatch.setattr(f"{fitting}.pauses_matched", lambda _costs, _seen: 1e12)
    calibration = fit(runs[:3]).calibration
    assert calibration.costs.pauses <= calibration.high.pauses == pytest.approx(most_of("pauses"))


def _half(path, into, number):
    """The run of one of its two publishers, as if each had been recorded by itself."""
    into.mkdir()
    for part in path.glob("*.parquet"):
        rows = pq.read_table(part)
        if "seq" in rows.column_names:
            rows = rows.filter(pa.array(rows.column("seq").to_numpy() // 10 % 2 == number))
        pq.write_table(rows, into / part.name)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["settings"] |= {"publishers": 1, "kafka_url": "127.0.0.1:9092"}
    (into / "manifest.json").write_text(json.dumps(manifest))
    return into


def test_where_nothing_pauses_no_pauses_are_found(tmp_path):
    its = fit(sweep(tmp_path, replace(TRUE, broker_noise=0.15, pauses=0.0))).calibration
    assert its.costs.broker_noise == pytest.approx(0.15, rel=0.1)
    assert its.costs.pauses * its.costs.pause < 3e-3  # as a share of the time that publishers work
    assert its.costs.request == pytest.approx(TRUE.request, rel=0.1)


def test_a_run_without_listeners_tells_of_the_publisher(tmp_path):
    workload = Workload(rate=5_000, duration=2)
    path = record(simulate(workload, Deployment(subscribers=0, consumers=0), TRUE), tmp_path).path
    found = fit([path])
    assert set(found.observations) == {"publisher"}
    total, true = (
        costs.call + 10 * costs.event + turns(5_000) * costs.turn for costs in (found.calibration.costs, TRUE)
    )
    assert total == pytest.approx(true, rel=0.2)  # the rest: idle


def test_the_same_runs_give_the_same_costs(runs):
    assert fit(runs[1:2]) == fit(runs[1:2])


# Runs that cannot be used


def _simulated(root, *, faults=(), **options):
    options = {"rate": 2_000, "duration": 1} | options
    return record(simulate(Workload(**options), Deployment(), TRUE, faults), root).path


def _changed(path, **values):
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"state": "interrupted"}, "it is interrupted, not finished"),
        ({"engine": "locust"}, "it was made by locust"),
        ({"sample": 5}, "only one event in 5 has a row"),
    ],
)
def test_runs_that_cannot_be_used_are_named_with_the_reason(values, said, tmp_path):
    path = _changed(_simulated(tmp_path), **values)
    with pytest.raises(ConfigError, match=f"{path.name} cannot be used to calibrate: {said}"):
        fit([path])


def test_a_run_with_a_fault_is_to_be_held_out(tmp_path):
    path = _simulated(tmp_path, faults=(FaultSpec(name="redis.stop", at=0.2, length=0.2),))
    with pytest.raises(ConfigError, match=r"it has a fault \(redis.stop\); give it with --hold-out"):
        fit([path])


def test_a_closed_plan_is_refused(tmp_path):
    path = _simulated(tmp_path)
    workload = json.loads((path / "manifest.json").read_text())["workload"]
    with pytest.raises(ConfigError, match="its plan is closed"):
        fit([_changed(path, workload=workload | {"plan": "closed"})])


def test_short_and_damaged_runs_are_named(tmp_path):
    with pytest.raises(ConfigError, match="fewer than 100 requests"):
        fit([_simulated(tmp_path, rate=100)])
    path = _simulated(tmp_path)
    next(path.glob("consumed-*.parquet")).write_bytes(b"no")
    with pytest.raises(ConfigError, match="it is damaged: consumed-"):
        fit([path])
    for part in path.glob("published-*"):
        part.unlink()
    with pytest.raises(ConfigError, match="it has no rows"):
        fit([path])


def test_runs_of_two_machines_are_refused(tmp_path):
    first, other = _simulated(tmp_path), _simulated(tmp_path)
    with pytest.raises(ConfigError, match="calibrate each by itself"):
        fit([first, _changed(other, engine="lab", settings=_real(other))])


def _real(path):
    made = json.loads((path / "manifest.json").read_text())["settings"]
    return made | {"kafka_url": "127.0.0.1:9092"}


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="give one run at least"):
        fit([])
    with pytest.raises(RecordingError, match="does not exist"):
        fit([tmp_path / "none"])


# Least squares


def test_what_the_rows_do_not_tell_apart_keeps_the_belief_and_the_sum():
    rng = np.random.default_rng(1)
    rows = np.column_stack([np.ones(500), np.ones(500), rng.uniform(0, 10, 500)])
    y = rows @ [3.0, 3.0, 2.0] + 0.01 * rng.standard_normal(500)
    block = np.arange(500) % 10
    found = normal(rows, y, error=np.full(500, 0.01), block=block, scale=np.ones(3), blocks=10)
    costs, told = found.solve(), found.resolution()
    assert costs == pytest.approx([3, 3, 2], rel=0.01)
    assert told[:2] == pytest.approx([0.5, 0.5], abs=0.01)
    assert told[2] > 0.99
    low, high = found.extremes(0, 10)
    assert low < 0.7
    assert high == pytest.approx(6, rel=0.02)  # the other one is nothing then


def test_no_cost_is_below_zero():
    rows = np.array([[1.0, 0.0], [1.0, 1.0]] * 50)
    y = rows @ [2.0, -1.0]
    block = np.zeros(100, np.int64)
    costs = normal(rows, y, error=np.full(100, 0.1), block=block, scale=np.ones(2), blocks=1).solve()
    assert costs[1] == 0
    assert costs[0] == pytest.approx(1.5, rel=0.02)  # the best that is left


@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_stalls_come_as_often_as_the_p99_says(runs, factor):
    seen = [observe(run) for run in runs[1:4]]
    found = pauses_matched(replace(TRUE, pauses=factor * TRUE.pauses), seen)
    assert 0.6 < found / TRUE.pauses < 1.6
    assert pauses_matched(replace(TRUE, pauses=0.0), seen) == 0
