"""Pages of large events: bounded in bytes, and in what they hold of memory for clients that do not read."""

from __future__ import annotations

import asyncio

import aiohttp
import psutil

from dualstream_lab import DualPublisher, Event, Settings, Subscriber
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import until_status
from tests.gateway.estate import estate
from tests.gateway.published import new_source

_MIB = 2**20
_EVENTS, _SIZE = 30, 900_000
_ASKING = 60  # clients that ask for a page and do not read it: 480 MiB, were nothing bounded


async def test_large_events_come_in_pages_of_some_mib(stack: LocalStack):
    """F6."""
    source = new_source()
    source_type, _, source_id = source.partition(":")
    with estate(stack, "large") as made:
        gateway = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        process = psutil.Process(gateway.process.pid)
        async with DualPublisher(
            Settings.load(kafka_url=stack.kafka_url, topic=str(made.where["topic"]))
        ) as publisher:
            for number in range(_EVENTS):
                event = Event(
                    id=f"{number}", type="t", source_type=source_type, source_id=source_id, data="x" * _SIZE
                )
                receipt = await publisher.publish(event)
        where = f"{receipt.partition}:{receipt.offset}"
        await until_status(f"{gateway.url}/event?id={_EVENTS - 1}&pos={where}", 200)
        before = process.memory_info().rss
        query = {"source": source, "since": "earliest", "limit": "1000"}
        silent = [await _ask(gateway.address, source) for _ in range(_ASKING)]
        async with aiohttp.ClientSession() as session:
            found, more = [], True
            while more:
                async with session.get(f"{gateway.url}/events", params=query) as answer:
                    if answer.status == 503:  # the silent ones are of this address: until they are cut off
                        assert "too many large pages" in (await answer.json())["error"]
                        continue
                    body = await answer.read()
                    page = await answer.json()
                assert len(body) < 10 * _MIB
                assert page["recovered"]
                found += [event["id"] for event in page["events"]]
                more, query["since"] = page["more"], page["cursor"]
        assert found == [f"{number}" for number in range(_EVENTS)]
        assert process.memory_info().rss - before < 256 * _MIB
        for writer in silent:
            writer.close()
        # A Subscriber follows the pages.
        async with Subscriber(gateway.url, source=source, since="earliest") as events:
            heard = [(await anext(events)).id for _ in range(_EVENTS)]
        assert heard == found


async def _ask(address: tuple[str, int], source: str) -> asyncio.StreamWriter:
    """Somebody who asks, and reads nothing."""
    _, writer = await asyncio.open_connection(*address, limit=1024)
    writer.transport.pause_reading()
    path = f"/events?source={source}&since=earliest&limit=1000"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return writer
