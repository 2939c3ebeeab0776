"""Plots by what their artists hold; what they look like is in test_plot_images.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from dualstream_lab import analysis
from dualstream_lab.analysis import Frames
from dualstream_lab.errors import ConfigError
from dualstream_lab.ledger import Entry, Path, Recovery
from dualstream_lab.recording import Clocks, Manifest
from dualstream_lab.workload import Workload

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def made_up(*, live: np.ndarray | None = None, faults: list[tuple[str, float, float]] = []) -> Frames:  # noqa: B006
    """10 s at 100/s: acknowledged after 2 ms, read after 3; received after 1, but from 4 s to 6 s never."""
    at = np.arange(1000) / 100
    if live is None:
        live = np.where((at >= 4) & (at < 6), np.nan, 1.0)
    of = {"publish_ms": 2.0, "publish_raw_ms": 1.5, "live_raw_ms": 1.0, "delay_ms": -1.0, "consumed_ms": 3.0}
    events = pd.DataFrame({"seq": np.arange(1000), "source": 0, "outcome": np.int8(1), "intended_s": at})
    return Frames(
        name="made-up",
        events=events.assign(**of, live_ms=live).astype(dict.fromkeys([*of, "live_ms"], np.float32)),
        seconds=pd.DataFrame({"at_s": []}),
        faults=pd.DataFrame(faults, columns=["fault", "begin_s", "end_s"]),
        manifest=Manifest(
            name="made-up", run="r", ids="0" * 24, clocks=Clocks(monotonic=0, wall=0), settings={},
            workload=Workload(rate=100, duration=10, batch=1).as_dict(), started=1, state="finished",
        ),
        sample=1,
        problems=(),
        has=frozenset({"published", "delivered", "consumed"}),
    )  # fmt: skip


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def cells(axes):
    """(latencies, never) of a heat map: events by latency and window, 0 where nothing is drawn."""
    meshes = [each for each in axes.collections if isinstance(each, QuadMesh)]
    return [np.ma.filled(mesh.get_array(), 0) for mesh in meshes]


def test_a_heat_map_counts_every_event_once_and_never_is_a_band_of_its_own():
    frames = made_up(faults=[("redis.kill", 4, 6)])
    _, axes = plt.subplots()
    assert analysis.plot_latency_heatmap(frames, axes, width=1.0) is axes
    arrived, never = cells(axes)
    assert never.tolist() == [[0, 0, 0, 0, 100, 100, 0, 0, 0, 0]]
    assert arrived.sum(axis=0).tolist() == [100, 100, 100, 100, 0, 0, 100, 100, 100, 100]
    assert [text.get_text() for text in axes.get_yticklabels()][-1] == "missing"
    assert [text.get_text() for text in axes.texts] == ["Redis killed"]
    assert axes.get_ylabel() == "latency (ms)"


def test_a_heat_map_has_each_latency_in_its_bin():
    live = np.repeat([1.0, 1000.0], 500)
    axes = analysis.plot_latency_heatmap(made_up(live=live), width=5.0)
    mesh = axes.collections[0]
    low = mesh.get_coordinates()[:, 0, 1]
    arrived, _ = cells(axes)
    assert [tuple(place) for place in np.argwhere(arrived)] == [(0, 0), (len(arrived) - 1, 1)]
    assert low[0] <= 1.0 < low[1]
    assert low[-2] <= 1000.0 * 1.001
    assert low[-1] > 1000.0


def test_a_sample_stands_for_all_events_in_a_heat_map():
    arrived, never = cells(analysis.plot_latency_heatmap(replace(made_up(), sample=5)))
    assert arrived.sum() + never.sum() == 5 * 1000


def test_a_heat_map_of_no_latency_is_refused():
    with pytest.raises(ConfigError, match="live_ms"):
        analysis.plot_latency_heatmap(made_up(), column="outcome")


def test_percentiles_of_several_runs_are_pooled_by_name():
    slow, slower = (made_up(live=np.full(1000, ms)) for ms in (5.0, 50.0))
    axes = analysis.plot_percentiles({"base": made_up(live=np.full(1000, 1.0)), "new": [slow, slower]})
    drawn = lines(axes)
    assert list(drawn) == ["base", "new (2 runs)"]
    assert set(drawn["base"][:, 1]) == {1.0}
    new = drawn["new (2 runs)"]
    at = np.searchsorted(new[:, 0], -np.log10(0.5) + 0.02)  # beyond the median
    assert new[: at - 2, 1].tolist() == [5.0] * (at - 2)
    assert set(new[at:, 1]) == {50.0}
    assert new[-1, 0] == pytest.approx(np.log10(2000), abs=0.02), "no nine that has no event"


def test_a_percentile_line_ends_where_events_never_arrived_and_none_is_said():
    nobody = made_up(live=np.full(1000, np.nan))
    drawn = lines(analysis.plot_percentiles({"some": made_up(), "nobody": nobody}))
    assert drawn["some"][-1, 0] == pytest.approx(-np.log10(0.2), abs=0.02)
    assert len(drawn["nobody: nothing arrived"]) == 0


def entry(name: str, count: int, cause: str = "") -> Entry:
    return Entry(name=name, meaning="", count=count, share=count / 10_000, examples=(), cause=cause)


def bars(axes):
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))


def test_a_ledger_has_a_bar_a_class_and_cause_and_says_what_never_happened():
    axes = analysis.plot_ledger([entry("delivered", 9_950), entry("undelivered", 50, "reconnect gap")])
    assert bars(axes) == {"delivered": 9_950, "undelivered: reconnect gap": 50, "lost": 0, "orphan": 0}
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["9,950  (99.50%)", "50  (0.50%)", "none", "none"]
    assert axes.get_xscale() == "log"


def test_a_ledger_says_loudly_what_must_never_happen():
    axes = analysis.plot_ledger([entry("delivered", 6_000), entry("lost", 4_000)])
    assert bars(axes)["lost"] == 4_000
    (loud,) = [text for text in axes.texts if "must never happen" in text.get_text()]
    assert loud.get_color() == "#D55E00"
    assert axes.get_xscale() == "linear"


KILLED = Recovery(
    fault="redis.kill", begin=8, lasted=4, detected=0.05, sign="a subscriber lost its connection",
    publish=Path(back=0.0, normal=3.0), live=Path(unavailable=5, again=1.5, backlog=0, back=2.0, normal=4.0),
    consumer=None,
)  # fmt: skip


def test_recovery_has_each_moment_in_seconds_from_the_begin_of_the_fault():
    axes = analysis.plot_recovery([KILLED])
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Redis killed at 8.0 s", "publish", "live",
    ]  # fmt: skip
    spans = {
        (round(bar.get_y() + bar.get_height() / 2), bar.get_x(), bar.get_x() + bar.get_width())
        for bar in axes.patches
        if bar.get_width()
    }
    assert (0, 0.0, 4.0) in spans
    assert (2, 0.5, 5.5) in spans, "silent for 5 s, until 1.5 s after the end of the fault"
    points = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[0.05, 0]] in points
    assert [[4.0, 1]] in points
    assert [[6.0, 2]] in points
    assert axes.get_xlabel() == "time (s after the fault's begin)"


def test_what_had_piled_up_is_drawn_until_it_is_drained():
    path = Path(unavailable=4, again=0.5, backlog=1000, drain=500.0, back=3.0, normal=1.0)
    axes = analysis.plot_recovery([replace(KILLED, live=path)])
    (drained,) = [bar for bar in axes.patches if bar.get_hatch() and bar.get_width()]
    assert (drained.get_x(), drained.get_width()) == (4.5, 2.0)


def test_a_fault_without_an_end_and_a_path_that_stays_silent_reach_the_edge():
    path = Path(unavailable=3, again=None, normal=1.0)
    axes = analysis.plot_recovery([replace(KILLED, lasted=None, detected=None, sign="", live=path)])
    edge = axes.get_xlim()[1]
    assert [line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == ">"] == [
        [[edge, 2]]
    ]
    assert "no sign of it" in [text.get_text() for text in axes.texts]


def test_no_fault_is_said():
    (text,) = analysis.plot_recovery([]).texts
    assert text.get_text() == "there was no fault"


def table() -> pd.DataFrame:
    rows = [
        {"policy": policy, "channels": channels, "storm_s": factor * channels * (1 + repeat / 10)}
        for policy, factor in (("source", 1e-3), ("aggregate", 1e-5))
        for channels in (100, 10_000)
        for repeat in range(3)
    ]
    return pd.DataFrame(rows)


def test_fan_out_has_a_line_a_policy_and_a_band_over_its_repeats():
    axes = analysis.plot_fan_out(table(), x="channels", y="storm_s", by="policy")
    drawn = lines(axes)
    assert list(drawn) == ["source", "aggregate"]
    assert drawn["source"] == pytest.approx(np.array([[100, 0.11], [10_000, 11]]))
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(0.1), pytest.approx(12))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("channels", "storm (s)")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_fan_out_of_one_row_a_point_has_no_band_and_zero_is_shown():
    once = table().drop_duplicates(["policy", "channels"]).assign(missing=[0, 0, 0, 40])
    axes = analysis.plot_fan_out(once, x="channels", y="missing", by="policy")
    assert not axes.collections
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] == 0


def test_changes_stand_in_per_cent_beside_the_band_that_does_not_matter():
    rows = [
        ("live p99", [12.0, 30.0], 14.0, 33.0, 22.0, "regression"),
        ("rate", [], -0.5, 0.5, 0.0, "not worse"),
        ("lag p99", [900.0], 500.0, float("inf"), 900.0, "worse"),
    ]
    axes = analysis.plot_differences(rows, band=10)
    (span,) = axes.patches
    assert (span.get_x(), span.get_width()) == (-10, 20)
    drawn = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[14, 0], [33, 0]] in drawn
    assert [[12, -0.2], [30, -0.2]] in drawn
    edge = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == ">"]
    assert edge == [[[100, 1.8]], [[100, 2]]], "far beyond all others"
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "+22.0 %  [+14.0 %, +33.0 %]  regression"
    assert texts[2].endswith("+∞]  worse")
    assert axes.get_xlabel().startswith("change, %")


def test_the_names_of_faults_that_are_close_together_do_not_collide():
    close = [("redis.kill" if k % 2 else "net.kafka.delay", 4 + k / 2, 4.2 + k / 2) for k in range(10)]
    for plot in (analysis.plot_rates, analysis.plot_latency_over_time, analysis.plot_latency_heatmap):
        axes = plot(made_up(faults=close))
        axes.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert [text.get_text() for text in axes.texts] == [str(k) for k in range(1, 11)]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
        assert {"1 3 5 7 9  Kafka delay", "2 4 6 8 10  Redis killed"} <= set(
            axes.get_legend_handles_labels()[1]
        )


def test_the_names_of_faults_at_both_ends_stay_within_the_picture():
    axes = analysis.plot_rates(made_up(faults=[("kafka.leader-lost", 0, 0.2), ("redis.kill", 9.9, 10)]))
    axes.figure.canvas.draw()
    assert [text.get_text() for text in axes.texts] == ["Kafka leader lost", "Redis killed"]
    for text in axes.texts:
        box = text.get_window_extent()
        assert axes.bbox.x0 - 5 <= box.x0 <= box.x1 <= axes.bbox.x1 + 5  # pixels


@pytest.mark.parametrize("rows", [0, 1])
def test_no_event_and_a_single_one_are_drawn(rows: int):
    frames = made_up()
    frames = replace(frames, events=frames.events.iloc[:rows])
    for plot in (analysis.plot_latency_heatmap, analysis.plot_timeline, analysis.plot_outcomes):
        axes = plot(frames)
        axes.figure.canvas.draw()
    analysis.plot_percentiles({"one": frames, "none": []}).figure.canvas.draw()
