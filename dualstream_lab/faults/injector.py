"""Carries faults out: each proves that it bites, is undone however that ends, and proves that it is over."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, FaultInert, StreamUnavailable
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.spec import checked, fault_named
from dualstream_lab.faults.target import check_suits
from dualstream_lab.recording import FaultRecord
from dualstream_lab.tasks import finished, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from dualstream_lab.faults.fault import Fault
    from dualstream_lab.faults.journal import Entry
    from dualstream_lab.faults.spec import FaultSpec
    from dualstream_lab.recording import RunDirectory

__all__ = ["broken", "carry_out", "mend"]

T = TypeVar("T")


@asynccontextmanager
async def broken(
    target: Target, what: str, *, length: float = 0.0, **parameters: float
) -> AsyncIterator[str]:
    """Within the block it is broken: the block gets the evidence. Lasts at least ``length`` s.

    However the block ends, the fault is undone; if it ends well, the fault is also proved to be over. Raises
    ConfigError for an unknown fault or parameter, or one that cannot be done there; FaultInert.
    """
    async with _Injection(_fault(target, what, parameters), lambda _record: None) as injection:
        yield injection.record.bite
        await until(injection.record.begin + round(length * 1e9))


async def carry_out(
    specs: Sequence[FaultSpec], target: Target, directory: RunDirectory, say: Callable[[str], None]
) -> None:
    """Every fault at its time of the run, and noted in its manifest. However it ends, nothing stays broken.

    One fault at a time breaks the same thing: who is not back yet is waited for. ``say`` gets the evidence.
    Raises FaultInert.
    """
    locks = {fault_named(spec.what).breaks: asyncio.Lock() for spec in specs}
    try:
        async with asyncio.TaskGroup() as group:
            for spec in specs:
                for begin, _ in spec.spans:
                    lock = locks[fault_named(spec.what).breaks]
                    group.create_task(_one(spec, begin, lock, target, directory, say))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _one(
    spec: FaultSpec,
    begin: float,
    lock: asyncio.Lock,
    target: Target,
    directory: RunDirectory,
    say: Callable[[str], None],
) -> None:
    fault = _fault(target, spec.what, spec.parameters)
    await until(directory.manifest.started + round(begin * 1e9))
    async with lock:
        records = directory.manifest.faults
        place = len(records)
        records.append(FaultRecord(what=spec.what, begin=time.monotonic_ns()))

        def note(record: FaultRecord) -> None:
            records[place] = record
            directory.save()

        async with _Injection(fault, note) as injection:
            say(f"{spec.what} bites: {injection.record.bite}")
            await until(injection.record.begin + round(spec.length * 1e9))
        say(f"{spec.what} is over: {injection.record.over}")


async def mend(entry: Entry) -> str:
    """Undo what a process that is gone has left broken; the evidence that it is over.

    Raises FaultInert where that cannot be done now; the entry is kept then.
    """
    # exactly those: what the environment of whoever mends says is another's
    settings = Settings.load(**entry.settings).model_copy(update=entry.settings)
    fault = _fault(Target(direct=settings, settings=settings, mine=True), entry.what, entry.parameters)
    fault.found = dict(entry.found)
    await _told(fault.end(), f"{entry.what} cannot be undone")
    over = await _told(fault.ended(), f"{entry.what} is not over")
    entry.path.unlink(missing_ok=True)
    return over


class _Injection:
    """A fault from its begin to the proof that it is over. ``note`` gets the record each time it changes."""

    def __init__(self, fault: Fault, note: Callable[[FaultRecord], None]) -> None:
        self._fault = fault
        self._note = note
        self.record = FaultRecord(what=fault.name, begin=time.monotonic_ns())

    async def __aenter__(self) -> Self:
        self._change(begin=time.monotonic_ns())
        try:
            await _told(self._fault.begin(), f"{self._fault.name} cannot be begun")
            self._change(bite=await _told(self._fault.bites(), f"{self._fault.name} does not bite"))
        except BaseException:
            await finished(self._end())
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await finished(self._end())
        if kind is None:
            self._change(over=await _told(self._fault.ended(), f"{self._fault.name} is not over"))

    async def _end(self) -> None:
        try:
            await _told(self._fault.end(), f"{self._fault.name} did not end well")
            self._fault.forget()
        finally:
            self._change(end=time.monotonic_ns())

    def _change(self, **values: Any) -> None:
        self.record = replace(self.record, **values)
        self._note(self.record)


def _fault(target: Target, what: str, parameters: Mapping[str, float]) -> Fault:
    kind = fault_named(what)
    check_suits([what], ours=target.stack is not None, mine=target.mine)
    if kind.breaks == "gateway" and target.gateway is None:
        raise ConfigError(f"{what}: there is no gateway of ours to break")
    return kind(target, **checked(kind, parameters))


async def _told(work: Awaitable[T], otherwise: str) -> T:
    try:
        return await work
    except (FaultInert, StreamUnavailable) as error:
        raise FaultInert(f"{otherwise}: {error}") from error
