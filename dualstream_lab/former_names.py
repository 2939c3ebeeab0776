"""What files of the format before call things, and what it is called now: such files are still read.

``{then: now}``, all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

V = TypeVar("V")

USERS: Final = {"lanes": "concurrency"}
"""Of a scenario file and a manifest."""

MEASURES: Final = {"live.heard": "live.delivered", "live.late": "live.recovered"}

ROWS: Final = {"heard": "delivered"}
"""Kinds of rows: in names of files, of counters and of gauges."""

COLUMNS: Final = {"late": "by_repair"}

LEDGER: Final = {
    "heard": "delivered", "silent": "undelivered", "heard-after-giving-up": "delivered-after-giving-up",
    "late": "recovered", "early": "before-consumer",
}  # fmt: skip
"""Classes and marks."""

RULES: Final = {"others": "background"}
"""Of a proof of isolation that was kept."""

COSTS: Final = {
    "kafka_trip": "kafka_rtt", "redis_trip": "redis_rtt", "fetch_trip": "fetch_delay",
    "hear": "receive_delay",
}  # fmt: skip
"""Of a calibration."""

DEPLOYMENT: Final = {"copies": "replication_factor"}

CAUSES: Final = {"killed for slowness": "killed as slow", "generator fault": "generator"}
_DROPPED: Final = ("publisher dropped: ", "dropped by the publisher: ")
FAULTS: Final = {"what": "fault"}
"""Of a scenario file, and of a verdict's recoveries."""
_RECORD: Final = {"what": "name"}

_RECOVERY: Final = {"silent": "unavailable"}


def renamed(values: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    """With the keys of now."""
    return {names.get(name, name): value for name, value in values.items()}


def before(names: Mapping[str, str], name: str) -> str:
    """What ``name`` was called."""
    return next((then for then, now in names.items() if now == name), name)


def renamed_counters(counters: Mapping[str, V], gauges: Mapping[str, Any]) -> dict[str, V]:
    """Of one process's interval. A gateway's clients counted as late what was recovered."""
    via_gateway = gauges.get("heard.via_gateway")
    return renamed(counters, {**ROWS, "late": "recovered" if via_gateway else "late_acks"})


def renamed_gauges(gauges: Mapping[str, V]) -> dict[str, V]:
    """They begin with their kind of rows."""
    kinds = {name: name.partition(".") for name in gauges}
    return renamed(
        gauges, {name: ROWS.get(kind, kind) + dot + rest for name, (kind, dot, rest) in kinds.items()}
    )


def renamed_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """A ``manifest.json``. The settings of a simulated run are its deployment and its costs."""
    match manifest:
        case {"settings": {"costs": dict(costs)} as settings}:
            settings = settings | {"costs": renamed(costs, COSTS)}
            manifest = manifest | {"settings": renamed(settings, DEPLOYMENT)}
    match manifest:
        case {"users": dict(users)}:
            manifest = manifest | {"users": renamed(users, USERS)}
    match manifest:
        case {"faults": list(faults)}:
            named = [renamed(fault, _RECORD) if isinstance(fault, dict) else fault for fault in faults]
            manifest = manifest | {"faults": named}
    return manifest


def renamed_calibration(values: Mapping[str, Any]) -> dict[str, Any]:
    """Its costs and ranges. Raises what a damaged one gives rise to: KeyError, AttributeError, TypeError."""
    found: dict[str, Any] = {"observed": values.get("told")} | dict(values)
    return found | {
        "observed": [COSTS.get(name, name) for name in found["observed"]],
        "ranges": renamed(found["ranges"], DEPLOYMENT),
        **{name: renamed(found[name], COSTS) for name in ("costs", "low", "high")},
    }


def renamed_proof(kept: Any) -> Any:
    """What a proof's directory says of it. Anything else stays as it is."""
    match kept:
        case {"options": {"rules": dict(rules)} as options}:
            return kept | {"options": options | {"rules": renamed(rules, RULES)}}
    return kept


def renamed_verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A ``verdict.json``. Raises what a damaged one gives rise to: TypeError, AttributeError, KeyError."""
    entries = {
        key: [
            entry
            | {"name": LEDGER.get(entry["name"], entry["name"])}
            | ({"cause": _cause(entry["cause"])} if "cause" in entry else {})
            for entry in verdict.get(key, ())
        ]
        for key in ("ledger", "marks")
    }
    recovery = [
        {
            name: renamed(part, _RECOVERY) if isinstance(part, dict) else part
            for name, part in renamed(fault, FAULTS).items()
        }
        for fault in verdict["recovery"]
    ]
    return {
        **verdict, **entries, "recovery": recovery, "measures": renamed(verdict["measures"], MEASURES),
        "counters": renamed(verdict["counters"], ROWS),
    }  # fmt: skip


def _cause(cause: str) -> str:
    return CAUSES.get(cause, cause.replace(*_DROPPED))
