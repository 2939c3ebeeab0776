"""What a fault is, and what it may break."""

from __future__ import annotations

import asyncio
from abc import ABC, ABCMeta, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from dualstream_lab.errors import FaultInert, StackError, StreamUnavailable
from dualstream_lab.faults.evidence import Address, Server
from dualstream_lab.faults.journal import JournalEntry
from dualstream_lab.stack import LocalStack, ManagedProcess

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.faults.proxy.proxy import Proxy

_STOP = 20.0  # s: a server that is being started when the repetition ends is waited for


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a fault takes, with its unit in its ``name`` (``delay_ms``), and what is allowed."""

    name: str
    default: float
    low: float
    high: float
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedGateway:
    """A gateway process, and where it listens."""

    process: ManagedProcess
    address: Address


@dataclass(slots=True, kw_only=True)
class Target:
    """What may be broken. ``direct``: the brokers themselves, for evidence and administration. ``settings``:
    where load goes, which is through ``proxies`` (of "redis", of "kafka") if a fault needs them. ``stack``:
    the processes, if they are ours; ``gateway``: the run's own, if it has one. ``owned``: the user said that
    brokers which are not of the stack may be administered.
    """

    direct: Settings
    settings: Settings
    stack: LocalStack | None = None
    proxies: dict[str, Proxy] = field(default_factory=dict)
    gateway: ServedGateway | None = None
    owned: bool = False


class Fault(ABC):
    """One fault on one target, from :meth:`begin` to :meth:`end`. Not to be begun twice.

    The evidence is what a client of its own saw, in a sentence. Raises FaultInert where it does not bite, or
    is not over. Every wait is bounded. What is changed on a broker is told to :meth:`note` before.
    """

    name: ClassVar[str]  # "redis.kill"
    says: ClassVar[str]  # one line for --help
    breaks: ClassVar[Literal["redis", "kafka", "gateway"]]
    instant: ClassVar[bool] = False  # over at once (a restart): has no length
    needs_stack: ClassVar[bool] = False  # signals to processes: only on the local stack
    needs_proxy: ClassVar[bool] = False
    brokers: ClassVar[int] = 1  # the least that the cluster must have
    parameters: ClassVar[tuple[Parameter, ...]] = ()

    def __init__(self, target: Target, **parameters: float) -> None:
        self.target = target
        self.value = {one.name: parameters.get(one.name, one.default) for one in self.parameters}
        self.original: dict[str, Any] = {}  # how it was before; after a crash, end() has only this
        self._entry: JournalEntry | None = None

    @property
    def stack(self) -> LocalStack:
        """The local stack whose brokers are broken. Raises StackError where they are somebody else's."""
        if self.target.stack is None:
            raise StackError(f"this {self.breaks.capitalize()} is not of the local stack")
        return self.target.stack

    def note(self, original: dict[str, Any]) -> None:
        """Remember how something was. Where the broker outlives us this is in a file when it returns, and a
        crash is undone by ``dualstream chaos --mend``: by :meth:`end`, with :attr:`original` alone.
        """
        self.original |= original
        if self.target.stack is None:
            settings = self.target.direct.model_dump(mode="json")
            entry = self._entry or JournalEntry(
                fault=self.name, settings=settings, parameters=self.value, original=self.original
            )
            entry.write()
            self._entry = entry

    def forget(self) -> None:
        """Take its entry out of the journal: the fault is undone. Called after :meth:`end`."""
        if self._entry is not None:
            self._entry.remove()

    @abstractmethod
    async def begin(self) -> None:
        """Begin the fault."""

    @abstractmethod
    async def verify_active(self) -> str:
        """See that it bites, and say what was seen (of what must be harmless: that it holds, and what still
        works).
        """

    @abstractmethod
    async def end(self) -> None:
        """Undo it; also what a :meth:`begin` that was cut short has left. May be called again."""

    @abstractmethod
    async def verify_ended(self) -> str:
        """See that it is over, and say what was seen."""


class RepeatedFault(Fault):
    """A fault that does something again and again; its parameter named ``every`` is the pause, in ms."""

    every: ClassVar[str]
    _task: asyncio.Task[None] | None = None

    @property
    def pause(self) -> float:
        """The pause between two times, s."""
        return self.value[self.every] / 1e3

    @abstractmethod
    async def once(self) -> None:
        """Do what is repeated, one time."""

    async def begin(self) -> None:
        """Start repeating it; the first time comes in a moment."""

        async def repeat() -> None:
            while True:
                await self.once()
                await asyncio.sleep(self.pause)

        self._task = asyncio.create_task(repeat())

    async def end(self) -> None:
        """Stop repeating it. Raises FaultInert if it had stopped by itself, its own StackError as it is."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_STOP)
        if self._task.done() and not self._task.cancelled():
            try:
                self._task.result()
            except StreamUnavailable as error:
                raise FaultInert(f"it stopped by itself: {error}") from error


class ServerFault(Fault):
    """A fault of one server, whose process is signalled. Both properties raise StackError where it is not
    ours.
    """

    @property
    @abstractmethod
    def process(self) -> ManagedProcess:
        """The process itself."""

    @property
    @abstractmethod
    def server(self) -> Server:
        """Where its process listens, past any proxy."""


def derived(name: str, says: str, *bases: Any, **members: Any) -> type[Fault]:
    """Make a class of faults that differs from its bases by its name, what it says, and these members."""
    members |= {"name": name, "says": says, "__module__": bases[0].__module__}
    return cast("type[Fault]", ABCMeta(bases[0].__name__, bases, members))
