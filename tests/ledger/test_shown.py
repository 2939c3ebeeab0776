"""What a notebook and a terminal show of a ledger."""

from __future__ import annotations

from dualstream_lab.ledger.tables import Table

from .builder import IDS, RunBuilder


def test_a_ledger_in_a_notebook_has_its_classes_marks_and_notes(tmp_path):
    builder = RunBuilder(tmp_path / "run", caught_up=False)
    builder.listened(0, 5000)
    builder.flow(0, 1)
    builder.sent(2, 20)
    builder.read(2, 25)
    builder.given_up(2, 22, "queue full")
    builder.delivered(1, 15)
    ledger = builder.ledger()
    shown = ledger._repr_html_()
    for text in (
        "delivered",
        "undelivered: dropped by the publisher: queue full",
        IDS.of(2),
        "duplicated-live",
        "33.33%",
    ):
        assert f">{text}" in shown
    assert "3 events, each in one class" in shown
    assert ledger.problems
    assert all(problem in shown for problem in ledger.problems)
    assert repr(ledger) == f"<Ledger of {tmp_path / 'run'}: 3 events, None lost>"


def test_a_story_is_told_line_by_line(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000)
    builder.flow(0)
    lines = str(builder.ledger().entry(IDS.of(0))).splitlines()
    assert lines[0].startswith(f"{IDS.of(0)}  delivered")
    assert lines[2].endswith("due at 0.010000 s of the run; times from then")
    assert lines[3] == "       +0.000 ms  sent, 300 bytes"
    assert lines[-1] == "       +5.000 ms  read by the Kafka consumer: partition 0, offset 0"


def test_what_a_table_says_is_text_and_not_html():
    assert "<td style='text-align:left'>&lt;b&gt;</td>" in Table(["a"], [["<b>"]])._repr_html_()
