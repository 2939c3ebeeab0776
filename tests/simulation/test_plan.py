"""Plans: they are enough and no more, what they say of outages, and what becomes of impossible wishes."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.recording import Outcome as Told
from dualstream_lab.simulation import Costs, Deployment, Outcome, simulate
from dualstream_lab.simulation.analytic.capacity import capacity
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.planning import trial_run
from dualstream_lab.simulation.planning.explain import arithmetic
from dualstream_lab.simulation.planning.outage_effects import ELECTION, effects
from dualstream_lab.simulation.planning.plan import PARTS, clusters, plan
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.simulation.planning.sizing import size
from dualstream_lab.simulation.tables import bill_table
from dualstream_lab.workload import Workload
from tests.simulation.invariants import unmeasured

SMALL = settings(max_examples=20, deadline=None)
COSTS = Costs()
HUGE = Requirements(rate=1_000_000, sources=5_000_000, subscribers=10_000_000)
SOME = Requirements(rate=20_000, sources=1_000, subscribers=5_000)

wishes = st.builds(
    Requirements, rate=st.floats(10, 2_000_000), sources=st.integers(10_000, 1_000_000),
    subscribers=st.integers(1, 1_000_000), batch=st.integers(1, 100), payload_bytes=st.integers(256, 5_000),
    replication_factor=st.integers(1, 3), max_load=st.floats(0.2, 0.9), outage=st.floats(1, 1000),
)  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Fewer events are enough to see that something comes of them."""
    monkeypatch.setattr(trial_run, "_EVENTS", 20_000)
    monkeypatch.setattr(trial_run, "_LEAST", 0.08)


def calibrated(**ranges: tuple[float, float]) -> Calibration:
    """As if all costs were known within 5 %."""
    low, high = (
        Costs(**{one.name: getattr(COSTS, one.name) * factor for one in fields(Costs)})
        for factor in (0.95, 1.05)
    )
    return Calibration(
        costs=COSTS, low=low, high=high, machine="a machine", date="2026-11-25", ranges=ranges,
        observed=frozenset(one.name for one in fields(Costs)),
    )  # fmt: skip


def loads(needs: Requirements, deployment: Deployment) -> dict[str, float]:
    return {name: one.load for name, one in capacity(needs.traffic, deployment, COSTS).items()}


def test_the_smallest_deployment_is_enough_and_less_of_a_part_is_not():
    found = size(HUGE, COSTS)
    assert max(loads(HUGE, found).values()) <= 0.6 * (1 + 1e-9)
    for part, station in (("publishers", "publisher"), ("shards", "shard")):
        fewer = replace(found, **{part: getattr(found, part) - 1})
        assert loads(HUGE, fewer)[station] > 0.6
    assert found.gateways == 1001  # 10,000 connections each, and a spare one
    assert found.brokers == found.replication_factor == 3
    assert found.partitions % found.brokers == found.partitions % found.consumers == 0
    busier = replace(HUGE, rate=4_000_000)
    many = size(busier, COSTS)
    fewer = replace(many, brokers=many.brokers - 1, partitions=(many.brokers - 1) * 64)
    assert loads(busier, fewer)["broker"] > 0.6


@SMALL
@given(needs=wishes, factor=st.floats(1, 20))
def test_what_is_enough_for_a_higher_rate_is_enough_for_a_lower_one_and_never_fewer_parts(needs, factor):
    higher = replace(needs, rate=min(10_000_000, needs.rate * factor))
    try:
        more = size(higher, COSTS)
    except ConfigError as error:
        assert "the nearest that works" in str(error)  # noqa: PT017
        return
    found = size(needs, COSTS)
    for part in ("publishers", "brokers", "shards", "gateways"):
        assert getattr(more, part) >= getattr(found, part), part
    for deployment in (found, more):
        assert max(loads(needs, deployment).values()) <= needs.max_load * (1 + 1e-6)


@SMALL
@given(needs=wishes, factor=st.floats(1, 10))
def test_a_longer_outage_never_shrinks_what_it_does(needs, factor):
    deployment = size(needs, COSTS)
    stations = capacity(needs.traffic, deployment, COSTS)
    before = effects(needs, deployment, stations)
    after = effects(replace(needs, outage=needs.outage * factor), deployment, stations)
    for one, other in zip(before, after, strict=True):
        assert one[:2] == other[:2]
        assert other.value >= one.value * (1 - 1e-9), one.quantity


def effect(needs: Requirements, deployment: Deployment, part: str, word: str) -> float:
    stations = capacity(needs.traffic, deployment, COSTS)
    found = [one for one in effects(needs, deployment, stations) if one.part == part and word in one.quantity]
    assert len(found) == 1
    return found[0].value


