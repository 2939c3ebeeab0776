"""The statistics of a comparison: intervals that cover, no false alarms, planted changes that are found."""

from __future__ import annotations

import base64
import json
import math
import sys
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.analysis.caveats import caveats
from dualstream_lab.analysis.comparison import ASSUMED, Arm, Difference, Finding, compare_arms
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.analysis.tally import BINS, Tally, counted, quantiles
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import Clocks, Manifest

RECORDED = json.loads((Path(__file__).parent / "data" / "repeated_runs.json").read_text())
BIN = math.log(1.01)
NOTHING: dict[str, float] = {}  # is assumed


def manifest(*, at: int = 0, **workload: object) -> Manifest:
    return Manifest(
        name="r", run="r", ids="0", clocks=Clocks(monotonic=0, wall=at), workload=workload, settings={},
        state="finished", versions={}, machine={},
    )  # fmt: skip


@cache
def bank() -> np.ndarray:
    """Seconds of 2,000 events each, around 3 ms; [second, by] has one that is rolled by so many bins."""
    rng = np.random.default_rng(0)
    values = (rng.lognormal(math.log(3), 0.5, (64, 2000)) * 1e6).astype(np.int64)
    seconds = counted(np.repeat(np.arange(64, dtype=np.int32), 2000), values.ravel(), 64)
    return np.lib.stride_tricks.sliding_window_view(np.tile(seconds, 2), BINS, axis=1)[:, :0:-1]


def levels(rng: np.random.Generator, seconds: int, alike: float, spread: float) -> np.ndarray:
    """A level a second, which remembers the one before it: a stationary AR(1)."""
    noise = rng.normal(0, spread, seconds)
    found = noise.copy()
    for k in range(1, seconds):
        found[k] = alike * found[k - 1] + math.sqrt(1 - alike**2) * noise[k]
    return found


def simulated(
    rng: np.random.Generator,
    *,
    seconds: int = 5,
    alike: float = 0.5,
    between: float = 0.0,
    slower: float = 0.0,
    spread: float = 0.15,
) -> Tally:
    """A run. ``between``: how far repeats differ; ``slower``: by which share all of it is."""
    level = levels(rng, seconds, alike, spread) + rng.normal(0, between) + math.log1p(slower)
    shifted = bank()[rng.integers(0, 64, seconds), np.rint(level / BIN).astype(np.int64)]
    return Tally(
        name="r", manifest=manifest(), lengths=np.ones(seconds), latencies={"publish": shifted}, counts={}
    )


def arm(rng: np.random.Generator, runs: int, **how: float) -> Arm:
    return Arm(name="arm", runs=tuple(simulated(rng, **how) for _ in range(runs)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "others", "seconds", "times"),
    [(1, 1, 120, 200), (3, 3, 5, 500), (5, 5, 5, 400), (3, 5, 5, 400), (1, 5, 5, 400)],
)
def test_95_percent_intervals_cover_93_to_97(runs: int, others: int, seconds: int, times: int) -> None:
    """Seconds are alike in neighbours (0.5); of single runs nothing but their seconds varies."""
    rng = np.random.default_rng(11)
    how = {"seconds": seconds, "between": 0.05 if runs + others > 2 else 0.0}
    covered = [
        one.low <= 0 <= one.high
        for _ in range(times)
        for one in compare_arms(arm(rng, runs, **how), arm(rng, others, **how), assumed=NOTHING)
    ]
    assert 0.93 <= np.mean(covered) <= 0.97


