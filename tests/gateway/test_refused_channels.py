"""Channels that Redis refuses: each is degraded alone, and asked for again with growing pauses."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from dualstream_lab.gateway import upstream as upstream_module
from dualstream_lab.gateway.upstream import Upstream
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import joined
from tests.gateway.estate import estate, metric
from tests.gateway.published import Published, ids, new_source
from tests.gateway.serving import until

_RULES = ("resetkeys", "resetchannels", "-@all", "+subscribe", "+unsubscribe", "+psubscribe", "+ping")


class User:
    """Who may hear some channels only."""

    def __init__(self, stack: LocalStack) -> None:
        self.name = f"part-{uuid4().hex[:8]}"
        self._stack = stack

    @property
    def url(self) -> str:
        parts = urlsplit(self._stack.redis_url)
        return f"redis://{self.name}:pw@{parts.hostname}:{parts.port}"

    async def allow(self, *rules: str) -> None:
        async with Redis.from_url(self._stack.redis_url) as redis:
            await redis.execute_command("ACL", "SETUSER", self.name, *rules)

    async def forget(self) -> None:
        async with Redis.from_url(self._stack.redis_url) as redis:
            await redis.execute_command("ACL", "DELUSER", self.name)


@pytest.fixture
async def user(stack: LocalStack) -> AsyncIterator[User]:
    made = User(stack)
    await made.allow("on", ">pw", *_RULES, "&events:repo:*", "&events:_resync")
    yield made
    await made.forget()


async def test_a_client_without_rights_takes_the_live_stream_from_nobody(stack: LocalStack, user: User):
    """R8."""
    allowed, refused = new_source(), f"team:{uuid4().hex[:8]}"
    with estate(stack, "refused", redis_url=user.url, check_interval=300) as made:
        await asyncio.to_thread(lambda: made.start("processor"))
        gateway = await asyncio.to_thread(lambda: made.start("gateway"))
        async with Published(made, redis_url=stack.redis_url) as publish, AsyncExitStack() as clients:
            ear = await clients.enter_async_context(joined(gateway.ws, allowed))
            began = time.monotonic()
            other = await clients.enter_async_context(joined(gateway.ws, refused))
            assert time.monotonic() - began < 0.9, "it need not wait for what is refused"
            assert "permission" in (await other.see("degraded"))["reason"].lower()
            sent, late = ids(await publish(allowed, 5)), ids(await publish(refused, 5))
            assert await ear.receive(5) == sent
            assert await other.receive(5) == late
            assert not any("late" in event for event in ear.of("event"))
            assert not list(ear.of("degraded"))
            assert all(event["late"] for event in other.of("event"))
            # All at once, after the connection is lost: none is taken for the other.
            more = [new_source() for _ in range(20)]
            ears = [await clients.enter_async_context(joined(gateway.ws, source)) for source in more]
            async with Redis.from_url(stack.redis_url) as redis:
                await redis.client_kill_filter(_type="pubsub", user=user.name)
            for one in (ear, *ears):
                await one.see("degraded")
                await one.see("live")
            assert not list(other.of("live"))
            assert await metric(gateway, "degraded_sources") == 1
            assert await metric(gateway, "redis_connects_total") == 2
            await user.allow("&events:team:*")
            await other.see("live", timeout=30)
            (live,) = await publish(refused, 1)
            await other.until(lambda: live.id in other.ids())
            assert "late" not in [*other.of("event")][-1]
        log = gateway.process.log_text()
        assert log.count("channels are refused") == 1
        assert log.count("WARNING") <= 3, log


async def test_a_user_who_may_hear_nothing_is_no_storm(stack: LocalStack, user: User):
    await user.allow("resetchannels")
    source = new_source()
    with estate(stack, "deaf", redis_url=user.url) as made:
        await asyncio.to_thread(lambda: made.start("processor"))
        gateway = await asyncio.to_thread(lambda: made.start("gateway"))
        async with (
            Published(made, redis_url=stack.redis_url) as publish,
            joined(gateway.ws, source) as ear,
        ):
            await ear.see("degraded")
            await asyncio.sleep(5)
            sent = ids(await publish(source, 3))
            assert await ear.receive(3) == sent
            assert await metric(gateway, "redis_connects_total") == 1
        assert gateway.process.log_text().count("WARNING") <= 3


class Said:
    """What an upstream tells."""

    def __init__(self, url: str, **options: Any) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.confirmed: list[bytes] = []
        self.refused: list[bytes] = []
        self.lost: list[str] = []
        self.upstream = Upstream(
            url,
            received=lambda channel, message: self.heard.append((channel, message)),
            confirmed=self.confirmed.extend,
            refused=lambda channels, _reason: self.refused.extend(channels),
            lost=self.lost.append,
            **options,
        )
        self.running: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.running = asyncio.create_task(self.upstream.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])

    async def want(self, *channels: bytes) -> list[str | None]:
        async with asyncio.timeout(10):
            return list(await asyncio.gather(*map(self.upstream.subscribe, channels)))


async def test_of_many_that_are_asked_for_at_once_those_are_found_that_are_refused(user: User):
    """In one command of 500: Redis says only that one of them is not allowed."""
    random.seed(7)
    said = Said(user.url)
    good = [b"events:repo:%d" % number for number in range(480)]
    bad = [b"events:team:%d" % number for number in range(20)]
    wanted = random.sample(good + bad, 500)
    asking = asyncio.gather(*map(said.upstream.subscribe, wanted))
    await asyncio.sleep(0)  # before there is a connection
    async with said:
        async with asyncio.timeout(10):
            refusals = dict(zip(wanted, await asking, strict=True))
        assert {channel for channel, refusal in refusals.items() if refusal} == set(bad)
        assert sorted(said.refused) == sorted(bad)
        assert {*good} <= {*said.confirmed}
        assert not said.lost
        assert all(map(said.upstream.confirms, good))
        assert not any(map(said.upstream.confirms, bad))


async def test_what_is_left_and_wanted_anew_is_confirmed_by_its_own_answer(stack: LocalStack):
    """The answer to the first command must not pass for that to the last."""
    channel = f"left:{uuid4().hex}".encode()
    async with Said(stack.redis_url) as said:
        await said.want(b"other")
        first = asyncio.create_task(said.upstream.subscribe(channel))
        await asyncio.sleep(0)
        said.upstream.unsubscribe(channel)
        before = said.confirmed.count(channel)
        await said.want(channel)
        assert said.confirmed.count(channel) - before == 1
        async with Redis.from_url(stack.redis_url) as redis:
            assert await redis.publish(channel, b"x") == 1
        await until(lambda: said.heard == [(channel, b"x")])
        first.cancel()


async def test_what_is_refused_and_left_is_not_asked_for_again(user: User, monkeypatch):
    monkeypatch.setattr(upstream_module, "_REFUSED", (0.02, 0.05))
    async with Said(user.url) as said:
        assert (await said.want(b"events:team:a"))[0]
        await until(lambda: len(said.refused) > 3)
        said.upstream.unsubscribe(b"events:team:a")
        await said.want(b"events:repo:a")
        count = len(said.refused)
        await asyncio.sleep(0.2)
        assert len(said.refused) == count
        await user.allow("&events:team:*")
        assert await said.want(b"events:team:a") == [None]


async def test_a_pattern_that_is_refused_degrades_all_and_comes_back(user: User, monkeypatch):
    monkeypatch.setattr(upstream_module, "_REFUSED", (0.05, 0.1))
    async with Said(user.url, pattern=b"events:*") as said:
        assert (await said.want(b"events:repo:a"))[0]
        assert said.refused.count(b"events:repo:a") >= 1
        assert (await said.want(b"events:repo:b"))[0], "at once: it is known"
        assert not said.lost
        await user.allow("resetchannels", "&events:*")
        await until(lambda: {b"events:repo:a", b"events:repo:b"} <= {*said.confirmed})
        assert await said.want(b"events:repo:c") == [None]


async def test_a_connection_that_confirms_nothing_is_tried_ever_less_often(monkeypatch):
    """The pause is not reset by a connection alone: a server that accepts and closes is no storm."""
    accepted = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(time.monotonic())
        while data := await reader.read(4096):  # redis-py's own words are answered
            commands = data.count(b"CLIENT")
            writer.write(b"+OK\r\n" * commands)
            if b"SUBSCRIBE" in data:
                break
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Said(f"redis://127.0.0.1:{port}"):
        await asyncio.sleep(4)
    server.close()
    assert 3 <= len(accepted) <= 12, len(accepted)
    pauses = [after - before for before, after in itertools.pairwise(accepted)]
    assert max(pauses) > 0.4
