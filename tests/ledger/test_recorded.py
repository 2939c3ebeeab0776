"""What the ledger rests on is recorded as it was: presence, drops, outcomes, who was killed as slow."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
from redis.asyncio import Redis

from dualstream_lab.errors import BufferFull, OutcomeUnknown
from dualstream_lab.event import Event
from dualstream_lab.load.driver import Call
from dualstream_lab.load.probes import probe_redis
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_ready
from dualstream_lab.publisher import DualPublisher, notifier
from dualstream_lab.publisher.outcome import Durable, Rejected, Unknown
from dualstream_lab.recording import DROPS, Clocks, Ending, Manifest, Meter, Outcome, RunDirectory
from dualstream_lab.recording.manifest import FaultRecord
from dualstream_lab.workload import RunIds, Workload

IDS = RunIds("94975065-3ce8-8d26-8868-")


def rows(path, kind):
    manifest = Manifest(
        name="t", run="r", ids=IDS.prefix, clocks=Clocks.now(), settings={}, workload=Workload().as_dict()
    )
    return RunDirectory(path, manifest).rows(kind).to_pylist()


async def until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.05)


class Presence:
    """Collects what a subscriber tells of itself."""

    def __init__(self) -> None:
        self.told: asyncio.Queue = asyncio.Queue()

    def __call__(self, subscriber, begin, end, why) -> None:
        self.told.put_nowait((subscriber.number, begin, end, why))

    async def next(self):
        async with asyncio.timeout(10):
            return await self.told.get()


async def test_a_subscriber_tells_when_it_was_subscribed(stack):
    presence = Presence()
    subscriber = RedisSubscriber(
        stack.redis_url, ["events:*"], lambda *_: None, number=7, pattern=True, stay=None, listening=presence
    )
    running = asyncio.create_task(subscriber.run())
    who, begin, end, why = await presence.next()
    assert (who, end, why) == (7, 0, Ending.OPEN)
    assert begin == subscriber.since
    async with Redis.from_url(stack.redis_url) as client:
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    _, same, end, why = await presence.next()
    assert (same, why) == (begin, Ending.LOST)
    assert end > begin
    _, again, _, why = await presence.next()
    assert why is Ending.OPEN
    assert again > end
    running.cancel()
    assert (await presence.next())[3] is Ending.CLOSED
    await asyncio.wait([running])


async def test_a_subscriber_that_comes_and_goes_has_left(stack):
    presence = Presence()
    subscriber = RedisSubscriber(
        stack.redis_url, ["events:a:b"], lambda *_: None, stay=0.05, listening=presence
    )
    running = asyncio.create_task(subscriber.run())
    assert [(await presence.next())[3] for _ in range(3)] == [Ending.OPEN, Ending.LEFT, Ending.OPEN]
    running.cancel()
    await asyncio.wait([running])


async def test_presence_is_on_disk_before_it_ends_and_closed_with_the_recording(tmp_path, stack):
    delivered = ReceiveRecorder(tmp_path, "redis", IDS)
    subscriber = RedisSubscriber(
        stack.redis_url, ["events:*"], delivered, pattern=True, listening=delivered.listening
    )
    running = asyncio.create_task(subscriber.run())
    await all_ready([subscriber], 10)
    delivered.subscribers = [subscriber]
    begin = subscriber.since
    delivered.close()
    opened, closed = rows(tmp_path, "listening")
    assert opened == {"subscriber": 0, "source": -1, "begin": begin, "end": 0, "why": Ending.OPEN}
    assert (closed["begin"], closed["why"]) == (begin, Ending.CLOSED)
    assert closed["end"] > begin
    running.cancel()
    await asyncio.wait([running])


async def test_a_client_that_redis_killed_for_slowness_is_counted(stack):
    meter, presence = Meter("t"), Presence()
    slow = RedisSubscriber(stack.redis_url, ["slow"], lambda *_: None, slow=0.1, listening=presence)
    tasks = [asyncio.create_task(slow.run()), asyncio.create_task(probe_redis(stack.redis_url, meter))]
    async with Redis.from_url(stack.redis_url) as client:
        limit = await client.config_get("client-output-buffer-limit")
        try:
            await all_ready([slow], 10)
            await until(lambda: "redis.cpu" in meter._now.gauges)  # it has looked twice
            await client.config_set("client-output-buffer-limit", "pubsub 32kb 32kb 1")
            async with asyncio.timeout(30):
                while presence.told.qsize() < 2:
                    await client.publish("slow", "x" * 100_000)
            await until(lambda: meter._now.counters.get("redis.killed_slow"))
        finally:
            await client.config_set("client-output-buffer-limit", limit["client-output-buffer-limit"])
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    assert meter._now.counters["redis.killed_slow"] >= 1
    later = Meter("t")
    probing = asyncio.create_task(probe_redis(stack.redis_url, later))
    await until(lambda: "redis.cpu" in later._now.gauges)
    probing.cancel()
    await asyncio.wait([probing])
    assert "redis.killed_slow" not in later._now.counters, "who was killed before is not counted again"
    assert [(await presence.next())[3] for _ in range(2)] == [Ending.OPEN, Ending.LOST]


async def test_a_publisher_tells_each_notification_that_it_gives_up(stack, settings, tmp_path):
    recorder = PublishRecorder(tmp_path, "a", ids=IDS)
    events = [Event(id=IDS.of(n), type="push", source_type="repo", source_id='a/"id":"b') for n in range(600)]
    async with DualPublisher(settings(notify_queue=100)) as publisher:
        recorder.watch(publisher)
        stack.redis.kill()
        for first in range(0, 600, 50):
            await publisher.publish_batch(events[first : first + 50])
            await asyncio.sleep(0.05)
        assert await publisher.flush()
        dropped = publisher.stats().dropped
        await publisher.publish(Event(type="push", source_type="repo", source_id="another/runs"))
    recorder.close()
    found = rows(tmp_path, "dropped")
    assert sorted(row["seq"] for row in found) == list(range(600)), "each once, and none of another run"
    assert sum(dropped.values()) == 600
    for why, count in dropped.items():
        assert sum(row["reason"] == DROPS.index(why) for row in found) == count
    assert all(row["at"] > 0 for row in found)


def test_every_reason_to_give_up_has_its_place():
    source = Path(notifier.__file__).read_text()
    reasons = set(re.findall(r'"(redis (?:down|timeout|connection|refused)|queue full|closed)"', source))
    assert reasons == set(DROPS) - {"another reason"}


def failed(error, outcome):
    three = np.arange(3)
    return Call(
        seq=three, source=three, size=three, intended=1, sent=2, acked=0, outcome=outcome, error=error
    )


def test_a_batch_that_failed_in_part_is_recorded_event_by_event(tmp_path):
    recorder = PublishRecorder(tmp_path, "a", deliver=(kept := []).append)
    told = OutcomeUnknown("x", outcomes=[Durable(0, 5), Rejected("no"), Unknown()])
    recorder.settled(failed(told, Outcome.UNKNOWN))
    recorder.settled(failed(BufferFull("x", outcomes=[Rejected("no room")] * 3), Outcome.NO_ROOM))
    recorder.settled(failed(OutcomeUnknown("it does not say"), Outcome.UNKNOWN))
    recorder.close()
    found = rows(tmp_path, "published")
    assert [row["outcome"] for row in found] == [1, 2, 3, 4, 4, 4, 3, 3, 3]
    assert [row["acked"] > 0 for row in found] == [True] + [False] * 8
    counters = kept[0].counters
    assert [counters[name] for name in ("durable", "rejected", "unknown", "no_room")] == [1, 1, 4, 3]
    assert (kept[0].histograms["publish"].arrived, kept[0].histograms["publish"].missing) == (1, 8)


def test_faults_of_older_runs_have_no_evidence():
    assert FaultRecord(name="redis.kill", begin=1).bite == ""
