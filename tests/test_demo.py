"""The demonstration and its parts: the plan is kept, the rows are true, the picture is there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from dualstream_lab.analysis.latency import latency, windows
from dualstream_lab.errors import BufferFull, ConfigError, OutcomeUnknown, PublishRejected
from dualstream_lab.lab.demo import Demo
from dualstream_lab.load.driver import DURABLE, NO_ROOM, REJECTED, UNKNOWN, Driver
from dualstream_lab.workload import RunIds, Workload


def test_a_short_demo_tells_the_story(tmp_path):
    arguments = [
        "demo",
        "--rate",
        "1000",
        "--duration",
        "5",
        "--outage",
        "1:2",
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "dualstream_lab.cli", *arguments],
        capture_output=True,
        timeout=100,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, err
    assert "Every event is durable" in out
    assert str(tmp_path / "run" / "timeline.png") in out.replace("\n", "")
    assert "next:" in err
    assert (tmp_path / "run/timeline.png").read_bytes().startswith(b"\x89PNG")

    rows = pq.read_table(tmp_path / "run/events.parquet").to_pandas()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert len(rows) == 5000 == summary["durable"] == summary["in_log"]
    assert (rows["acked"] >= rows["sent"]).all()
    assert (rows["sent"] >= rows["intended"]).all()
    assert (rows["kafka"] > 0).all()
    assert np.count_nonzero(rows["redis"]) == summary["heard"]
    down, back = summary["phases"][1]["begin"], summary["phases"][1]["end"]
    at = (rows["intended"] - rows["intended"].iloc[0]) / 1e9
    assert (rows["redis"][(at > down + 0.1) & (at < back - 0.1)] == 0).all(), (
        "nothing is heard while it is dead"
    )
    assert (rows["redis"][at < down - 0.2] > 0).all()
    dropped = sum(summary["stats"]["dropped"].values())
    assert summary["stats"]["notified"] + dropped == 5000
    assert dropped >= 900


@pytest.mark.parametrize("outage", [(0, 2), (2, 2), (3, 2), (2, 5), (2, 9)])
def test_an_outage_outside_the_run_is_refused(outage):
    with pytest.raises(ConfigError, match="0 < from < to < duration"):
        Demo(workload=Workload(duration=5), outage=outage)


class SlowPublisher:
    """A publisher that answers when told to; stands in for a Kafka that is stuck."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.batches: list[int] = []

    async def publish_batch(self, events):
        self.batches.append(len(events))
        await self.answer.wait()


async def test_the_driver_sends_on_time_however_slow_the_answers():
    workload = Workload(rate=1000, duration=0.3)
    publisher = SlowPublisher()
    driver = Driver(publisher, workload, workload.catalogue(RunIds("0" * 24)))
    running = asyncio.create_task(driver.run())
    async with asyncio.timeout(10):
        while sum(publisher.batches) < 300:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not driver.rows.acked.any()
    publisher.answer.set()
    await running
    rows = driver.rows
    assert (rows.outcome == DURABLE).all()
    assert np.array_equal(rows.intended, driver.started + np.arange(300) * 1_000_000)
    assert (rows.sent >= rows.intended).all()


@pytest.mark.parametrize(
    ("error", "code"), [(BufferFull, NO_ROOM), (PublishRejected, REJECTED), (OutcomeUnknown, UNKNOWN)]
)
async def test_a_failed_publish_is_a_row_not_an_exception(error, code):
    class Failing:
        async def publish_batch(self, events):
            raise error("no")

    workload = Workload(rate=100, duration=0.1)
    driver = Driver(Failing(), workload, workload.catalogue(RunIds("0" * 24)))
    await driver.run()
    assert (driver.rows.outcome == code).all()
    assert not driver.rows.acked.any()


def test_latency_counts_only_what_arrived():
    begin = np.arange(1000, dtype=np.int64) * 1_000_000
    end = begin + np.arange(1, 1001) * 1_000_000
    end[::2] = 0
    found = latency(begin, end)
    assert (found.count, found.p50, found.max) == (500, 502.0, 1000.0)
    nothing = latency(begin, np.zeros(1000, np.int64))
    assert nothing.count == 0
    assert np.isnan(nothing.p99)


def test_windows_are_by_when_an_event_began():
    begin = np.array([0, 100, 1100, 2100], dtype=np.int64) * 1_000_000
    end = begin + np.array([5, 7, 9, 0]) * 1_000_000
    end[3] = 0
    starts, p50, p99 = windows(begin, end, width=1.0, length=3)
    assert list(starts) == [0, 1, 2]
    assert list(p99[:2]) == [7.0, 9.0]
    assert p50[0] == 7.0  # the higher of two
    assert np.isnan(p99[2])
