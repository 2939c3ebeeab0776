"""What parts cost each other: a loop that has requests to deal with, and cores that all share."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from dualstream_lab.recording import Outcome as Told
from dualstream_lab.simulation import Costs, Deployment, Outcome, simulate
from dualstream_lab.simulation.analytic.capacity import capacity, on_shared_cores, traffic_of, turns_per_call
from dualstream_lab.workload import Workload

EXACT = Costs(broker_noise=0, redis_noise=0, pauses=0)
SMALL = Deployment(buffer_events=25_600, buffer_timeout=60)


def outcome_of(*arguments: object, **options: object) -> Outcome:
    outcome = simulate(*arguments, **options)
    assert isinstance(outcome, Outcome)
    return outcome


def reached(outcome: Outcome) -> float:
    """Durable events/s, without the first and the last tenth."""
    acked = np.sort(outcome.acked[outcome.outcome == Told.DURABLE])
    inner = acked[len(acked) // 10 : -len(acked) // 10]
    return (len(inner) - 1) / (inner[-1] - inner[0])


@pytest.mark.parametrize(
    ("rate", "batch"), [(50, 1), (500, 10), (2_000, 1), (5_000, 10), (20_000, 100), (100_000, 100)]
)
def test_a_call_takes_about_as_many_turns_as_the_closed_form_says(rate, batch):
    work = Workload(rate=rate, batch=batch, duration=max(0.5, 400 * batch / rate))
    outcome = outcome_of(work, SMALL, EXACT)
    calls = len(outcome) / batch
    turns = outcome.utilization["publisher"].sum() - calls * (EXACT.call + EXACT.event * batch)
    assert turns / EXACT.turn / calls == pytest.approx(
        turns_per_call(traffic_of(work), SMALL, EXACT), rel=0.3
    )


def test_requests_hold_up_the_next_call_and_not_their_own():
    costs = replace(EXACT, turn=5e-3)
    outcome = outcome_of(Workload(rate=2_000, batch=10, duration=0.1, sources=1), costs=costs)
    spared = outcome_of(Workload(rate=2_000, batch=10, duration=0.1, sources=1), costs=EXACT)
    first = slice(0, 10)
    assert outcome.acked[first] == pytest.approx(spared.acked[first])
    sent = np.unique(outcome.sent)
    turns = turns_per_call(traffic_of(Workload(rate=2_000, batch=10)), SMALL, costs)
    assert np.diff(sent).min() >= 5e-3 * turns


def test_a_publisher_saturates_where_the_closed_form_says():
    work, costs = Workload(rate=400_000, batch=100, duration=0.5), replace(EXACT, turn=400e-6)
    ceiling = capacity(traffic_of(work), SMALL, costs)["publisher"].ceiling
    assert reached(outcome_of(work, SMALL, costs)) == pytest.approx(ceiling, rel=0.1)
    assert ceiling < 0.8 * capacity(traffic_of(work), SMALL, EXACT)["publisher"].ceiling


def test_shared_cores_are_the_limit_where_all_parts_together_want_more():
    work, costs = Workload(rate=300_000, batch=100, duration=0.5), replace(EXACT, consume=6e-6, record=4e-6)
    alone = reached(outcome_of(work, SMALL, costs))
    shared = reached(outcome_of(work, replace(SMALL, cores=2), costs))
    assert shared < 0.9 * alone
    each = sum(
        (its.fixed + its.most * its.each) / its.most
        for its in capacity(traffic_of(work), SMALL, costs).values()
    )
    assert shared == pytest.approx(2 / each, rel=0.15)


@pytest.mark.parametrize("cores", [0, 2, 64])
def test_below_that_they_change_nothing(cores):
    its, costs = replace(SMALL, cores=cores), replace(EXACT, consume=6e-6, record=4e-6)
    assert on_shared_cores(costs, Workload(rate=5_000, batch=10), its) is costs
    if cores != 2:
        assert on_shared_cores(costs, Workload(rate=1_000_000, batch=100), its) is costs
    else:
        slower = asdict(on_shared_cores(costs, Workload(rate=1_000_000, batch=100), its))
        assert slower["event"] > costs.event
        assert slower["kafka_rtt"] == costs.kafka_rtt
