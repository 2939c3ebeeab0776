"""Every locustfile under a real Locust, on the real stack: what it counts is what is in Kafka."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from dualstream_lab.recording import RunDirectory
from dualstream_lab.stack.local import _in_thread
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.stack.valkey import find_redis, redis_process

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "locustfiles").glob("*.py"))
LOCUST = [sys.executable, "-m", "locust"]
T = TypeVar("T")


@pytest.fixture
def where(stack, topic):
    """Options that point to a topic of this test's own."""
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--yes"]


class Place(NamedTuple):
    """A topic, a Redis and a directory of one Locust's own."""

    topic: str
    redis_url: str
    where: list[str]
    cwd: Path


@contextmanager
def places(stack, new_topic, tmp_path_factory) -> Iterator[Callable[[], Place]]:
    """Makes places for what runs side by side: on one Redis all would hear each other."""
    with ExitStack() as exits:

        def make() -> Place:
            topic, cwd = new_topic(), tmp_path_factory.mktemp("locust")
            (port,) = free_ports(1)
            redis = redis_process(find_redis(), port=port, directory=cwd / "redis", remove=None)
            exits.callback(redis.kill)
            redis.start()
            url = f"redis://127.0.0.1:{port}"
            there = ["--kafka", stack.kafka_url, "--redis", url, "--topic", topic, "--yes"]
            return Place(topic, url, there, cwd)

        yield make


@pytest.fixture(scope="module")
def place(stack, new_topic, tmp_path_factory):
    """Makes places."""
    with places(stack, new_topic, tmp_path_factory) as make:
        yield make


def side_by_side(calls: dict[str, Callable[[], T]]) -> dict[str, T]:
    """What they return. A Locust waits most of its time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
        return {name: future.result() for name, future in futures.items()}


def in_kafka(stack, topic: str) -> int:
    """Records in the topic, asked of the broker by another client than the one under test."""

    async def count() -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_url)
        await consumer.start()
        try:
            await consumer._client._wait_on_metadata(topic)
            parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            return sum((await consumer.end_offsets(parts)).values())
        finally:
            await consumer.stop()

    return _in_thread(count())


def locust(
    file: str, *options: str, cwd: Path, timeout: float = 90, **more: object
) -> subprocess.CompletedProcess[str]:
    command = [*LOCUST, "-f", str(ROOT / "locustfiles" / file), "--headless", *options]
    if "--processes" in options:  # a port of its own: another Locust may run on this machine
        port = str(free_ports(1)[0])
        command += ["--master-bind-port", port, "--master-port", port]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, **more
    )


def the_run(cwd: Path) -> tuple[RunDirectory, dict]:
    (path,) = (cwd / "runs").iterdir()
    directory = RunDirectory.open(path)
    return directory, directory.verdict() or {}


def reported(output: str, name: str) -> int:
    """Locust's own count of an entry, from its last table."""
    return int(re.findall(rf"{re.escape(name)}\s+(\d+)\s+\d+\(", output)[-1])


def test_every_locustfile_is_short():
    assert {path.name for path in FILES} >= {
        "batch_publish.py", "single_publish.py", "subscriber_fanout.py", "mixed.py"
    }  # fmt: skip
    for path in FILES:
        assert len(path.read_text().splitlines()) < 60


# Half of them in one process, half in two: how many there are is no matter of the file.
PROCESSES = {path.stem: 2 if path.stem in {"mixed", "single_publish"} else 1 for path in FILES}


@pytest.fixture(scope="module")
def counted(place):
    """Every locustfile after two seconds: where, and what it said."""
    at = {name: place() for name in PROCESSES}

    def call(name: str) -> subprocess.CompletedProcess[str]:
        # The plan begins when all users are spawned at this rate: a busy machine has five seconds for it.
        users = ["--users", "40", "--spawn-rate", "10", "--connections-per-user", "3"]
        processes = ["--processes", "2"] if PROCESSES[name] == 2 else []
        shape = [*users, "--rate", "1000", "--run-time", "2s", *processes]
        return locust(f"{name}.py", *at[name].where, *shape, cwd=at[name].cwd)

    done = side_by_side({name: partial(call, name) for name in PROCESSES})
    return {name: (at[name], done[name]) for name in PROCESSES}


