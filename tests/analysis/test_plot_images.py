"""What plots look like, against images that somebody has looked at.

``pytest tests/analysis/test_plot_images.py --mpl-generate-path=tests/analysis/baseline`` makes them anew:
look at each.
"""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dualstream_lab import analysis
from dualstream_lab.analysis.paired import Interval
from tests.analysis.test_plots import KILLED, entry, made_up, table

mpl.use("Agg")
FAULTS = [("redis.kill", 4.0, 6.0), ("redis.stop", 7.0, 8.0)]

image = pytest.mark.mpl_image_compare(
    baseline_dir="baseline",
    tolerance=1,  # RMS of 255: a bar in another colour is 2; the lock pins what draws the letters
    style="default",  # with its own bundled font
    deterministic=True,
    savefig_kwargs={"dpi": 50},
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def lively():
    """Latencies that vary, of a fixed generator."""
    rng = np.random.default_rng(1)
    live = rng.lognormal(1, 0.6, 1000)
    live[400:600] = np.nan
    live[700:800] = np.linspace(1000, 5, 100)
    return made_up(live=live, faults=FAULTS)


@image
def test_latency_heatmap():
    return analysis.plot_latency_heatmap(lively(), width=0.2).figure


@image
def test_latency_over_time():
    return analysis.plot_latency_over_time(lively()).figure


@image
def test_percentiles():
    return analysis.plot_percentiles({"base": made_up(), "with faults": [lively(), lively()]}).figure


@image
def test_timeline_with_many_faults():
    close = [("redis.kill" if k % 2 else "net.kafka.delay", 4 + k / 2, 4.2 + k / 2) for k in range(10)]
    return analysis.plot_timeline(made_up(faults=close)).figure


@image
def test_outcomes():
    frames = lively()
    frames.events.loc[300:350, "outcome"] = 3
    frames.events.loc[340:360, "outcome"] = 4
    return analysis.plot_outcomes(frames).figure


@image
def test_ledger():
    entries = [
        entry("delivered", 9_000), entry("undelivered", 900, "reconnect gap"),
        entry("undelivered", 90, "unexplained"),
        entry("lost", 10),
    ]  # fmt: skip
    return analysis.plot_ledger(entries).figure


@image
def test_recovery():
    return analysis.plot_recovery([KILLED]).figure


@image
def test_fan_out():
    return analysis.plot_fan_out(table(), x="channels", y="storm_s", by="policy").figure


@image
def test_sweep():
    rates = pd.DataFrame({"rate": [100.0, 200, 300], "durable.lag.p99": [0.0, 4, 0], "live": [2.0, 8, 16]})
    return analysis.plot_sweep(rates, columns=["durable.lag.p99", "live"]).figure


@image
def test_changes():
    rows = [
        ("live p99", [12.0, 30.0], 14.0, 33.0, 22.0, "regression"),
        ("live p50", [], -16.0, -7.0, -12.0, "better"),
        ("rate", [0.1, -0.1], -0.5, 0.5, 0.0, "not worse"),
        ("lag p99", [], 500.0, float("inf"), 900.0, "worse"),
    ]
    return analysis.plot_differences(rows, band=10).figure


@image
def test_pairs():
    found = Interval(value=0.2, low=-0.5, high=0.9, pairs=4)
    none = Interval(value=np.nan, low=-np.inf, high=np.inf, pairs=0)
    rows = [("redis.kill", [0.1, 0.3, -0.2, 9.0], found, 1.0, True), ("redis.stop", [], none, 1.0, None)]
    return analysis.plot_differences(rows).figure


@image
def test_bill():
    rows = [
        {"rate": rate, "part": part, "value": value, "low": max(1, value // 3), "high": value * 2}
        for rate, sizes in {1e4: (1, 3, 2), 1e5: (4, 3, 2), 1e6: (37, 14, 9)}.items()
        for part, value in zip(("publishers", "brokers", "shards"), sizes, strict=True)
    ]
    return analysis.plot_bill(pd.DataFrame(rows)).figure


@image
def test_predictions():
    rows = [
        ("8,000/s by 10", "publish p50", 1e-3, 1.1e-3, 0.15, True),
        ("8,000/s by 10", "publish p99", 4e-3, 2e-3, 0.25, False),
        ("8,000/s by 10", "live p99", 1e-3, 9e-3, 0.25, False),
        ("redis.stop for 5 s", "redis.stop: live unavailable", 6.2, 6.4, 0.15, True),
    ]
    names = ["setup", "figure", "measured", "predicted", "allowed", "within"]
    return analysis.plot_predictions(pd.DataFrame(rows, columns=names)).figure
