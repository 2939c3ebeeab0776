"""The failure lab from end to end: millions of events through every fault, proved; and the wrong ones caught.

Three runs break Redis, Kafka and a leader of three brokers, fault after fault of the catalogue; their
ledgers are added up. Then the isolation proof in its quick form, a gateway checked through every fault that
it can meet, and what must be caught: the publisher that awaits Redis, and the two classic wrong gateways.
Then an estate of two topics on one Redis, shared with other people's producers (``estate``). By itself, and
short in the quick form: a gateway and an ingester under ``abuse``.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.abuse import AbuseResult, abuse
from benchmarks.abuse import lines as abuse_lines
from benchmarks.estate import EstateResult, live_through
from dualstream_lab.config import Settings
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.gateway_check import Plan, check_gateway
from dualstream_lab.lab.gateway_check.serving import serving, url_of
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Fault, Scenario, Users
from dualstream_lab.ledger import Ledger
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.verdict.checker import Conclusion, Criterion, Validity
from dualstream_lab.workload import Workload

__all__ = ["WRONG_GATEWAYS", "abuse_soak", "soak", "wrong_gateway"]

EXAMPLES = Path(__file__).parent.parent / "examples"
_CLI = (sys.executable, "-m", "dualstream_lab.cli")
_RATE = 15_000  # events/s
_BEFORE, _FAULT = 5.0, 3.0  # s: of calm before the first fault, and of a fault
_ESTATE_RATE = 10_000  # events/s, of which a million are to come through everything
_ABUSE, _ABUSE_QUICK = 600.0, 33.0  # s
_LEADER = 10.0  # s that a broker is away: its return takes the JVM as long again
_GATEWAY_FAULTS = ("gateway.kill", "redis.kill", "redis.stop", "redis.kill-clients", "redis.output-buffer")
WRONG_GATEWAYS = ("read_then_subscribe", "subscribe_then_read")


@dataclass
class Totals:
    """What all runs had together, and the worst of them."""

    events: int = 0
    lost: int = 0
    orphans: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    """Publishes that failed, by what was broken."""
    repeated: int = 0
    reordered: int = 0
    live_again: dict[str, float] = field(default_factory=dict)
    stall: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, broken: str, ledger: Ledger) -> None:
        if ledger.lost is None or ledger.orphans is None:
            self.problems.append(f"{broken}: the ledger cannot tell what is lost: {ledger.problems}")
        self.lost += ledger.lost or 0
        self.orphans += ledger.orphans or 0
        gone = sum(
            ledger.count(name) for name in ("refused", "refused-in-log", "unknown-not-in-log", "unknown-open")
        )
        self.events += ledger.events - gone
        self.failed[broken] = self.failed.get(broken, 0) + gone + ledger.unsent
        self.repeated += ledger.count("duplicated-log")
        self.reordered += ledger.count("reordered-log")
        for one in ledger.recoveries:
            if one.live is not None:
                again = one.live.again
                self.live_again[one.fault] = float("inf") if again is None else again
            if one.publish is not None:
                self.stall[one.fault] = one.publish.unavailable


def _faults(names: Sequence[str], each: float) -> tuple[tuple[Fault, ...], float]:
    """One after the other, with time to recover; and how long all take."""
    found, at = [], _BEFORE
    for name in names:
        kind = CATALOGUE[name]
        length = 0.0 if kind.instant else (_LEADER if kind.brokers > 1 else _FAULT)
        found.append(Fault(name=name, at=at, length=length))
        at += length + each
    return tuple(found), at


def _run(name: str, names: Sequence[str], rate: float, each: float, root: Path, totals: Totals) -> None:
    faults, duration = _faults(names, each)
    scenario = Scenario(
        name=name, workload=Workload(rate=rate, duration=duration), users=Users(subscribers=2), faults=faults
    )
    print(f"{name}: {rate:,.0f} events/s for {duration:.0f} s through {', '.join(names)}", file=sys.stderr)
    run = asyncio.run(run_scenario(scenario, root=root))
    ledger = run.ledger
    totals.add(name, ledger)
    for one in ledger.recoveries:
        print(f"  {one.fault}: {one.bite}; {one.over}", file=sys.stderr)


def _command(*words: str, root: Path) -> int:
    """A command of ours as a user gives it: its exit code."""
    print("dualstream " + " ".join(words), file=sys.stderr)
    return subprocess.run([*_CLI, *words], stdout=subprocess.DEVNULL, cwd=root, check=False).returncode


@asynccontextmanager
async def wrong_gateway(name: str, right: str, redis_url: str) -> AsyncIterator[str]:
    """One of the examples, before a right gateway; its URL."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / "wrong_gateways" / f"{name}.py"), str(port), right, redis_url),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
        writer.close()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _wrong_caught(root: Path) -> dict[str, bool]:
    """Each classic wrong order behind the checker: whether it was caught."""
    caught = {}
    with LocalStack(directory=root / "wrong") as stack:
        settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic)
        async with serving(settings, root) as right:
            for name in WRONG_GATEWAYS:
                async with wrong_gateway(name, url_of(right), stack.redis_url) as url:
                    check = await check_gateway(url, settings, Plan(seconds=10))
                caught[name] = not check.held
    return caught


