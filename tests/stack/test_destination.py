"""Load never goes to brokers that nobody named, nor to others' without being asked."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import RunDirectory
from dualstream_lab.stack import StackInfo
from dualstream_lab.stack.destination import Destination, find_destination
from dualstream_lab.stack.local import _in_thread
from dualstream_lab.stack.state import StateFile

KAFKA, REDIS = "127.0.0.1:19092", "redis://127.0.0.1:16379"


@pytest.fixture
def ambient(monkeypatch, tmp_path):
    """Sets the environment; no stack runs, as far as anybody knows."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(os.environ):
        if name.startswith("DUALSTREAM_"):
            monkeypatch.delenv(name)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"DUALSTREAM_{name.upper()}", value)

    return put


@pytest.fixture
def running(ambient):
    """This user's local stack, as its state file has it."""
    state = StateFile.claim()
    info = StackInfo(
        kafka_url=KAFKA, redis_url=REDIS, topic="events", pid=1, directory="", started_at=0, expires_at=None
    )
    state.publish(info)
    yield info
    state.release()


def found(kafka=None, redis=None, topic=None, use_env=False):
    return find_destination(kafka=kafka, redis=redis, topic=topic, use_env=use_env)


def test_what_only_the_environment_names_is_never_used(ambient):
    ambient(kafka_url="prod:9092", redis_url="redis://prod", topic="prod-events")
    assert found() is None
    given = found(kafka="mine:9092").settings
    assert (given.kafka_url, given.redis_url, given.topic) == ("mine:9092", None, "events")
    given = found(kafka="mine:9092", redis="redis://mine", topic="t").settings
    assert (given.redis_url, given.topic) == ("redis://mine", "t")


def test_with_use_env_what_is_left_out_is_from_the_environment(ambient):
    ambient(kafka_url="prod:9092", redis_url="redis://prod", topic="prod-events")
    given = found(use_env=True).settings
    assert (given.kafka_url, given.redis_url, given.topic) == ("prod:9092", "redis://prod", "prod-events")
    assert found(use_env=True, topic="mine").settings.topic == "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis": "redis://h"}, "--redis without --kafka"),
        ({"topic": "a b"}, "topic"),
        ({"use_env": True}, "DUALSTREAM_KAFKA_URL is not set"),
        ({"kafka": "nonsense"}, "host:port"),
    ],
)
def test_half_a_destination_is_a_mistake(ambient, given, said):
    with pytest.raises(ConfigError, match=said):
        found(**given)


@pytest.mark.parametrize(
    ("kafka", "redis", "local"),
    [
        (KAFKA, REDIS, True),
        (KAFKA, None, True),
        ("kafka://localhost:19092", "redis://localhost:16379/0", True),
        (KAFKA, "redis://127.0.0.1:6379", False),
        ("127.0.0.1:9092", REDIS, False),
        (f"{KAFKA},prod:9092", REDIS, False),
        ("kafkas://user:pw@prod:9092", None, False),
        (KAFKA, "unix:///run/redis.sock", False),
    ],
)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_running_stack_counts_as_local_however_it_is_given(running, ambient, by, kafka, redis, local):
    if by == "environment":
        ambient(kafka_url=kafka, **({"redis_url": redis} if redis else {}))
        assert found(use_env=True).local is local
    else:
        assert found(kafka=kafka, redis=redis).local is local


def test_another_topic_of_the_running_stack_is_on_the_running_stack(running):
    assert Destination.running().settings.topic == "events"
    other = Destination.running("mine")
    assert (other.settings.topic, other.settings.kafka_url, other.local) == ("mine", KAFKA, True)


def test_nothing_is_local_where_no_stack_runs(ambient):
    assert not found(kafka=KAFKA).local
    assert Destination.running() is None


def test_what_is_said_names_brokers_topic_and_channels_and_no_password(ambient):
    ambient(channel_prefix="lab/")
    text = str(
        found(kafka="kafkas://me:s3cret@a:9092,b:9092?sasl_mechanism=PLAIN", redis="rediss://:hush@h:6380/0")
    )
    assert (
        text
        == "Kafka a:9092, b:9092, topic events; Redis h:6380, channels lab/events:* (not the local stack)"
    )
    assert "no Redis: nothing is announced" in str(found(kafka="a:9092"))


@pytest.fixture
def serving(dualstream, monkeypatch):
    """`dualstream serve` whose parts only say that they have started: what is said."""

    async def start(_settings, _parts, *, started, until):
        started("http://h:1")

    monkeypatch.setattr("dualstream_lab.cli.serve.run_parts", start)

    def said(*arguments: str) -> str:
        code, out, err = dualstream("serve", *arguments)
        assert (code, out) == (0, "")
        return err

    return said


def test_serve_says_on_which_brokers_and_uses_what_was_named(running, ambient, serving):
    """Also where only Redis or a topic was: publishers announce there, and write there, too."""
    everything = "ingester, processor, gateway on"
    local = f"Kafka {KAFKA}, topic events; Redis 127.0.0.1:16379, channels events:*; store"
    assert f"serving {everything} {local}" in serving()
    mine = f"Kafka {KAFKA}, topic mine; Redis mine:6379, channels events:*; store"
    assert f"serving {everything} {mine}" in serving("--redis", "redis://u:hush@mine:6379", "--topic", "mine")
    ambient(redis_url="redis://mine:6379", topic="mine")
    assert f"serving {everything} {mine}" in serving()
    ambient(kafka_url="kafka://u:hush@theirs:9092")
    assert f"{everything} Kafka theirs:9092, topic mine; Redis mine:6379," in serving()


