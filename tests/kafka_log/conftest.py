"""Topics of four partitions."""

from __future__ import annotations

from uuid import uuid4

import pytest

from .hostile import PARTITIONS


@pytest.fixture
def four(stack, _stacks):
    """Makes topics on ``stack``; ``configs`` are the topic's settings."""

    def make(partitions=PARTITIONS, **configs):
        name = f"test-{uuid4().hex[:12]}"
        given = {key: str(value) for key, value in configs.items()}
        stack.create_topic(name, partitions=partitions, settings=given)
        _stacks.done_with.append(name)
        return name

    return make
