"""What all clients may have together, and how often each may come."""

from __future__ import annotations

import json
import time
from contextlib import AbstractAsyncContextManager, ExitStack

import aiohttp
import jwt
import psutil
import pytest

from benchmarks.attacks import ask_silently
from dualstream_lab import Subscriber
from tests.gateway.clients import joined
from tests.gateway.estate import metric
from tests.gateway.published import Published, ids, new_source, undisturbed
from tests.gateway.serving import SECRET, Delivery, Server

_MIB = 2**20
_PAST = 8000  # events, some 2 MiB of messages
_SILENT = 60


@pytest.fixture(scope="module")
def narrow(delivery: Delivery, _processor: Server) -> Server:
    """Where 4 MiB may wait for all clients together."""
    return delivery.start("gateway", all_clients_buffer_bytes=4 * _MIB)


@pytest.fixture(scope="module")
def rated(delivery: Delivery, _processor: Server) -> Server:
    """Where each token may subscribe five times a second."""
    return delivery.start("gateway", jwt_secret=SECRET, subscribe_rate=5)


def token(name: str) -> str:
    return jwt.encode({"exp": time.time() + 60, "read": ["*"], "sub": name}, SECRET)


async def test_those_that_never_read_have_a_bound_together(narrow, publish: Published):
    """120 MiB would wait for them. Whoever reads is not cut off for it, and gets all of the past."""
    source = new_source()
    sent = [one for _ in range(_PAST // 1000) for one in ids(await publish(source, 1000))]
    process = psutil.Process(narrow.process.pid)
    async with joined(narrow.ws, source, since="earliest") as ear:
        assert await ear.receive(_PAST) == sent
    before = process.memory_info().rss
    async with undisturbed(narrow, publish):
        with ExitStack() as clients:
            for number in range(_SILENT):
                path = f"/{'ws' if number % 2 else 'sse'}?source={source}&since=earliest"
                clients.enter_context(await ask_silently(narrow.address, path))
                if number % 20 == 19:
                    async with joined(narrow.ws, source, since="earliest") as ear:
                        assert await ear.receive(_PAST) == sent
            assert await metric(narrow, "slow_clients_total") >= _SILENT - 10
            assert await metric(narrow, "clients_waiting_bytes") <= 4 * _MIB
            assert process.memory_info().rss - before < 64 * _MIB


async def test_a_token_that_subscribes_too_often_is_told_when_it_may(rated):
    sources = [new_source() for _ in range(12)]
    async with aiohttp.ClientSession() as session:

        def sse(name: str, count: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            query = [("source", source) for source in sources[:count]]
            headers = {"Authorization": f"Bearer {token(name)}"}
            return session.get(f"{rated.url}/sse", params=query, headers=headers)

        async with sse("greedy", 12) as answer:  # more than a second's at once: it pays for it later
            assert answer.status == 200
        async with sse("greedy", 1) as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 2
            assert "at most 5/s" in (await answer.json())["error"]
        async with sse("modest", 1) as answer:  # another token's
            assert answer.status == 200
        async with session.ws_connect(
            f"{rated.ws}?access_token={token('greedy')}", timeout=aiohttp.ClientWSTimeout(ws_close=1)
        ) as client:
            await client.send_json({"subscribe": sources[0]})
            said = json.loads((await client.receive(timeout=10)).data)
            assert said["kind"] == "error"
            assert "too many subscriptions: at most 5/s (DUALSTREAM_SUBSCRIBE_RATE)" in said["error"]


async def test_a_subscriber_that_comes_too_often_comes_in_at_last(rated, publish: Published):
    source = new_source()
    name = token("often")
    headers = {"Authorization": f"Bearer {name}"}
    async with aiohttp.ClientSession() as session:
        query = [("source", new_source()) for _ in range(12)]
        async with session.get(f"{rated.url}/sse", params=query, headers=headers) as answer:
            assert answer.status == 200
            sent = ids(await publish(source, 3))
            async with Subscriber(rated.url, source=source, since="earliest", token=name) as events:
                assert [(await anext(events)).id for _ in sent] == sent
