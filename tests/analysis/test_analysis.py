"""Statistics on cases that can be computed by hand, and against SciPy; plots by their data."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import StepPatch
from scipy import stats

from dualstream_lab import analysis
from dualstream_lab.analysis import plot_differences
from dualstream_lab.analysis.paired import Interval
from dualstream_lab.analysis.plots.rates import draw_live
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.recording import Clocks, FaultRecord, Manifest, RowWriter, RunDirectory
from dualstream_lab.workload import Workload

mpl.use("Agg")
MS = 1_000_000
ZERO = 5_000 * MS


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def frames(tmp_path):
    """10 s at 100/s: acked after 2 ms, read after 3, received after 1; between 4 and 6 s nothing is."""
    workload = Workload(rate=100, duration=10, batch=1)
    manifest = Manifest(
        name="t", run="r", ids="0" * 24, clocks=Clocks.now(), settings={}, workload=workload.as_dict(),
        started=ZERO, ended=ZERO + 10_000 * MS, state="finished",
        faults=[FaultRecord(name="redis.kill", begin=ZERO + 4000 * MS, end=ZERO + 6000 * MS)],
    )  # fmt: skip
    RunDirectory(tmp_path, manifest).save()
    seq = np.arange(1000)
    intended = ZERO + seq * 10 * MS
    published = RowWriter(tmp_path, "published", "a")
    outcome = np.where(seq == 999, 2, 1)
    published.add(
        seq, intended=intended, sent=intended + MS // 2, acked=np.where(outcome == 1, intended + 2 * MS, 0),
        outcome=outcome, source=seq % 7, size=300,
    )  # fmt: skip
    delivered = RowWriter(tmp_path, "delivered", "a")
    there = ((seq < 400) | (seq >= 600)) & (outcome == 1)
    delivered.add(seq[there], at=intended[there] + MS, subscriber=0)
    consumed = RowWriter(tmp_path, "consumed", "a")
    consumed.add(seq[:999], at=intended[:999] + 3 * MS, partition=0, offset=seq[:999])
    for writer in (published, delivered, consumed):
        writer.close()
    return analysis.load(tmp_path)


def test_frames_are_tidy_and_in_their_units(frames):
    events = frames.events
    assert len(events) == 1000
    assert events["intended_s"].iloc[150] == pytest.approx(1.5)
    assert events["publish_ms"].iloc[0] == pytest.approx(2)
    assert events["publish_raw_ms"].iloc[0] == pytest.approx(1.5)
    assert events["live_ms"].iloc[0] == pytest.approx(1)
    assert events["delay_ms"].iloc[0] == pytest.approx(-1)
    assert events["consumed_ms"].iloc[0] == pytest.approx(3)
    assert events["slip_ms"].iloc[0] == pytest.approx(0.5)
    assert np.isnan(events["publish_ms"].iloc[999])
    assert events["live_ms"].isna().sum() == 201
    assert frames.faults.to_dict("records") == [{"fault": "redis.kill", "begin_s": 4.0, "end_s": 6.0}]
    assert frames.problems == ()


def test_outages_are_found_by_what_was_undelivered(frames):
    (window,) = analysis.outage_windows(frames).to_dict("records")
    assert (window["begin_s"], window["end_s"]) == (pytest.approx(4), pytest.approx(6))
    assert window["length_s"] == pytest.approx(2)
    assert window["missed"] == 200


def test_lag_in_seconds_and_messages(frames):
    table = analysis.lag(frames, width=0.0025)
    at = table.index.to_numpy()
    # acked at 2 ms, read at 3 ms of every 10: open in that millisecond only
    open_ = (at * 1e3 % 10 >= 2) & (at * 1e3 % 10 < 3) & (at < 9.99)
    assert list(table["messages"] > 0) == list(open_)
    assert table["seconds"].max() <= 0.001


def test_percentiles_over_time_break_where_nothing_was_received(frames):
    table = analysis.over_time(frames, "live_ms", width=1.0)
    assert list(table.index) == [0.5 + second for second in range(10)]
    assert np.isinf(table["p50"].iloc[[4, 5]]).all()
    assert table["missing"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, pytest.approx(0.01)]
    with pytest.raises(ConfigError, match="publish_ms"):
        analysis.over_time(frames, "latency")


def test_percentiles_by_hand():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, np.nan])
    table = analysis.percentiles(values, qs=(0.1, 0.5, 0.9, 0.91, 1.0))
    assert table["value"].tolist() == [1, 5, 9, np.inf, np.inf], "never arrived counts as the slowest"
    assert (table["n"] == 10).all()
    assert (table["missing"] == 1).all()
    assert (table["low"] <= table["value"]).all()
    assert (table["high"] >= table["value"]).all()
    assert analysis.percentiles(np.array([]))["value"].isna().all()


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_intervals_agree_with_scipys_bootstrap(q):
    values = np.random.default_rng(5).lognormal(1, 1, 3000)

    def quantile(sample, axis):
        return np.quantile(sample, q, axis=axis, method="inverted_cdf")

    expected = stats.bootstrap(
        (values,), quantile, n_resamples=4000, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    found = analysis.percentiles(values, qs=(q,), resamples=4000).loc[q]
    assert found["value"] == np.quantile(values, q, method="inverted_cdf")
    assert found["low"] == pytest.approx(expected.low, rel=0.03)
    assert found["high"] == pytest.approx(expected.high, rel=0.03)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(7)
    truth = float(stats.expon.ppf(0.9))
    hits = 0
    for turn in range(300):
        found = analysis.percentiles(rng.exponential(size=400), qs=(0.9,), seed=turn, resamples=500).loc[0.9]
        hits += found["low"] <= truth <= found["high"]
    assert 0.91 <= hits / 300 <= 0.985


def test_intervals_by_seconds_are_wider_where_seconds_differ():
    rng = np.random.default_rng(8)
    at = np.repeat(np.arange(30), 200) + 0.5
    level = np.repeat(rng.lognormal(1, 1, 30), 200)
    values = level * rng.lognormal(0, 0.1, 6000)
    alone, blocks = (analysis.percentiles(values, qs=(0.5,), at=when).loc[0.5] for when in (None, at))
    assert alone["value"] == blocks["value"]
    assert blocks["high"] - blocks["low"] > 5 * (alone["high"] - alone["low"])


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(1).exponential(size=500)
    one, two = (analysis.percentiles(values, at=np.arange(500) / 50) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_plots_show_the_data_take_an_ax_and_return_it(frames):
    _, axes = plt.subplots()
    assert analysis.plot_latency_percentiles(frames, axes) is axes
    drawn = lines(axes)
    assert drawn["publish: intended to ack"][0, 1] == pytest.approx(2)
    live = drawn["live: intended to received"]
    assert live[-1, 0] < 1, "a fifth never arrived: the line ends before 90 %"

    axes = analysis.plot_latency_over_time(frames, columns=["live_ms"], width=1.0)
    p99 = lines(axes)["live: intended to received, p99"]
    assert np.isnan(p99[4:6, 1]).all()
    assert p99[0, 1] == pytest.approx(1)

    axes = analysis.plot_rates(frames, width=1.0)
    assert lines(axes)["durable on Kafka"][0, 1] == pytest.approx(100, abs=1)
    assert lines(axes)["delivered"][4, 1] <= 1

    axes = analysis.plot_timeline(frames)
    assert sum(bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")) * 0.2 >= 199

    axes = analysis.plot_lag_and_latency(frames)
    assert axes.get_ylabel() == "lag, latency (ms)"


def test_faults_are_shaded_and_named_and_axes_have_units(frames):
    for plot in (analysis.plot_latency_over_time, analysis.plot_rates, analysis.plot_timeline):
        axes = plot(frames)
        assert [text.get_text() for text in axes.texts] == ["Redis killed"]
        assert axes.get_xlabel() == "time (s after the plan's zero)"
        assert axes.get_ylabel() in {"latency (ms)", "events/s"}
        (span,) = [patch for patch in axes.patches if patch.get_alpha() == 0.35]
        assert (span.get_x(), span.get_width()) == (4.0, 2.0)


def test_the_name_of_a_fault_has_room_above_a_line(frames):
    events = frames.events.copy()
    events.loc[480:520, "publish_ms"] = 50.0  # highest where the name is
    axes = analysis.plot_latency_over_time(replace(frames, events=events), columns=["publish_ms"])
    axes.figure.canvas.draw()
    (name,) = axes.texts
    highest = max(np.nanmax(line.get_ydata()) for line in axes.get_lines())
    bottom = axes.transData.inverted().transform(name.get_window_extent())[0, 1]
    assert bottom > highest


def test_faults_are_named_in_words(frames):
    for what, name in (("kafka.leader-lost", "Kafka leader lost"), ("net.redis.delay", "Redis delay")):
        axes = analysis.plot_rates(replace(frames, faults=frames.faults.assign(fault=what)))
        assert [text.get_text() for text in axes.texts] == [name]


def test_what_became_of_publishing_is_stacked_by_intended_time(frames):
    events = frames.events.copy()
    events.loc[200:249, "outcome"] = 3
    events.loc[250:259, "outcome"] = 4
    axes = analysis.plot_outcomes(replace(frames, events=events), width=1.0)
    (durable,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    assert durable.get_data().values.tolist() == [100, 100, 40, 100, 100, 100, 100, 100, 100, 99]
    unknown, refused = axes.containers
    assert [bar.get_height() for bar in unknown] == [0, 0, 50, 0, 0, 0, 0, 0, 0, 0]
    assert (refused[2].get_y(), refused[2].get_height(), refused[9].get_height()) == (50, 10, 1)
    assert axes.get_legend_handles_labels()[1] == ["durable on Kafka", "unknown at the deadline", "refused"]
    assert [text.get_text() for text in axes.texts] == ["Redis killed"]


def test_lines_of_one_colour_differ_in_their_dashes(frames):
    axes = analysis.plot_latency_over_time(frames)
    styles = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
    assert len(set(styles)) == len(styles)


def test_collections_that_stopped_a_process_are_marked(frames):
    seconds = pd.DataFrame({"at_s": [1.0, 2.0, 3.0], "published.gc_pause_ms": [0.2, 7.0, np.nan]})
    axes = analysis.plot_latency_over_time(replace(frames, seconds=seconds))
    assert lines(axes)["generator stopped by the garbage collector"].tolist() == [[2.0, 7.0]]


def test_a_sweep_is_drawn_in_the_order_of_its_rates():
    table = pd.DataFrame({"rate": [300.0, 100, 200], "live.latency.p99": [9.0, 3, np.inf]})
    axes = analysis.plot_sweep(table, columns=["live.latency.p99"])
    points = lines(axes)["live.latency.p99"]
    assert points[:, 0].tolist() == [100, 200, 300]
    assert np.isnan(points[1, 1])


def test_a_sweep_shows_what_was_zero_below_all_others():
    table = pd.DataFrame({"rate": [100.0, 200, 300], "durable.lag.p99": [0.0, 4, 0], "live": [2.0, 8, 16]})
    axes = analysis.plot_sweep(table, columns=["durable.lag.p99", "live"])
    assert lines(axes)["durable.lag.p99"].tolist() == [[100, 1], [200, 4], [300, 1]]
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    assert [line.get_xydata().tolist() for line in hollow] == [[[100, 1], [300, 1]], [], []]
    assert axes.get_legend_handles_labels()[1] == ["durable.lag.p99", "live", "0"]


def test_pairs_stand_beside_their_interval_and_none_is_said():
    found = Interval(value=0.2, low=-0.5, high=0.9, pairs=2)
    none = Interval(value=np.nan, low=-np.inf, high=np.inf, pairs=0)
    axes = plot_differences(
        [("redis.kill", [0.1, 0.3], found, 1.0, None), ("redis.stop", [], none, 1.0, None)]
    )
    drawn = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[-0.5, 0], [0.9, 0]] in drawn
    assert [[0.1, -0.2], [0.3, -0.2]] in drawn, "the bar would hide them"
    (told,) = axes.texts
    assert (told.get_text(), told.get_position()[1]) == ("no pairs to compare", 1)


def test_what_came_after_the_end_of_the_plan_is_shown(frames):
    slow = replace(frames, seconds=pd.DataFrame({"published.seconds": [1.0, frames.duration + 5, np.nan]}))
    assert slow.length == frames.duration + 5
    assert analysis.plot_rates(slow).get_xlim() == (0, slow.length)
    assert analysis.lag(slow).index[-1] == pytest.approx(slow.length)
    assert analysis.plot_rates(frames).get_xlim() == (0, frames.duration)


def test_the_live_plot_draws_what_there_is():
    figure = draw_live({0: [900.0, 880.0, 2.0], 1: [1000.0, 990.0, np.inf]}, duration=5, rate=1000)
    rates, latency = figure.axes
    assert lines(rates)["durable"].tolist() == [[0, 900], [1, 1000]]
    assert np.isnan(lines(latency)["publish p99"][1, 1])


def test_an_empty_or_partial_run_is_shown_with_what_is_missing(tmp_path):
    manifest = Manifest(
        name="t", run="r", ids="0" * 24, clocks=Clocks.now(), settings={}, workload=Workload().as_dict()
    )
    RunDirectory(tmp_path, manifest).save()
    frames = analysis.load(str(tmp_path))
    assert "no published rows were recorded" in frames.problems
    assert any("did not end" in problem for problem in frames.problems)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for plot in (
            analysis.plot_latency_percentiles, analysis.plot_latency_over_time, analysis.plot_rates,
            analysis.plot_timeline, analysis.plot_lag_and_latency, analysis.plot_outcomes,
        ):  # fmt: skip
            plot(frames)
    assert analysis.outage_windows(frames).empty
    assert analysis.lag(frames)["seconds"].isna().all()


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="not a run directory"):
        analysis.load(tmp_path)
