"""How to make the same run again, from what its manifest says."""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import fault_named
from dualstream_lab.lab.report.report import Report
from dualstream_lab.recording import FaultRecord, Manifest
from dualstream_lab.workload import Workload

_OPTIONS = {"batch": "batch-size", "low": "plan-low", "period": "plan-period", "steps": "plan-steps"}
"""Locust's names of a workload's fields."""

_PARTS = (
    "publishers", "brokers", "partitions", "replication_factor", "shards", "subscribers", "gateways",
    "clients",
    "consumers", "cores", "tick",
)  # fmt: skip
"""Of a deployment, as `dualstream simulate` has them."""


def command(report: Report) -> str:
    """The command line that makes the same run again, from the file whose text is :func:`scenario`."""
    manifest = report.manifest
    if manifest.simulated:
        words = ["dualstream", "simulate", f"{manifest.name}.toml", *_parts(manifest)]
        return shlex.join(words)
    if manifest.engine != "locust":
        return f"dualstream run {manifest.name}.toml"
    words = ["locust", "-f", "LOCUSTFILE", "--headless", "--users", str(manifest.users.get("concurrency", 1))]
    if manifest.users.get("workers", 1) > 1:
        words += ["--processes", str(manifest.users["workers"])]
    for name, value in _changed(report.workload, {"batch": 100}).items():
        words += [f"--{_OPTIONS.get(name, name).replace('_', '-')}", f"{value}"]
    words += ["--run-time", f"{math.ceil(report.workload.duration)}s"]
    for text in manifest.thresholds:
        words += ["--threshold", text]
    return shlex.join(words)


def scenario(report: Report) -> str:
    """The run as a scenario file in TOML: its plan, faults and thresholds. Of a run that did not record what
    was asked for (one of Locust), the faults as they really were.
    """
    manifest = report.manifest
    asked = dict(manifest.asked)
    faults = asked.pop("faults", None)
    lines = [f"name = {json.dumps(manifest.name)}", *(f"{name} = {_toml(asked[name])}" for name in asked)]
    if manifest.thresholds:
        lines += ["thresholds = [", *(f"    {json.dumps(text)}," for text in manifest.thresholds), "]"]
    lines += ["", "[workload]"]
    work = report.workload
    plan = {"rate": work.rate, "duration": work.duration} | _changed(work, {})
    lines += [f"{name} = {_toml(value)}" for name, value in plan.items()]
    users = {name: manifest.users[name] for name in ("concurrency", "subscribers") if name in manifest.users}
    if manifest.simulated:  # the rest are options
        bound = (users["concurrency"] - 1) // manifest.settings[
            "publishers"
        ]  # of the buffer, if nothing else
        users = {"concurrency": manifest.settings.get("callers") or max(1, bound)}
    if users:
        lines += ["", "[users]", *(f"{name} = {value}" for name, value in users.items())]
    if faults is None:
        tables = [_measured(manifest, fault) for fault in manifest.faults]
    else:
        tables = [[f"{name} = {_toml(value)}" for name, value in fault.items()] for fault in faults]
    for table in tables:
        lines += ["", "[[faults]]", *table]
    return "\n".join(lines) + "\n"


def _parts(manifest: Manifest) -> list[str]:
    """The deployment of a simulated run, as options of `dualstream simulate`."""
    settings = manifest.settings
    unused = "subscribers" if settings.get("gateways") else "clients"
    found = [(name, settings[name]) for name in _PARTS if name in settings and name != unused]
    return [word for name, value in found for word in (f"--{name.replace('_', '-')}", f"{value:g}")]


def _changed(workload: Workload, usual: dict[str, object]) -> dict[str, object]:
    """The fields of a workload that differ from what they are when left out."""
    plain = Workload().as_dict() | usual
    return {name: value for name, value in workload.as_dict().items() if value != plain[name]}


def _measured(manifest: Manifest, fault: FaultRecord) -> list[str]:
    """A fault as lines of TOML: ``at`` and ``for`` to a tenth of a second, as they were measured just after
    they were due.
    """
    begin, end = fault.begin - manifest.started, (fault.end or manifest.ended) - manifest.started
    lines = [f"fault = {json.dumps(fault.name)}", f"at = {max(0, _tenths(begin)):g}"]
    try:
        kind = fault_named(fault.name)
    except ConfigError:  # of another version
        return [*lines, f"for = {_tenths(end - begin):g}"]
    if not kind.instant:
        lasted = max(0.1, _tenths(end - begin))
        lines.append(f"for = {lasted:g}  # as long as it lasted, mending included")
    if kind.parameters:
        names = ", ".join(one.name for one in kind.parameters)
        lines.append(f"# {names}: as you had them; the run did not record it")
    return lines


def _tenths(span: int) -> float:
    return math.floor(span / 1e8) / 10


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    return f"{value:.0f}" if float(value).is_integer() else f"{value}"
