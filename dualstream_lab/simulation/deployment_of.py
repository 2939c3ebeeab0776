"""The deployment that a run had, or that a scenario's would have with these settings."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from dualstream_lab.simulation.parameters import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dualstream_lab.config import Settings
    from dualstream_lab.recording import Interval, RunDirectory

__all__ = ["deployment_for", "deployment_of"]

_LANES: Final = 256
_LOCAL: Final = "127.0.0.1:"  # of a local stack, whose parts share the machine with the load
_COPIES: Final = 3  # as Kafka is mostly set up, and the local stack wherever it has so many brokers


def deployment_for(settings: Settings, *, lanes: int = _LANES, brokers: int = 1, **parts: Any) -> Deployment:
    """What a load with these settings meets. ``lanes``: of each publisher, its callers. ``parts``: any other
    field of Deployment. Raises ConfigError.
    """
    given: dict[str, Any] = {"copies": min(_COPIES, brokers)} | parts
    return Deployment(brokers=brokers, callers=lanes, **_bounds(settings.model_dump()) | given)


def deployment_of(directory: RunDirectory, intervals: Iterable[Interval]) -> Deployment:
    """How many of each part a run had. The callers of a real one are its lanes."""
    manifest = directory.manifest
    settings = manifest.settings
    if manifest.engine == "simulation":
        known = {each.name for each in fields(Deployment)}
        return Deployment(**{name: value for name, value in settings.items() if name in known})
    generators = max(1, len({each.writer for each in intervals if "sent" in each.counters}))
    partitions = directory.rows("consumed").column("partition").to_numpy()
    brokers = str(settings.get("kafka_url")).count(",") + 1
    return Deployment(
        publishers=generators,
        brokers=brokers,
        copies=min(_COPIES, brokers),
        partitions=int(partitions.max(initial=0)) + 1,
        subscribers=manifest.users.get("subscribers", 1),
        callers=max(1, manifest.users.get("lanes", _LANES) // generators),
        cores=manifest.machine.get("cores", 0) if _LOCAL in str(settings.get("kafka_url")) else 0,
        **_bounds(settings),
    )


def _bounds(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a publisher."""
    names = (
        "batch_bytes", "buffer_events", "buffer_timeout", "delivery_timeout", "redis_timeout", "notify_queue"
    )  # fmt: skip
    return {name: settings[name] for name in names}
