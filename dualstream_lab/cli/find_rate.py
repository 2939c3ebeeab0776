"""``dualstream find-rate``: the highest rate that holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.cli import MISSED
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.run import changed, run_options
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.find_rate import Search, at_rate, probe_of
from dualstream_lab.lab.find_rate import find_rate as search_rate
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.cli.options import Target
    from dualstream_lab.lab.find_rate import Probe


@click.command(
    "find-rate", epilog="Example:  dualstream find-rate --publish-p99 20 --live-p99 20 --repeats 5"
)
@run_options
@click.option("--publish-p99", type=float, default=50, help="Limit, ms from the intended time.")
@click.option("--live-p99", type=float, default=50, help="Limit, ms from the intended time.")
@click.option("--low", type=float, default=2_000, help="Events/s to begin with.")
@click.option("--high", type=float, default=200_000, help="Events/s to stop at.")
@click.option("--precision", type=float, default=0.1, help="Share of the rate.")
@click.option("--repeats", type=int, default=3, help="Searches; the median counts.")
def find_rate(
    root: Path, rate: float | None, duration: float | None, seed: int | None, target: Target, **limits: Any
) -> int:
    """Find the highest rate at which publishing and live delivery both stay within their limits.

    Every rate is a run of its own (--duration, 6 s if left out); a rate that fails is tried again, and the
    whole search is repeated. Says what saturated.
    """
    if rate is not None:
        raise ConfigError("--rate is what is searched for; give --low and --high")
    search = Search(**limits)
    scenario = changed(Scenario(name="find-rate", warm_up=2.0), duration=duration or 6.0, seed=seed)
    with Interrupts() as interrupts, target.open(scenario.brokers) as (destination, stack):

        async def probe(at: float) -> Probe:
            plan = at_rate(scenario, at)
            result = await run_scenario(plan, settings=destination.settings, stack=stack, root=root)
            found = probe_of(result, search, at)
            state = f"no: {found.reason}" if found.reason else "holds"
            p99 = f"publish p99 {found.publish_p99:8.1f} ms  live p99 {found.live_p99:8.1f} ms"
            say(f"{at:>10,.0f}/s  {p99}  {state}")
            if result.state == "interrupted":
                raise asyncio.CancelledError
            return found

        finding = interrupts.run(search_rate(search, probe))
    if not finding.rate:
        stdout.print(f"Not even {search.low:,.0f} events/s hold: {finding.saturated}")
        return MISSED
    rates = sorted(finding.rates)
    stdout.print(
        f"{finding.rate:,.0f} events/s hold publish p99 ≤ {search.publish_p99:g} ms and live p99 ≤ "
        f"{search.live_p99:g} ms (median of {len(rates)} searches, {rates[0]:,.0f} to {rates[-1]:,.0f}).\n"
        f"What saturated: {finding.saturated}"
    )
    say(f"next: dualstream smoke --rate {finding.rate * 0.8:.0f}")
    return 0
