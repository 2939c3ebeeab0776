"""Where runs under Locust that go on side by side publish to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dualstream_lab.stack import LocalStack
    from tests.conftest import Stacks


@pytest.fixture(scope="module")
def new_topic(stack: LocalStack, _stacks: Stacks) -> Iterator[Callable[[], str]]:
    """Makes topics as :func:`topic` does, for as long as the module."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test-{uuid4().hex[:12]}")
        stack.create_topic(made[-1])
        return made[-1]

    yield make
    _stacks.done_with += made
