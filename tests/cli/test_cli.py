"""The ``dualstream`` command, run as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import redis
from aiokafka import AIOKafkaProducer

from dualstream_lab.config import Settings
from dualstream_lab.event import Event, encode_event, shard_channel
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.publisher.core import NAME
from tests.kafka_log.hostile import damaged, grow, make_anew

WEBHOOKS = [
    b'{"event":"issues","payload":{"action":"opened",  "repository":{"full_name":"o/r"},"n":1.50}}',
    b'{"event":"push","payload":{"repository":{"full_name":"o/r"},"n":2}}',
    b'{"event":"security_advisory","payload":{"action":"published"}}',
    b"",
    b"{broken",
    b'{"event":"organization","payload":{"organization":{"login":"org"},"n":3}}',
    b'{"event":"ping","payload":{"sender":{"login":"me"},"n":"\xc3\xa9"}}',
    b'{"event":"push","payload":{"sender":{"login":"me"},"n":"\xff"}}',
]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A state directory of its own: a user's running stack is neither seen nor touched."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(os.environ):
        if name.startswith("DUALSTREAM_"):
            monkeypatch.delenv(name)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dualstream_lab.cli", *arguments]


def run(*arguments: str, code: int, given: bytes = b"", cwd: Path | None = None) -> tuple[str, str]:
    done = subprocess.run(
        command(*arguments), input=given, capture_output=True, timeout=90, check=False, cwd=cwd
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"exit code {done.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def exported(output: str) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in output.splitlines())
    return {name: value.strip("'") for name, _, value in lines}


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def wait_until(condition, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@pytest.fixture
def there(stack, topic):
    """The options that name the test's stack and topic."""
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic]


def test_up_status_down_and_nothing_is_left(environment):
    given = ["--topic=orders:2", "--topic=events:3", "--kafka-setting=log.retention.ms=1000"]
    out, err = run("up", "--detach", "--ttl", "10m", *given, "--redis-setting=maxclients=77", code=0)
    where = exported(out)
    assert "ends in 10 min" in err
    state = json.loads((environment / "state/dualstream-lab/stack.json").read_text())
    pids = family(state["pid"])
    try:
        assert len(pids) >= 5  # itself, and a guard and a server each
        with redis.Redis.from_url(where["DUALSTREAM_REDIS_URL"]) as client:
            assert client.config_get("maxclients") == {"maxclients": "77"}
        listed = json.loads(run("topic", "list", "--json", code=0)[0])
        assert [(one["topic"], one["partitions"]) for one in listed] == [("events", 3), ("orders", 2)]
        described = json.loads(run("topic", "describe", "orders", "--json", code=0)[0])
        assert described["settings"]["retention.ms"] == "1000"
        again, err = run("up", code=0)
        assert exported(again) == where
        assert "runs already" in err
        _, err = run("up", "--brokers", "3", code=3)
        assert "`dualstream down` first" in err
        out, err = run("status", code=0)
        assert exported(out) == where
        assert f"encode with the {NAME} core" in err
        # No address is given: it finds the running stack.
        _, err = run("publish", "-", "--format", "github-webhook", code=0, given=WEBHOOKS[0], cwd=environment)
        assert "1 event durable" in err
        assert "1 announced" in err
    finally:
        run("down", code=0)
    wait_until(lambda: gone(pids))
    _, err = run("status", code=3)
    assert "start one with `dualstream up`" in err
    _, err = run("down", code=0)
    assert "no local stack runs" in err


def test_a_killed_stack_leaves_nothing_behind(environment):
    run("up", "--detach", code=0)
    state = json.loads((environment / "state/dualstream-lab/stack.json").read_text())
    pids = family(state["pid"])
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: gone(pids))
    run("status", code=3)


