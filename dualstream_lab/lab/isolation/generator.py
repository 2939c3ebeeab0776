"""The generator of a proof, in a process of its own: one warm publisher, ours or a user's, block after block.

``python -m dualstream_lab.lab.isolation.generator`` is not for people: see :mod:`dualstream_lab.load.child`.
It is told ``block {…}``, ``start NS``, ``stop``, again and again. Between blocks nothing is sent, so that the
counters of each add up; what was measured is written only then, as the writing would be measured, too.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, OutcomeUnknown, PublishError, PublishRejected, StackError
from dualstream_lab.event import Event
from dualstream_lab.load.child import Orders, say, serve
from dualstream_lab.load.driver import Call, Driver, load_headers, warm_up
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, Workload

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

_NEVER = 1e9  # s
_ERRORS = 5  # different ones of a block are told
_BEHIND = 15.0  # s that a publisher has to make up for what it is behind
_NEED = (
    "it needs `async def make_publisher(kafka_url, redis_url, topic)` that returns an object with "
    "`async def publish_batch(self, events)` and, if there is something to close, `async def close(self)`"
)
_MODULE = "dualstream_publisher_under_proof"
Maker = Callable[[str | None, str | None, str], Awaitable[Any]]


class _Block(PublishRecorder):
    """A recorder that keeps the rows of a block in memory, and writes them when the block is over."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "sender", period=_NEVER)
        # Arrays and plain numbers: nothing that the garbage collector would look through again and again.
        self._kept: dict[str, list[Any]] = {"seq": []}
        self._errors: set[str] = set()
        self.newest = 0
        self.meter.level("published.rss_begin_mib", self._process.memory_info().rss / 2**20)

    def rows(self, seq: Integers, *, kind: str | None = None, **columns: Any) -> None:  # noqa: ARG002
        for name, column in columns.items():
            self._kept.setdefault(name, []).append(column)
        self._kept["seq"].append(seq)

    def sending(self, seq: Integers, intended: int, in_flight: int) -> None:
        super().sending(seq, intended, in_flight)
        self.newest = intended

    def settled(self, call: Call) -> None:
        super().settled(call)
        if call.error is not None:
            text = str(call.error)[:200]
            if len(self._errors) < _ERRORS:
                self._errors.add(text)
            if text in self._errors:
                self.meter.count(f"error: {text}", len(call))

    def close(self) -> None:
        """Write what was kept until now."""
        if seqs := self._kept["seq"]:
            columns: dict[str, Any] = {
                name: np.concatenate(
                    # a plain number stands for so many of it
                    [np.broadcast_to(np.asarray(one, np.int64), len(seq))
                     for one, seq in zip(kept, seqs, strict=True)]
                )
                for name, kept in self._kept.items()
            }  # fmt: skip
            super().rows(columns.pop("seq"), **columns)
        self._kept = {"seq": []}
        super().close()