def test_serve_shows_only_what_its_parts_answer(running, serving):
    watch, publish = "curl -N 'http://h:1/sse?", "curl http://h:1/ingest "
    assert [word in serving() for word in (watch, publish)] == [True, True]
    assert [word in serving("--only", "gateway") for word in (watch, publish)] == [True, False]
    assert [word in serving("--only", "ingester") for word in (watch, publish)] == [False, True]
    assert "http://h:1" not in serving("--only", "processor")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dualstream_lab.cli", *arguments]


@pytest.mark.parametrize("name", ["smoke", "run", "chaos", "find-rate", "check-gateway"])
def test_others_brokers_are_refused_where_nobody_can_be_asked(ambient, dualstream, name):
    more = {"run": ["burst.toml"], "chaos": ["redis_down.toml"], "check-gateway": ["http://127.0.0.1:9"]}
    code, out, err = dualstream(name, *more.get(name, []), "--kafka", KAFKA)
    assert (code, out) == (2, "")
    assert "load goes to Kafka 127.0.0.1:19092, topic events; no Redis" in err
    assert "give --yes if load may go there" in err
    assert "--yes" in dualstream(name, "--help")[1]


@pytest.mark.parametrize(("answer", "said"), [("n", "nothing was sent"), ("y", "could not be reached")])
def test_on_a_terminal_it_asks(ambient, tmp_path, answer, said):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("smoke", "--kafka", "127.0.0.1:1"),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
    )
    os.close(theirs)
    text = ""
    try:
        while "May it?" not in text:
            text += os.read(ours, 4096).decode()
        os.write(ours, f"{answer}\n".encode())
        process.wait(60)
        while said not in text:
            text += os.read(ours, 4096).decode()
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    assert process.returncode == (2 if answer == "n" else 3)


def test_without_options_a_stack_of_its_own_is_started_and_the_environment_is_said_to_be_left_alone(
    ambient, tmp_path, dualstream
):
    ambient(kafka_url="127.0.0.1:1", redis_url="redis://127.0.0.1:1", topic="prod")
    (tmp_path / "short.toml").write_text("warm_up = 0.5\n[workload]\nrate = 200\nduration = 1\n")
    code, _, err = dualstream("run", "short.toml", "--topic", "mine")
    assert code == 0, err
    assert "without --use-env load does not go to what DUALSTREAM_KAFKA_URL" in err
    assert ", topic mine; Redis 127.0.0.1:" in err
    assert "(a local stack of its own)" in err


def headers_in(stack, topic: str) -> list[dict[str, bytes]]:
    """Of every record, as another client reads them."""

    async def read() -> list[dict[str, bytes]]:
        consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_url, auto_offset_reset="earliest")
        await consumer.start()
        try:
            await consumer._client._wait_on_metadata(topic)
            parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            consumer.assign(parts)
            await consumer.seek_to_beginning(*parts)
            due, got = sum((await consumer.end_offsets(parts)).values()), []
            while len(got) < due:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    got += [dict(record.headers) for record in records]
            return got
        finally:
            await consumer.stop()

    return _in_thread(read())


def test_every_load_event_is_marked_and_the_warm_up_is_counted_and_said(
    ambient, tmp_path, stack, topic, dualstream
):
    """Also where the run has no Redis, and the environment names one."""
    ambient(redis_url="redis://127.0.0.1:1")
    (tmp_path / "short.toml").write_text("warm_up = 1\n[workload]\nrate = 500\nduration = 2\n")
    code, out, err = dualstream("run", "short.toml", "--kafka", stack.kafka_url, "--topic", topic, "--yes")
    assert code == 0, err
    (path,) = (tmp_path / "runs").iterdir()
    manifest = RunDirectory.open(path).manifest
    assert manifest.settings["redis_url"] is None
    counters = json.loads((path / "verdict.json").read_text())["counters"]
    assert not [name for name in counters if name.startswith("dropped")], (
        "nothing went to the Redis of the environment"
    )
    found = headers_in(stack, topic)
    assert {headers["dualstream_load"] for headers in found} == {manifest.run.encode()}
    ours = sum(headers["ce_id"].decode().startswith(manifest.ids) for headers in found)
    assert ours == 1000
    assert len(found) - ours == manifest.warm_up > 100
    assert f"{manifest.warm_up:,} events were sent to warm up" in err
    assert f"{manifest.warm_up:,}" in out.partition("to warm up")[2]


def test_a_second_ctrl_c_keeps_the_summary(ambient, tmp_path, stack, topic):
    where = ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--yes"]
    process = subprocess.Popen(
        command("smoke", *where, "--rate", "500", "--json", "v.json"), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("runs/*/published-*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()  # as Ctrl-C
        time.sleep(0.05)
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "ending already" in err
    assert "Traceback" not in err
    assert "publish: intended to ack" in out
    assert json.loads((tmp_path / "v.json").read_text())["state"] == "interrupted"


def test_down_says_what_to_unset(ambient, dualstream):
    code, out, _ = dualstream("down")
    assert (code, out) == (0, "unset DUALSTREAM_KAFKA_URL DUALSTREAM_REDIS_URL DUALSTREAM_TOPIC\n")


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    from dualstream_lab.cli import console

    monkeypatch.setattr(console, "_EVERY", 0.2)
    with console.progress_bar(10) as bar:
        for number in range(6):
            bar(number, f"at {number}")
            time.sleep(0.1)
    lines = capsys.readouterr().err.split()
    assert 2 <= len(lines) // 2 <= 3
