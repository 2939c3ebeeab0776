"""A store, and settings with a group of their own."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dualstream_lab.config import ServeSettings
from dualstream_lab.store import SqliteStore


@pytest.fixture
def serving(stack, topic, tmp_path):
    """Makes ServeSettings for ``stack`` and ``topic``; keyword arguments override."""
    group = f"group-{uuid4().hex[:8]}"

    def make(**values):
        where = {"kafka_url": stack.kafka_url, "topic": topic, "group": group, "store": tmp_path / "store.db"}
        return ServeSettings.load(**(where | values))

    return make


@pytest.fixture
async def store(tmp_path):
    made = await SqliteStore.open(tmp_path / "store.db")
    yield made
    await made.close()
