"""A report as one self-contained page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lab.output.page import render
from dualstream_lab.lab.report import again, facts, words
from dualstream_lab.lab.report.story import ledger, recovery, story

if TYPE_CHECKING:
    from dualstream_lab.lab.report.report import Report

__all__ = ["html"]


def html(report: Report) -> str:
    """HTML; nothing is loaded from anywhere, and no script is needed."""
    sentence, mood = words.headline(report)
    return render(
        "report.html.j2",
        title=f"{report.manifest.name}: {sentence.partition(':')[0]}",
        subject=words.subject(report),
        headline=sentence,
        mood=mood,
        problems=report.problems,
        summary=words.summary(report),
        checks=facts.checks(report),
        pictures=story(report),
        latencies=report.verdict.latency_table(),
        ledger=ledger(report),
        entries=facts.entries(report),
        marks=facts.marks(report),
        recovery=recovery(report),
        recoveries=facts.recoveries(report),
        faults=facts.faults(report),
        limit=words.limit(report),
        peaks=facts.peaks(report),
        environment=facts.environment(report),
        command=again.command(report),
        scenario=again.scenario(report),
        locust=report.manifest.engine == "locust",
        name=report.name,
        example=facts.example(report),
    )
