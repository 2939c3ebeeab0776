"""Runs that are not whole: what is missing is named, and nothing is concluded from what is not there."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from dualstream_lab.analysis.frames import load
from dualstream_lab.analysis.tally import Tally
from dualstream_lab.errors import RecordingError
from dualstream_lab.ledger import Ledger
from dualstream_lab.recording import RowWriter, RunDirectory, sampled

from .builder import IDS, MS, ZERO, RunBuilder, ns, table, told


@pytest.fixture
def builder(tmp_path):
    made = RunBuilder(tmp_path / "run")
    made.listened(0, 5000)
    made.flow(*range(10), at=10, step=10)
    return made


def split(builder: RunBuilder, kind: str, writer: str, *sizes: int) -> None:
    """The rows of one process in parts."""
    (builder.path / f"{kind}-{writer}-00001.parquet").unlink()
    rows = builder.rows[kind, writer]
    for number, size in enumerate(sizes, 1):
        part, rows = rows[:size], rows[size:]
        pq.write_table(table(kind, part), builder.path / f"{kind}-{writer}-{number:05d}.parquet")


def test_a_damaged_part_of_the_delivered_is_no_silence_of_redis(builder):
    builder.write()
    split(builder, "delivered", "redis", 4, 2, 4)
    (builder.path / "delivered-redis-00002.parquet").write_bytes(b"PAR1 cut off")
    ledger = Ledger.of(builder.path)
    assert told(ledger) == {n: "undelivered: generator" if n in {4, 5} else "delivered" for n in range(10)}
    assert any("delivered-redis-00002.parquet is damaged" in problem for problem in ledger.problems)
    assert "rows of what the subscribers of 'redis' received are missing" in ledger.problems


def test_a_part_of_the_delivered_that_is_gone(builder):
    builder.write()
    split(builder, "delivered", "redis", 4, 2, 4)
    (builder.path / "delivered-redis-00002.parquet").unlink()
    ledger = Ledger.of(builder.path)
    assert told(ledger)[4] == told(ledger)[5] == "undelivered: generator"
    assert "delivered-redis-00003.parquet comes after 1 that are missing" in ledger.problems


def test_the_last_part_of_the_delivered_that_is_gone_shows_by_the_counters(builder):
    builder.write()
    split(builder, "delivered", "redis", 8, 2)
    (builder.path / "delivered-redis-00002.parquet").unlink()
    ledger = Ledger.of(builder.path)
    assert told(ledger)[9] == "undelivered: generator"
    assert "rows of what the subscribers of 'redis' received are missing" in ledger.problems


def test_rows_that_the_disk_was_too_slow_for(builder):
    builder.rows["delivered", "redis"] = builder.rows["delivered", "redis"][:5]
    builder.interval(60, 200, gauges={"delivered.rows_dropped": 5.0})
    assert told(builder.ledger()) == {
        n: "delivered" if n < 5 else "undelivered: generator" for n in range(10)
    }


@pytest.mark.parametrize("damage", ["damaged", "gone", "counters"])
def test_without_all_of_the_consumers_rows_nothing_is_lost(builder, damage):
    builder.write()
    split(builder, "consumed", "kafka", *((4, 2, 4) if damage != "counters" else (6, 4)))
    part = builder.path / "consumed-kafka-00002.parquet"
    if damage == "damaged":
        part.write_bytes(part.read_bytes()[:-20])
    else:
        part.unlink()
    ledger = Ledger.of(builder.path)
    missing = {4, 5} if damage != "counters" else {6, 7, 8, 9}
    assert told(ledger) == {n: "unread" if n in missing else "delivered" for n in range(10)}
    assert ledger.lost is None
    assert ledger.problems


def test_without_the_rows_of_publishing_events_are_unrecorded_and_no_orphans(builder):
    builder.write()
    split(builder, "published", "generator", 8, 2)
    (builder.path / "published-generator-00002.parquet").unlink()
    ledger = Ledger.of(builder.path)
    assert told(ledger) == {n: "delivered" if n < 8 else "unrecorded" for n in range(10)}
    assert "2 of 10 published rows are missing" in ledger.problems


def test_without_a_consumer_and_all_rows_of_publishing_there_are_no_orphans(tmp_path):
    builder = RunBuilder(tmp_path / "run", caught_up=None, state="running")
    builder.listened(0)
    builder.sent(0, 10)
    builder.delivered(0, 13)
    builder.delivered(1, 14)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered", 1: "unrecorded"}
    assert ledger.orphans is None
    assert "the run did not end: its writers died, or it still runs" in ledger.problems


def test_damaged_windows_and_intervals_are_named(builder):
    builder.write()
    (builder.path / "listening-redis-00001.parquet").write_bytes(b"")
    (builder.path / "intervals-all.jsonl").write_text("{]\n")
    ledger = Ledger.of(builder.path)
    assert ledger.events == 10
    assert any("listening-redis-00001.parquet is damaged" in problem for problem in ledger.problems)
    assert any("intervals-all.jsonl, line 1 is damaged" in problem for problem in ledger.problems)


def test_runs_of_older_versions(builder):
    """They have no windows and no drops by event, and their consumer does not say that it caught up."""
    builder.sent(20, 200)
    builder.read(20, 205)
    builder.given_up(20, 203, "redis timeout")
    builder.caught_up = None
    builder.write()
    for kind in ("listening", "dropped"):
        for path in builder.path.glob(f"{kind}-*.parquet"):
            path.unlink()
    ledger = Ledger.of(builder.path)
    dropped = "undelivered: dropped by the publisher: redis timeout"
    assert told(ledger) == dict.fromkeys(range(10), "delivered") | {20: dropped}
    assert ledger.lost == 0
    assert any("who was subscribed when was not recorded" in problem for problem in ledger.problems)
    assert any("told by their second" in problem for problem in ledger.problems)


def test_what_of_the_log_was_not_read_is_said_and_nothing_is_lost_or_never(tmp_path):
    why = "partition 3 cannot be read at offset 7: wrong CRC"
    builder = RunBuilder(tmp_path / "run", caught_up=False, unread=(why,))
    builder.listened(0, 5000)
    builder.flow(0, 1)
    builder.sent(2, 30)
    ledger = builder.ledger()
    said = f"the Kafka consumer did not read to the end of the log: {why}"
    assert told(ledger)[2] == "unread"
    assert ledger.lost is None
    assert said in ledger.problems
    tally = Tally.read(builder.path)
    assert "live" in tally.latencies
    assert "durable" not in tally.latencies
    assert said in tally.problems
    frames = load(builder.path)
    assert any(why in problem for problem in frames.problems)
    assert not [name for name in frames.seconds.columns if why in name]


def test_a_sample_says_so(tmp_path):
    builder = RunBuilder(tmp_path / "run", sample=5)
    builder.listened(0, 5000)
    builder.write()
    seq = np.arange(5000)
    columns = {"sent": ZERO + seq, "intended": ZERO + seq, "acked": ZERO + MS + seq}
    for kind, more in (
        ("published", columns | {"outcome": 1, "source": 0, "size": 1}),
        ("consumed", {"at": ZERO + 3 * MS + seq, "partition": 0, "offset": seq}),
        ("delivered", {"at": ZERO + 2 * MS + seq, "subscriber": 0}),
    ):
        writer = RowWriter(builder.path, kind, "a" if kind != "delivered" else "redis", every=5)
        writer.add(seq, **more)
        writer.close()
    ledger = Ledger.of(builder.path)
    count = int(sampled(seq, 5).sum())
    assert set(told(ledger).values()) == {"delivered"}
    assert ledger.events == ledger.count("delivered") == count
    assert any("one event in 5 was recorded" in problem for problem in ledger.problems)
    absent = next(n for n in range(5000) if not sampled(np.array([n]), 5)[0])
    with pytest.raises(ValueError, match="one event in 5 was recorded"):
        ledger.entry(IDS.of(absent))


def test_a_run_without_rows(tmp_path):
    ledger = RunBuilder(tmp_path / "run", caught_up=None).ledger()
    assert (ledger.events, ledger.entries, ledger.broken) == (0, (), False)
    assert "no published rows were recorded" in ledger.problems


def test_published_twice_counts_once(builder):
    builder.sent(3, 40, writer="other")
    ledger = builder.ledger()
    assert ledger.events == 10
    assert "1 event was published twice: the first row of each counts" in ledger.problems


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RecordingError, match="is not a run directory"):
        Ledger.of(tmp_path)
    assert isinstance(RunDirectory.open(RunBuilder(tmp_path / "run").write().path), RunDirectory)
    assert ns(0) == ZERO
