"""The driver and the judgement of a run: lateness is shown, failures count, the limit is named."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import time

import numpy as np
import pytest

from dualstream_lab.errors import BufferFull, ConfigError, OutcomeUnknown, PublishRejected
from dualstream_lab.load.driver import Driver
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.recording import Clocks, Manifest, Outcome, RunDirectory
from dualstream_lab.recording.joined import durable_lag, join
from dualstream_lab.tasks import end_tasks
from dualstream_lab.verdict.bottleneck import limit_sentence
from dualstream_lab.verdict.measures import MEASURES, QUANTILES, Totals, unit_of
from dualstream_lab.verdict.thresholds import Threshold, format_measure
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


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_can_be_a_threshold(name):
    limit = "5ms" if unit_of(name) == "ms" else "5"
    threshold = Threshold.parse(f"{name} <= {limit}")
    assert threshold.check({name: 5.0}).held
    missed = threshold.check({name: 7.0})
    assert not missed.held
    assert format_measure(name, 7.0) in missed.text


@pytest.mark.parametrize(
    ("text", "limit"),
    [("live.latency.p99<5ms", 5), ("durable.lag.max<2s", 2000), ("publish.latency.p50 >= 250us", 0.25),
     ("publish.rate>=0.99", 0.99), ("live.missing<1%", 0.01), ("publish.errors==0", 0),
     ("redis.cpu<1e-1", 0.1)],
)  # fmt: skip
def test_units(text, limit):
    assert Threshold.parse(text).limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("live.latency.p99", "must be a measure, one of"),
        ("live.latncy.p99<5ms", "did you mean live.latency.p99"),
        ("live.latency.p99<5", "is a time: give it a unit"),
        ("publish.errors<5ms", "is a number without a unit"),
        ("publish.errors=0", "must be a measure, one of"),
    ],
)
def test_bad_thresholds_say_what_is_allowed(text, message):
    with pytest.raises(ConfigError, match=message):
        Threshold.parse(text)


def test_a_threshold_on_what_was_not_measured_is_missed():
    check = Threshold.parse("live.latency.p99<5ms").check({})
    assert not check.held
    assert check.text == "not measured in this run"


def test_quantiles_are_named_in_the_measures():
    assert {f"publish.latency.{q}" for q in QUANTILES} <= set(MEASURES)


def naive_lag(acked, consumed, at):
    open_ = [a for a, c in zip(acked, consumed, strict=True) if a <= at and (c == 0 or c > at)]
    return (at - min(open_)) / 1e9 if open_ else 0.0


def test_lag_is_the_age_of_the_oldest_unread_record():
    rng = np.random.default_rng(3)
    acked = rng.integers(1, 10**9, 200)
    consumed = np.where(rng.random(200) < 0.1, 0, acked + rng.integers(-(10**6), 10**8, 200))
    at = np.arange(0, 2 * 10**9, 10**7)
    expected = [naive_lag(acked, consumed, t) for t in at]
    assert durable_lag(acked, consumed, at) == pytest.approx(expected)
    assert list(durable_lag(acked[:0], consumed[:0], at)) == [0.0] * len(at)


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


@pytest.mark.parametrize("name", MEASURES)
def test_a_measures_unit_is_what_its_sentence_says(name):
    """What is left out of the units is shown as a whole number: a share would be 0."""
    says, unit = MEASURES[name], unit_of(name)
    assert (unit == "share") == ("share of" in says or "as a share" in says)
    assert (unit == "cores") == says.endswith("in cores")
    assert (unit == "ms") == bool(
        re.search(r"how long|how late|took at most|Kafka.s answer|Redis.s answer|the same, 99 %", says)
    )


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


def test_totals_keep_the_highest_gauge_of_the_load(tmp_path):
    recorder = PublishRecorder(None, "a", deliver=(kept := []).append)
    for value in (30, 7, 5):
        recorder.meter.level("x", value)
        recorder.meter.count("n")
        recorder.cut()
    whole = Totals(since=kept[0].end)
    for interval in kept:
        whole.add(interval)
    assert (whole.peaks["x"], whole.counters["n"]) == (7, 3), "the first interval was before the load"
