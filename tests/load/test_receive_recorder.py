"""What a run's subscribers count on a shared Redis: notifications of their log and of their run alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
from redis.asyncio import Redis

from dualstream_lab import lab
from dualstream_lab.event import Event, Notification
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_channels, all_ready
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.tasks import end_tasks
from dualstream_lab.workload import RunIds, Workload

IDS, OURS, OTHER = RunIds("0" * 24), "0123456789ab", "ba9876543210"


def notification(seq: int, ids: RunIds = IDS, **fields: object) -> bytes:
    about = {"type": "push", "source_id": "o/r", "pos": f"0:{seq}", "pub": f"n:{seq}", "ts": 1}
    return msgspec.json.encode(Notification(id=ids.of(seq), **(about | fields)))


@pytest.mark.parametrize(
    ("message", "delivered", "foreign"),
    [
        (notification(1, log=OURS), 1, 0),
        (notification(1, log=OTHER), 0, 1),
        (notification(1), 1, 0),  # of a publisher of the version before
        (b'{"id":"%s","type":"push","source_id":"o/r"}' % IDS.of(1).encode(), 1, 0),  # bare
        (notification(1, log=OURS, type='"log":"', source_id=f'"log":"{OTHER}"'), 1, 0),
        (notification(1, RunIds("1" * 24), log=OURS), 0, 0),  # another run
        (notification(1, RunIds("1" * 24), log=OTHER), 0, 1),
        (b"noise", 0, 0),
    ],
)
def test_what_is_of_another_log_is_ignored_and_counted(message, delivered, foreign):
    kept = []
    hearing = ReceiveRecorder(None, "w", IDS, epoch=OURS, deliver=kept.append)
    hearing(0, message, 1)
    hearing.cut()
    (interval,) = kept
    counters = Counter(interval.counters)
    assert (counters["delivered"], counters["other_epoch"]) == (delivered, foreign)


async def test_an_estates_channels_are_its_own(stack):
    """A prefix that begins like another one does not hear it, either."""
    delivered: dict[str, list[bytes]] = {prefix: [] for prefix in ("", "a:", "a:b/")}
    subscribers = [
        RedisSubscriber(
            stack.redis_url,
            [all_channels(prefix)],
            lambda _n, m, _t, p=prefix: delivered[p].append(m),
            pattern=True,
        )
        for prefix in delivered
    ]
    running = [asyncio.create_task(one.run()) for one in subscribers]
    try:
        await all_ready(subscribers, 30)
        async with Redis.from_url(stack.redis_url) as redis, asyncio.timeout(30):
            for prefix in delivered:
                await redis.publish(f"{prefix}events:repo:o/r", prefix or "none")
            while not all(delivered.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await end_tasks(running)
    assert delivered == {"": [b"none"], "a:": [b"a:"], "a:b/": [b"a:b/"]}


@asynccontextmanager
async def staging(settings):
    """Another topic on the same Redis: events of the same sources, and the run's own ids as of its log."""
    echo = Redis.from_url(settings.redis_url)

    async def publish() -> None:
        async with DualPublisher(settings) as publisher:
            while True:
                await publisher.publish_batch(
                    [Event(type="push", source_type="repo", source_id=f"o/{n}") for n in range(10)]
                )
                await asyncio.sleep(0.01)

    async def mirror() -> None:
        async with echo.pubsub() as pubsub:
            await pubsub.psubscribe("events:*")
            async for message in pubsub.listen():
                if message["type"] == "pmessage" and OTHER.encode() not in message["data"]:
                    said = msgspec.json.decode(message["data"])
                    if "log" in said:
                        said |= {"log": OTHER, "pos": "0:999999999"}
                        await echo.publish(message["channel"], msgspec.json.encode(said))

    tasks = [asyncio.create_task(publish()), asyncio.create_task(mirror())]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.result()
    finally:
        await end_tasks(tasks)
        await echo.aclose()


async def test_two_topics_on_one_redis_and_two_runs_do_not_see_each_other(settings, stack, topic, tmp_path):
    stack.create_topic(f"{topic}-staging")
    scenario = lab.Scenario(
        name="shared",
        workload=Workload(rate=500, duration=2, sources=5),
        users=lab.Users(subscribers=2),
        warm_up=0.5,
    )
    async with staging(settings(topic=f"{topic}-staging")):
        runs = await asyncio.gather(
            *(
                run_scenario(
                    replace(scenario, name=f"run{n}"), settings=settings(channel_prefix=prefix), root=tmp_path
                )
                for n, prefix in enumerate(("", "", "estate:"))
            )
        )
    for run in runs:
        ledger, found = run.ledger, run.measures
        assert ledger.problems == ()
        assert (ledger.events, ledger.lost, ledger.orphans) == (1000, 0, 0)
        assert ledger.count("delivered") + found["live.dropped"] == 1000
        assert not ledger.count("duplicated-live")
        assert not ledger.count("reordered-live")
        assert found["durable.consumed"] == 1000
        assert (found["live.other_epoch"] > 1000) == (run.directory.manifest.settings["channel_prefix"] == "")
