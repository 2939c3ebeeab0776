"""What is recorded is what was measured: histograms, rows, intervals, and directories that are broken."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.config import Settings
from dualstream_lab.errors import RecordingError
from dualstream_lab.recording import (
    Clocks,
    Interval,
    IntervalWriter,
    LatencyHistogram,
    Manifest,
    Meter,
    RowWriter,
    RunDirectory,
    list_runs,
    sampled,
)
from dualstream_lab.recording.joined import join
from dualstream_lab.recording.manifest import safe_settings
from dualstream_lab.workload import Workload

latencies = st.lists(st.integers(0, 3_000_000_000_000), max_size=50)


def made(path, **more):
    path.mkdir(parents=True, exist_ok=True)
    facts = {"name": "t", "run": "r", "ids": "0" * 24, "clocks": Clocks.now(), "settings": {}}
    manifest = Manifest(**(facts | {"workload": Workload(rate=100, duration=1).as_dict()} | more))
    directory = RunDirectory(path, manifest)
    directory.save()
    return directory


@given(latencies, st.integers(1, 5))
def test_a_histogram_is_the_librarys_own(values: list[int], weight: int) -> None:
    ours, theirs = LatencyHistogram(), HdrHistogram(1, 3_600_000_000, 3)
    ours.record(np.array(values, np.int64), np.full(len(values), weight))
    for value in values:
        theirs.record_value(max(1, value // 1000), weight)
    assert ours.arrived == theirs.total_count
    for percentile in (1, 50, 99, 100):
        if values:
            assert ours.quantile(percentile / 100) * 1000 == pytest.approx(
                theirs.get_value_at_percentile(percentile), rel=2e-3, abs=1
            )
    assert HdrHistogram.decode(str(ours.encode()["hdr"]).encode()).total_count == len(values) * weight


@given(latencies, latencies, st.integers(0, 9), st.integers(0, 9))
def test_merging_is_recording_together(one, other, missing, also) -> None:
    both, first, second = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    both.record(np.array(one + other, np.int64))
    both.missing = missing + also
    first.record(np.array(one, np.int64))
    second.record(np.array(other, np.int64))
    first.missing, second.missing = missing, also
    first.add(LatencyHistogram.decode(second.encode()))
    assert first.count == both.count
    for q in (0.01, 0.5, 0.9, 1.0):
        assert first.quantile(q) == both.quantile(q) or both.count == 0


def test_what_never_arrived_counts_as_infinite_and_is_shown_beside() -> None:
    histogram = LatencyHistogram()
    histogram.record(np.full(98, 5_000_000))
    histogram.missing = 2
    assert histogram.quantile(0.98) == pytest.approx(5, rel=1e-3)
    assert histogram.quantile(0.99) == math.inf
    assert histogram.quantile(0.99, arrived_only=True) == pytest.approx(5, rel=1e-3)
    assert histogram.quantile(1.0) == math.inf


def test_impossible_samples_are_counted_and_left_out() -> None:
    histogram = LatencyHistogram()
    histogram.record(np.array([-5, 1_000_000]))
    assert (histogram.negative, histogram.arrived) == (1, 1)
    assert math.isnan(LatencyHistogram().quantile(0.5))


def test_a_histogram_that_is_not_one_is_refused() -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        LatencyHistogram.decode({"hdr": "xx", "missing": 0, "negative": 0})


@given(st.integers(1, 50), st.integers(0, 1 << 40))
def test_a_sample_is_the_same_for_all_and_about_its_share(every: int, first: int) -> None:
    seq = np.arange(first, first + 20_000)
    chosen = sampled(seq, every)
    assert np.array_equal(chosen[5_000:6_000], sampled(seq[5_000:6_000], every))
    assert chosen.mean() == pytest.approx(1 / every, rel=0.3)  # of 400, six standard deviations


def test_rows_come_back_as_they_were_written(tmp_path) -> None:
    directory = made(tmp_path / "run")
    writer = RowWriter(directory.path, "published", "a")
    for first in range(0, 300_000, 1000):
        seq = np.arange(first, first + 1000)
        writer.add(seq, intended=seq * 7, sent=1, acked=2, outcome=1, source=seq % 5, size=300)
    writer.close()
    table = directory.rows("published").to_pandas()
    assert list(table["seq"]) == list(range(300_000))
    assert (table["intended"] == table["seq"] * 7).all()
    assert set(table["source"]) == set(range(5))
    assert len(list(directory.path.glob("published-*.parquet"))) >= 3, "many parts, each whole"
    assert writer.written == 300_000
    assert writer.dropped == 0


def test_a_full_disk_is_an_error_at_the_end_and_rows_are_counted(tmp_path) -> None:
    writer = RowWriter(tmp_path / "gone", "delivered", "a")
    writer.add(np.arange(5), at=1, subscriber=0)
    with pytest.raises(OSError, match=r"delivered-a-00001\.parquet was not written"):
        writer.close()
    assert writer.dropped == 5


def test_intervals_add_up(tmp_path) -> None:
    directory = made(tmp_path)
    meter, writer = Meter("a"), IntervalWriter(tmp_path, "a")
    for number in range(3):
        meter.count("durable", 10)
        meter.level("cpu", number)
        meter.peak("lag", 5 - number)
        meter.histogram("publish").record(np.array([1_000_000 * number]))
        writer.write(meter.take())
    writer.close()
    found = list(directory.intervals())
    assert [i.counters["durable"] for i in found] == [10, 10, 10]
    assert [i.gauges["lag"] for i in found] == [5, 4, 3]
    assert all(a.end == b.begin for a, b in pairwise(found))
    assert sum(i.histograms["publish"].count for i in found) == 3


WRITER = """
import sys, time, pathlib
import numpy as np
from dualstream_lab.recording import *
path = pathlib.Path(sys.argv[1])
rows, intervals, meter = RowWriter(path, "published", "a"), IntervalWriter(path, "a"), Meter("a")
seq = 0
while True:
    rows.add(np.arange(seq, seq + 5000), intended=1, sent=2, acked=3, outcome=1, source=0, size=1)
    meter.count("durable", 5000)
    intervals.write(meter.take())
    seq += 5000
    if seq == 1_000_000:
        print("far", flush=True)
    time.sleep(0.0005)