def test_an_outage_of_redis_drops_as_many_as_the_model_does():
    needs = replace(SOME, rate=2_000, outage=6.0)
    deployment = Deployment(brokers=3, partitions=3, replication_factor=3, gateways=2, clients=1)
    told = effect(needs, deployment, "Redis shard", "dropped")
    outcome = simulate(
        Workload(rate=2_000, duration=12), deployment, COSTS, [FaultSpec(name="redis.kill", at=2, length=6)]
    )
    assert isinstance(outcome, Outcome)
    dropped = np.count_nonzero(outcome.reason >= 0)
    assert (outcome.outcome == Told.DURABLE).all()
    # Until the breaker tries again, some more are.
    assert told <= dropped <= told + 2_000 * effect(needs, deployment, "Redis shard", "get live events again")


@pytest.mark.parametrize("room", [150_000, 1_000])
def test_a_lost_broker_fills_buffers_as_in_the_model(room):
    needs = replace(SOME, rate=1_500)
    deployment = Deployment(
        publishers=2, brokers=3, partitions=3, replication_factor=3, gateways=2, buffer_events=room
    )
    lost = FaultSpec(name="kafka.leader-lost", at=1, length=8)
    workload = Workload(rate=1_500, duration=9, zipf=0, sources=10_000)
    outcome = simulate(workload, deployment, COSTS, [lost])
    assert isinstance(outcome, Outcome)
    refused = np.count_nonzero(outcome.outcome == Told.NO_ROOM)
    assert effect(needs, deployment, "broker", "NO_ROOM") == pytest.approx(refused, rel=0.25)
    at = 1 + ELECTION - 0.01
    first = outcome.seq // workload.batch % 2 == 0
    inside = np.count_nonzero(first & (outcome.entered < at) & (outcome.settled > at))
    assert effect(needs, deployment, "broker", "wait in each") == pytest.approx(inside, rel=0.05)


def test_one_copy_means_partitions_that_are_gone_for_the_whole_outage():
    needs = replace(SOME, replication_factor=1)
    deployment = size(needs, COSTS)
    assert effect(needs, deployment, "broker", "until they can be") == 90
    assert effect(needs, deployment, "broker", "not written by their deadline") == 20_000 * 75
    assert effect(SOME, size(SOME, COSTS), "broker", "until they can be") == ELECTION


def test_a_plan_answers_all_that_was_asked():
    found = plan(replace(HUGE, live_p99=0.05), calibrated())
    assert set(found.bill) == set(PARTS)
    assert found.bottleneck == max(found.loads, key=lambda name: found.loads[name].value)
    assert not found.missed
    assert 0.005 < found.goals[0].least < found.goals[0].value <= 0.05
    assert found.latency["publish", 0.99].value < found.latency["live", 0.99].value
    for figure in (*found.bill.values(), *found.loads.values(), *(one for _, one in found.effects)):
        assert figure.low <= figure.value <= figure.high < math.inf
    assert found.loads["publisher"].low < found.loads["publisher"].high
    assert {one.part for one, _ in found.effects} == {
        "Redis shard", "broker", "all consumers", "gateway", "publisher",
    }  # fmt: skip
    assert plan(replace(HUGE, live_p99=0.05), calibrated()) == found


def test_a_plan_for_hardly_anybody_has_figures_too():
    found = plan(Requirements(rate=100, sources=1_000_000, subscribers=1, live_p99=1.0), calibrated())
    assert not found.missed
    assert all(figure.value < 1 for figure in found.latency.values())


def test_a_goal_takes_more_of_what_costs_the_time():
    heavy = replace(SOME, rate=500_000, max_load=0.9, sources=100_000, payload_bytes=2_000)
    plain = plan(heavy, calibrated())
    limit = plain.latency["publish", 0.99].value * 0.88
    found = plan(replace(heavy, publish_p99=limit), calibrated())
    assert not found.missed
    assert found.deployment.brokers > plain.deployment.brokers
    assert found.deployment.partitions % found.deployment.consumers == 0


def test_where_one_cluster_misses_a_goal_several_smaller_ones_may_reach_it():
    needs = Requirements(rate=600_000, subscribers=20_000, live_p99=0.02)
    missed = plan(needs)
    number = clusters(needs)
    assert missed.missed
    assert number
    each = {name: math.ceil(getattr(needs, name) / number) for name in ("sources", "subscribers")}
    assert not plan(replace(needs, rate=needs.rate / number, **each)).missed
    assert clusters(replace(SOME, live_p99=0.001)) is None


