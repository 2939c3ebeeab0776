"""Our counts in Locust's statistics, events and not calls, many at a time; and a tab of its web UI.

Firing Locust's ``request`` event costs 4.5 µs, and a batch of a thousand events is a thousand requests:
so what an interval counted is added at once. Locust keeps milliseconds; the exact histograms are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from flask import request
from locust.stats import StatsError, bucket_response_time

from dualstream_lab.recording import Interval
from dualstream_lab.units import cell
from dualstream_lab.verdict.measures import Totals

if TYPE_CHECKING:
    from flask import Response
    from locust.env import Environment
    from locust.stats import RequestStats, StatsEntry

# histogram: (method, name, whether it counts in the aggregated line)
_ENTRIES: Final = {
    "publish": ("PUBLISH", "intended to ack", True),
    "publish_raw": ("PUBLISH", "sent to ack (raw)", False),
    "live": ("RECEIVE", "intended to received", False),
    "live_raw": ("RECEIVE", "sent to received (raw)", False),
    "live_delay": ("RECEIVE", "ack to received", False),
}
_FAILURES: Final = {
    "rejected": "rejected by Kafka", "unknown": "outcome unknown: the deadline passed",
    "no_room": "no room in the publisher's buffer", "unsent": "due, and not sent before the stop",
}  # fmt: skip
_KEY = "dualstream"
_COLUMNS = {"what": "", "count": "events", "missing": "missing", "p50": "p50 ms", "p90": "p90 ms",
            "p99": "p99 ms", "p999": "p99.9 ms", "max": "max ms"}  # fmt: skip
_TITLES = {
    "publish": "publish: intended to ack (corrected)",
    "publish_raw": "publish: sent to ack (raw)",
    "live": "live: intended to received (corrected)",
    "live_raw": "live: sent to received (raw)",
    "live_delay": "live: ack to received",
    "slip": "schedule slip: intended to sent",
}
_COUNTERS = ("durable", "rejected", "unknown", "no_room", "unsent", "notified", "delivered", "skipped")


def add_interval(stats: RequestStats, interval: Interval) -> None:
    """Add what one interval counted."""
    for key, (method, name, in_total) in _ENTRIES.items():
        histogram = interval.histograms.get(key)
        if histogram is None:
            continue
        values, counts = histogram.values()
        for entry in (stats.entries[name, method], *([stats.total] if in_total else [])):
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                _log(entry, value, count)
    for key, text in _FAILURES.items():
        if count := interval.counters.get(key, 0):
            _fail(stats, text, count)


def _log(entry: Any, value: float, count: int) -> None:
    """What StatsEntry.log does, ``count`` times."""
    _arrive(entry, count)
    entry.total_response_time += value * count
    entry.min_response_time = (
        value if entry.min_response_time is None else min(entry.min_response_time, value)
    )
    entry.max_response_time = max(entry.max_response_time or 0, value)
    entry.response_times[bucket_response_time(value)] += count


def _arrive(entry: StatsEntry, count: int) -> None:
    now = time.time()
    # Locust's charts show the difference to an earlier second: it keeps one copy a second.
    if (
        entry.use_response_times_cache
        and entry.last_request_timestamp
        and int(now) > int(entry.last_request_timestamp)
    ):
        entry._cache_response_times(int(now) - 1)  # noqa: SLF001
    entry.num_requests += count
    entry.num_reqs_per_sec[int(now)] += count
    entry.last_request_timestamp = now


def _fail(stats: RequestStats, text: str, count: int) -> None:
    method, name, _ = _ENTRIES["publish"]
    for entry in (stats.entries[name, method], stats.total):
        _arrive(entry, count)
        entry.num_none_requests += count
        entry.num_failures += count
        entry.num_fail_per_sec[int(time.time())] += count
    key = StatsError.create_key(method, name, text)
    error = stats.errors.setdefault(key, StatsError(name, method, text))
    error.occurrences += count


def add_tab(environment: Environment, totals: Callable[[], Totals]) -> None:
    """Add the tab, with what ``totals`` gives each time it is looked at."""
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
            payload["extended_stats"] = [{"key": _KEY, "data": _rows(totals())}]
            response.set_data(app.json.dumps(payload))
        return response

    app.after_request(extend)


def _rows(whole: Totals) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for key, title in _TITLES.items():
        if histogram := whole.histograms.get(key):
            names = ("p50", "p90", "p99", "p999", "max")
            values = map(histogram.quantile, (0.5, 0.9, 0.99, 0.999, 1.0))
            cells = {name: cell(value) for name, value in zip(names, values, strict=True)}
            counts = {"count": f"{histogram.count:,}", "missing": f"{histogram.missing:,}"}
            rows.append({"what": title, **counts, **cells})
    rows += [
        {"what": name, "count": f"{whole.counters[name]:,}"} for name in _COUNTERS if name in whole.counters
    ]
    return rows