def test_ctrl_c_ends_the_foreground_stack(environment):
    process = subprocess.Popen(command("up"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"export DUALSTREAM_KAFKA_URL=")
        pids = family(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
        wait_until(lambda: gone(pids))
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_named(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--kafka-port", "--redis-port"):
            _, err = run("up", option, port, code=3)
            assert port in err
            assert "in use" in err
        _, err = run("up", "--detach", "--kafka-port", port, code=3)
        assert port in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["up", "--brokers", "2"], 2, "--brokers"),
        (["up", "--ttl", "soon"], 2, "allowed: 500ms, 90s, 15m, 8h, 2d"),
        (["up", "--directory", "/dev/null/x"], 3, "/dev/null/x cannot be written"),
        (["publish", "absent.jsonl", "--kafka", "127.0.0.1:1"], 2, "absent.jsonl"),
        (["publish", "-"], 3, "dualstream up"),
        (["publish", "-", "--kafka", "nonsense"], 2, "host:port"),
        (["publish", "-", "--kafka", "127.0.0.1:1"], 3, "Kafka at 127.0.0.1:1 could not be reached"),
        (["publish", "-", "--rate", "0"], 2, "--rate"),
        (["publish", "-", "--format", "xml"], 2, "github-webhook"),
        (["tail", "nocolon", "--kafka", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1"], 2, "type:id"),
        (["tail", "repo:a", "--since", "5m"], 2, "need --from-kafka"),
        (["tail", "repo:a", "--from-kafka", "--kafka", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["nothing"], 2, "No such command"),
        (["pubish", "-"], 2, "Did you mean publish?"),
        (["publish", "-", "--kafka=nonsense"], 2, "error: --kafka: "),
        (["publish", "-", "--kafka", "127.0.0.1:1"], 3, "; check --kafka"),
        (["tail", "repo:a", "--kafka", "h:1", "--redis", "http://h"], 2, "error: --redis: "),
    ],
)
def test_a_mistake_is_explained(environment, dualstream, arguments, code, told):
    returned, out, err = dualstream(*arguments)
    assert (returned, out) == (code, "")
    assert told in err


def test_an_address_of_the_environment_is_said_to_be(environment, dualstream, monkeypatch):
    monkeypatch.setenv("DUALSTREAM_KAFKA_URL", "127.0.0.1:1")
    code, _, err = dualstream("publish", "-")
    assert code == 3
    assert "the address is from DUALSTREAM_KAFKA_URL" in err
    assert "kafka_url" not in err


def test_a_topic_that_does_not_exist_is_a_mistake(environment, stack):
    _, err = run("publish", "-", "--kafka", stack.kafka_url, "--topic", "absent", code=2, given=b"{}")
    assert "topic 'absent' does not exist" in err


def test_webhooks_go_to_kafka_and_back_byte_for_byte_and_bad_lines_into_the_rejects(environment, there):
    file = environment / "hooks.jsonl"
    file.write_bytes(b"\n".join(WEBHOOKS))
    _, err = run("publish", str(file), "--format", "github-webhook", *there, code=1)
    assert "4 events durable" in err
    assert "3 refused" in err
    text = (environment / "hooks.jsonl.rejects.jsonl").read_text()
    rejects = [json.loads(line) for line in text.splitlines()]
    assert [reject["line"] for reject in rejects] == [3, 5, 8]
    assert "has no source" in rejects[0]["reason"]
    assert rejects[0]["raw"].encode() == WEBHOOKS[2]
    assert "raw_base64" in rejects[2]

    out, _ = run("tail", "--pattern", "*", "--from-kafka", "--no-follow", "--offset", "0", *there, code=0)
    events = [json.loads(line) for line in out.splitlines()]
    assert sorted((e["type"], e["source_type"], e["source_id"]) for e in events) == [
        ("issues.opened", "repo", "o/r"),
        ("organization", "org", "org"),
        ("ping", "user", "me"),
        ("push", "repo", "o/r"),
    ]
    data = {
        bytes(msgspec.json.decode(line.encode(), type=dict[str, msgspec.Raw])["data"])
        for line in out.splitlines()
    }
    assert data == {hook.partition(b'"payload":')[2][:-1] for hook in (WEBHOOKS[i] for i in (0, 1, 5, 6))}

    out, _ = run("tail", "repo:o/r", "--from-kafka", "--no-follow", "--since", "10m", *there, code=0)
    assert [json.loads(line)["data"]["n"] for line in out.splitlines()] == [1.5, 2]
    out, _ = run("tail", "repo:o/r", "--from-kafka", "--offset", "0", "--limit", "1", *there, code=0)
    assert [json.loads(line)["data"]["n"] for line in out.splitlines()] == [1.5]


def test_what_publish_tells_to_see_its_events_by_shows_them(environment, monkeypatch, stack, topic):
    monkeypatch.setenv("DUALSTREAM_KAFKA_URL", stack.kafka_url)
    _, err = run(
        "publish", "-", "--format", "github-webhook", "--topic", topic, code=0, given=WEBHOOKS[0],
        cwd=environment,
    )  # fmt: skip
    told = shlex.split(err.partition("see them:  dualstream ")[2])
    out, _ = run(*told, code=0)
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["issues.opened"]


def test_tail_hears_what_is_published(environment, there):
    process = subprocess.Popen(
        command("tail", "repo:o/r", "--limit", "2", *there), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"listening on events:repo:o/r\n"
        run(
            "publish",
            "-",
            "--format",
            "github-webhook",
            *there,
            code=0,
            given=b"\n".join(WEBHOOKS[:2]),
            cwd=environment,
        )
        out, _ = process.communicate(timeout=60)
        assert [json.loads(line)["type"] for line in out.splitlines()] == ["issues.opened", "push"]
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def producing(stack):
    made = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, acks="all")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@contextmanager
def tailing(*arguments: str):
    """``dualstream tail`` in a process of its own, which listens; a Ctrl-C ends it at last."""
    process = subprocess.Popen(command("tail", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()


def notification(event_id: str, source_id: str = "o/r", **fields: str) -> bytes:
    return msgspec.json.encode({"id": event_id, "type": "t", "source_id": source_id, **fields})


@pytest.mark.parametrize("pattern", [False, True])
@pytest.mark.parametrize("policy", ["source", "shard"])
def test_tail_leaves_out_what_is_of_another_log_or_no_notification(
    environment, monkeypatch, stack, topic, there, pattern, policy
):
    monkeypatch.setenv("DUALSTREAM_CHANNEL_POLICY", policy)
    monkeypatch.setenv("DUALSTREAM_CHANNEL_PREFIX", f"{topic}:")
    own = asyncio.run(log_identity(Settings(kafka_url=stack.kafka_url, topic=topic))).epoch
    source = ["--pattern", "repo:o/*"] if pattern else ["repo:o/r"]
    with tailing(*source, *there) as process, redis.Redis.from_url(stack.redis_url) as client:
        assert process.stderr.readline().startswith(f"listening on {topic}:events:".encode())
        shard = shard_channel("repo", "o/r", 64, f"{topic}:")
        channel = f"{topic}:events:repo:o/r" if policy == "source" else shard
        published = [
            notification("foreign", log="0123456789ab", pos="0:0"),
            notification("ours", log=own, pos="0:0"),
            b'{"sources":["repo:o/r"]}',
            b"garbage\nof two lines",
            notification("bare"),
            json.dumps({"id": "pretty", "type": "t", "source_id": "o/r"}, indent=2).encode(),
        ]
        if policy == "shard":
            published.insert(0, notification("neighbour", source_id="x/r"))
        for message in published:
            client.publish(channel, message)
        client.publish("events:repo:o/r", notification("of an estate without the prefix"))
        client.publish(channel, notification("last"))
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert [line["id"] for line in lines] == ["ours", "bare", "pretty", "last"]
        assert b"notifications of another log (0123456789ab) come here, too" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert b"1 notification of other logs was left out" in process.stderr.read()


def test_tail_goes_on_with_a_topic_that_was_made_anew(environment, monkeypatch, stack, topic, there):
    monkeypatch.setenv("DUALSTREAM_REFRESH_INTERVAL", "0.1")

    def epoch() -> str:
        return asyncio.run(log_identity(Settings(kafka_url=stack.kafka_url, topic=topic))).epoch

    with tailing("repo:o/r", *there) as process, redis.Redis.from_url(stack.redis_url) as client:
        process.stderr.readline()
        old = epoch()
        client.publish("events:repo:o/r", notification("before", log=old))
        assert json.loads(process.stdout.readline())["id"] == "before"
        asyncio.run(make_anew(stack, topic))
        after = notification("after", log=epoch())
        deadline = time.monotonic() + 20
        while not select.select([process.stdout], [], [], 0.2)[0] and time.monotonic() < deadline:
            client.publish("events:repo:o/r", after)  # what comes before it has looked is of another log
        assert json.loads(process.stdout.readline())["id"] == "after"


def test_tail_without_kafka_shows_all_and_says_so_once(environment, stack):
    with (
        tailing("repo:o/r", "--redis", stack.redis_url) as process,
        redis.Redis.from_url(stack.redis_url) as client,
    ):
        assert b"no Kafka is given: notifications of other logs on this Redis" in process.stderr.readline()
        process.stderr.readline()
        for log in ("one", "two"):
            client.publish("events:repo:o/r", notification(log, log=log))
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == ["one", "two"]
    where = ["--kafka", "127.0.0.1:1", "--redis", stack.redis_url]
    with tailing("repo:o/r", *where) as process, redis.Redis.from_url(stack.redis_url) as client:
        process.stderr.readline()
        client.publish("events:repo:o/r", notification("one", log="one"))
        assert json.loads(process.stdout.readline())["id"] == "one"
        assert (
            b"notifications of other logs are shown, too, for Kafka does not say" in process.stderr.readline()
        )


def test_tail_ends_where_redis_refuses_its_channel(environment, stack, topic, there):
    with redis.Redis.from_url(stack.redis_url) as client:
        client.execute_command(
            *["ACL", "SETUSER", topic, "on", ">pw", "resetchannels", "&events:repo:*", "+@all"]
        )
        try:
            there[3] = there[3].replace("redis://", f"redis://{topic}:pw@")
            for arguments in (["--pattern", "repo:octo/*"], ["team:blue"]):
                _, err = run("tail", *arguments, *there, code=2)
                assert "this user may not listen on events:" in err
                assert "pw" not in err
            with tailing("repo:o/r", *there) as process:
                assert process.stderr.readline() == b"listening on events:repo:o/r\n"
        finally:
            client.execute_command("ACL", "DELUSER", topic)


def test_tail_from_kafka_finds_a_source_everywhere_and_says_what_it_could_not_give(
    environment, stack, topic, there
):
    made = [
        {"id": f"n{n}", "type": "t", "source_type": "repo", "source_id": "o/r", "data": n} for n in range(5)
    ]

    recent = int(time.time() * 1000) - 60_000  # what is older than retention may be gone at any time

    async def fill() -> tuple[int, int]:
        async with producing(stack) as kafka:
            for number, item in enumerate(made):
                value = json.dumps(item, indent=2).encode()
                key = b"o/r" if number % 2 else None
                bad = await kafka.send_and_wait(
                    topic, value, key=key, partition=number, timestamp_ms=recent + number
                )
            await kafka.send_and_wait(topic, b"no event", key=b"o/r", partition=0)
            await kafka.send_and_wait(topic, b"no event", key=b"o/other", partition=0)
        return bad.partition, bad.offset

    partition, offset = asyncio.run(fill())
    asked = ["tail", "repo:o/r", "--from-kafka", "--no-follow", "--offset", "0", *there]
    out, err = run(*asked, code=1)
    assert [json.loads(line) for line in out.splitlines()] == made, "one line each"
    assert err.splitlines() == [
        "partition 0 offset 1: not an event: JSON is malformed: invalid character (byte 4)"
    ]
    with damaged(stack, topic, partition, offset, "checksum"):
        out, err = run(*asked, code=3)
    assert [json.loads(line)["data"] for line in out.splitlines()] == [0, 1, 2, 3]
    assert f"error: partition {partition} cannot be read at offset {offset}" in err


def test_tail_from_kafka_follows_partitions_that_are_added(environment, monkeypatch, stack, topic, there):
    monkeypatch.setenv("DUALSTREAM_REFRESH_INTERVAL", "0.2")

    async def fill(partition: int) -> None:
        item = encode_event(Event(id=f"p{partition}", type="t", source_type="repo", source_id="o/r"))
        async with producing(stack) as kafka:
            await kafka.send_and_wait(topic, item, key=b"o/r", partition=partition)

    asyncio.run(fill(0))
    with tailing("repo:o/r", "--from-kafka", "--offset", "0", *there) as process:
        assert json.loads(process.stdout.readline())["id"] == "p0"
        asyncio.run(grow(stack.kafka_url, topic, 8))
        asyncio.run(fill(7))
        assert json.loads(process.stdout.readline())["id"] == "p7"


def test_ctrl_c_says_up_to_which_line_all_is_durable_and_from_line_goes_on(environment, there):
    lines = [
        json.dumps({"type": "t", "source_type": "repo", "source_id": "a", "data": n}).encode()
        for n in range(1000)
    ]
    file = environment / "events.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    process = subprocess.Popen(command("publish", str(file), "--rate", "200", *there), stderr=subprocess.PIPE)
    try:
        # Some are in the log: it is under way.
        run("tail", "repo:a", "--from-kafka", "--offset", "0", "--limit", "20", *there, code=0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    following = err.decode().partition("go on with --from-line ")[2].split()[0]
    assert 20 < int(following) <= 1000
    run("publish", str(file), "--from-line", following, *there, code=0)
    out, _ = run("tail", "repo:a", "--from-kafka", "--no-follow", "--offset", "0", *there, code=0)
    assert [json.loads(line)["data"] for line in out.splitlines()] == list(range(1000)), (
        "none missing, none twice"
    )


def test_help_teaches(dualstream):
    out, _ = run("--help", code=0)
    assert "dualstream up --detach" in out
    for name in ("up", "status", "down", "publish", "tail"):
        assert name in out
        assert "Usage: dualstream" in dualstream(name, "--help")[1]
