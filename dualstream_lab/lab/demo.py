"""The demonstration: a steady stream of events through both streams, while Redis is killed and comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from dualstream_lab.analysis import Frames, load, plot_latency_over_time, plot_timeline
from dualstream_lab.analysis.statistics import Latency, latency_ms
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec as Fault
from dualstream_lab.lab.result import Run
from dualstream_lab.lab.runner import Progress, run_scenario
from dualstream_lab.lab.scenario import Scenario
from dualstream_lab.stack import LocalStack
from dualstream_lab.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The load of the demonstration, and its outage. ``outage``: Redis is killed at the first second and
    started at the second one.

    Raises ConfigError for an outage that does not lie within the run.
    """

    workload: Workload
    outage: tuple[float, float] = (8.0, 12.0)

    def __post_init__(self) -> None:
        down, back = self.outage
        if not 0 < down < back < self.workload.duration:
            raise ConfigError(
                f"outage {down:g}:{back:g}: must be from:to with 0 < from < to < duration "
                f"({self.workload.duration:g} s)"
            )

    @property
    def scenario(self) -> Scenario:
        """The demonstration as a scenario that the lab can run."""
        down, back = self.outage
        fault = Fault(name="redis.kill", at=down, length=back - down)
        return Scenario(name="demo", workload=self.workload, faults=(fault,))


class Phase(NamedTuple):
    """Latencies of the events that were intended in one phase, ms from their intended time."""

    name: str
    begin: float
    end: float
    publish: Latency
    kafka: Latency
    redis: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a demonstration: its run, the latencies of its phases, and a picture of both."""

    run: Run
    phases: tuple[Phase, ...]
    picture: Path

    @property
    def good(self) -> bool:
        """Whether every intended event is durable, and a consumer has read each of them, once."""
        found = self.run.measures
        return not (found["publish.errors"] or found["ledger.lost"] or found["durable.repeated"])


async def run_demo(demo: Demo, stack: LocalStack, root: Path, show: Callable[[Progress], None]) -> Result:
    """Run the demonstration on a started stack, into a run directory below ``root``, with ``timeline.png``.

    Raises as :func:`run_scenario`.
    """
    run = await run_scenario(demo.scenario, stack=stack, root=root, show=show)
    frames = load(run)
    picture = run.path / "timeline.png"
    _draw(frames, run, picture)
    down, back = frames.faults["begin_s"].iloc[0], frames.faults["end_s"].iloc[0]
    spans = (("before", 0.0, down), ("Redis away", down, back), ("after", back, demo.workload.duration))
    at, phases = frames.events["intended_s"], []
    for name, begin, end in spans:
        inside = frames.events[(at >= begin) & (at < end)]
        columns = (inside[column].to_numpy() for column in ("publish_ms", "consumed_ms", "live_ms"))
        phases.append(Phase(name, begin, end, *map(latency_ms, columns)))
    return Result(run=run, phases=tuple(phases), picture=picture)


def _draw(frames: Frames, run: Run, file: Path) -> None:
    """Draw the rates and the latencies over time, as a PNG of 1400 by 1100 pixels."""
    found = run.measures
    figure = Figure(figsize=(10, 7.9), dpi=140, layout="constrained")
    rates, publish, delivery = figure.subplots(3, 1)
    figure.suptitle(
        f"{frames.manifest.workload['rate']:,.0f} events/s through a Redis outage: "
        f"{found['publish.durable']:,.0f} of {found['publish.intended']:,.0f} durable, "
        f"{found['live.delivered']:,.0f} delivered live",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    plot_timeline(frames, rates)
    plot_latency_over_time(frames, publish, columns=["publish_ms"], width=0.2)
    publish.set_title("Publish latency", loc="left", fontsize=11)
    plot_latency_over_time(frames, delivery, columns=["consumed_ms", "live_ms"], width=0.2)
    delivery.set_title("Delivery latency", loc="left", fontsize=11)
    for axes in (rates, publish):
        axes.set_xlabel("")
    figure.savefig(file)
