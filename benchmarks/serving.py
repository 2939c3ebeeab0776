"""Servers and their clients as processes of their own, each on its core: our gateway, centrifuge, a crowd."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from benchmarks.peer import CACHE, HERE, NotRun
from dualstream_lab.config import ServeSettings
from dualstream_lab.kafka_log import partition_of
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.ports import HOST, free_ports

__all__ = [
    "PARTITIONS",
    "Child",
    "Server",
    "all_on",
    "binary",
    "centrifuge",
    "crowd",
    "fresh_settings",
    "ours",
    "places",
    "run",
]

_START = 30.0  # s
_RUN = 120.0
_LINE = 2**22  # bytes
_SERVE = [sys.executable, "-m", "dualstream_lab.cli", "serve"]
PARTITIONS = 6


@dataclass(frozen=True)
class Server:
    """``kind``: which of the two wire protocols it speaks."""

    kind: str
    address: str
    pid: int


class Child:
    """A process whose lines are read one by one. What it says on stderr is the reason when it ends early."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.process = process
        self._errors = errors

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def line(self, timeout: float) -> str:
        """Raises NotRun when it ends instead, or takes longer."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise NotRun(f"{self.reason()}: not done in {timeout:g} s") from None
        if not line:
            raise NotRun(self.reason())
        return line.decode().strip()

    def reason(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"


@contextmanager
def _on(core: int | None) -> Iterator[None]:
    """What is started inside runs on this core alone."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def all_on(stack: LocalStack, core: int) -> Iterator[None]:
    """Kafka, Redis and this process run on this core alone, to leave the other one to the server."""
    before = os.sched_getaffinity(0)
    _move(stack, {core})
    try:
        with _on(core):
            yield
    finally:
        _move(stack, before)


def _move(stack: LocalStack, cores: set[int]) -> None:
    for process in (stack.redis, *stack.brokers):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread.name), cores)


@asynccontextmanager
async def _child(
    command: Sequence[str], core: int | None, environment: dict[str, str] | None = None
) -> AsyncIterator[Child]:
    with tempfile.TemporaryFile() as errors:
        with _on(core):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                limit=_LINE,
                cwd=HERE.parent,
                env=os.environ | (environment or {}),
            )
        try:
            yield Child(process, errors)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(20):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.communicate()


@cache
def binary() -> str:
    """The Go program, built when it has changed. Raises NotRun."""
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        raise NotRun("it needs Linux and two cores")
    go = shutil.which("go")
    if go is None:
        raise NotRun("there is no Go compiler")
    CACHE.mkdir(exist_ok=True)
    built = CACHE / "fanout"
    done = subprocess.run(
        [go, "build", "-o", built, "."], cwd=HERE / "peers/fanout", capture_output=True, check=False
    )
    if done.returncode:
        raise NotRun("it cannot be built: " + done.stderr.decode().strip().splitlines()[-1])
    return str(built)


def _host(redis_url: str) -> str:
    return redis_url.removeprefix("redis://")


@asynccontextmanager
async def ours(
    settings: ServeSettings, *parts: str, core: int | None = None, ready: str | None = "/readyz"
) -> AsyncIterator[Server]:
    """``dualstream serve``, with these parts only where some are named, once it answers to ``ready``."""
    environment = {
        f"DUALSTREAM_{name.upper()}": _text(value)
        for name, value in settings.model_dump(exclude_defaults=True).items()
    }
    async with _child([*_SERVE, *parts], core, environment) as child:
        if ready is not None:
            await asyncio.to_thread(_await_ready, f"http://{settings.listen}{ready}", child)
        yield Server("ours", settings.listen, child.process.pid)


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _await_ready(url: str, child: Child) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        if child.process.returncode is not None:
            raise NotRun(child.reason())
        time.sleep(0.05)
    raise NotRun(f"not ready after {_START:g} s: {child.reason()}")


@asynccontextmanager
async def centrifuge(
    redis_url: str, *, write_delay: float = 0, core: int | None = None
) -> AsyncIterator[Server]:
    """The peer. ``write_delay`` in ms; with one, a frame may hold any number of messages, not 16 at most."""
    task = {"redis": _host(redis_url), "write_delay": write_delay, "max_in_frame": -1 if write_delay else 0}
    async with _child([binary(), "centrifuge", json.dumps(task)], core) as child:
        yield Server("centrifuge", await child.line(_START), child.process.pid)


@asynccontextmanager
async def crowd(
    server: Server,
    redis_url: str,
    *,
    clients: int,
    partitions: list[int],
    window: int,
    epoch: str = "",
    core: int | None = None,
) -> AsyncIterator[Child]:
    """WebSocket clients, all subscribed. Client i follows source i modulo the number of ``partitions``.

    ``epoch``: of the log whose positions they announce themselves.
    """
    task = {
        "address": server.address, "server": server.kind, "pid": server.pid, "clients": clients,
        "partitions": partitions, "redis": _host(redis_url), "window": window, "epoch": epoch,
    }  # fmt: skip
    async with _child([binary(), "clients", json.dumps(task)], core) as child:
        if (line := await child.line(_START)) != "ready":
            raise NotRun(line)
        yield child


async def run(command: str, task: dict[str, Any], *, timeout: float = _RUN) -> dict[str, Any]:
    """A part of the Go program that only works and reports."""
    async with _child([binary(), command, json.dumps(task)], None) as child:
        found: dict[str, Any] = json.loads(await child.line(timeout))
        return found


def fresh_settings(
    stack: LocalStack, directory: str, *, partitions: int = PARTITIONS, **values: object
) -> ServeSettings:
    """A topic, a store and a port of its own."""
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=partitions)
    return ServeSettings.load(
        kafka_url=stack.kafka_url,
        redis_url=stack.redis_url,
        topic=topic,
        store=Path(directory) / "events.db",
        listen=f"{HOST}:{free_ports(1)[0]}",
        **values,
    )


def places(sources: int, partitions: int = PARTITIONS) -> list[int]:
    """The partition of each source."""
    return [partition_of(f"repo:bench/{number}", partitions) for number in range(sources)]
