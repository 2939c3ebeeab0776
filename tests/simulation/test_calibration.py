"""A calibration as a file, and what it says of what was never measured."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.calibration import COSTS, UNKNOWN, Calibration
from dualstream_lab.simulation.parameters import Costs
from tests.simulation.invariants import unmeasured

MEASURED = replace(
    unmeasured(), machine="2 cores", date="2026-01-02", ranges={"rate": (1_000.0, 50_000.0)},
    observed=frozenset({"call", "event"}),
)  # fmt: skip


def test_it_comes_back_from_its_file(tmp_path):
    path = tmp_path / "machine.json"
    MEASURED.save(path)
    assert Calibration.load(path) == MEASURED
    assert [each.name for each in tmp_path.iterdir()] == ["machine.json"]


def test_the_shipped_one_has_every_cost_within_its_interval():
    shipped = Calibration.shipped()
    for name in COSTS:
        assert getattr(shipped.low, name) <= getattr(shipped.costs, name) <= getattr(shipped.high, name)
    assert shipped.machine
    assert shipped.measured == bool(shipped.ranges)


def test_defaults_may_be_far_off_and_everything_is_extrapolated():
    nothing = unmeasured()
    assert nothing.costs == Costs()
    assert not nothing.measured
    assert not nothing.covers("rate", 1_000)
    for name, value in asdict(Costs()).items():
        assert getattr(nothing.high, name) == pytest.approx(value * UNKNOWN)
        assert getattr(nothing.low, name) == pytest.approx(value / UNKNOWN)


@pytest.mark.parametrize(("rate", "covered"), [(999, False), (1_000, True), (50_000, True), (50_001, False)])
def test_a_range_covers_its_ends_and_nothing_beyond(rate, covered):
    assert MEASURED.covers("rate", rate) is covered
    assert not MEASURED.covers("payload_bytes", 300)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"costs": {"call": "much"}}', '{"costs": {"tea": 1}}'])
def test_what_is_no_calibration_is_named(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json is not a calibration"):
        Calibration.load(path)


def test_a_file_that_is_not_there_and_one_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"x\.json cannot be written"):
        MEASURED.save(tmp_path / "none" / "x.json")


def test_a_cost_outside_of_its_interval_is_refused():
    with pytest.raises(ConfigError, match="call"):
        replace(MEASURED, costs=replace(Costs(), call=1.0))
    with pytest.raises(ConfigError, match="unknown cost 'tea'"):
        replace(MEASURED, observed=frozenset({"tea"}))
