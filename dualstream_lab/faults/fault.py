"""What a fault is, and what it may break."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dualstream_lab.faults.journal import Entry, Page

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.faults.proxy.proxy import Proxies
    from dualstream_lab.stack import LocalStack, ManagedProcess

__all__ = ["Fault", "Parameter", "ServedGateway", "Target"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a fault takes: ``name`` has its unit (``delay_ms``)."""

    name: str
    default: float
    low: float
    high: float
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedGateway:
    """A gateway process, and where it listens."""

    process: ManagedProcess
    address: tuple[str, int]


@dataclass(slots=True, kw_only=True)
class Target:
    """What may be broken. ``direct``: the brokers themselves, for evidence and administration. ``settings``:
    where load goes, which is through ``proxies`` if a fault needs them. ``stack``: the processes, if they
    are ours; ``gateway``: the run's own, if it has one. ``mine``: the user said that brokers which are not of
    the stack may be administered.
    """

    direct: Settings
    settings: Settings
    stack: LocalStack | None = None
    proxies: Proxies | None = None
    gateway: ServedGateway | None = None
    mine: bool = False


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
        self.found: dict[str, Any] = {}  # how it was before; after a crash, end() has only this
        self._page = Page()

    def note(self, **found: Any) -> None:
        """Remember, in ``found``, how something was. Where the broker outlives us this is in a file when it
        returns, and a crash is undone by ``dualstream chaos --mend``: by :meth:`end`, with ``found`` alone.
        """
        self.found |= found
        if self.target.stack is None:
            settings = self.target.direct.model_dump(mode="json")
            entry = Entry(what=self.name, settings=settings, parameters=self.value, found=self.found)
            self._page.write(entry)

    def forget(self) -> None:
        """It is undone. Called after :meth:`end`."""
        self._page.remove()

    @abstractmethod
    async def begin(self) -> None:
        """Break it."""

    @abstractmethod
    async def bites(self) -> str:
        """Evidence that it bites (of what must be harmless: that it holds, and what still works)."""

    @abstractmethod
    async def end(self) -> None:
        """Undo it; also what a :meth:`begin` that was cut short has left. May be called again."""

    @abstractmethod
    async def ended(self) -> str:
        """Evidence that it is over."""
