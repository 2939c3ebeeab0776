"""``dualstream topic``: what it says of a real broker's topics, and what it does not do unasked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from dualstream_lab.stack import StackInfo
from dualstream_lab.stack.state import StateFile


@pytest.fixture(autouse=True)
def _no_environment(tmp_path, monkeypatch):
    """A user's running stack, and what the environment names, are neither seen nor touched."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in [name for name in os.environ if name.startswith("DUALSTREAM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def running(stack):
    """The broker of the tests is this user's local stack."""
    state = StateFile.claim()
    info = StackInfo(
        kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic="events", pid=1, directory="",
        started_at=0, expires_at=None,
    )  # fmt: skip
    state.publish(info)
    yield info
    state.release()


@pytest.fixture
def name():
    return f"test-{uuid4().hex[:12]}"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["list"], 3, "no local stack runs: start one with `dualstream up --detach`, or give --kafka"),
        (["list", "--use-env"], 2, "DUALSTREAM_KAFKA_URL is not set"),
        (["list", "--kafka", "127.0.0.1:1"], 3, "nothing listens there; check --kafka"),
        (["create", "a b"], 2, "topic: String should match pattern"),
        (["create", "a", "--partitions", "0"], 2, "1<=x<=10000"),
        (["create", "a", "--setting", "retention.ms"], 2, "allowed: NAME=VALUE"),
        (["delete", "a", "--kafka", "127.0.0.1:1", "--yes"], 2, "--target-is-mine"),
    ],
)
def test_a_mistake_is_explained_before_anything_is_done(dualstream, arguments, code, told):
    returned, out, err = dualstream("topic", *arguments)
    assert (returned, out) == (code, "")
    assert told in err


def test_the_environment_is_used_only_where_that_is_said(dualstream, monkeypatch):
    monkeypatch.setenv("DUALSTREAM_KAFKA_URL", "127.0.0.1:1")
    assert "no local stack runs" in dualstream("topic", "list")[2]
    assert "the address is from DUALSTREAM_KAFKA_URL" in dualstream("topic", "list", "--use-env")[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--topic", "orders"], "not NAME:PARTITIONS"),
        (["--topic", "orders:0"], "1<=x<=10000"),
        (["--kafka-setting", "node.id=7"], "the stack itself sets node.id"),
        (["--redis-setting", "port=7"], "the stack itself sets port"),
    ],
)
def test_up_refuses_what_a_stack_cannot_have(dualstream, arguments, told):
    code, out, err = dualstream("up", *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_up_does_not_pretend_to_change_a_stack_that_runs(dualstream, running):
    code, _, err = dualstream("up", "--topic", "orders:3")
    assert code == 3
    assert "`dualstream topic create`" in err


def test_a_topic_is_created_listed_described_and_deleted(dualstream, running, name):
    code, _, err = dualstream("topic", "create", name, "--partitions", "4", "--setting", "retention.ms=1000")
    assert (code, "4 partitions, 1 replica" in err) == (0, True), err
    listed = json.loads(dualstream("topic", "list", "--json")[1])
    assert {"topic": name, "partitions": 4, "replicas": 1} in listed
    assert not any(one["topic"].startswith("__") for one in listed)

    event = {"type": "t", "source_type": "repo", "source_id": "o/r", "data": {}}
    Path("events.jsonl").write_text(json.dumps(event), encoding="utf-8")
    assert dualstream("publish", "events.jsonl", "--topic", name)[0] == 0
    code, out, err = dualstream("topic", "describe", name, "--json")
    found = json.loads(out)
    assert code == 0
    assert [one["partition"] for one in found["partitions"]] == [0, 1, 2, 3]
    assert {(one["leader"], *one["replicas"], *one["in_sync"]) for one in found["partitions"]} == {(1, 1, 1)}
    assert sum(one["end"] - one["earliest"] for one in found["partitions"]) == 1
    assert found["settings"]["retention.ms"] == "1000"
    assert f"topic {name}: retention.ms=1000 keeps events for 1 s; the store is to have 86400 s" in err
    assert "raise retention.ms" in found["warnings"][0]
    shown = dualstream("topic", "describe", name)[1]
    assert "in sync" in shown
    assert "min.insync.replicas" in shown

    code, _, err = dualstream("topic", "delete", name)
    assert (code, "give --yes" in err) == (2, True), "it was not asked, and went ahead"
    assert dualstream("topic", "delete", name, "--yes")[0] == 0
    assert name not in dualstream("topic", "list", "--json")[1]


def test_what_kafka_refuses_is_a_mistake_that_says_what_is_allowed(dualstream, running, topic):
    for arguments, told in (
        (["create", topic], "already exists"),
        (["create", "x", "--setting", "retention.mss=5"], "name: retention.mss; there are cleanup.policy,"),
        (["create", "x", "--setting", "cleanup.policy=keep"], "must be one of: compact, delete"),
        (["create", "x", "--replication-factor", "3"], "only 1 broker(s) are registered"),
        (["describe", topic[:-1]], f"there is no topic {topic[:-1]!r}: did you mean {topic}"),
        (["delete", "zzz", "--yes"], "`dualstream topic list` names what there is"),
    ):  # fmt: skip
        code, out, err = dualstream("topic", *arguments)
        assert (code, out) == (2, ""), err
        assert told in err


def test_brokers_that_are_not_the_local_stack_lose_no_topic_unless_that_is_said(dualstream, stack, name):
    there = ["--kafka", stack.kafka_url]
    assert dualstream("topic", "create", name, *there)[0] == 0
    code, _, err = dualstream("topic", "delete", name, *there, "--yes")
    assert (code, "--target-is-mine" in err) == (2, True)
    assert name in dualstream("topic", "list", *there)[1]
    assert dualstream("topic", "delete", name, *there, "--yes", "--target-is-mine")[0] == 0
    assert name not in dualstream("topic", "list", *there)[1]


def test_with_three_replicas_two_must_have_an_event(dualstream, cluster, name):
    there = ["--kafka", cluster.kafka_url]
    assert "3 replicas" in dualstream("topic", "create", name, *there)[2]
    found = json.loads(dualstream("topic", "describe", name, *there, "--json")[1])
    assert found["settings"]["min.insync.replicas"] == "2"
    assert all(sorted(one["in_sync"]) == [1, 2, 3] for one in found["partitions"])
    assert dualstream("topic", "delete", name, *there, "--yes", "--target-is-mine")[0] == 0
