"""Load through the gateway on the real stack: the locustfiles with ``--via``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from dualstream_lab.load.gateway_subscriber import SOURCES_EACH
from dualstream_lab.stack.ports import free_ports
from tests.locust_bridge.test_locust import in_kafka, locust, places, side_by_side, the_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dualstream_lab.stack import LocalStack


@contextmanager
def serving(stack: LocalStack, topic: str, directory: Path, redis_url: str = "") -> Iterator[str]:
    """The URL of a processor and a gateway."""
    url = f"127.0.0.1:{free_ports(1)[0]}"
    where = {
        "KAFKA_URL": stack.kafka_url,
        "REDIS_URL": redis_url or stack.redis_url,
        "TOPIC": topic,
        "GROUP": topic,
        "STORE": str(directory / "events.db"),
        "LISTEN": url,
    }
    environment = os.environ | {f"DUALSTREAM_{name}": value for name, value in where.items()}
    command = [
        sys.executable,
        "-m",
        "dualstream_lab.cli",
        "serve",
        "--only",
        "processor",
        "--only",
        "gateway",
    ]
    said = directory / "serve.log"
    with said.open("wb") as errors, subprocess.Popen(command, env=environment, stderr=errors) as process:
        try:
            deadline = time.monotonic() + 60
            while "serving" not in said.read_text():
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://{url}"
        finally:
            process.terminate()


@pytest.fixture
def gateway(stack: LocalStack, topic: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a processor and a gateway on this test's topic."""
    with serving(stack, topic, tmp_path) as url:
        yield url


@pytest.fixture
def where(stack: LocalStack, topic: str) -> list[str]:
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--yes"]


PROCESSES = {"ws": ["--processes", "2"], "sse": []}


@pytest.fixture(scope="module")
def mixed(
    stack: LocalStack, new_topic: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[subprocess.CompletedProcess[str], Path]]:
    """mixed.py through a gateway: what it said, and where."""

    def call(via: str) -> subprocess.CompletedProcess[str]:
        shape = ["--sources", "250", "--users", "20", "--rate", "1000", "--run-time", "2s", *PROCESSES[via]]
        through = ["--via", via, "--gateway", urls[via]]
        return locust("mixed.py", *at[via].where, *through, *shape, cwd=at[via].cwd)

    with places(stack, new_topic, tmp_path_factory) as place, ExitStack() as exits:
        at = {via: place() for via in PROCESSES}
        urls = {
            via: exits.enter_context(serving(stack, one.topic, one.cwd, one.redis_url))
            for via, one in at.items()
        }
        done = side_by_side({via: partial(call, via) for via in PROCESSES})
        return {via: (done[via], at[via].cwd) for via in PROCESSES}


@pytest.mark.parametrize("via", PROCESSES)
def test_mixed_hears_through_the_gateway_all_that_it_published(
    via: str, mixed: dict[str, tuple[subprocess.CompletedProcess[str], Path]]
) -> None:
    done, directory = mixed[via]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    _, verdict = the_run(directory)
    found = verdict["measures"]
    assert found["publish.durable"] == 2000
    assert found["live.missing"] == found["live.gaps"] == 0
    assert found["live.delivered"] == 2000 if via == "sse" else 2000 < found["live.delivered"] <= 4000
    assert found["live.latency.p99"] >= found["live.latency_raw.p99"] > 0
    assert found["live.subscriptions"] >= -(-250 // SOURCES_EACH[via])


def test_fan_out_through_the_gateway_loses_nothing_though_all_come_and_go(
    gateway: str, where: list[str], tmp_path: Path
) -> None:
    through = ["--via", "ws", "--gateway", gateway]
    listeners = ["--users", "120", "--connections-per-user", "5", "--channels", "uniform", "--stay", "1"]
    shape = ["--sources", "100", "--zipf", "0", "--rate", "1000", "--batch-size", "10", "--run-time", "3s"]
    done = locust("subscriber_fanout.py", *where, *through, *listeners, *shape, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    _, verdict = the_run(tmp_path)
    found = verdict["measures"]
    assert found["live.subscriptions"] > 250
    assert found["publish.durable"] == 3000
    assert (found["live.gaps"], verdict["counters"].get("subscriptions_lost", 0)) == (0, 0)
    assert "live.skipped" not in found
    assert found["live.delay.p50"] > 0
    assert found["live.delivered"] == 3000 * 5, "each event is heard by the five connections of its source"
    assert found["live.repeated"] == 0


def test_a_gateway_that_is_not_there_gives_3_before_anything_is_sent(
    where: list[str], stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    through = ["--via", "ws", "--gateway", "http://127.0.0.1:1", "--processes", "2"]
    done = locust("mixed.py", *where, *through, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:1 could not be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))
    assert in_kafka(stack, topic) == 0


def test_a_gateway_of_another_topic_is_refused(
    gateway: str, stack: LocalStack, where: list[str], tmp_path: Path
) -> None:
    other = f"other-{uuid4().hex[:8]}"
    stack.create_topic(other)
    through = ["--topic", other, "--via", "sse", "--gateway", gateway]
    done = locust("mixed.py", *where, *through, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "serves another log" in done.stderr
    assert in_kafka(stack, other) == 0


def test_all_channels_at_once_are_not_to_be_had_from_a_gateway(where: list[str], tmp_path: Path) -> None:
    done = locust("subscriber_fanout.py", *where, "--via", "ws", "--channels", "all", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--channels all: needs --via redis" in done.stderr


def test_the_options_explain_themselves(tmp_path: Path) -> None:
    done = locust("mixed.py", "--options", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("--via", "--gateway", "--channels", "--rate", "--threshold", "WebSocket"):
        assert word in " ".join(done.stdout.split())
    assert "--web-host" not in done.stdout