def load_maker(path: Path) -> Maker:
    """Import ``make_publisher`` of a Python file. Raises ConfigError naming the file, and what is needed."""
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--publisher: {path} is not a Python file; {_NEED}")
    module = sys.modules[_MODULE] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE` does: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--publisher: {path} cannot be imported: {_located(error, path)}") from error
    maker = getattr(module, "make_publisher", None)
    if not callable(maker):
        raise ConfigError(f"--publisher: {path} has no make_publisher; {_NEED}")
    if not inspect.iscoroutinefunction(maker):
        raise ConfigError(f"--publisher: make_publisher of {path} is not `async def`; {_NEED}")
    try:
        inspect.signature(maker).bind("kafka_url", "redis_url", "topic")
    except TypeError as error:
        raise ConfigError(f"--publisher: make_publisher of {path}: {error}; {_NEED}") from error
    return maker  # type: ignore[no-any-return]


class ThirdPartyPublisher:
    """A user's own publisher, as ``make_publisher`` returned it, with the methods of a DualPublisher.

    Every call ends within ``delivery_timeout``, and so does closing.
    """

    def __init__(self, publisher: Any, timeout: float) -> None:
        self._publisher = publisher
        self._timeout = timeout

    @classmethod
    async def make(cls, maker: Maker, path: Path, settings: Settings) -> Self:
        """Make the publisher. Raises ConfigError where ``maker`` returns none, StackError where it fails."""
        limit = settings.start_timeout
        try:
            async with asyncio.timeout(limit):
                publisher = await maker(settings.kafka_url, settings.redis_url, settings.topic)
        except TimeoutError as error:
            raise StackError(f"make_publisher of {path} did not end within {limit:g} s") from error
        except Exception as error:
            raise StackError(f"make_publisher of {path} failed: {_located(error, path)}") from error
        if not inspect.iscoroutinefunction(getattr(publisher, "publish_batch", None)):
            raise ConfigError(
                f"--publisher: make_publisher of {path} returned {publisher!r}, which has no "
                f"async publish_batch; {_NEED}"
            )
        return cls(publisher, settings.delivery_timeout)

    async def publish(self, event: Event) -> None:
        """Publish one event, as a batch of one."""
        await self.publish_batch([event])

    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Publish a batch. Raises a PublishError, whatever the user's publisher raises."""
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                await self._publisher.publish_batch(events)
        except Exception as error:
            if deadline.expired():
                raise OutcomeUnknown(f"publish_batch did not end within {self._timeout:g} s") from error
            if isinstance(error, PublishError):
                raise
            raise PublishRejected(f"{type(error).__name__}: {error}") from error

    async def flush(self) -> None:
        """Every call has been answered, so there is nothing to wait for."""

    async def close(self) -> None:
        """Let the publisher close, for a bounded time; its errors are ignored, as nothing depends on them."""
        close = getattr(self._publisher, "close", None)
        if close is None:
            return
        with suppress(Exception):
            async with asyncio.timeout(self._timeout):
                ended = close()
                if inspect.isawaitable(ended):
                    await ended


def _located(error: BaseException, path: Path) -> str:
    """The error in words, with the line of the file that it comes from."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [line for file, line in places if file == str(path) and line]
    at = f"line {lines[-1]}: " if lines else ""
    return f"{at}{type(error).__name__}: {error}"


async def _block(
    publisher: DualPublisher | ThirdPartyPublisher, task: dict[str, Any], orders: Orders
) -> dict[str, Any] | None:
    """One block, from its warm-up to its rows on the disk; None when the parent has gone."""
    workload = Workload(**task["workload"])
    sent = await warm_up(publisher, workload, task["warm_up"], task["concurrency"])
    # Not the generator's own setting, which spares throughput for pauses of 10 ms: Python's, as in most
    # programs, so that a pause is what the publisher's garbage makes of it.
    gc.collect()
    gc.freeze()
    sink = _Block(Path(task["directory"]))
    if isinstance(publisher, DualPublisher):
        sink.watch(publisher)
    driver = Driver(publisher, workload, workload.catalogue(RunIds(task["ids"])), sink)
    say(ready={"warm_up": sent})
    if not (order := await orders.next()):
        sink.close()
        return None
    sink.started = int(order.split()[1])
    driver.start(sink.started)
    watching = asyncio.create_task(sink.run())
    stopping = asyncio.create_task(_stop(driver, sink, workload, orders))
    await beside([watching], driver.run(task["concurrency"]))
    await publisher.flush()
    await end_tasks([watching])
    sink.close()
    return {} if await stopping else None


async def _stop(driver: Driver, sink: _Block, workload: Workload, orders: Orders) -> str:
    """Wait for the order to stop, and until what was due is sent: a publisher that is late is not spared its
    delay. Returns the order, empty where the parent has gone.

    The plan is longer than any block, so that this order comes first.
    """
    order = await orders.next()
    now = time.monotonic_ns()
    while order and sink.newest < now - 2e9 * workload.batch / workload.rate:
        if time.monotonic_ns() > now + _BEHIND * 1e9:
            break
        await asyncio.sleep(0.01)
    driver.stop()
    return order


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    """Load the user's file, wait for the order that names the brokers, and make blocks until the end."""
    sys.stdout = sys.stderr  # what the file prints is for the log
    file = Path(task["publisher"]) if task["publisher"] else None
    maker = load_maker(file) if file else None
    say(loaded=True)
    if not (line := await orders.next()):
        return {}
    first = json.loads(line)
    settings = Settings(**first["settings"])
    async with AsyncExitStack() as exits:
        publisher: DualPublisher | ThirdPartyPublisher
        if maker is None or file is None:
            ours = DualPublisher(settings, headers=load_headers(first["run"]))
            publisher = await exits.enter_async_context(ours)
        else:
            publisher = await ThirdPartyPublisher.make(maker, file, settings)
            exits.push_async_callback(publisher.close)
        sent = await warm_up(publisher, Workload(**first["workload"]), first["warm_up"], first["concurrency"])
        say(ready={"warm_up": sent})
        while line := await orders.next():
            if (done := await _block(publisher, json.loads(line), orders)) is None:
                break
            say(block=done)
    return {}


if __name__ == "__main__":
    serve(_main)