@cache
def recorded() -> tuple[Tally, ...]:
    runs = []
    for number, kept in enumerate(RECORDED["runs"]):
        latencies = {}
        for name in ("publish", "live", "durable", "lag"):
            coarse = np.frombuffer(zlib.decompress(base64.b64decode(kept[name])), "<u2").reshape(-1, 464)
            latencies[name] = np.repeat(coarse / 4, 4, axis=1)[:, :BINS]
        acked = np.array(kept["acked"], np.float64)
        counts = {
            "acked": acked,
            "intended": acked,
            "durable": acked,
            "failed": 0 * acked,
            "undelivered": 0 * acked,
        }
        runs.append(
            Tally(
                name=f"run {number}",
                manifest=manifest(at=round(kept["minutes"] * 6e10)),
                lengths=np.ones(8),
                latencies=latencies,
                counts=counts,
                busy=kept["busy"],
            )
        )
    return tuple(runs)


def split(rng: np.random.Generator, runs: int) -> tuple[Arm, Arm]:
    """Two arms of recorded repeats of the same settings."""
    drawn = rng.permutation(len(recorded()))[: 2 * runs]
    one, other = (tuple(recorded()[k] for k in half) for half in (drawn[:runs], drawn[runs:]))
    return Arm(name="one", runs=one), Arm(name="other", runs=other)


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5])
def test_repeats_of_the_same_settings_have_no_difference(runs: int) -> None:
    """All measures together, in 95 % of comparisons, although p50 of these runs differs up to fourfold."""
    rng = np.random.default_rng(12)
    found = [compare_arms(*split(rng, runs)) for _ in range(200 if runs > 1 else 60)]
    assert len(found[0]) == 12
    assert np.mean([not any(one.changed for one in each) for each in found]) >= 0.95


def test_single_runs_without_what_is_assumed_of_repeats_would_cry_wolf() -> None:
    rng = np.random.default_rng(13)
    found = [compare_arms(*split(rng, 1), assumed=NOTHING) for _ in range(50)]
    assert np.mean([any(one.changed for one in each) for each in found]) > 0.1


def test_a_planted_slowdown_of_10_percent_is_found() -> None:
    """Where repeats differ by 2 %, five of each."""
    rng = np.random.default_rng(14)
    how = {"seconds": 20, "spread": 0.05, "between": 0.02}
    found = [compare_arms(arm(rng, 5, **how), arm(rng, 5, slower=0.1, **how), allow=0.02) for _ in range(100)]
    p50 = [next(one for one in each if one.measure.endswith("p50")) for each in found]
    assert sum(one.changed and one.change > 0 for one in p50) >= 95
    assert np.mean([one.change for one in p50]) == pytest.approx(0.1, abs=0.01)
    assert sum(one.low <= 0.1 <= one.high for one in p50) >= 90


def test_a_slowdown_that_repeats_cannot_tell_is_no_regression_and_not_called_harmless() -> None:
    """10 % on the recorded runs, which differ by more."""
    base, other = split(np.random.default_rng(15), 5)
    slower = replace(other, runs=tuple(slowed(run, 0.1) for run in other.runs))
    p50 = next(one for one in compare_arms(base, slower) if one.measure == "publish.latency.p50")
    assert p50.finding is Finding.OPEN
    assert p50.repeats is None or p50.repeats > 20
    much = replace(other, runs=tuple(slowed(run, 9.0) for run in other.runs))
    assert compare_arms(base, much)[0].finding is Finding.REGRESSION


def slowed(run: Tally, share: float) -> Tally:
    by = round(math.log1p(share) / BIN)
    return replace(run, latencies={name: np.roll(each, by, axis=1) for name, each in run.latencies.items()})


def test_latencies_are_counted_and_found_again() -> None:
    rng = np.random.default_rng(16)
    values = (rng.lognormal(1, 1, 50_000) * 1e6).astype(np.int64)
    values[:100] = np.iinfo(np.int64).max  # never
    counts = counted(np.zeros(len(values), np.int32), values, 1)
    assert counts.sum() == len(values)
    for share in (0.5, 0.99):
        exact = np.quantile(values, share, method="inverted_cdf") / 1e6
        assert quantiles(counts, share)[0] == pytest.approx(exact, rel=0.005)
    assert quantiles(counts, 0.999)[0] == math.inf
    assert math.isnan(quantiles(np.zeros((1, BINS)), 0.5)[0])