@pytest.mark.parametrize("name", PROCESSES)
def test_every_locustfile_counts_what_is_in_kafka(name, counted, stack):
    (topic, _, _, cwd), done = counted[name]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    directory, verdict = the_run(cwd)
    assert directory.manifest.state == "finished"
    assert directory.problems == []
    found = verdict["measures"]
    assert found["publish.intended"] == found["publish.durable"] == 2000 == in_kafka(stack, topic)
    assert directory.rows("published").num_rows == 2000
    assert reported(done.stderr + done.stdout, "intended to ack") == 2000
    assert reported(done.stderr + done.stdout, "Aggregated") == 2000
    if name == "mixed":
        assert found["live.missing"] == 0
        assert found["live.latency.p99"] >= found["live.latency_raw.p99"] > 0
        assert found["live.delivered"] == 2000 * PROCESSES[name], "every process hears everything"
    if name == "subscriber_fanout":
        assert found["live.subscriptions"] >= 30
        assert found["live.skipped"] == 0
        assert found["live.delay.p50"] > 0


def test_fan_out_over_other_channels_slow_and_coming_and_going(place):
    comings = ["--stay", "0.5", "--slow", "0.3", "--slow-seconds", "0.01"]
    shape = [
        "--users",
        "30",
        "--connections-per-user",
        "2",
        "--sources",
        "5",
        "--rate",
        "500",
        "--run-time",
        "3s",
    ]
    at = {channels: place() for channels in ("hot", "all")}

    def call(channels: str) -> subprocess.CompletedProcess[str]:
        options = [*at[channels].where, "--channels", channels, *shape, *comings, "--run-time", "3s"]
        return locust("subscriber_fanout.py", *options, cwd=at[channels].cwd)

    for channels, done in side_by_side({name: partial(call, name) for name in at}).items():
        assert done.returncode == 0, done.stderr
        _, verdict = the_run(at[channels].cwd)
        assert verdict["measures"]["live.delivered"] > 500
        assert verdict["measures"]["publish.durable"] == 1500
        assert verdict["counters"].get("subscriptions_lost", 0) == 0, "leaving is not losing"