def test_what_is_beyond_the_measured_ranges_is_marked_and_nothing_else():
    wide = dict.fromkeys(
        (
            "rate", "batch", "payload_bytes", "publishers", "brokers", "partitions", "replication_factor",
            "consumers",
            "subscribers", "clients_per_gateway",
        ),
        (0.0, 1e9),
    )  # fmt: skip
    assert not plan(SOME, calibrated(**wide)).beyond
    found = plan(SOME, calibrated(**wide | {"clients_per_gateway": (0.0, 100.0)}))
    assert found.beyond == {"clients_per_gateway": 2_500}
    assert {part for part, figure in found.bill.items() if figure.extrapolated} == {"gateways"}
    assert {name for name, figure in found.loads.items() if figure.extrapolated} == {"gateway"}
    assert found.latency["live", 0.99].extrapolated


def test_costs_at_which_it_would_not_keep_up_are_said():
    found = plan(HUGE, unmeasured())
    assert found.loads["publisher"].high > 1
    assert found.latency["publish", 0.5].high == math.inf
    assert found.bill["publishers"].high > 100


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rate": -5.0}, r"rate: must be from 1 to 10,000,000 \(is -5.0\)"),
        ({"rate": math.nan}, "rate: must be"),
        ({"subscribers": 0}, "subscribers: must be from 1 .*Redis has no use"),
        ({"sources": 0}, "sources: must be"),
        ({"max_load": 60.0}, "max_load: must be from 0.01 to 0.95"),
        ({"live_p99": 0.0}, "live_p99: must be above 0"),
        ({"per_subscriber": 2_000.0}, "per_subscriber: must be at most sources, 1,000"),
    ],
)
def test_an_impossible_wish_is_refused_by_name(changed, told):
    with pytest.raises(ConfigError, match=told):
        replace(SOME, **changed)


def test_a_rate_that_no_number_of_parts_carries_names_the_nearest_that_works():
    needs = replace(SOME, rate=3_000_000, sources=2)
    with pytest.raises(ConfigError, match="one for each source; the nearest that works: about ") as told:
        size(needs, COSTS)
    nearest = float(str(told.value).split("about ")[1].split(" ")[0].replace(",", ""))
    size(replace(needs, rate=nearest * 0.999), COSTS)
    with pytest.raises(ConfigError):
        size(replace(needs, rate=nearest * 1.01), COSTS)


def test_too_many_subscribers_for_all_gateways_name_what_works():
    needs = replace(SOME, subscribers=1_000_000_000, sources=1_000_000, rate=1_000)
    with pytest.raises(ConfigError, match=r"subscribers: .* 999,990,000 subscribers, or gateways of 10,001"):
        size(needs, COSTS)
    assert size(replace(needs, subscribers=999_990_000), COSTS).gateways == 100_000
    assert size(replace(needs, max_connections=10_001), COSTS).gateways <= 100_000


def test_the_command_answers_and_explains_every_number(dualstream):
    wanted = ["--rate", "1000000", "--sources", "5000000", "--subscribers", "10000000"]
    code, out, err = dualstream("plan", *wanted, "--explain")
    assert code == 0
    found = plan(HUGE)
    for line in arithmetic(found):
        assert line in out
    for part in PARTS:
        assert f"{getattr(found.deployment, part):,}" in out
    assert "← the first" in out
    assert "It holds" in out
    assert "extrapolated" in err


def test_the_command_says_what_cannot_be_reached_and_the_nearest(dualstream):
    code, out, _ = dualstream("plan", "--rate", "1000", "--subscribers", "10", "--live-p99", "1ms")
    assert code == 99
    assert "live p99 ≤ 1 ms is not reached" in out
    assert "The nearest that works: " in out
    assert "the longest step: until the gateway's tick" in out
    code, out, err = dualstream("plan", "--rate", "-1", "--subscribers", "10")
    assert (code, out) == (2, "")
    assert "rate: must be from 1 to" in err


def test_the_command_takes_a_calibration_and_says_what_goes_beyond_it(dualstream, tmp_path):
    calibrated(brokers=(1, 3), rate=(1, 90_000)).save(tmp_path / "costs.json")
    wanted = ["plan", "--rate", "20000", "--subscribers", "5000", "--calibration", "costs.json"]
    code, _, err = dualstream(*wanted)
    assert code == 0
    assert "costs of a machine, 2026-11-25" in err
    assert "extrapolated to clients per gateway 2,500 (not measured)" in err
    assert "extrapolated to brokers" not in err
    code, _, err = dualstream(*wanted[:-1], "absent.json")
    assert code == 2
    assert "absent.json cannot be read" in err


def test_a_bill_as_a_table_has_a_row_a_part():
    plans = [plan(replace(SOME, rate=rate)) for rate in (1_000, 20_000)]
    table = bill_table(plans)
    assert len(table) == 2 * len(PARTS)
    for one in plans:
        its = table[table.rate == one.needs.rate].set_index("part")
        assert its.value.to_dict() == {part: figure.value for part, figure in one.bill.items()}
        assert (its.low <= its.value).all()
        assert (its.value <= its.high).all()
    assert bill_table([]).columns.tolist() == table.columns.tolist()
