"""The real stack, started once a test run and put back in order after every test."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import hypothesis
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from playwright.sync_api import sync_playwright

from dualstream_lab.cli.root import run
from dualstream_lab.config import Settings
from dualstream_lab.errors import StackError
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.local import _in_thread

from .children import Children
from .fast import Fast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser


_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# How long an example takes says nothing: this machine may be busy, and stall.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# A broker that was killed looks through the logs of every partition there is, before it is back.
_QUICK = {
    "group.min.session.timeout.ms": "1000",  # some processors that are killed
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.backoff.ms": "200",  # some topics are compacted
}
_MANY = 10
_COUNTED = 30.0  # s


# Files are given out in this order, then as they come: one of minutes that came last would leave a core idle.
_LONG = (
    "test_notebooks.py",
    "simulation/test_fit.py",
    "lab/test_check_gateway.py",
    "gateway/test_no_gap.py",
    "publisher/test_kafka_faults.py",
    "locust_bridge/test_locust.py",
    "subscriber/test_subscriber_stack.py",
    "lab/test_prove.py",
    "lab/test_fan_out.py",
    "lab/test_run.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    tests = Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(_LONG)}
    assert all(path.exists() for path in ranks), "tests/conftest.py: a file of _LONG is gone"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out what needs a broker, or time; say so")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Children())
    if config.getoption("--fast"):
        config.pluginmanager.register(Fast(config))


class Stacks:
    """The stacks of this test run, each started when first asked for."""

    def __init__(self) -> None:
        self.running: dict[int, LocalStack] = {}
        self.done_with: list[str] = []
        """Topics of the stack of one broker, to be deleted."""
        self._troubles: dict[int, list[int]] = {}
        self._exits = ExitStack()

    def get(self, brokers: int) -> LocalStack:
        # A stack that does not start is an error, never a skip: these tests exist to use it.
        if brokers not in self.running:
            started = LocalStack(brokers=brokers, in_memory=True, kafka_settings=_QUICK)
            self.running[brokers] = self._exits.enter_context(started)
        return self.running[brokers]

    def mend(self) -> None:
        """Put back whatever a test left killed or paused. Every wait in it is bounded."""
        for brokers, stack in self.running.items():
            parts = [*stack.brokers, stack.redis]
            troubles = [part.troubles for part in parts]
            before = self._troubles.setdefault(brokers, [0] * len(parts))
            if before == troubles and all(part.running for part in parts):
                continue
            for part in parts:
                if part.paused:
                    part.resume()
                part.launch()
            for part in parts:
                part.wait_ready()
            self._troubles[brokers] = troubles
            if before[:-1] != troubles[:-1]:
                _in_thread(_all_counted(stack.kafka_url, brokers))
        if len(self.done_with) >= _MANY:
            _in_thread(_delete(self.running[1].kafka_url, self.done_with))
            self.done_with.clear()

    def close(self) -> None:
        self._exits.close()


async def _all_counted(servers: str, count: int) -> None:
    """Wait until the cluster counts on every broker again: one that was paused is fenced for a moment."""
    deadline = time.monotonic() + _COUNTED
    while True:
        client = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=5_000)
        try:
            async with asyncio.timeout(5):
                await client.start()
                cluster = await client.describe_cluster()
            if len(cluster["brokers"]) == count and cluster["controller_id"] >= 0:
                return
        except (KafkaError, OSError, TimeoutError):
            pass
        finally:
            await client.close()
        if time.monotonic() > deadline:
            raise StackError(f"the cluster does not count on all of its {count} brokers again")
        await asyncio.sleep(0.1)


async def _delete(servers: str, topics: list[str]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    try:
        await client.start()
        async with asyncio.timeout(30):
            while client._client.cluster.controller is None:  # a broker that has only just come back
                await asyncio.sleep(0.2)
                await client._client.force_metadata_update()
            await client.delete_topics(topics)
    finally:
        await client.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a file; each makes a profile of its own."""
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium on PATH (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _stacks() -> Iterator[Stacks]:
    stacks = Stacks()
    yield stacks
    stacks.close()


@pytest.fixture(scope="session")
def stack(_stacks: Stacks) -> LocalStack:
    """One broker and one Redis."""
    return _stacks.get(1)


@pytest.fixture(scope="session")
def cluster(_stacks: Stacks) -> LocalStack:
    """Three brokers, every partition on all of them, and one Redis."""
    return _stacks.get(3)


@pytest.fixture(autouse=True)
def _mended(_stacks: Stacks) -> Iterator[None]:
    yield
    _stacks.mend()


@pytest.fixture
def topic(stack: LocalStack, _stacks: Stacks) -> Iterator[str]:
    """A fresh topic of six partitions on ``stack``."""
    name = f"test-{uuid4().hex[:12]}"
    stack.create_topic(name)
    yield name
    _stacks.done_with.append(name)


@pytest.fixture
def settings(stack: LocalStack, topic: str) -> Callable[..., Settings]:
    """Makes Settings for ``stack`` and ``topic``; keyword arguments override."""

    def make(**values: object) -> Settings:
        where = {"kafka_url": stack.kafka_url, "redis_url": stack.redis_url, "topic": topic}
        return Settings.load(**(where | values))

    return make


@pytest.fixture
def dualstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command within this process, in a directory of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(arguments))
        return code, *capsys.readouterr()

    return call
