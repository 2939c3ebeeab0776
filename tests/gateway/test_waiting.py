"""Whoever waits for the store does not wait for the rest that a processor of the same process takes."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from dualstream_lab import DualPublisher, Event
from dualstream_lab.processor import pipeline
from dualstream_lab.stack import LocalStack
from tests.gateway.published import new_source
from tests.gateway.serving import serve_settings, served


async def test_a_page_hastens_the_processor(
    stack: LocalStack, topic: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "_REST", 300.0)
    monkeypatch.setattr(pipeline, "_BURST", 0)
    settings = serve_settings(stack, topic, tmp_path, store_timeout=60.0)
    source = new_source()
    _, _, name = source.partition(":")
    async with (
        served(settings, "processor", "gateway") as url,
        DualPublisher(settings) as publisher,
        aiohttp.ClientSession() as session,
    ):
        for count in range(1, 4):  # after the first of them the processor rests
            await publisher.publish(Event(id=str(count), type="push", source_type="repo", source_id=name))
            async with session.get(f"{url}/events", params={"source": source}) as answer:
                page = await answer.json()
            assert (page["recovered"], [event["id"] for event in page["events"]]) == (
                True,
                [str(one) for one in range(1, count + 1)],
            )
