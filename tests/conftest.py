"""The real stack, started once a test run and put back in order after every test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from dualstream_lab.config import Settings
from dualstream_lab.stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stacks:
    """The stacks of this test run, each started when first asked for."""

    def __init__(self) -> None:
        self.running: dict[int, LocalStack] = {}
        self._troubles: dict[int, int] = {}
        self._exits = ExitStack()

    def get(self, brokers: int) -> LocalStack:
        # A stack that does not start is an error, never a skip: these tests exist to use it.
        if brokers not in self.running:
            self.running[brokers] = self._exits.enter_context(LocalStack(brokers=brokers))
        return self.running[brokers]

    def mend(self) -> None:
        """Put back whatever a test left killed or paused. Every wait in it is bounded."""
        for brokers, stack in self.running.items():
            parts = [*stack.brokers, stack.redis]
            for part in parts:
                if part.paused:
                    part.resume()
                part.launch()
            for part in parts:
                part.wait_ready()
            troubles = sum(broker.troubles for broker in stack.brokers)
            if self._troubles.get(brokers, 0) != troubles:
                self._troubles[brokers] = troubles
                stack.wait_serving()

    def close(self) -> None:
        self._exits.close()


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
def topic(stack: LocalStack) -> str:
    """A fresh topic of six partitions on ``stack``."""
    name = f"test-{uuid4().hex[:12]}"
    stack.create_topic(name)
    return name


@pytest.fixture
def settings(stack: LocalStack, topic: str) -> Callable[..., Settings]:
    """Makes Settings for ``stack`` and ``topic``; keyword arguments override."""

    def make(**values: object) -> Settings:
        where = {"kafka_url": stack.kafka_url, "redis_url": stack.redis_url, "topic": topic}
        return Settings.load(**(where | values))

    return make
