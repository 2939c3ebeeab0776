"""Carries faults out: each proves that it bites, is undone however that ends, and proves that it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, FaultInert, StreamUnavailable
from dualstream_lab.faults.fault import Fault, Target
from dualstream_lab.faults.journal import VERSION, JournalEntry, left_behind
from dualstream_lab.faults.proxy.proxy import KafkaProxy, Proxy
from dualstream_lab.faults.spec import FaultSpec, brokers_needed, check_suits, checked, fault_named
from dualstream_lab.recording import FaultRecord, RunDirectory
from dualstream_lab.stack import LocalStack
from dualstream_lab.tasks import finished, in_thread, until

T = TypeVar("T")


@asynccontextmanager
async def open_target(
    settings: Settings, names: Iterable[str], *, stack: LocalStack | None = None, owned: bool = False
) -> AsyncIterator[Target]:
    """Make the brokers of ``settings``, those of ``stack`` if it is given, ready for the named faults.

    Raises ConfigError where one of them cannot be done there, StackError where a proxy cannot be started,
    FaultInert where something is still broken that a crash has left.
    """
    names = list(names)
    kinds = [fault_named(name) for name in names]
    check_suits(names, local=stack is not None, owned=owned)
    if stack is not None and (need := brokers_needed(names)) > len(stack.brokers):
        raise ConfigError(f"{', '.join(names)}: needs {need} brokers (the stack has {len(stack.brokers)})")
    if settings.redis_url is None and any(kind.breaks == "redis" for kind in kinds):
        raise ConfigError(f"{', '.join(names)}: needs a Redis, and none was given")
    if stack is None and kinds and (left := left_behind()):
        raise FaultInert(f"{left[0].fault} of a run that crashed is not undone: dualstream chaos --mend")
    target = Target(direct=settings, settings=settings, stack=stack, owned=owned)
    through = {kind.breaks for kind in kinds if kind.needs_proxy}
    async with AsyncExitStack() as exits:
        if "redis" in through:
            parts = urlsplit(settings.redis_url or "")
            if parts.scheme != "redis":
                raise ConfigError(
                    f"redis_url: a fault proxy needs redis:// ({parts.scheme}:// cannot pass one)"
                )
            redis = Proxy((parts.hostname or "", parts.port or 6379))
            await _put_before(target, "redis", redis, exits)
            user, at, _ = parts.netloc.rpartition("@")
            host, port = redis.address
            url = parts._replace(netloc=f"{user}{at}{host}:{port}").geturl()
            target.settings = target.settings.model_copy(update={"redis_url": url})
        if "kafka" in through:
            kafka = KafkaProxy(settings.kafka_url or "")
            await _put_before(target, "kafka", kafka, exits)
            target.settings = target.settings.model_copy(update={"kafka_url": kafka.kafka_url})
        yield target


async def _put_before(target: Target, broker: str, proxy: Proxy, exits: AsyncExitStack) -> None:
    exits.push_async_callback(in_thread, proxy.stop)
    await in_thread(proxy.start)
    target.proxies[broker] = proxy


@asynccontextmanager
async def broken(
    target: Target, name: str, *, length: float = 0.0, **parameters: float
) -> AsyncIterator[str]:
    """Keep one fault on for the block, which gets the evidence, and for ``length`` s at least.

    However the block ends, the fault is undone; if it ends well, the fault is also proved to be over. Raises
    ConfigError for an unknown fault or parameter, or one that cannot be done there; FaultInert.
    """
    async with _injected(_fault(target, name, parameters), length, lambda _record: None) as evidence:
        yield evidence


async def carry_out(
    specs: Sequence[FaultSpec], target: Target, directory: RunDirectory, say: Callable[[str], None]
) -> None:
    """Inject every fault at its time of the run, and note it in the manifest. Nothing stays broken after it.

    One fault at a time breaks the same thing: who is not back yet is waited for. ``say`` gets the evidence.
    Raises FaultInert.
    """
    locks = {fault_named(spec.name).breaks: asyncio.Lock() for spec in specs}
    records = directory.manifest.faults

    async def inject(spec: FaultSpec, begin: float) -> None:
        fault = _fault(target, spec.name, spec.parameters)
        await until(directory.manifest.started + round(begin * 1e9))
        async with locks[fault.breaks]:
            place = len(records)
            records.append(FaultRecord(name=spec.name, begin=time.monotonic_ns()))

            def note(record: FaultRecord) -> None:
                records[place] = record
                directory.save()

            async with _injected(fault, spec.length, note) as evidence:
                say(f"{spec.name} bites: {evidence}")
            say(f"{spec.name} is over: {records[place].over}")

    try:
        async with asyncio.TaskGroup() as group:
            for spec in specs:
                for begin, _ in spec.spans:
                    group.create_task(inject(spec, begin))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def recover(entry: JournalEntry) -> str:
    """Undo what a process that is gone has left broken; return the evidence that it is over.

    Raises FaultInert where that cannot be done now; the entry is kept then.
    """
    if entry.version != VERSION:
        raise FaultInert(
            f"{entry.fault} cannot be undone: {entry.path}, of another version, does not say what it was"
        )
    # exactly those: what the environment of whoever recovers says is another's
    settings = Settings.load(**entry.settings).model_copy(update=entry.settings)
    fault = _fault(Target(direct=settings, settings=settings, owned=True), entry.fault, entry.parameters)
    fault.original = dict(entry.original)
    await _done(fault.end(), f"{entry.fault} cannot be undone")
    over = await _done(fault.verify_ended(), f"{entry.fault} is not over")
    entry.remove()
    return over


@asynccontextmanager
async def _injected(fault: Fault, length: float, note: Callable[[FaultRecord], None]) -> AsyncIterator[str]:
    """Inject a fault for the block, for at least ``length`` s, and prove that it is over. The block gets the
    evidence that it bites; ``note`` gets the record each time it changes.
    """
    record = FaultRecord(name=fault.name, begin=time.monotonic_ns())

    def change(**values: Any) -> None:
        nonlocal record
        record = replace(record, **values)
        note(record)

    async def undo() -> None:
        try:
            await _done(fault.end(), f"{fault.name} did not end well")
            fault.forget()
        finally:
            change(end=time.monotonic_ns())

    note(record)
    try:
        await _done(fault.begin(), f"{fault.name} cannot be begun")
        change(bite=await _done(fault.verify_active(), f"{fault.name} does not bite"))
        yield record.bite
        await until(record.begin + round(length * 1e9))
    finally:
        await finished(undo())
    change(over=await _done(fault.verify_ended(), f"{fault.name} is not over"))


def _fault(target: Target, name: str, parameters: Mapping[str, float]) -> Fault:
    kind = fault_named(name)
    check_suits([name], local=target.stack is not None, owned=target.owned)
    return kind(target, **checked(kind, parameters))


async def _done(work: Awaitable[T], failure: str) -> T:
    try:
        return await work
    except (FaultInert, StreamUnavailable) as error:
        raise FaultInert(f"{failure}: {error}") from error
