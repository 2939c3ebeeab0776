"""The ``dualstream`` command, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
import redis

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
    out, err = run("up", "--detach", "--ttl", "10m", code=0)
    where = exported(out)
    assert "ends in 10 min" in err
    state = json.loads((environment / "state/dualstream-lab/stack.json").read_text())
    pids = family(state["pid"])
    try:
        assert len(pids) >= 5  # itself, and a guard and a server each
        with redis.Redis.from_url(where["DUALSTREAM_REDIS_URL"]) as client:
            assert client.ping()
        again, err = run("up", code=0)
        assert exported(again) == where
        assert "runs already" in err
        _, err = run("up", "--brokers", "3", code=3)
        assert "`dualstream down` first" in err
        out, _ = run("status", code=0)
        assert exported(out) == where
        # No address is given: it finds the running stack.
        _, err = run("publish", "-", "--format", "github-webhook", code=0, given=WEBHOOKS[0], cwd=environment)
        assert "1 events durable" in err
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
    ],
)
def test_a_mistake_is_explained(environment, dualstream, arguments, code, told):
    returned, out, err = dualstream(*arguments)
    assert (returned, out) == (code, "")
    assert told in err


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
