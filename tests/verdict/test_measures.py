"""The measures of a run by their names, and what is added up for them."""

from __future__ import annotations

import re

import pytest

from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.verdict.measures import MEASURES, QUANTILES, Totals, unit_of


def test_quantiles_are_named_in_the_measures():
    assert {f"publish.latency.{q}" for q in QUANTILES} <= set(MEASURES)


def test_totals_keep_the_highest_gauge_of_the_load(tmp_path):
    recorder = PublishRecorder(None, "a", deliver=(kept := []).append)
    for value in (30, 7, 5):
        recorder.meter.level("x", value)
        recorder.meter.count("n")
        recorder.cut()
    whole = Totals(since=kept[0].end)
    for interval in kept:
        whole.add(interval)
    assert (whole.peaks["x"], whole.counters["n"]) == (7, 3), "the first interval was before the load"


@pytest.mark.parametrize("name", MEASURES)
def test_a_measures_unit_is_what_its_sentence_says(name):
    """What is left out of the units is shown as a whole number: a share would be 0."""
    says, unit = MEASURES[name], unit_of(name)
    assert (unit == "share") == ("share of" in says or "as a share" in says)
    assert (unit == "cores") == says.endswith("in cores")
    times = r"how long|how late|took at most|Kafka.s answer|Redis.s answer|the same, 99 %"
    assert (unit == "ms") == bool(re.search(times, says))