def two_workers(at: Place) -> tuple[subprocess.CompletedProcess[str], list[tuple[int, str]]]:
    """A master and its two workers: what it said; their exit codes and errors."""
    port = str(free_ports(1)[0])
    file = ["-f", str(ROOT / "locustfiles/mixed.py")]
    shape = ["--rate", "2000", "--plan", "ramp", "--duration", "3", "--batch-size", "10"]
    master = [*LOCUST, *file, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    worker = [*LOCUST, *file, "--worker", "--master-host", "127.0.0.1", "--master-port", port]
    begun = [
        subprocess.Popen(worker, cwd=at.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        done = subprocess.run(
            [*master, "--headless", "--expect-workers", "2", *at.where, *shape,
             "--threshold", "publish.errors==0"],
            cwd=at.cwd, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        errors = [process.communicate(timeout=60)[1] for process in begun]
        return done, [(process.returncode, said) for process, said in zip(begun, errors, strict=True)]
    finally:
        for process in begun:
            process.kill()
            process.communicate()


def one_of_two_killed(at: Place) -> tuple[int, str]:
    """A master one of whose workers is killed: its exit code and errors."""
    port = str(free_ports(1)[0])
    base = [*LOCUST, "-f", str(ROOT / "locustfiles/mixed.py")]
    join = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    options = ["--rate", "500", "--duration", "6", "--expect-workers", "2", *at.where]
    master = [*base, "--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    quiet = {"cwd": at.cwd, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun = [subprocess.Popen([*base, *join], **quiet) for _ in range(2)]
    process = subprocess.Popen(
        [*master, *options], cwd=at.cwd, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(at.cwd.glob("runs/*/published-worker*.parquet"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begun[1].kill()
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors
    finally:
        for one in (process, *begun):
            one.kill()
            one.communicate()


@pytest.fixture(scope="module")
def crews(place):
    """Both crews: where, and what came of them."""
    calls = {"whole": two_workers, "killed": one_of_two_killed}
    at = {name: place() for name in calls}
    done = side_by_side({name: partial(call, at[name]) for name, call in calls.items()})
    return {name: (at[name], done[name]) for name in calls}


def test_master_and_two_workers_add_up(crews, stack):
    at, (done, workers) = crews["whole"]
    assert done.returncode == 0, done.stderr
    for returncode, errors in workers:
        assert (returncode, "Traceback" in errors) == (0, False), errors
    directory, verdict = the_run(at.cwd)
    assert verdict["measures"]["publish.durable"] == 3300 == in_kafka(stack, at.topic)
    assert reported(done.stderr + done.stdout, "intended to ack") == 3300
    assert directory.manifest.users["workers"] == 2
    seqs = directory.rows("published").column("seq").to_pylist()
    assert sorted(seqs) == list(range(3300)), "no event is missing or repeated"


def test_a_worker_that_is_killed_does_not_keep_the_others_waiting(crews):
    at, (returncode, errors) = crews["killed"]
    assert returncode == 3
    assert "error: 1 of 2 workers ended without a word: its part of the run is missing" in errors
    assert "Traceback" not in errors
    directory, verdict = the_run(at.cwd)
    assert directory.manifest.state == "interrupted"
    assert verdict["measures"]["publish.durable"] > 500


def test_a_master_whose_only_worker_does_not_answer_ends(where, tmp_path):
    port = str(free_ports(1)[0])
    base = [*LOCUST, "-f", str(ROOT / "locustfiles/batch_publish.py")]
    master = [*base, "--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    join = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    options = ["--rate", "500", "--duration", "300", "--expect-workers", "1", *where]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen([*base, *join], **quiet)
    process = subprocess.Popen([*master, *options], cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("runs/*/published-worker*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker.send_signal(signal.SIGSTOP)
        _, errors = process.communicate(timeout=80)
        assert process.returncode == 3, errors
        assert "error: 1 of 1 workers ended without a word" in errors
    finally:
        for one in (process, worker):
            one.kill()
            one.communicate()


def test_a_missed_threshold_gives_99_under_plain_locust(where, tmp_path):
    limit = ["--threshold", "publish.latency.p50<1us", "--threshold", "publish.errors==0"]
    done = locust("batch_publish.py", *where, "--rate", "500", "--run-time", "1s", *limit, cwd=tmp_path)
    assert done.returncode == 99
    assert "MISSED" in done.stdout


def test_a_dead_broker_gives_3_and_no_run(stack, tmp_path):
    nowhere = ["--kafka", "127.0.0.1:1", "--redis", stack.redis_url, "--yes"]
    calls = {
        str(len(more)): partial(locust, "mixed.py", *nowhere, *more, cwd=tmp_path)
        for more in ([], ["--processes", "2"])
    }
    for done in side_by_side(calls).values():
        assert done.returncode == 3
        assert "127.0.0.1:1 could not be reached" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))


def mixed_with(lines: str, tmp_path: Path) -> str:
    """mixed.py after some lines that force a moment."""
    file = tmp_path / "forced.py"
    file.write_text(lines + (ROOT / "locustfiles/mixed.py").read_text())
    return str(file)


# The first worker cannot start; the second one starts late, when that is known.
LATE = """
import asyncio
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.locust_bridge.session import Session

start = Session.start

async def late(self):
    if self._assignment.index == 0:
        raise StreamUnavailable("not here")
    await asyncio.sleep(2)
    await start(self)

Session.start = late
"""


def test_a_worker_that_starts_after_another_failed_leaves_no_run(where, tmp_path):
    """Whether the other one can start or not."""
    file = mixed_with(LATE, tmp_path)
    calls = {
        str(len(more)): partial(locust, file, *where, *more, "--processes", "2", cwd=tmp_path)
        for more in ([], ["--kafka", "127.0.0.1:1"])
    }
    for done in side_by_side(calls).values():
        assert done.returncode == 3
        assert "error: not here" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))


def test_nothing_is_imported_in_a_thread_of_the_engine(where, tmp_path):
    """The locks of imports are gevent's here: two threads that import wait for each other for ever."""
    lines = """
import builtins, sys
from gevent.monkey import get_original
from locust import events

ident, real, seen = get_original("_thread", "get_ident"), builtins.__import__, []
hub = ident()

def noticing(name, *more):
    before = len(sys.modules)
    module = real(name, *more)
    if ident() != hub and len(sys.modules) != before:
        seen.append(name)
    return module

builtins.__import__ = noticing
events.quit.add_listener(lambda **_: print(f"imported: {seen}"))
"""
    file = mixed_with(lines, tmp_path)
    done = locust(file, *where, "--rate", "500", "--run-time", "1s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout


def test_a_task_of_the_engine_that_dies_ends_the_test_and_is_named(where, tmp_path):
    lines = """
import asyncio
from dualstream_lab.locust_bridge import session

async def probe_redis(url, meter):
    await asyncio.sleep(2)
    raise ValueError("a bug")

session.probe_redis = probe_redis
"""
    file = mixed_with(lines, tmp_path)
    done = locust(file, *where, "--rate", "500", "--run-time", "60s", cwd=tmp_path, timeout=50)
    assert done.returncode == 3
    assert "error: the probe of Redis failed: ValueError('a bug')" in done.stderr
    directory, verdict = the_run(tmp_path)
    assert directory.manifest.state == "interrupted"
    assert verdict["measures"]["publish.durable"] > 0, "what was sent is kept"


def test_a_process_that_is_ready_after_the_plan_began_says_so(where, tmp_path):
    """Its subscribers have missed what was published before, and nothing of it counts as missing."""
    lines = """
from dualstream_lab.locust_bridge import options

options._LEAD = -3.0
"""
    file = mixed_with(lines, tmp_path)
    done = locust(file, *where, "--rate", "100", "--run-time", "4s", cwd=tmp_path)
    assert re.search(r"this process was ready \d\.\d s after the plan began", done.stderr)


def test_users_that_come_after_the_plans_end_publish_all_of_it(where, tmp_path):
    """On a busy machine the first user may come that late: that is no plan that nobody publishes."""
    lines = """
import gevent
from locust import User

User.on_start = lambda self: gevent.sleep(3)
"""
    file = mixed_with(lines, tmp_path)
    done = locust(file, *where, "--rate", "100", "--run-time", "1s", "--users", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert the_run(tmp_path)[1]["measures"]["publish.durable"] == 100


def test_a_plan_that_nobody_publishes_ends_when_its_time_is_up(where, tmp_path):
    file = tmp_path / "listening.py"
    file.write_text("""
from locust import task
from dualstream_lab.locust_bridge import SubscribingUser


class Subscriber(SubscribingUser):
    @task
    def receive(self):
        self.listen()
""")
    done = locust(str(file), *where, "--rate", "100", "--run-time", "1s", cwd=tmp_path, timeout=40)
    assert done.returncode == 1, done.stderr
    assert "due, and not sent before the stop" in done.stdout + done.stderr


def test_bad_options_give_2_and_are_named(where, tmp_path):
    said = {
        ("--rate", "0"): "--rate: must be from 0.1",
        ("--batch-size", "0"): "--batch-size: must be from 1",
        ("--plan-low", "2"): "--plan-low: must be from 0",
        ("--threshold", "x<1"): "there is no measure 'x'",
        ("--slow", "2"): "--slow: must be from 0 to 1",
        ("--redis", "nonsense"): "error: --redis: ",
    }
    calls = {
        message: partial(locust, "mixed.py", *where, *options, cwd=tmp_path)
        for options, message in said.items()
    }
    for message, done in side_by_side(calls).items():
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_was_recorded(where, stack, topic, tmp_path):
    command = [*LOCUST, "-f", str(ROOT / "locustfiles/batch_publish.py"), "--headless", *where]
    with subprocess.Popen(
        [*command, "--rate", "2000", "--duration", "60"], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("runs/*/published-*.parquet"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "publish: intended to ack" in out
    directory, verdict = the_run(tmp_path)
    assert directory.manifest.state == "interrupted"
    assert verdict["measures"]["publish.durable"] == in_kafka(stack, topic) > 500


@contextmanager
def web_ui(options: list[str], cwd: Path) -> Iterator[tuple[str, Path]]:
    """A Locust with its web UI: its URL, and the file of what it says. However the test ends, it ends."""
    port = free_ports(1)[0]
    command = [*LOCUST, "-f", str(ROOT / "locustfiles/mixed.py"), "--web-host", "127.0.0.1"]
    said = cwd / "said.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--web-port", str(port), *options], cwd=cwd, stdout=log, stderr=log,
            start_new_session=True, env=os.environ | {"PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}", said
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # its threads' stacks say what it waits for
            process.wait(10)
            pytest.fail(f"it does not end:\n{said.read_text()[-5000:]}")
    finally:
        process.kill()
        process.wait()


def swarm(url: str, **form: object) -> None:
    body = urlencode({"user_count": 20, "spawn_rate": 100, "rate": 500, "duration": 30} | form).encode()
    with urlopen(Request(f"{url}/swarm", data=body), timeout=10) as answer:
        assert json.load(answer)["success"]


def test_brokers_given_in_the_web_ui_are_refused_where_nobody_was_asked(stack, topic, tmp_path):
    """The page is open to whoever reaches it; what it may name is said where Locust is started."""
    with web_ui(["--kafka", stack.kafka_url, "--topic", topic], tmp_path) as (_, said):
        deadline = time.monotonic() + 30
        while "give --yes if load may go there" not in said.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    (tmp_path / "second").mkdir()
    with web_ui([], tmp_path / "second") as (url, said):  # on a stack of its own
        _get(f"{url}/")
        swarm(url, kafka=stack.kafka_url, topic=topic)
        deadline = time.monotonic() + 30
        while "give --yes if load may go there" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
    assert "(a local stack of its own)" in said.read_text()
    assert in_kafka(stack, topic) == 0


def test_without_options_it_starts_a_stack_and_leaves_the_environment_alone(stack, topic, tmp_path):
    """Also its workers."""
    ambient = {"DUALSTREAM_KAFKA_URL": stack.kafka_url, "DUALSTREAM_REDIS_URL": stack.redis_url}
    environment = (
        os.environ | ambient | {"DUALSTREAM_TOPIC": topic, "XDG_STATE_HOME": str(tmp_path / "state")}
    )
    done = locust(
        "mixed.py", "--rate", "500", "--run-time", "1s", "--processes", "2", cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "(a local stack of its own)" in done.stderr
    assert "Traceback" not in done.stderr
    directory, verdict = the_run(tmp_path)
    assert verdict["measures"]["publish.durable"] == 500
    assert verdict["measures"]["live.delivered"] == 1000, "both workers hear the master's Redis"
    assert directory.manifest.settings["kafka_url"] != stack.kafka_url
    assert in_kafka(stack, topic) == 0


def test_the_web_ui_has_the_options_and_our_panel(where, tmp_path):
    with web_ui(where, tmp_path) as (url, _):
        page = _get(f"{url}/")
        for option in ("rate", "batch_size", "zipf", "payload_bytes", "plan", "seed", "connections_per_user"):
            assert f'"{option}"' in page, option
        assert "Dual stream" in page
        assert '"missing_host_warning": false' in page.replace("&#34;", '"')
        swarm(url)
        deadline = time.monotonic() + 40
        while not (rows := _panel(url)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        named = {row["what"]: row for row in rows}
        corrected = named["publish: intended to ack (corrected)"]
        assert int(corrected["count"].replace(",", "")) > 0
        assert float(corrected["p99"]) >= float(named["publish: sent to ack (raw)"]["p50"])


def _get(url: str) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urlopen(url, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _panel(url: str) -> list[dict]:
    (table,) = json.loads(_get(f"{url}/stats/requests"))["extended_stats"]
    assert table["key"] == "dualstream"
    rows: list[dict] = table["data"]
    kinds = {row["what"].partition(":")[0] for row in rows}
    return rows if {"publish", "live"} <= kinds else []
