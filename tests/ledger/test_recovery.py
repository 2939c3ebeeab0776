"""The grading of faults, on series made by hand whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from dualstream_lab.ledger import Series, grade, grade_all
from dualstream_lab.ledger.tables import recovery_table
from dualstream_lab.recording import FaultRecord

from .builder import RunBuilder

S, MS = 1_000_000_000, 1_000_000


def steady(seconds=20.0, rate=1000, latency=5 * MS) -> Series:
    """An event a millisecond, each ended after 5 ms."""
    begin = (np.arange(int(seconds * rate)) * S // rate).astype(np.int64) + S
    return Series(begin=begin, end=begin + latency)


def outage(down=8, up=12, *, drain=4.0) -> Series:
    """Nothing ends between two seconds; then what waited ends, at ``drain`` times the rate."""
    series = steady()
    end = series.end.copy()
    stuck = (end > S + down * S) & (series.begin < S + up * S)
    order = np.flatnonzero(stuck)
    end[order] = S + up * S + (np.arange(len(order)) * MS / drain).astype(np.int64)
    # until the queue is empty, newcomers wait behind it
    for place in range(order[-1] + 1, len(end)):
        end[place] = max(end[place], end[place - 1] + int(MS / drain))
    return Series(begin=series.begin, end=end)


def graded(series, down=8, up=12, **more):
    return grade(series, S + down * S, S + up * S, since=S, until=S + 20 * S, **more)


def test_a_fault_that_changes_nothing():
    path = graded(steady())
    assert (path.unavailable, path.again, path.back, path.slow_at) == (0, 0, 0, None)
    assert path.backlog == 5
    assert path.drain is None
    assert path.normal == pytest.approx(5)


def test_an_outage_is_silent_piles_up_drains_and_is_over():
    path = graded(outage())
    assert path.unavailable == pytest.approx(4, abs=0.01)
    assert path.again == pytest.approx(0, abs=0.002)
    assert path.backlog == pytest.approx(4000, abs=20)
    assert path.drain == pytest.approx(3000, rel=0.02), "4,000/s out, 1,000/s in"
    assert path.back == pytest.approx(4 / 3, abs=0.11), "4,000 waiting at 3,000/s"
    assert path.slow_at == S + 8 * S - 5 * MS + MS + 10 * MS, "the first that was stuck, after twice 5 ms"


def test_it_is_silent_for_longer_than_the_fault_lasted():
    path = graded(outage(8, 14), 8, 12)
    assert path.unavailable == pytest.approx(6, abs=0.01)
    assert path.again == pytest.approx(2, abs=0.002)


def test_what_never_ends_is_not_piled_up_and_not_as_before():
    series = steady()
    end = np.where((series.begin >= 9 * S) & (series.begin < 13.5 * S), 0, series.end)
    path = graded(Series(begin=series.begin, end=end))
    assert path.unavailable == pytest.approx(4.5, abs=0.01)
    assert path.again == pytest.approx(0.505, abs=0.01)
    assert path.backlog == 5
    assert path.back == pytest.approx(0.5, abs=0.11)


def test_a_path_that_never_comes_back():
    series = steady()
    path = graded(Series(begin=series.begin, end=np.where(series.begin >= 9 * S, 0, series.end)))
    assert path.unavailable == pytest.approx(12, abs=0.02)
    assert path.again is None
    assert path.back is None


def test_slower_after_the_fault_than_before_it():
    series = steady()
    end = np.where((series.begin > 9 * S) & (series.begin < 16 * S), series.begin + 30 * MS, series.end)
    path = graded(Series(begin=series.begin, end=end))
    assert path.unavailable == 0
    assert path.back == pytest.approx(3, abs=0.11)
    assert path.slow_at == pytest.approx(9 * S + 10 * MS, abs=2 * MS)


def test_a_moment_of_calm_is_not_the_end():
    series = steady()
    slow = (series.begin > 9 * S) & (series.begin < 16 * S)
    calm = (series.begin > 13.5 * S) & (series.begin < 13.8 * S)
    end = np.where(slow & ~calm, series.begin + 30 * MS, series.end)
    assert graded(Series(begin=series.begin, end=end)).back == pytest.approx(3, abs=0.11)


def test_the_order_of_the_rows_does_not_matter_and_a_sample_is_scaled():
    series = outage()
    order = np.random.default_rng(1).permutation(len(series.begin))
    mixed = Series(begin=series.begin[order], end=series.end[order])
    assert graded(mixed) == graded(series)
    assert graded(series, sample=10).backlog == 10 * graded(series).backlog


def test_without_anything_before_there_is_no_baseline():
    path = graded(outage(0, 4), 0, 4)
    assert path.normal is path.back is path.slow_at is None
    assert path.unavailable == pytest.approx(4, abs=0.01)
    assert graded(steady(5), 8, 12) is None or graded(steady(5), 8, 12).backlog == 0
    empty = Series(begin=np.empty(0, np.int64), end=np.empty(0, np.int64))
    assert graded(empty) is None


def test_every_fault_is_looked_at_until_the_next_one():
    faults = [
        FaultRecord(name="kafka.kill", begin=S + 8 * S, end=S + 12 * S, bite="refused", over="answers"),
        FaultRecord(name="redis.kill", begin=S + 16 * S, end=S + 17 * S),
    ]
    signs = [(S + 8 * S + 3 * MS, "a probe found Kafka away"), (S + 18 * S, "a notification was given up")]
    first, second = grade_all(faults, {"publish": outage()}, signs, zero=S, ended=S + 20 * S)
    assert (first.fault, first.begin, first.lasted) == ("kafka.kill", 8, 4)
    assert (first.detected, first.sign) == (pytest.approx(0.003), "a probe found Kafka away")
    assert (first.bite, first.over) == ("refused", "answers")
    assert first.publish.unavailable == pytest.approx(4, abs=0.01)
    assert (second.detected, second.sign) == (pytest.approx(2), "a notification was given up")
    assert second.publish.unavailable == 0
    assert second.live is second.consumer is None
    assert "slow_at" not in first.as_dict()["publish"]


def test_a_fault_without_an_end_and_without_a_sign():
    (found,) = grade_all(
        [FaultRecord(name="redis.slow", begin=9 * S)], {"publish": steady()}, [], zero=S, ended=21 * S
    )
    assert (found.lasted, found.detected, found.sign) == (None, None, "")


def test_the_table_has_a_column_a_fault():
    faults = [FaultRecord(name="kafka.kill", begin=9 * S, end=13 * S)]
    paths = {"publish": outage(), "live": steady()}
    header, rows = recovery_table(grade_all(faults, paths, [], zero=S, ended=21 * S))
    cells = {row[0]: row[1] for row in rows}
    assert header == ["", "kafka.kill at 8.0 s"]
    assert cells["lasted"] == "4.0 s"
    assert cells["showed after"] == "6 ms: a publish was slow"
    assert cells["publish: unavailable for"].startswith("4.0 s")
    assert cells["live: unavailable for"] == "not unavailable"
    assert cells["publish: piled up, drained"].endswith("/s")
    assert cells["live: p99 as before, after its end"].startswith("at once")


def test_the_faults_of_a_run_are_graded_from_its_rows(tmp_path):
    builder = RunBuilder(tmp_path / "run", faults=[("redis.kill", 3000, 4000)], ended=0)
    builder.manifest.ended = builder.manifest.started + 8 * S
    builder.listened(0, 3001, 1)
    builder.listened(4100, 9000)
    for seq in range(800):
        at = seq * 10
        builder.sent(seq, at)
        builder.read(seq, at + 5)
        if at < 2990 or at > 4100:
            builder.delivered(seq, at + 3)
        else:
            builder.given_up(seq, at + 3)
    (found,) = builder.ledger().recoveries
    assert found.fault == "redis.kill"
    assert (found.begin, found.lasted) == (3, 1)
    assert (found.detected, found.sign) == (pytest.approx(0.001), "a subscriber lost its connection")
    assert found.live.unavailable == pytest.approx(1.13, abs=0.03)
    assert found.live.again == pytest.approx(0.113, abs=0.02)
    assert found.publish.unavailable == found.consumer.unavailable == 0
    assert 0 < found.live.back <= 1.1
