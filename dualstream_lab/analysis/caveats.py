"""What to keep in mind about a comparison, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from dualstream_lab.analysis.comparison import ASSUMED, Arm, differing, in_turns, setup, surroundings
from dualstream_lab.analysis.measure import MEASURES

_SHOWN: Final = 6
_BUSIER: Final = 0.15
_STATES: Final = {
    "interrupted": "was interrupted",
    "running": "did not end: its writers died, or it still runs",
}


def settings_between(base: Arm, other: Arm) -> list[str]:
    """``name: this, that`` of the workload and the settings that are not the same in both."""
    return differing(setup(base.runs[0].manifest), setup(other.runs[0].manifest))


def caveats(base: Arm, *compared: Arm) -> list[str]:
    """Sentences about these arms: what differs besides what is compared, what is missing, what repeats would
    tell.
    """
    arms = (base, *compared)
    found = [sentence for other in compared for sentence in _between(base, other)]
    found += [sentence for arm in arms for sentence in _of(arm)]
    alike = [arm.name for arm in compared if not settings_between(base, arm)]
    if len(alike) > 1 and all(len(arm.runs) == 1 for arm in arms):
        found.append(
            f"{base.name}, {_some(alike)} are of the same settings: a quoted pattern ('runs/base-*') or "
            "their directory takes them for repeats"
        )
    for name, measure in MEASURES.items():
        if without := [run.name for arm in arms for run in arm.runs if not measure.has(run)]:
            found.append(f"{name} is not compared: it was not recorded, or not whole, in {_some(without)}")
    return found


def _between(base: Arm, other: Arm) -> Iterator[str]:
    one, two = base.runs[0].manifest, other.runs[0].manifest
    if others := differing(surroundings(one), surroundings(two)):
        yield f"{base.name} and {other.name} were not measured alike: {_some(others)}"
    few, many = sorted((base, other), key=lambda arm: len(arm.runs))
    if len(many.runs) == 1:
        p50, tail = (math.exp(ASSUMED[f"live.latency.{share}"]) for share in ("p50", "p99"))
        yield (
            f"{base.name} and {other.name} are one run each, which cannot tell how far repeats differ: by a "
            f"factor of {p50:.1f} (p50) or {tail:.1f} (tails) is assumed; three repeats of each would tell"
        )
        if one.faults or two.faults:
            yield "a single run with faults: its seconds are not alike, so its intervals are too wide"
    elif len(few.runs) == 1:
        yield f"{few.name} is one run: its repeats are taken to differ as those of {many.name} do"
    elif not in_turns(*([run.manifest for run in arm.runs] for arm in (base, other))):
        yield (
            f"the runs of {base.name} and {other.name} did not take turns: what changed with time, such as "
            "what else the machine did, looks like a difference between them"
        )
    busy, busier = sorted((base, other), key=_busy)
    if _busy(busier) - _busy(busy) > _BUSIER:
        yield (
            f"the machine was busier with {busier.name} ({_busy(busier):.0%} of its cores) than with "
            f"{busy.name} ({_busy(busy):.0%})"
        )


def _of(arm: Arm) -> Iterator[str]:
    first = arm.runs[0]
    for run in arm.runs:
        if others := differing(surroundings(first.manifest), surroundings(run.manifest)):
            yield f"{arm.name}: {first.name} and {run.name} were not measured alike: {_some(others)}"
            break
    for run in arm.runs:
        if run.manifest.state != "finished":
            yield f"{run.name} {_STATES.get(run.manifest.state, run.manifest.state)}"
        yield from (f"{run.name}: {problem}" for problem in run.problems)


def _busy(arm: Arm) -> float:
    return sum(run.busy for run in arm.runs) / len(arm.runs)


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