def soak(*, quick: bool = False) -> tuple[str, bool]:
    """A table, and whether everything held."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its retries while Kafka is broken are meant
    totals = Totals()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        one = [name for name, kind in CATALOGUE.items() if kind.brokers == 1 and kind.breaks != "gateway"]
        if quick:
            _run("redis", ("redis.kill", "redis.stop", "redis.no-permission"), 2_000, 4, root, totals)
            _run("kafka", ("kafka.stop", "net.kafka.reset"), 2_000, 4, root, totals)
        else:
            for broken, rest in (("redis", 7), ("kafka", 13)):
                names = [name for name in one if CATALOGUE[name].breaks == broken]
                _run(broken, names, _RATE, rest, root, totals)
            three = [name for name, kind in CATALOGUE.items() if kind.brokers > 1]
            _run("three-brokers", three, 5_000, 35, root, totals)
        proof = _command(
            *("prove", "redis-isolation", "--quick"),
            *(
                ("--faults", "redis.kill", "--rate", "2000", "--time", "40s", "--margin", "50")
                if quick
                else ()
            ),
            root=root,
        )
        awaiting = _command(
            *("prove", "redis-isolation", "--quick", "--faults", "redis.stop", "--rate", "2000"),
            *(
                "--time",
                "60s",
                "--others",
                "9",
                "--publisher",
                str(EXAMPLES / "awaiting_publisher.py"),
            ),
            root=root,
        )
        through = _GATEWAY_FAULTS[:2] if quick else _GATEWAY_FAULTS
        gateway = _command(
            *("check-gateway", "--seconds", str(6 * len(through))),
            *(word for name in through for word in ("--fault", name)),
            root=root,
        )
        caught = asyncio.run(_wrong_caught(root))
        print("an estate of two topics on one Redis, through growth and kills", file=sys.stderr)
        estate = asyncio.run(live_through(root, seconds=30, rate=1_000) if quick else _whole_estate(root))
        abused = asyncio.run(abuse(root, seconds=_ABUSE_QUICK, clients=1000, drops=500)) if quick else None
    return _table(totals, proof, awaiting, gateway, caught, estate, abused, quick=quick)


def abuse_soak() -> tuple[str, bool]:
    """A table of a gateway and an ingester under abuse, and whether everything held."""
    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(abuse(Path(directory), seconds=_ABUSE))
    return _markdown(abuse_lines(result), result.problems), result.held


async def _whole_estate(root: Path) -> EstateResult:
    return await live_through(root, seconds=150, rate=_ESTATE_RATE)


def _table(
    totals: Totals,
    proof: int,
    awaiting: int,
    gateway: int,
    caught: dict[str, bool],
    estate: EstateResult,
    abused: AbuseResult | None,
    *,
    quick: bool,
) -> tuple[str, bool]:
    redis = {name: again for name, again in totals.live_again.items() if CATALOGUE[name].breaks == "redis"}
    slowest = max(redis, key=lambda name: redis[name])
    led = {name: silent for name, silent in totals.stall.items() if name == "kafka.leader-lost"}
    caught["awaiting_publisher"] = awaiting == 99
    missed = [name for name, found in caught.items() if not found]
    broken_redis = totals.failed.get("redis", 0)
    twice, passed = totals.repeated + totals.reordered, {0, 4} if quick else {0}
    verdicts = {0: "passes", 4: "inconclusive", 99: "fails"}
    wrong = f"all but {', '.join(missed)}" if missed else f"all {len(caught)}"
    again, enough = redis[slowest], quick or totals.events >= 5_000_000
    gaps = {0: "none", 99: "some"}.get(gateway, f"exit {gateway}")
    lines = [
        ("events in Kafka, through every fault", f"{totals.events:,}", "≥ 5,000,000", enough),
        ("acknowledged events missing from Kafka", f"{totals.lost:,}", "0", totals.lost == 0),
        ("orphan notifications", f"{totals.orphans:,}", "0", totals.orphans == 0),
        ("events twice in Kafka, or out of order", f"{twice:,}", "0", twice == 0),
        ("publishes that failed while Redis was broken", f"{broken_redis:,}", "0", broken_redis == 0),
        ("live again after Redis is back", f"{again:.2f} s ({slowest})", "≤ 2 s", again <= 2),
        ("the isolation proof, quick form", verdicts.get(proof, f"exit {proof}"), "passes", proof in passed),
        ("gaps and repeats through a gateway and its faults", gaps, "none", gateway == 0),
        ("wrong publishers and gateways caught", wrong, "all", not missed),
        *_estate_lines(estate, quick=quick),
    ]  # fmt: skip
    if led:
        longest = max(led.values())
        value = f"{longest:.1f} s"
        lines.append(("Kafka leader killed, three brokers: longest silence", value, "≤ 10 s", longest <= 10))
    problems = [*totals.problems, *estate.problems]
    if abused is not None:
        lines += abuse_lines(abused, quick=True)
        problems += abused.problems
    found = check_soak(lines, problems, quick=quick)
    return _markdown(lines, problems), found.validity is not Validity.INVALID


def check_soak(
    lines: Sequence[tuple[str, str, str, bool]], problems: Sequence[str], *, quick: bool
) -> Conclusion:
    """Each figure, and what else went wrong. How fast the short form is decides nothing."""
    criteria = [
        Criterion(
            name=what, group="dualstream.soak", text=f"{value} (target: {target})",
            validity=Validity.INCONCLUSIVE if quick and "live again" in what else Validity.of(held),
            reason="" if held else value,
        )
        for what, value, target, held in lines
    ]  # fmt: skip
    criteria += [
        Criterion(name=problem, group="dualstream.soak", validity=Validity.INVALID, reason=problem)
        for problem in problems
    ]
    values = {what: value for what, value, _, _ in lines}
    return Conclusion(experiment="soak", state="finished", criteria=tuple(criteria), values=values)


def _markdown(lines: Sequence[tuple[str, str, str, bool]], problems: Sequence[str]) -> str:
    rows = [
        f"| {what} | **{value}** | {target} | {'' if held else 'missed'} |"
        for what, value, target, held in lines
    ]
    return "\n\n".join(
        ["\n".join(["| figure | measured | target | |", "|---|---|---|---|", *rows]), *problems]
    )


def _estate_lines(estate: EstateResult, *, quick: bool) -> list[tuple[str, str, str, bool]]:
    found = (estate.missing, estate.foreign, estate.wrong)
    return [
        (
            f"two topics on one Redis, grown to {estate.partitions} partitions, other producers: events",
            f"{estate.events:,}",
            "≥ 1,000,000",
            quick or estate.events >= 1_000_000,
        ),
        (
            "of these missing, foreign, wrong for readers",
            "{:,}, {:,}, {:,}".format(*found),
            "0, 0, 0",
            not any(found),
        ),
    ]
