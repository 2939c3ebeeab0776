"""Every kind of store, empty."""

from __future__ import annotations

import pytest

from dualstream_lab.store import SqliteStore

from .model import ModelStore


@pytest.fixture(params=["model", "sqlite"])
async def store(request, tmp_path):
    """The model is held to the same rules, so that it may judge the others."""
    made = ModelStore() if request.param == "model" else await SqliteStore.open(tmp_path / "store.db")
    yield made
    await made.close()
