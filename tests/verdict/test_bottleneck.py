"""What limited a run is named with its figures: every rule where its condition holds, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dualstream_lab.verdict.bottleneck import ANSWERS, MACHINE, PARTIES, PUBLISHING, limit_sentence
from dualstream_lab.verdict.measures import Totals

NEVER = float("inf")

LIMITS: Mapping[str, tuple[dict[str, float], dict[str, float], dict[str, int], str]] = {
    "refusals": (
        {"publish.rejected": 8000, "publish.latency_raw.p50": NEVER}, {}, {}, "Kafka refused 8,000 events"),
    "generator": (
        {"generator.slip.p99": 300}, {"published.cpu": 0.98, "published.loop_lag_ms": 41}, {},
        ("your generator was the limit: 0.98 of one core, its loop up to 41 ms late, events sent 300 ms "
        "after their time (p99)")),
    "Kafka": (
        {"publish.no_room": 5, "publish.latency_raw.p50": 80, "publish.latency_raw.p99": NEVER},
        {"published.in_flight": 10, "publisher.buffered_events": 1000}, {},
        ("Kafka was the limit: answers took 80 ms (p50) and for ever (p99), 10 of 10 calls were open, 1,000 "
        "events waited in the buffer")),
    "Redis": ({}, {"redis.cpu": 0.97}, {}, "Redis was busy: 0.97 of its one core"),
    "slow client": (
        {}, {"redis.output_buffer": 9 * 2**20}, {}, "Redis kept 9 MiB for a client that reads slowly"),
    "subscribers": (
        {}, {"delivered.cpu": 0.95}, {}, "the subscribers' process was busy: 0.95 of one core"),
    "consumer": ({}, {"consumed.cpu": 0.95}, {}, "the Kafka consumer was busy: 0.95 of one core"),
    "slow answers": (
        {}, {"kafka.answer_ms": 250}, {}, "Kafka answered a small request in 250 ms at worst"),
    "machine": (
        {}, {}, {"machine.busy_ms": 970, "machine.idle_ms": 30},
        "all cores of this machine were busy (97%), whoever it was"),
}  # fmt: skip


def limit(*cases: str, faults: bool = False) -> str:
    measures: dict[str, float] = {}
    whole = Totals()
    for case in cases:
        found, peaks, counters, _ = LIMITS[case]
        measures |= found
        whole.peaks.update(peaks)
        whole.counters.update(counters)
    return limit_sentence(measures, whole, concurrency=10, batch=1, buffer_events=1000, faults=faults)


def test_every_rule_of_the_limit_has_a_case() -> None:
    assert {rule.name for rule in (*PUBLISHING, *PARTIES, ANSWERS, MACHINE)} == LIMITS.keys()


@pytest.mark.parametrize("case", LIMITS)
def test_the_limit_is_said_alone_and_with_faults(case: str) -> None:
    assert limit(case) == LIMITS[case][-1]
    assert limit(case, faults=True) == f"{LIMITS[case][-1]} (with faults on the way)"


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (("refusals", "generator", "Redis", "machine"), ("refusals", "Redis", "machine")),
        (("Redis", "consumer", "subscribers"), ("Redis", "subscribers", "consumer")),
        (("slow answers", "machine"), ("slow answers", "machine")),
        (("slow answers", "slow client"), ("slow client",)),
    ],
)
def test_of_several_limits_those_are_said_that_the_tables_say(cases: tuple[str], said: tuple[str]) -> None:
    assert limit(*cases) == "; ".join(LIMITS[case][-1] for case in said)


@pytest.mark.parametrize(
    ("measures", "peaks", "said"),
    [
        ({"publish.latency.p99": 20}, {"published.gc_pause_ms": 12}, "stopped it for up to 12 ms"),
        ({"live.latency.p99": 8}, {"delivered.gc_pause_ms": 4}, "stopped them for up to 4 ms"),
        ({"publish.latency.p99": 1}, {"published.gc_pause_ms": 2.9}, ""),
        ({"publish.latency.p99": 40}, {"published.gc_pause_ms": 12}, ""),
    ],
)
def test_a_collection_that_is_half_of_what_was_measured_is_said(
    measures: dict[str, float], peaks: dict[str, float], said: str
) -> None:
    found = limit_sentence(measures, Totals(peaks=peaks), concurrency=10, batch=10, buffer_events=1000)
    nothing, _, rest = found.partition("; ")
    assert nothing.startswith("nothing was at its limit")
    assert said in rest
    assert bool(said) == bool(rest)


def test_where_nothing_is_at_its_limit_the_figures_say_how_far_it_was() -> None:
    text = (
        "nothing was at its limit: events sent 0.0 ms after their time (p99), generator at 0.00 of one core"
    )
    assert limit(faults=True) == text


def sentence(measures, peaks, counts=()):
    class Whole:
        counters: dict[str, int] = dict(counts)  # noqa: RUF012
        histograms: dict[str, object] = {}  # noqa: RUF012

    Whole.peaks = peaks
    return limit_sentence(measures, Whole, concurrency=10, batch=1, buffer_events=1000)


@pytest.mark.parametrize(
    ("measures", "peaks", "begin"),
    [
        ({}, {"published.cpu": 0.5}, "nothing was at its limit"),
        ({"generator.slip.p99": 300.0}, {"published.cpu": 0.98}, "your generator was the limit: 0.98"),
        (
            {"generator.slip.p99": 3000.0, "publish.latency_raw.p50": 900.0, "publish.events_per_second": 11},
            {"published.cpu": 0.3}, "Kafka was the limit: answers took 900 ms",
        ),
        ({"publish.no_room": 5.0}, {"publisher.buffered_events": 1000}, "Kafka was the limit"),
        ({}, {"redis.cpu": 0.97}, "Redis was busy: 0.97"),
        ({}, {"redis.output_buffer": 9 * 2**20}, "Redis kept 9 MiB"),
        ({}, {"delivered.cpu": 0.95}, "the subscribers' process was busy"),
        ({}, {"consumed.cpu": 0.95}, "the Kafka consumer was busy"),
        ({"generator.slip.p99": 40.0}, {"published.loop_lag_ms": 45}, "your generator was the limit"),
    ],
)  # fmt: skip
def test_the_limit_is_named_with_its_figures(measures, peaks, begin):
    assert sentence(measures, peaks).startswith(begin)


def test_what_kafka_refused_is_not_blamed_on_its_time():
    """Nothing was answered in the sense of the measures, and no call was slow."""
    refused = {"publish.rejected": 8000.0, "publish.rate": 0.0, "generator.slip.p99": 6000.0}
    never = {f"publish.latency_raw.{q}": float("inf") for q in ("p50", "p99")}
    found = sentence(refused | never, {"published.in_flight": 10})
    assert found == "Kafka refused 8,000 events"
    few = refused | {
        "publish.rejected": 3.0,
        "publish.latency_raw.p50": 900.0,
        "publish.latency_raw.p99": 1e3,
    }
    assert sentence(few, {"published.in_flight": 10}).startswith("Kafka was the limit: answers took 900 ms")


def test_an_outage_that_blocks_every_lane_is_not_the_generators_fault():
    """Half the answers are fast, and the mean says nothing of an outage; a stalled loop looks alike."""
    late = {
        "generator.slip.p99": 9800.0,
        "publish.latency_raw.p50": 80.0,
        "publish.latency_raw.p99": 10_300.0,
    }
    found = sentence(late, {"published.in_flight": 10, "published.loop_lag_ms": 400, "published.cpu": 0.3})
    assert found.startswith(
        "Kafka was the limit: answers took 80 ms (p50) and 10,300 ms (p99), 10 of 10 calls"
    )
    stalled = {"published.in_flight": 10, "published.loop_lag_ms": 9900, "published.cpu": 0.3}
    assert sentence(late, stalled).startswith("your generator was the limit")


def test_a_busy_machine_is_said():
    busy = {"machine.busy_ms": 970, "machine.idle_ms": 30}
    assert "all cores of this machine were busy (97%)" in sentence({}, {}, busy)
    assert "machine" not in sentence({}, {}, {"machine.busy_ms": 900, "machine.idle_ms": 100})