"""


def test_a_writer_that_is_killed_leaves_what_it_had_written(tmp_path) -> None:
    directory = made(tmp_path)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"far\n"
        os.kill(process.pid, signal.SIGKILL)
    seq = directory.rows("published").column("seq").to_numpy()
    assert len(seq) >= 500_000
    assert np.array_equal(np.sort(seq), np.arange(len(seq))), "whole parts, without holes"
    assert sum(i.counters["durable"] for i in directory.intervals()) >= 900_000
    assert not directory.problems


def test_damaged_parts_are_named_and_the_rest_is_read(tmp_path) -> None:
    directory = made(tmp_path)
    writer = RowWriter(tmp_path, "delivered", "a")
    for first in range(2):
        writer.add(np.arange(first * 10, first * 10 + 10), at=5, subscriber=0)
        writer.flush()
    writer.close()
    (tmp_path / "delivered-a-00001.parquet").write_bytes(b"PAR1 cut off")
    (tmp_path / "intervals-a.jsonl").write_text('{"writer": "a", "begin"')
    assert directory.rows("delivered").num_rows == 10
    assert list(directory.intervals()) == []
    assert directory.problems[0].startswith("delivered-a-00001.parquet is damaged")
    assert directory.problems[1].startswith("intervals-a.jsonl, line 1 is damaged")


def rows_of(directory, **columns) -> list[str]:
    """What is said of a file of delivered rows with these columns, and whether they were read."""
    writer = RowWriter(directory.path, "delivered", "a")
    writer.add(np.arange(10), **({"at": 10**15, "subscriber": 0} | columns))
    writer.close()
    assert directory.rows("delivered").num_rows == 0
    return directory.problems


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"subscriber": -1}, "column subscriber has what is not from 0"),
        ({"subscriber": 2**31 - 1}, "column subscriber has what is not from 0"),
        ({"at": -1}, "column at has times that are not of this run"),
        ({"at": 2**62}, "column at has times that are not of this run"),
        ({"at": np.array([0] * 9 + [1])}, "column at has times that are not of this run"),
    ],
)
def test_rows_that_nobody_can_have_seen_are_left_out(tmp_path, columns, said) -> None:
    """Readers make arrays as long as these numbers are high."""
    directory = made(tmp_path, started=10**15)
    (problem,) = rows_of(directory, **columns)
    assert said in problem


def test_rows_that_would_unpack_to_any_size_are_left_out(tmp_path) -> None:
    directory = made(tmp_path)
    zeros = pa.table({name: pa.array(np.zeros(20_000_000, np.int64)) for name in ("seq", "at", "subscriber")})
    pq.write_table(zeros, tmp_path / "delivered-a-00001.parquet", compression="zstd")
    assert (tmp_path / "delivered-a-00001.parquet").stat().st_size < 500_000
    assert directory.rows("delivered").num_rows == 0
    assert "it says that it has 20,000,000 rows" in directory.problems[0]


FILES = ["delivered-a-00001.parquet", "intervals-a.jsonl", "verdict.json", "manifest.json"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, name, make) -> None:
    directory = made(tmp_path / "run")
    (directory.path / name).unlink(missing_ok=True)
    make(directory.path / name)
    if name == "manifest.json":
        with pytest.raises(RecordingError, match=r"manifest\.json cannot be read: it is no file"):
            RunDirectory.open(directory.path)
        assert [type(run).__name__ for run in list_runs(tmp_path)] == ["RecordingError"]
        return
    assert directory.rows("delivered").num_rows == 0
    assert list(directory.intervals()) == []
    assert directory.verdict() is None
    (problem,) = directory.problems
    assert problem.startswith(name)
    assert "it is no file" in problem


@pytest.mark.parametrize("target", ["/nowhere", None])
@pytest.mark.parametrize("name", FILES)
def test_a_link_to_nowhere_or_to_itself_is_nothing(tmp_path, name, target) -> None:
    directory = made(tmp_path / "run")
    link = directory.path / name
    link.unlink(missing_ok=True)
    link.symlink_to(target or link)
    if name == "manifest.json":
        with pytest.raises(RecordingError):
            RunDirectory.open(directory.path)
        assert list_runs(tmp_path) == []
    assert directory.rows("delivered").num_rows == 0
    assert list(directory.intervals()) == []
    assert directory.verdict() is None


def test_rows_with_holes_are_left_out(tmp_path) -> None:
    directory = made(tmp_path)
    table = pa.table({name: [1, None] for name in ("seq", "at", "subscriber")})
    pq.write_table(table, tmp_path / "delivered-a-00001.parquet")
    assert directory.rows("delivered").num_rows == 0
    assert "has holes" in directory.problems[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"x":' + b"[" * 100_000, "recursion"),
        (b"{" + b" " * 2**21 + b"}", "too long"),
        (b'{"writer":"a","begin":-1,"end":1,"counters":{},"gauges":{},"histograms":{}}', ">= 0"),
        (b'{"writer":"a","begin":1,"end":1,"counters":{"a":1e3},"gauges":{},"histograms":{}}', "int"),
        (b'{"writer":"a","begin":1,"end":1,"counters":{},"gauges":{},"histograms":{"a":1}}', "object"),
        (b'{"writer":"a","begin":1,"end":1,"counters":{},"gauges":{},"histograms":{"a":{}}}', "histogram"),
        ("{}".encode("utf-16"), "malformed"),
        (b"\xff", "malformed"),
    ],
)
def test_a_line_that_is_no_interval_is_left_out(tmp_path, line, said) -> None:
    directory = made(tmp_path)
    writer, meter = IntervalWriter(tmp_path, "a"), Meter("a")
    writer.write(meter.take())
    writer.close()
    good = (tmp_path / "intervals-a.jsonl").read_bytes()
    (tmp_path / "intervals-a.jsonl").write_bytes(good + line + b"\n" + good + line + b"\n" + line)
    assert len(list(directory.intervals())) == 2
    first, more = directory.problems
    assert first.startswith("intervals-a.jsonl, line 2 is damaged and was left out")
    assert said in first
    assert more == "intervals-a.jsonl: 2 more lines are damaged"


def interval(**more) -> bytes:
    facts = {"writer": "a", "begin": 10**15, "end": 10**15, "counters": {}, "gauges": {}, "histograms": {}}
    return json.dumps(facts | more).encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([interval(end=2**60)], "times that are not of this run"),
        ([interval(begin=1)], "times that are not of this run"),
        ([interval(gauges={"published.seconds": 1e17})], "times that are not of this run"),
        (
            [interval(counters={f"c{n}-{k}": 1 for k in range(600)}) for n in range(2)],
            "more than 1,000 names",
        ),
    ],
)
def test_intervals_that_nobody_can_have_measured_are_left_out(tmp_path, lines, said) -> None:
    """Readers make tables as long as the times are apart, with a column a name."""
    directory = made(tmp_path, started=10**15)
    (tmp_path / "intervals-a.jsonl").write_bytes(interval() + b"".join(lines))
    assert len(list(directory.intervals())) == len(lines)
    assert said in directory.problems[0]


def test_a_histogram_that_would_unpack_to_any_size_is_refused() -> None:
    packed = zlib.compress(bytes(2**28), 9)
    text = base64.b64encode(bytes(8) + packed).decode()
    tracemalloc.start()
    try:
        with pytest.raises(RecordingError, match="not one of ours"):
            LatencyHistogram.decode({"hdr": text, "missing": 0, "negative": 0})
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    other = HdrHistogram(1, 3_600_000_000, 2).encode().decode()
    with pytest.raises(RecordingError, match="not one of ours"):
        LatencyHistogram.decode({"hdr": other, "missing": 0, "negative": 0})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": 1}, "Expected `str`"),
        ({"ids": "\x1b]0;x\x07"}, "matching"),
        ({"workload": {}}, "workload.rate must be above 0"),
        ({"workload": {"rate": "fast", "duration": 1}}, "workload.rate must be above 0"),
        ({"workload": {"rate": 1, "duration": 1e18}}, "workload.duration must be above 0"),
        ({"workload": {"rate": 1, "duration": 1, "batch": "x"}}, "workload.batch must be a whole number"),
        ({"workload": {"rate": 1, "duration": 1, "plan": []}}, "Expected `int | float | str`"),
        ({"users": {"concurrency": -1}}, ">= 0"),
        ({"asked": {"faults": [1]}}, "Expected `object`"),
        ({"settings": {"buffer_events": "many"}}, "Expected `int`"),
        ({"started": 10**15, "ended": 2**62}, "days from the run's start"),
        ({"faults": [{"name": "x", "begin": 2**70}]}, "manifest.json cannot be read"),
        ({"sample": 0}, ">= 1"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_one_line(tmp_path, more, said) -> None:
    directory = made(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    with pytest.raises(RecordingError) as error:
        RunDirectory.open(directory.path)
    assert str(error.value).startswith(f"{path} cannot be read: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_manifest_with_a_byte_order_mark_is_read(tmp_path) -> None:
    path = made(tmp_path).path / "manifest.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert RunDirectory.open(tmp_path).manifest.name == "t"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": ' * 100_000, "recursion"),
        ("{}".encode("utf-16"), "cannot be read"),
        (b"\xff", "cannot be read"),
        (b" " * (2**24 + 1), "larger than"),
        (None, "is not a run directory"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 9}', "has format 9; this version reads 1 and 2"),
        ('{"format": 1}', "cannot be read"),
    ],
)
def test_foreign_directories_are_refused(tmp_path, text, message) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecordingError, match=message):
        RunDirectory.open(tmp_path)
    with pytest.raises(RecordingError, match="does not exist"):
        RunDirectory.open(tmp_path / "nowhere")


def test_runs_are_listed_with_what_cannot_be_read(tmp_path) -> None:
    made(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/manifest.json").write_text("{")
    (tmp_path / "other").mkdir()
    found = list_runs(tmp_path)
    assert [type(run).__name__ for run in found] == ["RunDirectory", "RecordingError"]


@pytest.mark.parametrize(
    ("kafka_url", "redis_url", "shown"),
    [
        ("kafkas://me:sec@ret@host:9093", "rediss://:hush@host:6380/0", "kafkas://me:***@host:9093"),
        ("me:secret@host:9093,other:9093", "redis://host/0?password=hush", "me:***@host:9093,other:9093"),
    ],
)
def test_a_manifest_says_no_passwords(tmp_path, kafka_url, redis_url, shown) -> None:
    settings = Settings.load(kafka_url=kafka_url, redis_url=redis_url)
    directory = made(tmp_path, settings=safe_settings(settings))
    text = (directory.path / "manifest.json").read_text()
    assert "ret@" not in text
    assert "hush" not in text
    assert json.loads(text)["settings"]["kafka_url"] == shown
    assert RunDirectory.open(directory.path).manifest == directory.manifest


def test_both_paths_are_joined_by_event(tmp_path) -> None:
    directory = made(tmp_path)
    published = RowWriter(tmp_path, "published", "a")
    seq = np.array([4, 0, 2])
    published.add(
        seq, intended=seq * 10, sent=seq * 10 + 1, acked=np.array([45, 5, 0]),
        outcome=np.array([1, 1, 3]), source=0, size=1,
    )  # fmt: skip
    delivered = RowWriter(tmp_path, "delivered", "a")
    delivered.add(
        np.array([4, 0, 0, 0, 9]), at=np.array([50, 9, 7, 8, 70]), subscriber=np.array([0, 0, 1, 1, 0])
    )
    consumed = RowWriter(tmp_path, "consumed", "a")
    consumed.add(np.array([0, 4, 4]), at=np.array([11, 60, 61]), partition=0, offset=np.array([0, 1, 2]))
    for writer in (published, delivered, consumed):
        writer.close()
    found = join(directory)
    assert list(found.seq) == [0, 2, 4]
    assert list(found.delivered) == [7, 0, 50]
    assert list(found.consumed) == [11, 0, 60]
    assert (found.delivered_again, found.consumed_again, found.orphans) == (1, 1, 1)
    assert list(found.durable) == [True, False, True]


def test_an_interval_of_another_make_is_refused() -> None:
    with pytest.raises(RecordingError, match="not an interval"):
        Interval.decode({"writer": "a"})


IMPORTING = """
import sys
import numpy as np
from pathlib import Path
from dualstream_lab.recording import RowWriter
before = set(sys.modules)
rows = RowWriter(Path(sys.argv[1]), "delivered", "a")
rows.add(np.arange(5), at=7, subscriber=3)
rows.close()
print(sorted(set(sys.modules) - before))
"""


def test_writing_rows_imports_nothing(tmp_path) -> None:
    """In a process of Locust's, two threads that import the same module wait for each other for ever."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[]\n"
