"""``dualstream calibrate``: the model's costs from recorded runs, and how well it predicts others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from dualstream_lab.cli.console import say, show_table, stdout, working
from dualstream_lab.cli.exit_codes import MISSED
from dualstream_lab.cli.options import output
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.compare.compared import run_directories
from dualstream_lab.simulation.fitting.equations import NEEDED
from dualstream_lab.simulation.fitting.fit import Fit, fit
from dualstream_lab.simulation.fitting.validate import Check, validate
from dualstream_lab.simulation.parameters import Costs
from dualstream_lab.units import quantity

_SHARES = {"broker_noise", "redis_noise"}
_SAME = 0.01  # as a share: nobody moved it


@click.command(
    epilog="Example: dualstream calibrate 'runs/sweep-*' --hold-out 'runs/check-*' --save this-machine.json"
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--hold-out", "held_out", multiple=True, metavar="RUN",
              help="Predict these runs instead; they may have faults. May be repeated.")  # fmt: skip
@output("--save", "file", help="Write the costs into this file, for `dualstream plan`.")
def calibrate(runs: tuple[str, ...], held_out: tuple[str, ...], file: Path | None) -> int:
    """Learn what each step costs on this machine from RUN..., and tell how well that predicts other runs.

    Each is a run directory, a directory of runs, or a quoted pattern. One run tells sums only: give runs that
    differ in rate, events a call, bytes an event, subscribers and publishers. What they cannot tell keeps its
    default with a wide interval, and which runs would tell it is said.

    Exit codes: 0 good; 99 a held-out run is predicted worse than allowed; 2 bad arguments, or runs that
    cannot be used; 3 what was recorded cannot be read.
    """
    learned, others = _directories(runs), _directories(held_out)
    if both := {path.resolve() for path in learned} & {path.resolve() for path in others}:
        raise ConfigError(f"--hold-out: {min(both).name} is among the runs to learn from, too")
    with working("reading …"):
        found = fit(learned)
    _show_costs(found)
    if file is not None:
        found.calibration.save(file)
        say(f"saved: {file}; next: dualstream plan ... --calibration {file}")
    if not others:
        say("next: how well it predicts runs that it has not seen:  the same with --hold-out RUN")
        return 0
    with working("simulating …"):
        checks = validate(others, found.calibration)
    _show_checks(checks)
    return 0 if all(check.within for check in checks) else MISSED


def _directories(arguments: Sequence[str]) -> list[Path]:
    """List the run directories that are named, each once and in order."""
    paths = [path for argument in arguments for path in run_directories(argument)]
    return list({path.resolve(): path for path in paths}.values())


def _show_costs(fit: Fit) -> None:
    calibration = fit.calibration
    low, high, defaults = asdict(calibration.low), asdict(calibration.high), asdict(Costs())
    rows, missing = [], defaultdict(list)
    for name, value in asdict(calibration.costs).items():
        known = name in calibration.observed
        if not known:
            missing[NEEDED[name]].append(name)
        default = abs(value - defaults[name]) < _SAME * defaults[name]
        source = "runs" if known else "default" if default else "a sum that runs tell"
        cells = (name, _text(name, value), f"{_text(name, low[name])} to {_text(name, high[name])}", source)
        rows.append([Text(cell, "" if known else "dim") for cell in cells])
    title = f"Costs of {calibration.machine}, {calibration.date}"
    show_table(title, ("cost", "value", "95 % interval", "from"), rows, align="lrrl", no_wrap=True)
    for need, names in missing.items():
        stdout.print(f"not told: {', '.join(names)}; needs {need}")
    seen = ", ".join(f"{count:,} of {station}" for station, count in fit.observations.items())
    stdout.print(f"from observations: {seen}")
    ranges = "; ".join(
        f"{name} {least:,g}" + (f" to {most:,g}" if most > least else "")
        for name, (least, most) in calibration.ranges.items()
    )
    stdout.print(f"measured: {ranges}; beyond that a figure is extrapolated")


def _text(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{value:.2f}"
    if name == "pauses":
        return f"{value:.2f}/s"
    if name == "record_byte":
        return f"{value * 1e9:.2f} ns"
    return f"{value * 1e3:,.2f} ms" if value >= 1e-3 else f"{value * 1e6:.2f} µs"


def _show_checks(checks: Sequence[Check]) -> None:
    stdout.print("\nPredicted beside measured", style="bold")
    for setup in dict.fromkeys(check.setup for check in checks):
        rows = [_row(check) for check in checks if check.setup == setup]
        columns = ("figure", "measured", "predicted", "off by", "allowed", "")
        show_table(setup, columns, rows, align="lrrrrl", no_wrap=True)
    if not checks:
        stdout.print(
            "nothing of these runs can be compared: no fault showed, and not every event was delivered"
        )
        return
    good = sum(check.within for check in checks)
    color = "green" if good == len(checks) else "bold red"
    figures = quantity(
        len(checks),
        "figure is predicted as well as it must be",
        "figures are predicted as well as they must be",
    )
    stdout.print(f"{good} of {figures}", style=color)


def _row(check: Check) -> tuple[str | Text, ...]:
    measured, predicted = (_figure(check.unit, value) for value in check.means)
    off = f"{check.error:+.0%}" if math.isfinite(check.error) else ""
    verdict = Text("good", "green") if check.within else Text("too far", "red")
    return check.figure, measured, predicted, off, f"{check.allowed:.0%}", verdict


def _figure(unit: str, value: float) -> str:
    if math.isnan(value):
        return "none"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"
    return f"{value:,.0f}" + ("/s" if unit == "events/s" else "")
