"""The deployment that a run had, or that a scenario's would have with these settings."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from dualstream_lab.simulation.parameters import Deployment
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dualstream_lab.config import Settings
    from dualstream_lab.recording import Interval, RunDirectory

__all__ = ["deployment_for", "deployment_of"]

_LANES: Final = 256
_LOCAL: Final = "127.0.0.1:"  # of a local stack, whose parts share the machine with the load
_PATIENCE: Final = 60.0  # s; a lane of a generator waits, however long
_COPIES: Final = 3  # as Kafka is mostly set up, and the local stack wherever it has so many brokers


def deployment_for(
    settings: Settings, *, lanes: int = _LANES, batch: int = 1, brokers: int = 1, publishers: int = 1,
    **parts: Any,
) -> Deployment:  # fmt: skip
    """What a load with these settings meets. ``lanes``: calls that each publisher may have open, which bound
    its buffer. ``parts``: any other field of Deployment. Raises ConfigError.
    """
    given: dict[str, Any] = {"copies": min(_COPIES, brokers)} | parts
    return Deployment(
        brokers=brokers, publishers=publishers, **_bounds(settings.model_dump(), lanes * batch) | given
    )


def deployment_of(directory: RunDirectory, intervals: Iterable[Interval]) -> Deployment:
    """How many of each part a run had. Of a real one, its lanes are the bound of what is not acknowledged."""
    manifest = directory.manifest
    settings = manifest.settings
    if manifest.engine == "simulation":
        known = {each.name for each in fields(Deployment)}
        return Deployment(**{name: value for name, value in settings.items() if name in known})
    batch = Workload.load(manifest.workload).batch
    generators = max(1, len({each.writer for each in intervals if "sent" in each.counters}))
    partitions = directory.rows("consumed").column("partition").to_numpy()
    brokers = str(settings.get("kafka_url")).count(",") + 1
    lanes = manifest.users.get("lanes", _LANES) * batch // generators
    return Deployment(
        publishers=generators,
        brokers=brokers,
        copies=min(_COPIES, brokers),
        partitions=int(partitions.max(initial=0)) + 1,
        subscribers=manifest.users.get("subscribers", 1),
        cores=manifest.machine.get("cores", 0) if _LOCAL in str(settings.get("kafka_url")) else 0,
        **_bounds(settings, lanes),
    )


def _bounds(settings: Mapping[str, Any], lanes: int) -> dict[str, Any]:
    """Of a publisher whose callers have so many events open."""
    names = ("batch_bytes", "delivery_timeout", "redis_timeout", "notify_queue")
    return {name: settings[name] for name in names} | {
        "buffer_events": max(1, min(settings["buffer_events"], lanes)),
        "buffer_timeout": _PATIENCE,
    }
