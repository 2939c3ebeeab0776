"""The proof: healthy blocks and blocks with faults in turn, until all is decided or the time is up."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal, Self, TypedDict

import msgspec

from dualstream_lab import former_names
from dualstream_lab.analysis.paired import LOOKS
from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError, FaultInert, RecordingError
from dualstream_lab.faults.injector import open_target
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.isolation.blocks import HEALTHY, Blocks, Figures, Timing, figures_of, open_sender
from dualstream_lab.lab.isolation.judgement import Judgement, Rules, judge, judge_fault
from dualstream_lab.load.session import own_stack
from dualstream_lab.recording import RunDirectory, list_runs
from dualstream_lab.recording.manifest import machine, versions
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination
from dualstream_lab.verdict.checker import Validity
from dualstream_lab.workload import Workload

NAME: Final = "redis-isolation"
QUICK: Final = ("redis.kill", "redis.stop", "redis.slow")
"""The telling faults: refused, mute, slow."""

_FILE = "proof.json"
_LONGEST = 120.0  # s of a plan, which is longer than any block
_ROUND = 3  # faults between two healthy blocks
_CLOSING = 6.0  # s of the time that are left for the end
_HOPELESS = 1000.0  # ms of p99 without any fault
# A quarter of an hour at full rate is some gigabytes: what was read may go.
_KAFKA = {
    "log.segment.bytes": str(64 * 2**20),
    "log.retention.bytes": str(128 * 2**20),
    "log.retention.check.interval.ms": "20000",
}


def redis_faults() -> tuple[str, ...]:
    """The names of the catalogue's faults that break Redis."""
    return tuple(name for name, kind in CATALOGUE.items() if kind.breaks == "redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to prove, and how hard. ``rate``: events/s; ``time``: s for everything, also the start of the
    stack.

    ``publisher``: the user's own, a file. ``quick``: only said in reports. Raises ConfigError.
    """

    faults: tuple[str, ...] = field(default_factory=redis_faults)
    rate: float = 10_000.0
    time: float = 880.0
    timing: Timing = field(default_factory=Timing)
    rules: Rules = field(default_factory=Rules)
    publisher: Path | None = None
    seed: int = 1
    quick: bool = False

    def __post_init__(self) -> None:
        known = redis_faults()
        if unknown := [name for name in self.faults if name not in known]:
            raise ConfigError(f"--faults: {unknown[0]!r} is none of {', '.join(known)}")
        if not self.faults or len(set(self.faults)) < len(self.faults):
            raise ConfigError("--faults: must name at least one, and each once")
        for name, value, low, high in (
            ("--rate", self.rate, 100, 200_000), ("--time", self.time, 20, 86_400),
            ("--block", self.timing.length, 1, 60), ("--margin", self.rules.ms, 0.01, 60_000),
            ("--others", self.rules.background, 0, 1024),
        ):  # fmt: skip
            within(name, value, low, high)

    @property
    def workload(self) -> Workload:
        """The load of every block, with the same seed, so that both blocks of a pair send the same."""
        batch = max(1, round(self.rate / 1000))
        return Workload(rate=self.rate, duration=_LONGEST, batch=batch, seed=self.seed)

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON can hold them."""
        return asdict(self) | {"publisher": None if self.publisher is None else str(self.publisher)}


class _Metadata(TypedDict):
    """What ``proof.json`` holds: all that is needed to judge the blocks again."""

    proof: str
    options: Options
    state: Literal["running", "finished", "interrupted"]
    notes: dict[str, str]
    began: str
    seconds: float
    machine: dict[str, str | int]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a proof of isolation is. ``seconds`` of ``time`` are spent; ``decided`` of ``faults``;
    ``doing``: a word for people.
    """

    time: float
    faults: int
    seconds: float
    decided: int
    doing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof came to. ``state``: ``finished``, ``interrupted``, or ``running`` where it died."""

    path: Path
    options: Options
    state: str
    judgement: Judgement
    metadata: dict[str, Any]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Judge the blocks of a directory anew. Raises RecordingError."""
        try:
            kept = msgspec.json.decode((path / _FILE).read_bytes())
            read = msgspec.convert(former_names.renamed_proof(kept), _Metadata, dec_hook=_path)
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise RecordingError(f"{path} does not hold a proof: {error}") from error
        options = read["options"]
        blocks, problems = [], []
        for directory in list_runs(path):
            if isinstance(directory, RecordingError):
                problems.append(str(directory))
                continue
            blocks.append(figures_of(directory, options.timing))
            problems += [f"{directory.path.name}: {problem}" for problem in directory.problems]
        blocks.sort(key=lambda block: block.begin)
        return cls(
            path=path,
            options=options,
            state=read["state"],
            judgement=judge(blocks, options.faults, options.rules, read["notes"]),
            metadata=read | {"options": options.as_dict()},
            problems=tuple(problems),
        )

    def as_dict(self) -> dict[str, Any]:
        """The proof as JSON can hold it."""
        return self.metadata | {"judgement": self.judgement.as_dict(), "problems": list(self.problems)}


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{value!r} is no path")


async def prove(
    options: Options,
    *,
    root: Path = Path("runs"),
    stack: LocalStack | None = None,
    topic: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
    show: Callable[[Progress], None] = lambda _progress: None,
) -> Proof:
    """Make the proof, on a local stack of its own, or on ``stack`` and a ``topic`` of it.

    Cancelled (Ctrl-C), it ends the block, mends what is broken, and judges what was measured. Raises
    ConfigError and StackError, also of the user's publisher; StreamUnavailable.
    """
    run = _Run(options=options, path=RunDirectory.create(root, NAME), say=say, show=show)
    try:
        await run.make(stack, topic)
        run.state = "finished"
    except ConfigError:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    except asyncio.CancelledError:
        if not run.blocks:
            raise
        run.state = "interrupted"
    run.save()
    run.now("reading what was recorded")
    proof = await asyncio.to_thread(Proof.of, run.path)
    (run.path / "verdict.json").write_text(json.dumps(proof.as_dict(), indent=1) + "\n", encoding="utf-8")
    return proof


@dataclass(kw_only=True)
class _Run:
    """A proof while it is made: its blocks until now, and what is decided already."""

    options: Options
    path: Path
    say: Callable[[str], None]
    show: Callable[[Progress], None]
    state: str = "running"
    blocks: list[Figures] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    took: dict[str, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    wall: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @property
    def _left(self) -> float:
        return self.options.time - _CLOSING - (time.monotonic() - self.began)

    def save(self) -> None:
        """Write what is needed to judge the blocks again."""
        metadata = {
            "proof": NAME,
            "options": self.options.as_dict(),
            "state": self.state,
            "notes": self.notes,
            "began": self.wall,
            "seconds": round(time.monotonic() - self.began, 1),
            "machine": machine(),
            "versions": versions(),
        }
        (self.path / _FILE).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")

    def now(self, doing: str) -> None:
        """Show what is being done in the progress bar."""
        spent = time.monotonic() - self.began
        self.show(Progress(self.options.time, len(self.options.faults), spent, len(self.decided), doing))

    async def make(self, stack: LocalStack | None, topic: str | None) -> None:
        """Make the proof: start the sender, the stack and the observer, then block after block."""
        options = self.options
        self.save()
        async with AsyncExitStack() as exits:
            sender = await exits.enter_async_context(open_sender(options.publisher, self.path))
            stack = await exits.enter_async_context(
                own_stack(stack, progress=self.say, in_memory=True, kafka_settings=_KAFKA)
            )
            destination = Destination.of(stack, topic)
            self.say(f"load goes to {destination}")
            target = await exits.enter_async_context(
                open_target(destination.settings, options.faults, stack=stack)
            )
            blocks = Blocks(sender, target, options.timing, options.workload, self.path)
            self.say(f"warming up for {options.timing.first:g} s …")
            self.now("warming up")
            await exits.enter_async_context(blocks.opened())
            try:
                await self._rounds(blocks)
            finally:
                self.say(f"{blocks.warm_up:,} more events were sent to warm up, and are in no block")

    async def _rounds(self, blocks: Blocks) -> None:
        await self._block(blocks, HEALTHY)
        while not self._hopeless(self.blocks[-1]) and (chosen := self._next()):
            for fault in chosen:
                await self._block(blocks, fault)
            await self._block(blocks, HEALTHY)
            for fault in chosen:
                self._look(fault)

    def _hopeless(self, healthy: Figures) -> bool:
        """Whether a block without a fault already says that there is nothing to prove."""
        if healthy.failed or healthy.missing:
            self.say("with Redis healthy, events fail or are not in the topic: there is nothing to compare")
            return True
        if healthy.p99 <= _HOPELESS or not self.options.rules.latency_judged:
            return False
        text = (
            f"publish p99 is {healthy.p99:,.0f} ms with Redis healthy: it does not hold "
            f"{self.options.rate:,.0f} events/s here; give a lower --rate"
        )
        self.say(text)
        self.notes |= dict.fromkeys(self._undecided(), text)
        return True

    def _undecided(self) -> list[str]:
        return [fault for fault in self.options.faults if fault not in self.decided]

    def _next(self) -> list[str]:
        """The faults of the next round, as many as the time allows: all are to be looked at once before any
        is looked at again, and then those first that need the fewest pairs for it.
        """
        pairs = dict.fromkeys(self._undecided(), 0)
        for block in self.blocks:
            if block.arm in pairs and self.options.rules.compares(block):
                pairs[block.arm] += 1

        def urgency(fault: str) -> tuple[int, int]:
            ahead = [look for look in LOOKS if look > pairs[fault]] or [LOOKS[-1] + 1]
            return -len(ahead), ahead[0] - pairs[fault]

        waiting = sorted(pairs, key=urgency)  # stable: else in their order
        for count in range(min(_ROUND, len(waiting)), 0, -1):
            if sum(map(self._lasts, waiting[:count])) + self._lasts(HEALTHY) <= self._left:
                return waiting[:count]
        return []

    def _lasts(self, arm: str) -> float:
        """How long a block will take, s: as long as those before took on average."""
        if arm in self.took:
            return fmean(self.took[arm])
        timing = self.options.timing
        return timing.length + (1.5 if arm == HEALTHY else 3.0)

    async def _block(self, blocks: Blocks, arm: str) -> None:
        if arm in self.decided:
            return
        self.now(arm)
        began = time.monotonic()
        try:
            directory = await blocks.block(arm)
        except FaultInert as error:
            self.notes[arm] = str(error)
            self.decided.add(arm)
            self.say(f"{arm} was given up: {error}")
            return
        self.now(f"{arm} done")
        block = await asyncio.to_thread(figures_of, directory, self.options.timing)
        self.blocks.append(block)
        self.took.setdefault(arm, []).append(time.monotonic() - began)

    def _look(self, fault: str) -> None:
        """Decide about a fault, if its pairs are enough."""
        if fault in self.decided:
            return
        found = judge_fault(fault, self.blocks, self.options.rules)
        if found.verdict is Validity.INCONCLUSIVE and found.p99.pairs < LOOKS[-1]:
            return
        self.decided.add(fault)
        p99 = found.p99
        limits = f"p99 {p99.value:+.2f} ms ({p99.low:+.2f} to {p99.high:+.2f}) in {p99.pairs} pairs"
        if not self.options.rules.latency_judged:
            limits = f"p99 {p99.value:+.2f} ms, not judged"
        self.say(f"{fault} {found.verdict}: {'; '.join(found.reasons) or limits}")
