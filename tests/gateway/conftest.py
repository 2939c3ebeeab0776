"""Gateways in processes of their own, each started when a module first asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from dualstream_lab.stack import LocalStack
from tests.gateway.published import Published, new_source
from tests.gateway.serving import CHECK, SECRET, Delivery, Server


@pytest.fixture(scope="module")
def delivery(stack: LocalStack) -> Iterator[Delivery]:
    """A topic and a store of the module's own."""
    topic = f"gateway-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    with Delivery(stack, topic, check_interval=CHECK, linger=0.3, request_timeout=2.0) as made:
        yield made
        made.assert_no_traceback()


@pytest.fixture(scope="module")
def _processor(delivery: Delivery) -> Server:
    return delivery.start("processor")


@pytest.fixture
def processor(_processor: Server) -> Iterator[Server]:
    """It may be paused."""
    yield _processor
    _processor.process.resume()


@pytest.fixture(scope="module")
def plain(delivery: Delivery, _processor: Server) -> Server:
    """All as it is, but for waits: a client that answers no ping is gone after 1.5 times the heartbeat."""
    waits = {
        "gateway.endpoints._HEARTBEAT": 4.0,
        "gateway.endpoints._KEEP_ALIVE": 0.5,
        "lab.serve._IDLE": 3.0,
    }
    return delivery.start("gateway", constants=waits)


@pytest.fixture(scope="module")
def patient(delivery: Delivery, _processor: Server) -> Server:
    """Never looks into the store without a reason."""
    return delivery.start("gateway", check_interval=300)


@pytest.fixture(scope="module")
def guarded(delivery: Delivery, _processor: Server) -> Server:
    """Wants tokens."""
    return delivery.start(
        "gateway", jwt_secret=SECRET, auth_timeout=3.0, allowed_origins="https://friend.example"
    )


@pytest.fixture(scope="module")
def small(delivery: Delivery, _processor: Server) -> Server:
    """With tight limits."""
    return delivery.start(
        "gateway",
        constants={"gateway.log._MOST": 10},
        catch_up_events=20,
        max_connections=6,
        max_subscriptions=3,
        max_message_bytes=1024,
        client_buffer_bytes=65_536,
        store_timeout=1.5,
    )


@pytest.fixture
async def publish(delivery: Delivery) -> AsyncIterator[Published]:
    """Publishes to the topic."""
    async with Published(delivery) as made:
        yield made


@pytest.fixture
def source() -> str:
    """One that nobody else uses."""
    return new_source()
