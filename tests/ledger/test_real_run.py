"""The ledger of a real run through a Redis outage, checked against a read of Kafka of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from dualstream_lab import lab
from dualstream_lab.cli.root import run
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.ledger import Ledger
from dualstream_lab.workload import Workload
from tests.kafka_log.hostile import Writer, event, grow

from .builder import IDS, RunBuilder

RATE, SECONDS = 2000, 6


def cli(*arguments: str):
    return subprocess.run(
        [sys.executable, "-m", "dualstream_lab.cli", "ledger", *arguments], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


async def in_kafka(stack, prefix: str) -> list[str]:
    """The ids of a run's records, as they are in the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_url, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client._wait_on_metadata(stack.topic)
        targets = [TopicPartition(stack.topic, p) for p in consumer.partitions_for_topic(stack.topic)]
        consumer.assign(targets)
        await consumer.seek_to_beginning(*targets)
        ends = await consumer.end_offsets(targets)
        ids = []
        while any([await consumer.position(target) < end for target, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                ids += [dict(record.headers)["ce_id"].decode() for record in records]
    finally:
        await consumer.stop()
    return [event_id for event_id in ids if event_id.startswith(prefix)]


async def test_every_event_of_an_outage_is_accounted_for(tmp_path, stack):
    shipped = lab.Scenario.read("redis_down.toml")
    scenario = replace(
        shipped,
        workload=Workload(rate=RATE, duration=SECONDS),
        users=lab.Users(subscribers=2),
        faults=(lab.Fault(name="redis.kill", at=1, length=1.5),),
        warm_up=1.0,
    )
    done = await run_scenario(scenario, stack=stack, root=tmp_path)
    found = done.measures
    ledger = Ledger.of(done.path)
    read = await in_kafka(stack, done.directory.manifest.ids)

    assert ledger.events == RATE * SECONDS == sum(entry.count for entry in ledger.entries)
    assert ledger.problems == ()
    durable = {
        event_id
        for name in ("delivered", "undelivered", "delivered-after-giving-up")
        for event_id in ledger.ids(name)
    }
    assert durable == set(read), "what the ledger calls durable is in Kafka, and nothing else is"
    assert len(read) == len(set(read)) == RATE * SECONDS
    assert (ledger.lost, ledger.orphans, found["ledger.lost"], found["ledger.orphan"]) == (0, 0, 0, 0)

    causes = {entry.cause: entry.count for entry in ledger.entries if entry.cause}
    dropped = sum(count for cause, count in causes.items() if cause.startswith("dropped by the publisher"))
    assert dropped + causes.get("reconnect gap", 0) == ledger.count("undelivered"), "nothing is unexplained"
    assert dropped + ledger.count("delivered-after-giving-up") == found["live.dropped"] > RATE

    (fault,) = ledger.recoveries
    assert fault.detected is not None
    assert fault.detected < 1.5, "while Redis was away"
    assert fault.live.unavailable > 1.4
    assert fault.live.again is not None

    shown = cli(str(done.path))
    assert shown.returncode == 0, shown.stderr
    for text in (
        "undelivered: dropped by the publisher",
        "12,000 events, each in one class",
        "redis.kill at 1.",
    ):
        assert text in shown.stdout
    value = json.loads(cli(str(done.path), "--json").stdout)
    assert value == json.loads(json.dumps(ledger.as_dict()))
    ids = cli(str(done.path), "--class", "undelivered").stdout.split()
    assert ids == list(ledger.ids("undelivered"))
    # of one that was due while Redis was away
    story = cli(str(done.path), "--event", ids[len(ids) // 2])
    assert story.returncode == 0
    for text in (
        "undelivered (",
        "acknowledged by Kafka",
        "read by the Kafka consumer: partition",
        "fault redis.kill was on",
    ):
        assert text in story.stdout, story.stdout
    assert "subscriber 1 of redis" in story.stdout


async def test_a_run_in_which_partitions_are_added_is_accounted_for(tmp_path, stack, topic, settings):
    """A topic that others write to, too: somebody's transaction was aborted, and one is open for a while."""
    scenario = lab.Scenario(
        name="grown",
        workload=Workload(rate=1000, duration=4, sources=20),
        users=lab.Users(subscribers=1),
        warm_up=0.5,
    )
    begun = asyncio.Event()
    writer = Writer(stack.kafka_url, topic)

    async def disturb() -> None:
        await begun.wait()
        await grow(stack.kafka_url, topic, 9)
        await writer.transaction([event(1)], commit=False, partition=2)
        async with writer.producer(transactional_id=topic) as open_one:
            await open_one.begin_transaction()
            await writer.send(open_one, event(2), partition=2)
            await asyncio.sleep(5)  # longer than the run: it waits for what is held back
            await open_one.commit_transaction()

    def show(progress) -> None:
        if progress.seconds > 0.5:
            begun.set()

    disturbing = asyncio.create_task(disturb())
    run = await run_scenario(scenario, settings=settings(refresh_interval=0.3), root=tmp_path, show=show)
    await disturbing
    ledger = run.ledger
    assert ledger.problems == ()
    assert (ledger.events, ledger.lost, ledger.orphans) == (4000, 0, 0)
    assert not ledger.count("duplicated-log")
    rows = run.directory.rows("consumed")
    assert max(rows.column("partition").to_pylist()) >= 6


@pytest.fixture
def ours(capsys):
    """The command within this process: (exit code, stdout, stderr)."""

    def call(*arguments: str):
        code = run(["ledger", *arguments])
        return code, *capsys.readouterr()

    return call


def test_lost_events_give_99(tmp_path, ours):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000)
    builder.flow(0)
    builder.sent(1, 20)
    path = str(builder.write().path)
    code, stdout, stderr = ours(path)
    assert code == 99
    assert "lost" in stdout
    assert "must never happen" in stderr
    assert f"--event {IDS.of(1)}" in stderr
    assert ours(path, "--event", IDS.of(1))[0] == 99
    assert ours(path, "--event", IDS.of(0))[0] == 0
    assert ours(path, "--class", "lost")[:2] == (99, f"{IDS.of(1)}\n")
    value = json.loads(ours(path, "--class", "lost", "--json")[1])
    assert value == {"name": "lost", "count": 1, "ids": [IDS.of(1)]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "does not exist; `dualstream runs` lists"),
        (["."], "is not a run directory"),
        ([], "Missing argument 'RUN'"),
        ([".", "--class", "gone"], "is not one of 'delivered'"),
    ],
)
def test_what_is_no_run_gives_2(tmp_path, ours, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = ours(*arguments)
    assert (code, stdout) == (2, "")
    assert message in stderr


def test_ids_of_others_give_2_and_the_help_teaches(tmp_path, ours):
    path = str(RunBuilder(tmp_path / "run").write().path)
    code, _, stderr = ours(path, "--event", "x")
    assert code == 2
    assert "is not an id of this run" in stderr
    assert "no published rows were recorded" in ours(path)[2]
    assert "durable, and every subscriber that was listening received it" in ours("--explain")[1]
    assert "Example:" in ours("--help")[1]
