from __future__ import annotations

import numpy as np
import pytest

from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation import Costs, Deployment
from dualstream_lab.simulation.outages import Outages, outages
from dualstream_lab.simulation.random_draws import Draws, draw


def drawn(
    *,
    sources: int = 1000,
    duration: float = 100.0,
    deployment: Deployment | None = None,
    costs: Costs | None = None,
    broken: Outages | None = None,
    seed: int = 1,
) -> Draws:
    return draw(
        sources=sources, duration=duration, deployment=deployment or Deployment(), costs=costs or Costs(),
        outages=broken or Outages(), seed=seed,
    )  # fmt: skip


def test_a_seed_decides_and_another_one_decides_otherwise() -> None:
    first, again, other = drawn(seed=1), drawn(seed=1), drawn(seed=2)
    for name in ("partition", "shard", "away"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert np.array_equal(first.requests.table, again.requests.table)
    assert np.array_equal(first.stops[0], again.stops[0])
    assert not np.array_equal(first.partition, other.partition)
    assert not np.array_equal(first.requests.table, other.requests.table)
    assert not np.array_equal(first.stops[0], other.stops[0])


def test_what_is_drawn_for_a_station_does_not_depend_on_how_many_there_are() -> None:
    few = drawn(deployment=Deployment(brokers=2, shards=2))
    many = drawn(deployment=Deployment(brokers=5, shards=9))
    assert np.array_equal(many.requests.starts[:2], few.requests.starts)
    assert np.array_equal(many.exchanges.starts[:2], few.exchanges.starts)
    for stops, same in zip(few.stops, many.stops, strict=False):
        assert np.array_equal(stops, same)
    assert not np.isin(many.stops[0][:, 0], many.stops[1][:, 0]).any()


def test_sources_are_spread_evenly_and_shards_know_nothing_of_partitions() -> None:
    places = drawn(sources=120_000, deployment=Deployment(partitions=6, shards=4))
    together = np.bincount(places.partition * 4 + places.shard, minlength=24)
    expected = 120_000 / 24
    assert ((together - expected) ** 2 / expected).sum() < 60  # chi-squared, 23 degrees: beyond 1 in 30,000


@pytest.mark.parametrize("variation", [0.0, 0.3, 1.5])
def test_noise_has_mean_one_and_the_variation_that_was_asked_for(variation: float) -> None:
    table = drawn(costs=Costs(broker_noise=variation)).requests.table
    assert table.mean() == pytest.approx(1, abs=1e-12)
    assert table.std() == pytest.approx(variation, rel=0.1)
    assert table.min() > 0


def test_a_broker_pauses_as_often_and_as_long_as_it_should() -> None:
    stops = drawn(duration=3700.0, costs=Costs(pauses=2.0, pause=3e-3)).stops[0]
    lengths = stops[:, 1] - stops[:, 0]
    count = 8000  # for 300 s after the plan, too
    overlapping = 0.006  # at most; they are one
    assert len(stops) == pytest.approx(count, abs=4 * np.sqrt(count) + count * overlapping)
    assert lengths.mean() == pytest.approx(3e-3, rel=4 / np.sqrt(count) + overlapping)
    assert (stops[1:, 0] > stops[:-1, 1]).all()
    assert (lengths > 0).all()


@pytest.mark.parametrize("costs", [Costs(pauses=0), Costs(pause=0)])
def test_a_broker_that_does_not_pause_has_no_stops(costs: Costs) -> None:
    assert drawn(costs=costs).stops[0].shape == (0, 2)


def test_a_mute_broker_stands_still_and_the_others_go_on() -> None:
    deployment = Deployment(brokers=2)
    broken = outages([FaultSpec(name="kafka.stop", at=3, length=4)], deployment)
    stops = drawn(deployment=deployment, costs=Costs(pauses=0), broken=broken).stops
    assert stops[0].tolist() == [[3, 7]]
    assert stops[1].tolist() == []


def test_subscribers_are_away_during_an_outage_and_up_to_a_second_longer() -> None:
    spec = FaultSpec(name="redis.kill", at=10, length=2, every=5, times=1000)
    down = outages([spec], Deployment()).redis.down
    away = drawn(broken=outages([spec], Deployment())).away
    longer = away[:, 1] - down[:, 1]
    assert np.array_equal(away[:, 0], down[:, 0])
    assert ((longer >= 0) & (longer <= 1)).all()
    assert longer.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 1000))


def test_subscribers_that_did_not_come_back_between_two_outages_were_away_all_the_time() -> None:
    spec = FaultSpec(name="redis.kill", at=10, length=2, every=2.001, times=100)
    away = drawn(broken=outages([spec], Deployment())).away
    assert len(away) < 10
    assert away[0, 0] == 10
    assert away[-1, 1] > 10 + 99 * 2.001 + 2
