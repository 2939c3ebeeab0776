"""The fault of the gateway, on a real one."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from dualstream_lab.errors import ConfigError, FaultInert
from dualstream_lab.faults.fault import ServedGateway, Target
from dualstream_lab.faults.injector import broken
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.stack import ManagedProcess
from dualstream_lab.stack.ports import HOST, free_ports

Kill = CATALOGUE["gateway.kill"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dualstream_lab.config import Settings
    from dualstream_lab.stack import LocalStack


@pytest.fixture
def gateway(stack: LocalStack, topic: str, tmp_path: Path) -> Iterator[ServedGateway]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "dualstream_lab.cli", "serve", "--listen", f"{HOST}:{port}"]
    command += ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic]
    process = ManagedProcess(
        name="dualstream serve",
        command=[*command, "--store", str(tmp_path / "events.db")],
        log=tmp_path / "serve.log",
        ready=lambda text: "Ctrl-C ends it" in text,
        explain=lambda text: text[-500:],
    )
    process.start()
    yield ServedGateway(process=process, address=(HOST, port))
    process.kill()


async def test_it_bites_and_is_over(
    stack: LocalStack, settings: Callable[..., Settings], gateway: ServedGateway
) -> None:
    where = settings()
    target = Target(direct=where, settings=where, stack=stack, gateway=gateway)
    fault = Kill(target)
    with pytest.raises(FaultInert, match="accepted"):
        await fault.verify_active()
    await fault.end()
    before = gateway.process.pid
    async with broken(target, "gateway.kill") as evidence:
        assert "refused" in evidence
        assert not gateway.process.running
        with pytest.raises(FaultInert, match="no answer"):
            await fault.verify_ended()
    assert gateway.process.pid not in {None, before}
    reader, writer = await asyncio.open_connection(*gateway.address)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_without_a_gateway_it_is_told(stack: LocalStack, settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match="no gateway of its own"):
        await Kill(Target(direct=settings(), settings=settings(), stack=stack)).begin()
