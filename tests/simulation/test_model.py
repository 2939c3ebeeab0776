"""The fast model: what must hold of every run, what each fault does, and what more of a part never harms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.recording import DROPS
from dualstream_lab.recording import Outcome as Told
from dualstream_lab.simulation import Costs, Deployment, simulate
from dualstream_lab.workload import Workload

WORK = Workload(rate=5_000, duration=4, batch=10)
WIDE = Deployment(publishers=2, brokers=3, partitions=9, replication_factor=2, shards=2, consumers=2)
COSTS = Costs()
QUIET = Costs(broker_noise=0, pauses=0, redis_noise=0)


def fault(what, at=1.0, length=1.0, **parameters):
    return FaultSpec(name=what, at=at, length=length, parameters=parameters)


def ran(*faults, workload=WORK, deployment=WIDE, costs=COSTS, seed=1):
    """A run of which what must always hold was checked."""
    outcome = simulate(workload, deployment, costs, faults, seed)
    durable = outcome.outcome == Told.DURABLE

    def there(times):
        return ~np.isnan(times)

    assert len(outcome) == len(outcome.seq) >= workload.expected * 0.9
    assert set(outcome.outcome) <= {Told.DURABLE, Told.REJECTED, Told.UNKNOWN, Told.NO_ROOM}
    assert np.array_equal(there(outcome.acked), durable)
    assert there(outcome.settled).all()
    assert np.array_equal(there(outcome.entered), outcome.outcome != Told.NO_ROOM)
    in_log = there(outcome.logged)
    assert in_log[durable].all()
    assert not in_log[(outcome.outcome == Told.REJECTED) | (outcome.outcome == Told.NO_ROOM)].any()
    assert np.array_equal(outcome.offset >= 0, in_log)
    assert np.array_equal(there(outcome.consumed), in_log)
    assert np.array_equal(there(outcome.dropped), outcome.reason >= 0)
    assert not (there(outcome.delivered) | (outcome.reason >= 0))[~durable].any()
    for before, after in (("intended", "sent"), ("sent", "entered"), ("entered", "logged"),
                          ("logged", "acked"), ("acked", "delivered"), ("logged", "consumed")):  # fmt: skip
        first, then = getattr(outcome, before), getattr(outcome, after)
        both = there(first) & there(then)
        assert (first[both] <= then[both]).all(), f"{after} before {before}"
    for partition in range(deployment.partitions):
        its = np.flatnonzero(in_log & (outcome.partition == partition))
        assert sorted(outcome.offset[its]) == list(range(len(its)))
    return outcome


def undelivered(outcome):
    return (outcome.outcome == Told.DURABLE) & np.isnan(outcome.delivered) & (outcome.reason < 0)


def why(outcome):
    return {DROPS[reason] for reason in set(outcome.reason) if reason >= 0}


def test_a_healthy_run_is_durable_delivered_and_consumed():
    outcome = ran()
    assert (outcome.outcome == Told.DURABLE).all()
    assert not outcome.recovered.any()
    assert not undelivered(outcome).any()
    assert not why(outcome)


def test_one_event_takes_the_sum_of_its_steps():
    costs = replace(QUIET, replica=0)
    alone = Workload(rate=1, duration=1, batch=1, payload_bytes=1000)
    one = ran(workload=alone, deployment=Deployment(), costs=costs)
    published = costs.call + costs.event + costs.kafka_rtt
    published += costs.request + costs.batch + costs.record + 1000 * costs.record_byte
    delivered = costs.redis_rtt / 2 + costs.exchange + costs.publish + costs.deliver + costs.receive_delay
    assert one.acked[0] == pytest.approx(published, rel=1e-12)
    assert one.delivered[0] - one.acked[0] == pytest.approx(delivered, rel=1e-9)
    assert one.consumed[0] == pytest.approx(published - costs.kafka_rtt / 2 + costs.fetch_delay, rel=1e-12)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    first, again, other = ran(), ran(), ran(seed=2)
    assert np.array_equal(first.acked, again.acked)
    assert np.array_equal(first.delivered, again.delivered)
    assert not np.array_equal(first.acked, other.acked)


def test_events_of_a_source_stay_in_order_through_a_kafka_outage():
    outcome = ran(fault("kafka.kill"))
    for source in range(20):
        its = np.flatnonzero((outcome.source == source) & ~np.isnan(outcome.logged))
        for publisher in range(WIDE.publishers):
            mine = its[its // WORK.batch % WIDE.publishers == publisher]
            assert (np.diff(outcome.offset[mine]) > 0).all()


def test_redis_that_is_gone_costs_live_news_and_nothing_durable():
    outcome = ran(fault("redis.kill"))
    assert (outcome.outcome == Told.DURABLE).all()
    assert why(outcome) == {"redis connection", "redis down"}
    assert outcome.resyncs >= 1
    assert not outcome.recovered.any()  # plain subscribers repair nothing
    assert undelivered(outcome).sum() + (outcome.reason >= 0).sum() > 1000
    begin, end = next((begin, end) for _, begin, end in outcome.away)
    told = outcome.reason < 0
    assert (outcome.acked[undelivered(outcome)] < end).all()
    assert not undelivered(outcome)[told & (outcome.acked < begin - 0.1)].any()


def test_redis_that_stands_still_does_its_work_later_although_it_was_given_up():
    outcome = ran(fault("redis.stop"))
    given_up = outcome.reason == DROPS.index("redis timeout")
    assert given_up.any()
    assert (outcome.delivered[given_up] >= 2.0).all()
    assert not outcome.recovered[given_up].any()


def test_a_slow_redis_times_out_or_is_just_late():
    slow = ran(fault("redis.slow", delay_ms=20))
    inside = (slow.acked > 1.1) & (slow.acked < 1.9)
    assert not why(slow)
    assert np.median((slow.delivered - slow.acked)[inside]) > 0.04
    assert "redis timeout" in why(ran(fault("redis.slow", delay_ms=200)))


def test_a_kafka_that_is_gone_for_longer_than_the_deadline_leaves_events_unknown_and_rejected():
    # Tried again every 0.1 s: what is due between the request's deadline and the next try was in none.
    outcome = ran(fault("kafka.kill", length=2), deployment=replace(WIDE, delivery_timeout=0.55))
    ours = outcome.partition % 3 == 0
    assert (outcome.outcome[~ours] == Told.DURABLE).all()
    assert {Told.UNKNOWN, Told.REJECTED, Told.DURABLE} == set(outcome.outcome[ours])
    assert np.isnan(outcome.logged[outcome.outcome == Told.UNKNOWN]).all()


def test_what_a_mute_kafka_was_given_comes_into_the_log_although_nobody_waits_for_it_any_more():
    outcome = ran(fault("kafka.stop", length=2), deployment=replace(WIDE, delivery_timeout=0.5))
    unknown = outcome.outcome == Told.UNKNOWN
    assert unknown.any()
    assert (outcome.logged[unknown] >= 3.0).all()


def test_a_lost_leader_is_replaced():
    outcome = ran(fault("kafka.leader-lost", length=8), workload=replace(WORK, rate=500, duration=9))
    ours = (outcome.partition % 3 == 0) & (outcome.entered > 1.0) & (outcome.entered < 6.9)
    assert (outcome.outcome == Told.DURABLE).all()
    assert (outcome.acked[ours] > 7.0).all()
    assert (outcome.acked[ours] < 7.5).all()


def test_a_full_buffer_refuses_and_takes_again():
    small = replace(WIDE, buffer_events=500, buffer_timeout=0.2)
    outcome = ran(fault("kafka.kill"), deployment=small)
    refused = outcome.outcome == Told.NO_ROOM
    assert 500 < refused.sum() < 8_000
    assert (outcome.outcome[outcome.intended > 3] == Told.DURABLE).all()
    assert (outcome.settled - outcome.sent)[refused] == pytest.approx(0.2, abs=0.05)


def test_the_longest_queue_of_notifications_drops_its_oldest():
    slow = Costs(publish=1e-3)
    outcome = ran(deployment=replace(WIDE, notify_queue=100, redis_timeout=60), costs=slow)
    assert why(outcome) == {"queue full"}
    full = outcome.reason >= 0
    assert np.median((outcome.dropped - outcome.acked)[full]) > 0


def test_clients_of_gateways_hear_at_a_tick():
    outcome = ran(deployment=replace(WIDE, gateways=2, clients=1000, tick=0.005))
    beats = outcome.delivered / 0.005
    assert np.abs(beats - np.round(beats)).max() < 1e-6
    raw = ran()
    assert (outcome.delivered >= raw.delivered).all()


def test_gateways_read_what_they_missed_and_plain_subscribers_never_hear_it():
    killed = fault("redis.restart", length=0)
    plain = ran(killed)
    assert undelivered(plain).any()
    for caught in ({"gateways": 2, "clients": 10}, {"catch_up": True}):
        outcome = ran(killed, deployment=replace(WIDE, **caught))
        assert not undelivered(outcome).any()
        assert outcome.recovered.any()
        [(_, _, back), *_] = outcome.away
        gap = outcome.recovered & (outcome.acked < back)
        assert outcome.delivered[gap].max() == pytest.approx(back, abs=0.01)


def test_what_redis_refuses_is_dropped_at_its_answer_and_announced_when_it_does_not():
    outcome = ran(fault("redis.no-permission"), deployment=replace(WIDE, gateways=1, clients=1))
    refused = outcome.reason >= 0
    assert why(outcome) == {"redis refused"}
    assert refused.sum() == pytest.approx(WORK.rate, rel=0.02)
    assert (outcome.dropped - outcome.acked)[refused].max() < 0.1
    assert outcome.recovered[refused].all()
    assert 2.0 < outcome.delivered[refused].min() < outcome.delivered[refused].max() < 2.6
    assert not (outcome.recovered & ~refused).any()


def test_redis_closes_the_connection_of_a_gateway_that_is_late():
    overloaded = replace(COSTS, receive=1e-3)  # a fifth of what comes
    small = replace(WIDE, gateways=1, clients=1, tick=0, output_buffer=200)
    outcome = ran(deployment=small, costs=overloaded)
    live = outcome.delivered[~outcome.recovered] - outcome.acked[~outcome.recovered]
    assert live.max() < 1e-3 * (200 + 1) + 0.05
    assert (outcome.reason < 0).all()
    assert outcome.recovered.sum() > 0.5 * len(outcome)
    assert not undelivered(outcome).any()
    patient = ran(deployment=replace(small, output_buffer=10**6), costs=overloaded)
    assert not patient.recovered.any()
    assert (patient.delivered - patient.acked).max() > 10


@pytest.mark.parametrize("part", [{"gateways": 1, "clients": 10}, {"subscribers": 0}, {"consumers": 0}])
def test_a_part_that_is_not_there(part):
    outcome = simulate(WORK, replace(WIDE, **part), COSTS)
    assert np.isnan(outcome.delivered).all() == (part.get("subscribers") == 0)
    assert np.isnan(outcome.consumed).all() == (part.get("consumers") == 0)


def test_more_partitions_at_equal_batches_never_lower_the_ceiling():
    saturated = Workload(rate=400_000, duration=0.5, batch=100, zipf=0)
    lasts = []
    for brokers in (1, 2, 4):
        its = Deployment(publishers=4, brokers=brokers, partitions=4 * brokers, buffer_events=10**6)
        slow = replace(QUIET, request=5e-3, record=5e-6)
        lasts.append(ran(workload=saturated, deployment=its, costs=slow).acked.max())
    assert lasts == sorted(lasts, reverse=True)


def test_a_longer_outage_never_shrinks_the_backlog():
    worst = []
    for length in (0.2, 0.5, 1.0, 2.0):
        outcome = ran(fault("kafka.stop", length=length), costs=QUIET)
        at = np.arange(1, 4, 0.01)
        entered, settled = np.sort(outcome.entered), np.sort(outcome.settled)
        worst.append((np.searchsorted(entered, at) - np.searchsorted(settled, at)).max())
    assert worst == sorted(worst)


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(ConfigError, match="plan: closed"):
        simulate(replace(WORK, plan="closed"))
    with pytest.raises(ConfigError, match=r"redis\.output-buffer is not simulated; those that are"):
        simulate(WORK, faults=[fault("redis.output-buffer")])
    with pytest.raises(ConfigError, match="sample: must be"):
        simulate(WORK, sample=0)
    with pytest.raises(ConfigError, match="partitions: must be at most 10,000 with 1,000 publishers"):
        simulate(WORK, Deployment(publishers=1000, partitions=20_000))
