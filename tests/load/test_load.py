"""The driver and its recorder: lateness is shown, failures count."""

from __future__ import annotations

import asyncio
import gc
import math
import time

import numpy as np
import pytest

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishRejected
from dualstream_lab.load.driver import Driver
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.recording import Clocks, Manifest, Outcome, RunDirectory
from dualstream_lab.recording.joined import join
from dualstream_lab.tasks import end_tasks
from dualstream_lab.verdict.verdict import judge
from dualstream_lab.workload import RunIds, Workload

IDS = RunIds("0" * 24)


class Answering:
    """Stands in for a publisher: answers when ``answer`` is set, or fails, as told."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.answer = asyncio.Event()
        self.sizes: list[int] = []
        self.error = error
        if error:
            self.answer.set()

    async def publish(self, event):
        await self.publish_batch([event])

    async def publish_batch(self, events):
        self.sizes.append(len(events))
        await self.answer.wait()
        if self.error:
            raise self.error("no")


def begun(tmp_path, workload: Workload, **more) -> RunDirectory:
    manifest = Manifest(
        name="t",
        run="r",
        ids=IDS.prefix,
        clocks=Clocks.now(),
        settings={},
        workload=workload.as_dict(),
        **more,
    )
    directory = RunDirectory(tmp_path, manifest)
    directory.save()
    return directory


async def drive(
    publisher, workload: Workload, recorder: PublishRecorder, concurrency: int = 64, share=(0, 1)
) -> None:
    driver = Driver(publisher, workload, workload.catalogue(IDS), recorder, share=share)
    driver.start()
    recorder.started = driver.started
    await driver.run(concurrency)


def finished(directory: RunDirectory):
    directory.manifest.state = "finished"
    directory.save()
    return judge(RunDirectory.open(directory.path))


async def test_the_driver_sends_on_time_however_slow_the_answers(tmp_path):
    workload = Workload(rate=1000, duration=0.3, batch=10)
    directory, publisher = begun(tmp_path, workload), Answering()
    recorder = PublishRecorder(tmp_path, "a")
    running = asyncio.create_task(drive(publisher, workload, recorder))
    async with asyncio.timeout(30):
        while sum(publisher.sizes) < 300:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    publisher.answer.set()
    await running
    recorder.close()
    rows = join(directory)
    assert publisher.sizes == [10] * 30
    assert (rows.outcome == Outcome.DURABLE).all()
    assert np.array_equal(rows.intended - rows.intended[0], np.repeat(np.arange(30), 10) * 10_000_000)
    assert (rows.sent >= rows.intended).all()


async def test_when_every_lane_waits_the_next_calls_are_late_and_the_wait_counts(tmp_path):
    workload = Workload(rate=100, duration=0.5, batch=1)
    directory, publisher = begun(tmp_path, workload, users={"concurrency": 1}), Answering()
    recorder = PublishRecorder(tmp_path, "a")
    running = asyncio.create_task(drive(publisher, workload, recorder, concurrency=1))
    await asyncio.sleep(0.6)  # the plan's whole length passes
    assert len(publisher.sizes) == 1
    publisher.answer.set()
    await running
    recorder.close()
    found = finished(directory).measures
    assert found["publish.durable"] == 50, "no slot is forgotten"
    assert found["publish.latency.p50"] > 250, "the wait counts from the intended time"
    assert found["publish.latency_raw.p50"] < 50, "the raw figure hides it"
    assert found["generator.slip.p50"] > 250


async def test_a_slow_generator_is_named_as_the_limit(tmp_path):
    class Slow(Answering):
        async def publish_batch(self, events):
            time.sleep(0.02)  # noqa: ASYNC251  (it blocks its loop, as a busy generator does)

    workload = Workload(rate=1000, duration=0.5, batch=10)  # wants a call every 10 ms
    directory = begun(tmp_path, workload, users={"concurrency": 64})
    recorder = PublishRecorder(tmp_path, "a")
    task = asyncio.create_task(recorder.run())
    await drive(Slow(), workload, recorder)
    task.cancel()
    recorder.close()
    verdict = finished(directory)
    assert verdict.limit.startswith("your generator was the limit")
    assert verdict.measures["publish.latency.p99"] > 300


@pytest.mark.parametrize(
    ("error", "outcome", "name"),
    [
        (BufferFull, Outcome.NO_ROOM, "no_room"),
        (PublishRejected, Outcome.REJECTED, "rejected"),
        (OutcomeUnknown, Outcome.UNKNOWN, "unknown"),
    ],
)
async def test_failures_are_rows_counts_and_infinite_latencies(tmp_path, error, outcome, name):
    workload = Workload(rate=100, duration=0.2, batch=5)
    directory = begun(tmp_path, workload, thresholds=["publish.latency.p99<10s", "publish.errors==0"])
    recorder = PublishRecorder(tmp_path, "a")
    await drive(Answering(error), workload, recorder)
    recorder.close()
    verdict = finished(directory)
    assert (join(directory).outcome == outcome).all()
    assert verdict.measures[f"publish.{name}"] == verdict.measures["publish.errors"] == 20
    rows = dict(verdict.count_table())
    assert sorted(rows[title] for title in ("rejected", "unknown", "no room in the publisher", "unsent")) == [
        "0", "0", "0", "20",
    ]  # fmt: skip
    assert verdict.measures["publish.latency.p50"] == math.inf
    assert math.isnan(verdict.measures["publish.latency_arrived.p50"])
    assert [check.held for check in verdict.checks] == [False, False]


async def test_a_stopped_driver_tells_what_was_due_and_not_sent(tmp_path):
    workload = Workload(rate=1000, duration=30, batch=1)
    directory = begun(tmp_path, workload, users={"concurrency": 4})
    recorder, publisher = PublishRecorder(tmp_path, "a"), Answering()
    driver = Driver(publisher, workload, workload.catalogue(IDS), recorder)
    driver.start()
    recorder.started = driver.started
    running = asyncio.create_task(driver.run(4))
    await asyncio.sleep(0.2)
    driver.stop()
    publisher.answer.set()
    await running
    recorder.close()
    found = judge(directory).measures
    assert found["publish.durable"] == 4
    assert 150 < found["publish.unsent"] < 10_000
    assert found["publish.latency.p99"] == math.inf


async def test_shares_are_sent_once_in_all(tmp_path):
    workload = Workload(rate=2000, duration=0.2, batch=7, plan="poisson")
    directory = begun(tmp_path, workload)
    for index in range(3):
        recorder, publisher = PublishRecorder(tmp_path, f"w{index}"), Answering()
        publisher.answer.set()
        await drive(publisher, workload, recorder, share=(index, 3))
        recorder.close()
    rows = join(directory)
    assert np.array_equal(rows.seq, np.arange(sum(len(slots) for slots in workload.slots())))


async def test_a_closed_plan_ends_with_its_duration(tmp_path):
    workload = Workload(plan="closed", duration=1, batch=10)
    begun(tmp_path, workload)
    recorder, publisher = PublishRecorder(tmp_path, "a"), Answering()

    async def soon(events):
        publisher.sizes.append(len(events))
        await asyncio.sleep(0.01)

    publisher.publish_batch = soon
    began = time.monotonic()
    await drive(publisher, workload, recorder, concurrency=2)
    recorder.close()
    assert 1 <= time.monotonic() - began < 20
    assert len(publisher.sizes) > 10


async def test_a_collection_that_stops_the_process_is_recorded():
    recorder = PublishRecorder(None, "a", period=0.02, deliver=(kept := []).append)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    gc.collect()
    async with asyncio.timeout(30):
        while not kept:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await end_tasks([task])
    assert kept[0].gauges["published.gc_pause_ms"] > 0
    assert not [watch for watch in gc.callbacks if "_collection_watch" in repr(watch)], (
        "it ends with the task"
    )
