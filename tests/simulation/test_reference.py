"""The reference by hand: what happens to a few events, without chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.recording import DROPS
from dualstream_lab.recording import Outcome as Said
from dualstream_lab.simulation import Costs, Deployment, Outcome
from dualstream_lab.simulation.outages import Outages
from dualstream_lab.simulation.random_draws import draw
from dualstream_lab.workload import Workload
from tests.simulation.invariants import check, check_publishers
from tests.simulation.reference import reference

EXACT = Costs(broker_noise=0, redis_noise=0, pauses=0)
STEADY = Workload(rate=1000, duration=4, plan="poisson", batch=10, sources=40)


def fault(what: str, at: float, length: float = 0.0, **parameters: float) -> FaultSpec:
    return FaultSpec(name=what, at=at, length=length, parameters=parameters)


def run(
    *faults: FaultSpec,
    workload: Workload = STEADY,
    deployment: Deployment | None = None,
    costs: Costs = EXACT,
) -> Outcome:
    deployment = deployment or Deployment(catch_up=True)
    outcome = reference(workload, deployment, costs, faults)
    check(outcome)
    check_publishers(outcome, deployment, batch=workload.batch)
    return outcome


def dropped(outcome: Outcome, reason: str) -> np.ndarray:
    return outcome.reason == DROPS.index(reason)


def counts(outcome: Outcome) -> dict[str, int]:
    return {
        said.name: int((outcome.outcome == said).sum()) for said in Said if (outcome.outcome == said).any()
    }


def test_one_call_takes_the_sum_of_its_steps() -> None:
    costs = EXACT
    deployment = Deployment(
        partitions=1, brokers=1, subscribers=3, gateways=2, clients=20.0, tick=0.0, consumers=1
    )
    one = Workload(rate=2, duration=1, batch=2, sources=1, payload_bytes=400)
    outcome = run(workload=one, deployment=deployment)
    assert len(outcome) == 2
    assert outcome.sent.tolist() == [0, 0]
    entered = costs.call + 2 * costs.event
    work = costs.request + costs.batch + 2 * costs.record + 800 * costs.record_byte
    logged = entered + costs.kafka_rtt / 2 + work
    acked = logged + costs.kafka_rtt / 2
    each = costs.publish + 2 * costs.deliver  # where there are gateways, it is they who hear
    at_gateway = acked + costs.redis_rtt / 2 + costs.exchange + each + costs.receive_delay
    fan_out = costs.receive + costs.write * 20 / 2
    assert outcome.entered == pytest.approx([entered] * 2, abs=1e-12)
    assert outcome.logged == pytest.approx([logged] * 2, abs=1e-12)
    assert outcome.acked == pytest.approx([acked] * 2, abs=1e-12)
    assert outcome.consumed == pytest.approx([logged + costs.fetch_delay] * 2, abs=1e-12)
    assert outcome.delivered == pytest.approx([at_gateway + fan_out, at_gateway + 2 * fan_out], abs=1e-12)
    assert outcome.offset.tolist() == [0, 1]


def test_copies_take_the_broker_longer_and_the_ack_waits_for_them() -> None:
    one = Workload(rate=1, duration=1, batch=1, sources=1)
    single, copied = (
        run(workload=one, deployment=Deployment(brokers=2, replication_factor=c)) for c in (1, 2)
    )
    more = EXACT.record + 300 * EXACT.record_byte
    assert copied.logged - single.logged == pytest.approx([more], abs=1e-12)
    assert copied.acked - single.acked == pytest.approx([more + EXACT.replica], abs=1e-12)
    assert copied.consumed - single.consumed == pytest.approx([more + EXACT.replica], abs=1e-12)


def test_while_a_request_is_in_flight_the_next_one_fills() -> None:
    outcome = run(
        workload=Workload(rate=1000, duration=0.1, batch=1, sources=1), costs=replace(EXACT, request=20.5e-3)
    )
    sizes = np.unique(outcome.logged, return_counts=True)[1]
    assert sizes[0] == 1
    assert set(sizes[1:-1].tolist()) <= {20, 21, 22}


def test_a_request_has_no_more_bytes_of_a_partition_than_a_batch_may_have() -> None:
    outcome = run(
        workload=Workload(rate=1000, duration=0.1, batch=1, sources=1, payload_bytes=400),
        deployment=Deployment(batch_bytes=1300), costs=replace(EXACT, request=20e-3),
    )  # fmt: skip
    assert np.unique(outcome.logged, return_counts=True)[1].max() == 3


def test_a_broker_stands_still_in_a_pause_and_goes_on_after_it() -> None:
    one, costs = Workload(rate=1, duration=1, batch=1, sources=1), replace(EXACT, request=0.1)
    drawn = draw(sources=1, duration=1, deployment=Deployment(), costs=costs, outages=Outages(), seed=1)
    paused = reference(one, costs=costs, draws=replace(drawn, stops=(np.array([[0.05, 0.25], [0.26, 0.3]]),)))
    assert paused.logged - reference(one, costs=costs).logged == pytest.approx([0.24], abs=1e-12)


def test_consumers_take_what_is_readable_together_and_are_busy_with_it() -> None:
    outcome = run(costs=replace(EXACT, poll=0.05, consume=1e-3), deployment=Deployment(partitions=1))
    polls, sizes = np.unique(outcome.consumed, return_counts=True)
    assert sizes.sum() == len(outcome)
    assert (np.diff(polls) >= 0.05 + 1e-3 * sizes[:-1] - 1e-9).all()


def test_gateways_write_at_their_ticks() -> None:
    outcome = run(deployment=Deployment(gateways=2, clients=100, tick=0.02))
    ticks = outcome.delivered / 0.02
    assert np.allclose(ticks, np.round(ticks), atol=1e-6)
    assert (outcome.delivered - outcome.acked).mean() == pytest.approx(0.01, rel=0.1)


def test_nobody_hears_without_subscribers_nor_reads_without_consumers() -> None:
    outcome = run(deployment=Deployment(subscribers=0, consumers=0))
    assert counts(outcome) == {"DURABLE": len(outcome)}
    assert np.isnan(outcome.delivered).all()
    assert np.isnan(outcome.consumed).all()


@pytest.mark.parametrize(
    "deployment", [Deployment(), Deployment(publishers=3, brokers=2, replication_factor=2, shards=2)]
)
def test_when_nothing_is_broken_everything_is_durable_delivered_and_consumed(deployment: Deployment) -> None:
    outcome = run(deployment=deployment, costs=Costs())
    assert counts(outcome) == {"DURABLE": len(outcome)}
    assert not np.isnan(outcome.delivered).any()
    assert not np.isnan(outcome.consumed).any()
    assert outcome.resyncs == 0


def test_the_seed_decides() -> None:
    first, again, other = (reference(STEADY, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.delivered, again.delivered)
    assert not np.array_equal(first.delivered, other.delivered)


def test_a_closed_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="plan: closed"):
        reference(Workload(plan="closed"))


# Redis


def test_a_killed_redis_loses_only_news_and_what_was_dropped_is_recovered() -> None:
    outcome = run(fault("redis.kill", 1.03, 1))
    assert counts(outcome) == {"DURABLE": len(outcome)}
    given_up = dropped(outcome, "redis connection") | dropped(outcome, "redis down")
    assert np.array_equal(given_up, outcome.reason >= 0)
    assert (dropped(outcome, "redis connection")).sum() >= 10
    assert np.array_equal(outcome.recovered, given_up)
    assert outcome.resyncs == 1
    assert (outcome.delivered[outcome.recovered] > 2.03).all()
    assert not np.isnan(outcome.delivered).any()


def test_what_is_published_before_the_subscribers_are_back_is_undelivered() -> None:
    outcome = run(fault("redis.restart", 1.03), deployment=Deployment())
    back = outcome.away[0][2]
    assert back > 1.3
    undelivered = np.isnan(outcome.delivered) & (outcome.reason < 0)
    assert undelivered.sum() > 100
    assert (outcome.acked[undelivered] < back).all()
    assert not undelivered[outcome.acked > back].any()


def test_an_exchange_on_its_way_to_a_killed_redis_is_lost() -> None:
    one, costs = Workload(rate=1, duration=1, batch=1, sources=1), replace(EXACT, redis_rtt=0.1)
    outcome = run(
        fault("redis.kill", 0.03, 0.01), workload=one, deployment=Deployment(redis_timeout=1), costs=costs
    )
    assert outcome.dropped == pytest.approx([0.03], abs=1e-9)
    assert dropped(outcome, "redis connection").all()
    assert np.isnan(outcome.delivered).all()  # with no exchange after it, nobody is told


def test_after_five_failures_nobody_tries_for_a_second_and_a_half() -> None:
    outcome = run(fault("redis.kill", 1.03, 0.5))
    first = outcome.dropped[dropped(outcome, "redis connection")].min()
    fifth = first + 4 * 0.05  # the exchange, and four connects with a rest before each
    down = dropped(outcome, "redis down")
    opened = outcome.dropped[down].min()
    assert opened == pytest.approx(fifth, abs=1e-9)
    assert outcome.dropped[down].max() == pytest.approx(fifth + 1.5 + EXACT.redis_rtt, abs=0.1)
    at_once = down & (outcome.acked > opened)
    assert np.array_equal(outcome.dropped[at_once], outcome.acked[at_once])
    after = outcome.acked > fifth + 1.5 + EXACT.redis_rtt
    assert not (outcome.reason[after] >= 0).any()


def test_a_short_mute_is_survived_and_what_timed_out_is_delivered_all_the_same() -> None:
    outcome = run(fault("redis.stop", 1.03, 0.5))
    timed_out = dropped(outcome, "redis timeout")
    assert timed_out.any()
    assert np.array_equal(timed_out, outcome.reason >= 0)
    assert not outcome.recovered.any()
    assert not np.isnan(outcome.delivered).any()
    assert (outcome.delivered[timed_out] > 1.53).all()
    assert (outcome.dropped[timed_out] < 1.53).all()


def test_after_trouble_little_is_sent_at_once_for_a_second() -> None:
    """A mute Redis leaves a queue behind it: it goes out by 250, each as long again after its answer."""
    slow = replace(EXACT, publish=20e-6)
    outcome = run(fault("redis.stop", 1.03, 0.5), costs=slow, workload=replace(STEADY, rate=20_000))
    waiting = (outcome.acked > 1.03) & (outcome.acked < 1.5) & (outcome.reason < 0)
    delivered = np.sort(outcome.delivered[waiting])
    rests = np.diff(delivered)[np.diff(delivered) > 1e-3]
    assert len(rests) >= np.count_nonzero(waiting) // 250 - 1
    assert rests.max() < 0.25 * 0.02 + 0.005 + 2 * EXACT.redis_rtt + 1e-3


def test_only_failures_in_a_row_open_the_breaker() -> None:
    spec = FaultSpec(name="redis.stop", at=0.53, length=0.35, every=0.8, times=4)
    outcome = run(spec)
    assert dropped(outcome, "redis timeout").any()
    assert not dropped(outcome, "redis down").any()


def test_a_long_mute_opens_the_breaker() -> None:
    outcome = run(fault("redis.stop", 1.03, 2))
    down = dropped(outcome, "redis down")
    assert outcome.dropped[down].min() == pytest.approx(
        outcome.dropped[dropped(outcome, "redis timeout")].min() + 4 * (0.05 + 0.2), abs=1e-9
    )
    assert outcome.recovered[down].all()
    assert not outcome.recovered[dropped(outcome, "redis timeout")].any()


def test_a_slow_redis_is_recoveredr_by_its_delay() -> None:
    slowed, healthy = run(fault("redis.slow", 0, 100, delay_ms=40)), run()
    more = (slowed.delivered - slowed.acked).min() - (healthy.delivered - healthy.acked).min()
    assert more == pytest.approx(0.08, abs=1e-9)  # there, and to the subscriber
    assert not (slowed.reason >= 0).any()


def test_what_a_too_slow_redis_answers_too_late_is_delivered_all_the_same() -> None:
    outcome = run(fault("redis.slow", 1, 1, delay_ms=150))
    timed_out = dropped(outcome, "redis timeout")
    assert timed_out.any()
    assert not np.isnan(outcome.delivered[timed_out]).any()
    assert not outcome.recovered[timed_out].any()


def test_a_full_queue_drops_the_oldest() -> None:
    outcome = run(fault("redis.stop", 1.03, 0.35), deployment=Deployment(notify_queue=50, catch_up=True))
    full = dropped(outcome, "queue full")
    assert full.any()
    assert outcome.recovered[full].all()
    # One timeout, and that of a connect that began before it was over.
    waiting = (outcome.reason < 0) & (outcome.acked > 1.03) & (outcome.acked < 1.53)
    assert 30 <= waiting.sum() <= 50
    assert outcome.acked[full].max() <= outcome.acked[waiting].min()


# Kafka


def test_a_kafka_that_is_back_before_the_deadline_costs_only_time() -> None:
    congested = replace(EXACT, request=0.05)
    outcome = run(fault("kafka.kill", 1.03, 1.5), deployment=Deployment(publishers=2), costs=congested)
    assert counts(outcome) == {"DURABLE": len(outcome)}
    assert not ((outcome.logged >= 1.03) & (outcome.logged < 2.53)).any()
    assert (outcome.acked - outcome.entered).max() > 1.4


def test_what_was_in_a_lost_request_is_unknown_and_what_was_not_is_rejected() -> None:
    outcome = run(fault("kafka.kill", 1.03, 2), deployment=Deployment(delivery_timeout=0.5))
    unknown, rejected = (outcome.outcome == said for said in (Said.UNKNOWN, Said.REJECTED))
    assert unknown.any()
    assert rejected.any()
    assert (outcome.settled - outcome.entered)[unknown | rejected] == pytest.approx(0.5, abs=1e-9)
    assert np.isnan(outcome.logged[unknown]).all()


def test_what_a_mute_kafka_had_is_unknown_and_in_the_log_later() -> None:
    outcome = run(fault("kafka.stop", 1.03, 1), deployment=Deployment(delivery_timeout=0.5))
    unknown = outcome.outcome == Said.UNKNOWN
    assert unknown.any()
    assert (outcome.logged[unknown] > 2.03).all()
    assert not np.isnan(outcome.consumed[unknown]).any()


def test_a_full_buffer_makes_calls_wait_and_then_refuses_them() -> None:
    outcome = run(
        fault("kafka.kill", 1.03, 1.5), deployment=Deployment(buffer_events=200, buffer_timeout=0.4)
    )
    no_room = outcome.outcome == Said.NO_ROOM
    asked = outcome.sent + EXACT.call + 10 * EXACT.event
    assert no_room.any()
    assert (outcome.settled - asked)[no_room] == pytest.approx(0.4, abs=1e-9)
    waited = (outcome.entered - asked)[~no_room]
    assert 0.1 < waited.max() <= 0.4
    assert (np.diff(outcome.entered[~no_room]) >= 0).all()  # nobody overtakes


def test_a_call_that_can_never_fit_is_refused() -> None:
    outcome = run(deployment=Deployment(buffer_events=9, buffer_timeout=0.0))
    assert counts(outcome) == {"NO_ROOM": len(outcome)}


def test_a_lost_leaders_partitions_wait_for_another_one() -> None:
    deployment = Deployment(brokers=3, replication_factor=2, partitions=6)
    workload = replace(STEADY, duration=12.0, rate=300)
    costs = replace(EXACT, request=0.02)
    outcome = run(fault("kafka.leader-lost", 1.03, 9), deployment=deployment, workload=workload, costs=costs)
    its = outcome.partition % 3 == 0
    assert counts(outcome) == {"DURABLE": len(outcome)}
    assert not ((outcome.logged[its] >= 1.03) & (outcome.logged[its] < 7.03)).any()
    assert ((outcome.logged[its] >= 7.03) & (outcome.logged[its] < 10.03)).any()
    assert (outcome.acked - outcome.entered)[outcome.partition % 3 == 2].max() < 0.1
    # Broker 1 serves them, one request after the other.
    moved = (outcome.logged >= 7.1) & (outcome.logged < 10.03) & (outcome.partition % 3 != 2)
    assert np.diff(np.unique(outcome.logged[moved])).min() > 0.02
