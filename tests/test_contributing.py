"""The experiment that CONTRIBUTING.md shows is one file that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dualstream_lab.lab import Run
from dualstream_lab.verdict.checker import Validity
from tests.ledger.builder import RunBuilder

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def experiment():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(compile(code, "kafka_restart.py", "exec", dont_inherit=True), names)
    return names


def checked(experiment, path, *, acked: bool, caught_up: bool = True) -> Validity:
    """Of a run with an event that is in the log and, if ``acked``, one that is not."""
    builder = RunBuilder(path, caught_up=caught_up)
    builder.sent(0, 1)
    builder.read(0, 5)
    if acked:
        builder.sent(1, 2)
    return experiment["check_restart"](Run.of(builder.write())).validity


def test_an_event_that_was_acknowledged_and_is_not_there_is_found(experiment, tmp_path):
    assert checked(experiment, tmp_path, acked=False) is Validity.VALID
    assert checked(experiment, tmp_path / "lost", acked=True) is Validity.INVALID


def test_a_log_that_was_not_read_decides_nothing(experiment, tmp_path):
    assert checked(experiment, tmp_path, acked=False, caught_up=False) is Validity.INCONCLUSIVE


def test_its_command_says_what_it_does(experiment):
    shown = CliRunner().invoke(experiment["kafka_restart"], ["--help"], standalone_mode=False)
    assert "restart Kafka on the way" in shown.output
    assert "--junit" in shown.output
