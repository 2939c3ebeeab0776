"""What a run's figures depend on, besides what is compared: load, settings, machine, versions."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dualstream_lab.recording import Manifest

__all__ = ["differing", "in_turns", "setup", "surroundings"]

_PLACES: Final = {"settings.kafka_url", "settings.redis_url", "settings.topic"}
_CHANCE: Final = {"workload.seed", "settings.seed"}


def setup(manifest: Manifest) -> dict[str, Any]:
    """What was asked for, by name. Where the brokers are is no matter, nor which plan of the same kind."""
    found: dict[str, Any] = {"engine": manifest.engine}
    for part in ("workload", "settings", "users"):
        found |= {f"{part}.{name}": value for name, value in getattr(manifest, part).items()}
    found["faults"] = ", ".join(fault.what for fault in manifest.faults) or "none"
    return {name: value for name, value in found.items() if name not in _PLACES | _CHANCE}


def surroundings(manifest: Manifest) -> dict[str, Any]:
    """On what, and with which versions, by name."""
    return {
        f"{part}.{name}": value
        for part in ("machine", "versions")
        for name, value in getattr(manifest, part).items()
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """``name: this, that`` of whatever is not the same in both."""
    return [
        f"{name}: {one.get(name, 'none')}, {other.get(name, 'none')}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def in_turns(one: Sequence[Manifest], other: Sequence[Manifest]) -> bool:
    """Whether the runs of both took turns at least twice, so that what changes with time is in both."""
    times = sorted(
        (manifest.clocks.wall, number) for number, arm in enumerate((one, other)) for manifest in arm
    )
    return sum(before[1] != after[1] for before, after in pairwise(times)) > 1
