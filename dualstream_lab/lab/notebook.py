"""``await lab.run(…)``: a run from a notebook, with a progress bar and a live plot.

The load runs in other processes; this one only reads the run directory, so drawing cannot delay it, and
Locust's gevent is never loaded here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from dualstream_lab.config import Settings
from dualstream_lab.faults.spec import FaultSpec as Fault
from dualstream_lab.lab.result import Run
from dualstream_lab.lab.runner import Progress, run_scenario
from dualstream_lab.lab.scenario import Scenario, Users
from dualstream_lab.stack import LocalStack
from dualstream_lab.verdict.thresholds import Threshold
from dualstream_lab.workload import Workload

_REDRAW = 1.0  # s of the run


async def run(
    scenario: Scenario | str | None = None,
    *,
    stack: LocalStack | None = None,
    settings: Settings | None = None,
    root: Path | str = "runs",
    live: bool = True,
    name: str | None = None,
    faults: Sequence[Fault] | None = None,
    thresholds: Sequence[str] | None = None,
    users: Users | None = None,
    warm_up: float | None = None,
    target_is_mine: bool = False,
    **workload: Any,
) -> Run:
    """Run a scenario (an object, a file's path, or a shipped one's name) and return what came of it.

    Keywords change it: ``rate=``, ``duration=`` and the other fields of :class:`Workload`, ``faults=``,
    ``thresholds=`` (texts), ``users=``, ``warm_up=`` (s). Where: ``stack``, else the brokers of ``settings``,
    else a local stack made for this run. ``target_is_mine``: faults may change the brokers of ``settings``.
    ``root``: where run directories go. ``live``: draw while it runs.

    The stop button ends the load and returns the run as ``interrupted``, with all that was recorded. Raises
    ConfigError, StackError or StreamUnavailable before any load is sent, FaultInert for a fault that does not
    bite.
    """
    base = Scenario.read(scenario) if isinstance(scenario, str) else scenario or Scenario()
    changes: dict[str, Any] = {
        "name": name,
        "faults": None if faults is None else tuple(faults),
        "thresholds": None if thresholds is None else tuple(map(Threshold.parse, thresholds)),
        "users": users,
        "warm_up": warm_up,
        "workload": Workload.load(base.workload.as_dict() | workload) if workload else None,
    }
    plan = replace(base, **{key: value for key, value in changes.items() if value is not None})
    display = _Display(plan) if live and in_notebook() else None
    try:
        return await run_scenario(
            plan,
            settings=settings,
            stack=stack,
            root=Path(root),
            target_is_mine=target_is_mine,
            show=display.show if display else lambda _progress: None,
        )
    finally:
        if display:
            display.close()


def in_notebook() -> bool:
    """Whether this is a notebook, which can show widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class ProgressBar:
    """A bar of a notebook, with a line of text below it."""

    def __init__(self, total: float, description: str = "") -> None:
        import ipywidgets  # noqa: PLC0415
        from IPython import display  # noqa: PLC0415

        self._bar = ipywidgets.FloatProgress(max=total, description=description)
        self._line = ipywidgets.Label()
        display.display(ipywidgets.VBox([self._bar, self._line]))  # type: ignore[no-untyped-call]

    def show(self, value: float, line: str) -> None:
        """How far it is, and what is going on."""
        self._bar.value, self._line.value = value, line

    def finish(self, style: str) -> None:
        """Colour the bar: ``success`` or ``warning``."""
        self._bar.bar_style = style


class _Display:
    """A progress bar with a line of counts, and below it rates and latency so far."""

    def __init__(self, scenario: Scenario) -> None:
        from IPython import display  # noqa: PLC0415

        self._scenario = scenario
        self._bar = ProgressBar(scenario.workload.duration, scenario.name)
        self._drawn = -1.0
        # A client of Kafka complains of every retry; what became of it is in the run.
        self._logger = logging.getLogger("aiokafka")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)
        self._plot = display.display(display_id=True)  # type: ignore[no-untyped-call]

    def show(self, progress: Progress) -> None:
        """Bring the bar, and about once a second the plot, up to date."""
        self._bar.show(
            min(progress.seconds, progress.duration), f"{progress.seconds:5.1f} s  {progress.line}"
        )
        if progress.series and progress.seconds - self._drawn >= _REDRAW:
            self._drawn = progress.seconds
            self._draw(progress)

    def _draw(self, progress: Progress) -> None:
        from IPython.display import Image  # noqa: PLC0415

        from dualstream_lab.analysis.plots.rates import draw_live  # noqa: PLC0415

        figure = draw_live(progress.series, duration=progress.duration, rate=self._scenario.workload.rate)
        picture = BytesIO()
        figure.savefig(picture, format="png")
        self._plot.update(Image(picture.getvalue()))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """End the display, and let the client of Kafka speak again."""
        self._logger.setLevel(self._level)
        self._bar.finish("success")