def shares(*missing: float) -> Arm:
    """A run a share of events that nobody heard."""
    runs = [
        Tally(
            name="r", manifest=manifest(), lengths=np.ones(10), latencies={},
            counts={"undelivered": np.full(10, 1000 * share), "durable": np.full(10, 1000.0)},
        )
        for share in missing
    ]  # fmt: skip
    return Arm(name="arm", runs=tuple(runs))


def test_shares_are_compared_by_their_difference() -> None:
    (found,) = compare_arms(shares(0, 0, 0), shares(0.04, 0.05, 0.06))
    assert (found.measure, found.unit, found.change) == ("live.missing", "share", pytest.approx(0.05))
    assert found.finding is Finding.REGRESSION
    (found,) = compare_arms(shares(0, 0, 0), shares(0.04, 0.05, 0.06), allow_of={"live.missing": 0.1})
    assert found.finding is Finding.WORSE
    (found,) = compare_arms(shares(0, 0, 0), shares(0, 0, 0))
    assert (found.finding, found.p, found.low, found.high) == (Finding.NOT_WORSE, 1.0, 0, 0)


def test_a_lower_rate_is_worse() -> None:
    runs = [
        Arm(
            name=f"{rate}",
            runs=tuple(
                Tally(name="r", manifest=manifest(), lengths=np.ones(10), latencies={},
                      counts={"acked": np.full(10, rate + wobble)})
                for wobble in (-1.0, 0.0, 1.0)
            ),
        )
        for rate in (1000.0, 800.0)
    ]  # fmt: skip
    (found,) = compare_arms(*runs)
    assert (found.finding, found.change) == (Finding.REGRESSION, pytest.approx(-0.2, abs=1e-3))
    assert compare_arms(*reversed(runs))[0].finding is Finding.BETTER


def test_what_never_arrives_has_no_interval() -> None:
    run = simulated(np.random.default_rng(17), seconds=30)
    lost = run.latencies["publish"].copy()
    lost[:, -1] = lost.sum(axis=1)
    never = replace(run, latencies={"publish": lost})
    for one in compare_arms(Arm(name="a", runs=(run,)), Arm(name="b", runs=(never,))):
        if one.measure != "publish.latency.p50":
            assert (one.other, one.low, one.high) == ((math.inf,), -math.inf, math.inf)
            assert one.finding is Finding.OPEN
            assert one.repeats is None


def test_a_run_of_a_few_seconds_says_so() -> None:
    rng = np.random.default_rng(18)
    for one in compare_arms(arm(rng, 1, seconds=4), arm(rng, 1, seconds=4)):
        assert (one.low, one.high, one.finding) == (-math.inf, math.inf, Finding.OPEN)


def test_arms_are_repeats_of_the_same_settings() -> None:
    runs = tuple(replace(recorded()[k], manifest=manifest(rate=3000 + k, seed=k)) for k in range(2))
    with pytest.raises(ConfigError, match=r"base: run 0 and run 1 .*workload.rate: 3000, 3001"):
        Arm(name="base", runs=runs)
    alike = tuple(replace(run, manifest=manifest(rate=3000, seed=k)) for k, run in enumerate(runs))
    assert Arm(name="base", runs=alike).runs == alike  # another plan of the same kind
    with pytest.raises(ConfigError, match="base: there are no runs"):
        Arm(name="base", runs=())


def test_measures_that_may_be_worse_are_measures() -> None:
    arms = split(np.random.default_rng(19), 2)
    with pytest.raises(ConfigError, match=r"no measure 'speed'; there are publish.events_per_second"):
        compare_arms(*arms, allow_of={"speed": 0.1})
    with pytest.raises(ConfigError, match=r"must be 0 or more \(is -0.1\)"):
        compare_arms(*arms, allow=-0.1)


