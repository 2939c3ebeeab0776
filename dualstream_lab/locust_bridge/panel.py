"""A tab of Locust's web UI: our percentiles beside Locust's milliseconds, and the counters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flask import request

if TYPE_CHECKING:
    from flask import Response
    from locust.env import Environment

    from dualstream_lab.locust_bridge.controller import Controller

__all__ = ["add_panel"]

_KEY = "dualstream"
_COLUMNS = {"what": "", "count": "events", "missing": "missing", "p50": "p50 ms", "p90": "p90 ms",
            "p99": "p99 ms", "p999": "p99.9 ms", "max": "max ms"}  # fmt: skip
_TITLES = {
    "publish": "publish: intended to ack (corrected)",
    "publish_raw": "publish: sent to ack (raw)",
    "live": "live: intended to heard (corrected)",
    "live_raw": "live: sent to heard (raw)",
    "live_delay": "live: ack to heard",
    "slip": "schedule slip: intended to sent",
}
_COUNTERS = ("durable", "rejected", "unknown", "no_room", "unsent", "notified", "heard", "skipped")


def add_panel(environment: Environment, controller: Controller) -> None:
    """Add the tab."""
    web_ui = environment.web_ui
    assert web_ui is not None  # noqa: S101
    app: Any = web_ui.app
    structure = [{"key": key, "title": title} for key, title in _COLUMNS.items()]
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Dual stream", "key": _KEY}],
        "extended_tables": [{"key": _KEY, "structure": structure}],
    }

    def extend(response: Response) -> Response:
        if request.path == "/stats/requests" and response.is_json:
            payload = response.get_json()
            payload["extended_stats"] = [{"key": _KEY, "data": _rows(controller)}]
            response.set_data(app.json.dumps(payload))
        return response

    app.after_request(extend)


def _rows(controller: Controller) -> list[dict[str, Any]]:
    whole = controller.totals
    rows: list[dict[str, Any]] = []
    for key, title in _TITLES.items():
        if histogram := whole.histograms.get(key):
            names = ("p50", "p90", "p99", "p999", "max")
            values = map(histogram.quantile, (0.5, 0.9, 0.99, 0.999, 1.0))
            cells = {name: _cell(value) for name, value in zip(names, values, strict=True)}
            counts = {"count": f"{histogram.count:,}", "missing": f"{histogram.missing:,}"}
            rows.append({"what": title, **counts, **cells})
    rows += [
        {"what": name, "count": f"{whole.counters[name]:,}"} for name in _COUNTERS if name in whole.counters
    ]
    return rows


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:,.2f}"
