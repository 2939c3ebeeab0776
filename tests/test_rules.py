"""Every rule of a judge's table is said where its condition holds, and none of them anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dualstream_lab.analysis.paired import LOOKS, counts_of
from dualstream_lab.lab.isolation.blocks import HEALTHY, Figures
from dualstream_lab.lab.isolation.judgement import DOUBTS, FAILURES, FaultVerdict, Rules, judge_fault
from dualstream_lab.verdict.bottleneck import ANSWERS, MACHINE, PARTIES, PUBLISHING, limit_sentence
from dualstream_lab.verdict.checker import Validity
from dualstream_lab.verdict.measures import Totals

FAULT = "redis.kill"
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


def block(arm: str, *, p99: float = 2.0, **changes: Any) -> Figures:
    spent = np.full(400, p99)
    usual: dict[str, Any] = {
        "state": "finished", "begin": 0, "seconds": 3.0, "events": 400, "durable": 400, "failed": 0,
        "errors": {}, "missing": 0, "twice": 0, "nameless": 0, "wrong_source": 0, "caught_up": True,
        "unread": (), "notified": 400, "dropped": {}, "delivered": 400, "orphans": 0, "stall": 1.0,
        "rss": (50.0, 51.0), "background": 0.0, "live_again": None, "bite": "",
    }  # fmt: skip
    return Figures(arm=arm, spent=counts_of(spent), p50=p99, p99=p99, **(usual | changes))


def judged(*, pairs: int = LOOKS[-1], note: str = "", **changes: Any) -> FaultVerdict:
    blocks = [one for _ in range(pairs) for one in (block(HEALTHY), block(FAULT, **changes))]
    return judge_fault(FAULT, [*blocks, block(HEALTHY)], Rules(), note)


REASONS: Mapping[str, tuple[dict[str, Any], str]] = {
    "failed": ({"pairs": 2, "failed": 3}, "6 events failed"),
    "missing": ({"pairs": 2, "missing": 1}, "2 acknowledged events are not in the topic"),
    "twice": ({"pairs": 1, "twice": 1}, "1 events are in the topic more than once"),
    "unaccounted": (
        {"pairs": 1, "notified": 398}, "2 notifications were neither sent nor counted as dropped"),
    "orphans": ({"pairs": 1, "orphans": 4}, "4 events were delivered that nobody published"),
    "slower": ({"p99": 9.0}, "publish p99 is slower by "),
    "given up": ({"note": "it does not bite"}, "it does not bite"),
    "unread": (
        {"caught_up": False, "unread": ("partition 0",)},
        "the topic could not be read to its end; partition 0"),
    "not measured": ({"pairs": 0}, "not measured"),
    "disturbed": ({"background": 0.5}, "other programs used the machine in every block"),
    "undecided": ({"pairs": 1}, "p99 may be slower by up to "),
}  # fmt: skip


def test_every_rule_about_a_fault_has_a_case() -> None:
    assert {rule.name for rule in (*FAILURES, *DOUBTS)} == REASONS.keys()


@pytest.mark.parametrize("case", REASONS)
def test_why_a_fault_does_not_pass_is_said_in_one_sentence(case: str) -> None:
    changes, said = REASONS[case]
    found = judged(**changes)
    (reason,) = found.reasons
    assert reason.startswith(said)
    fails = case in {rule.name for rule in FAILURES}
    assert found.verdict is (Validity.INVALID if fails else Validity.INCONCLUSIVE)


def test_a_fault_of_which_nothing_is_to_be_said_passes() -> None:
    assert (judged().verdict, judged().reasons) == (Validity.VALID, ())


def test_what_fails_is_not_called_open() -> None:
    assert judged(pairs=1, failed=1, twice=1, note="it does not bite").reasons == (
        "1 events failed", "1 events are in the topic more than once",
    )  # fmt: skip
