"""The highest rate that holds: a search that distrusts single measurements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from dualstream_lab.lab.result import Run
    from dualstream_lab.lab.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What rate to look for, and how. Limits are in ms, rates in events/s; ``precision`` is a share of the
    rate.

    A rate holds when both p99 stay within their limits, nothing failed, and the rate was achieved. One that
    fails is tried again, and the majority of three decides. The search is made ``repeats`` times.
    """

    publish_p99: float = 50.0
    live_p99: float = 50.0
    low: float = 2_000.0
    high: float = 200_000.0
    precision: float = 0.1
    repeats: int = 3

    def __post_init__(self) -> None:
        for name, low, high in (
            ("publish_p99", 0.1, 60_000), ("live_p99", 0.1, 60_000), ("precision", 0.02, 0.5),
            ("low", 10, 1_000_000), ("high", 10, 1_000_000), ("repeats", 1, 20),
        ):  # fmt: skip
            within(name, getattr(self, name), low, high)
        if self.low >= self.high:
            raise ConfigError(f"low: must be below high (is {self.low:,g}, and high is {self.high:,g})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One measurement at one rate. ``reason``: why it did not hold, empty if it did."""

    rate: float
    publish_p99: float
    live_p99: float
    reason: str
    limit: str = ""


@dataclass(slots=True, kw_only=True)
class Finding:
    """What came of the searches. ``rates``: what each found, events/s; 0 where not even the lowest held."""

    rates: list[float] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median of the rates that the searches found, events/s."""
        return median(self.rates)

    @property
    def saturated(self) -> str:
        """What was the limit at the lowest rate that failed, a sentence."""
        failed = [probe for probe in self.probes if probe.reason]
        if not failed:
            return "nothing: the highest rate that was allowed held; allow a higher one"
        least = min(failed, key=lambda probe: probe.rate)
        return f"at {least.rate:,.0f}/s {least.reason}; {least.limit}" if least.limit else least.reason


async def find_rate(search: Search, probe: Callable[[float], Awaitable[Probe]]) -> Finding:
    """Look for the highest rate that holds; ``probe`` measures one rate."""
    finding = Finding()

    async def holds(rate: float) -> bool:
        """Whether the rate holds: once is enough; where it does not, the majority of three decides."""
        failed = 0
        for _ in range(3):
            result = await probe(rate)
            finding.probes.append(result)
            failed += bool(result.reason)
            if failed in {0, 2}:
                break
        return failed < 2

    begin = search.low
    for _ in range(search.repeats):
        found = await _once(search, begin, holds)
        finding.rates.append(found)
        if not found:
            break
        # The next search need not climb from the bottom again, but must be able to disagree.
        begin = max(search.low, found / 2)
    return finding


async def _once(search: Search, begin: float, holds: Callable[[float], Awaitable[bool]]) -> float:
    """Double until a rate fails, then halve the (logarithmic) distance; 0 if the lowest fails."""
    good, rate, bad = 0.0, begin, 0.0
    while not bad:
        if await holds(rate):
            good = rate
            if rate >= search.high:
                return good
            rate = min(rate * 2, search.high)
        elif rate > search.low and not good:
            rate = max(search.low, rate / 2)
        else:
            bad = rate
    while good and bad / good > 1 + search.precision:
        middle = (good * bad) ** 0.5
        if await holds(middle):
            good = middle
        else:
            bad = middle
    return good


def probe_of(run: Run, search: Search, rate: float) -> Probe:
    """What a run at ``rate`` says about the limits."""
    found = run.measures
    publish, live = found["publish.latency.p99"], found.get("live.latency.p99", float("nan"))
    reasons = []
    if found["publish.errors"]:
        reasons.append(f"{found['publish.errors']:,.0f} events failed")
    if found.get("publish.rate", 0) < 0.98:
        reasons.append(f"only {found.get('publish.events_per_second', 0):,.0f}/s were achieved")
    if publish > search.publish_p99:
        reasons.append(f"publish p99 was {publish:,.1f} ms")
    if live > search.live_p99:
        missing = found.get("live.missing", 0)
        what = f"live p99 was {live:,.1f} ms" if live != float("inf") else f"{missing:.2%} were undelivered"
        reasons.append(what)
    return Probe(
        rate=rate,
        publish_p99=publish,
        live_p99=live,
        reason=", ".join(reasons),
        limit=run.limit if reasons else "",
    )


def at_rate(scenario: Scenario, rate: float) -> Scenario:
    """The scenario with another rate, in as many calls a second as before or a thousand at most."""
    batch = max(scenario.workload.batch, round(rate / 1000))
    return replace(scenario, workload=replace(scenario.workload, rate=rate, batch=batch))