def test_it_is_said_what_two_runs_cannot_tell() -> None:
    runs = recorded()
    first, last = (Arm(name=name, runs=some) for name, some in (("a", runs[:3]), ("b", runs[3:6])))
    said = " ".join(caveats(first, last))
    assert "did not take turns" in said
    assert "the machine was busier with b" in said
    assert "live.dropped is not compared" in said
    turns = [Arm(name="a", runs=runs[0:6:2]), Arm(name="b", runs=runs[1:6:2])]
    assert "take turns" not in " ".join(caveats(*turns))
    single = Arm(name="s", runs=runs[:1])
    assert "s is one run: its repeats are taken to differ as those of b do" in caveats(single, last)
    assert "one run each, which cannot tell" in caveats(single, Arm(name="t", runs=runs[1:2]))[0]


def test_what_is_assumed_is_of_ratios_only() -> None:
    assert set(ASSUMED) == {name for name, measure in MEASURES.items() if measure.ratio}


def by_measure(found: tuple[Difference, ...]) -> dict[str, Difference]:
    return {one.measure: one for one in found}


def inverse(one: float, other: float) -> bool:
    """Whether two ratios are each other's inverse, as well as two changes can tell: one of nearly -1, which
    is the other way round of a great one, is rounded to a multiple of 1e-16.
    """
    small, great = sorted((one, other))
    if not math.isfinite(great):  # beyond what a number holds
        return small < 1 / sys.float_info.max + sys.float_info.epsilon
    return math.isclose(small, 1 / great, rel_tol=1e-6, abs_tol=sys.float_info.epsilon)


drawn = st.lists(st.integers(0, 23), min_size=2, max_size=8, unique=True)


@settings(max_examples=25, deadline=None)
@given(drawn, st.data())
def test_the_other_way_round_is_the_mirror(places: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(places) - 1))
    one, other = (
        Arm(name="arm", runs=tuple(recorded()[k] for k in some)) for some in (places[:cut], places[cut:])
    )
    there, back = by_measure(compare_arms(one, other)), by_measure(compare_arms(other, one))
    for name, found in there.items():
        ends = (found.change, found.low, found.high)
        mirrored = (back[name].change, back[name].high, back[name].low)
        for end, mirror in zip(ends, mirrored, strict=True):
            if MEASURES[name].ratio:
                assert inverse(1 + end, 1 + mirror)
            else:
                assert -mirror == pytest.approx(end)
        assert found.p == pytest.approx(back[name].p)


@settings(max_examples=25, deadline=None)
@given(drawn, st.randoms())
def test_the_order_of_repeats_does_not_matter(places: list[int], random: object) -> None:
    runs = [recorded()[k] for k in places]
    other = Arm(name="other", runs=recorded()[:3])
    found = compare_arms(Arm(name="arm", runs=tuple(runs)), other)
    random.shuffle(runs)  # type: ignore[attr-defined]
    again = compare_arms(Arm(name="arm", runs=tuple(runs)), other)
    for one, same in zip(found, again, strict=True):
        assert (one.measure, one.finding) == (same.measure, same.finding)
        assert [one.change, one.low, one.high, one.p] == pytest.approx(
            [same.change, same.low, same.high, same.p]
        )


@settings(max_examples=25, deadline=None)
@given(drawn, st.integers(1, 300))
def test_a_machine_that_is_slower_in_all_changes_no_ratio(places: list[int], bins: int) -> None:
    arms = [Arm(name="arm", runs=tuple(recorded()[k] for k in some)) for some in (places[:1], places[1:])]
    slow = [replace(arm, runs=tuple(slowed(run, math.expm1(bins * BIN)) for run in arm.runs)) for arm in arms]
    before, after = by_measure(compare_arms(*arms)), by_measure(compare_arms(*slow))
    for name, one in before.items():
        if name != "durable.lag.p99":  # what does not wait at all is no slower
            assert [one.change, one.low, one.high] == pytest.approx(
                [after[name].change, after[name].low, after[name].high]
            )
