"""The statistics of a proof: an interval that holds at few pairs, and a rule that may look again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dualstream_lab.analysis.paired import (
    EARLIEST,
    LOOKS,
    Decision,
    counts_of,
    decide,
    interval,
    neighbours,
    student,
)

RECORDED = json.loads((Path(__file__).parent / "data" / "healthy_blocks.json").read_text())
MARGIN = 1.0  # ms
FAULTS = 13


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 30, 99])
@pytest.mark.parametrize("share", [0.6, 0.975, 0.995])
def test_students_quantile_is_that_of_scipy(freedom: int, share: float) -> None:
    assert student(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-6)


def test_a_block_stands_beside_two_healthy_ones_before_it_and_one_after() -> None:
    healthy = [True, True, True, False, False, True, True, False]
    assert neighbours(healthy, 3) == neighbours(healthy, 4) == [1, 2, 5]
    assert neighbours(healthy[1:], 2) == [0, 1, 4]
    assert neighbours([True, False, True], 1) == [0, 2]
    assert neighbours(healthy, 7) == []  # nothing after it yet
    assert neighbours([False, True], 0) == []


def pair(shift: float, *, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A block of latencies around 3 ms + ``shift``, and one around 3 ms."""
    rng = np.random.default_rng(seed)
    one, other = (rng.normal(3.0, spread, 5000) for _ in range(2))
    return counts_of(one + shift), counts_of(other)


def test_a_difference_is_that_of_the_percentile() -> None:
    pairs = [pair(2.0, seed=k) for k in range(6)]
    found = interval(pairs, 0.99)
    assert found.value == pytest.approx(2.0, abs=0.15)  # bins are 2 % wide
    assert found.high - found.low < 0.5
    assert interval(pairs, 0.5).value == pytest.approx(2.0, abs=0.15)


def test_few_pairs_give_wide_limits_and_one_gives_none() -> None:
    assert interval([], 0.99).pairs == 0
    assert interval([pair(0.0)], 0.99).high == math.inf
    rng = np.random.default_rng(3)
    pairs = [pair(float(shift), seed=k) for k, shift in enumerate(rng.normal(0, 0.3, 28))]
    widths = [(found := interval(pairs[:n], 0.99)).high - found.low for n in (3, 9, 28)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.0  # of differences that are 0.3 ms apart


def test_pairs_that_are_all_the_same_leave_no_doubt() -> None:
    found = interval([pair(0.5)] * LOOKS[0], 0.99)
    assert found.low == pytest.approx(found.value)
    assert found.high == pytest.approx(found.value)
    assert decide(found, 1.0) is Decision.HOLDS
    assert decide(found, 0.2) is Decision.EXCEEDS


def test_too_few_pairs_decide_nothing_and_good_is_found_at_a_look_only() -> None:
    for n in (LOOKS[0] - 1, LOOKS[0] + 1):
        assert decide(interval([pair(0.0)] * n, 0.99), MARGIN) is Decision.OPEN
    for n in range(EARLIEST):
        assert decide(interval([pair(500.0)] * n, 0.99), MARGIN) is Decision.OPEN
    assert decide(interval([pair(500.0)] * EARLIEST, 0.99), MARGIN) is Decision.EXCEEDS


def test_what_never_ends_holds_nothing() -> None:
    never = counts_of(np.full(5000, np.inf)), pair(0.0)[1]
    assert decide(interval([pair(0.0)] * (LOOKS[0] - 1) + [never], 0.99), MARGIN) is Decision.OPEN
    assert decide(interval([never] * LOOKS[0], 0.99), MARGIN) is Decision.EXCEEDS


def test_one_block_with_a_stall_of_somebody_else_spoils_nothing() -> None:
    """50 ms of a stall are 1 % of one short block; of all blocks together they are little."""
    stalled = counts_of(np.append(np.random.default_rng(1).normal(3.0, 0.1, 4925), np.linspace(0, 75, 75)))
    pairs = [pair(0.0, seed=k) for k in range(8)] + [(stalled, pair(0.0)[1])]
    assert decide(interval(pairs, 0.99), MARGIN) is Decision.HOLDS


@cache
def healthy_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Each healthy block that was recorded, as if it were a fault's, beside its healthy neighbours."""
    blocks = []
    for kept in RECORDED["blocks"]:
        counts = np.zeros_like(counts_of(np.array([1.0])))
        counts[kept["bins"]] = kept["counts"]
        blocks.append(counts)
    well = [True] * len(blocks)
    return [
        (block, np.mean([blocks[near] for near in neighbours(well, place)], axis=0))
        for place, block in enumerate(blocks)
        if 2 <= place < len(blocks) - 1
    ]


def decided(rng: np.random.Generator, shift: float = 0.0) -> tuple[Decision, int]:
    """A fault that does nothing but add ``shift``, by resampled pairs; looked at as `prove` does it."""
    known = healthy_pairs()
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for look in LOOKS:
        pairs += [known[k] for k in rng.integers(0, len(known), look - len(pairs))]
        found = interval(pairs, 0.99)
        moved = replace(found, value=found.value + shift, low=found.low + shift, high=found.high + shift)
        if (decision := decide(moved, MARGIN)) is not Decision.OPEN:
            return decision, look
    return Decision.OPEN, LOOKS[-1]


def test_under_the_null_all_faults_together_pass() -> None:
    rng = np.random.default_rng(5)
    proofs = [[decided(rng)[0] for _ in range(FAULTS)] for _ in range(60)]
    assert sum(all(one is Decision.HOLDS for one in each) for each in proofs) >= 0.95 * len(proofs)
    assert not any(Decision.EXCEEDS in each for each in proofs)


def test_looking_again_and_again_lets_little_slip_through() -> None:
    """Slower by just what is allowed, and looked at eight times."""
    rng = np.random.default_rng(6)
    passed = [decided(rng, MARGIN)[0] for _ in range(300)].count(Decision.HOLDS)
    assert passed <= 0.05 * 300 + 2 * math.sqrt(0.05 * 0.95 * 300)  # and two standard errors


def test_a_publisher_that_waits_for_redis_fails_for_certain_and_at_once() -> None:
    rng = np.random.default_rng(7)
    found = [decided(rng, shift=100.0) for _ in range(200)]
    assert {decision for decision, _ in found} == {Decision.EXCEEDS}
    assert {look for _, look in found} == {LOOKS[0]}


def test_one_that_is_a_little_too_slow_does_not_pass() -> None:
    rng = np.random.default_rng(8)
    found = [decided(rng, shift=3 * MARGIN)[0] for _ in range(100)]
    assert found.count(Decision.HOLDS) <= 1
    assert found.count(Decision.EXCEEDS) >= 95
