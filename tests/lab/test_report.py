"""A report says what happened, what is missing, and how to repeat the run; a browser shows it as it is."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from dualstream_lab.cli.root import run as dualstream
from dualstream_lab.config import Settings
from dualstream_lab.lab.output.page import canvas, drawing, render
from dualstream_lab.lab.report import html, markdown, report
from dualstream_lab.lab.report.words import headline
from dualstream_lab.lab.result import Run
from dualstream_lab.lab.runner import _manifest
from dualstream_lab.lab.scenario import Scenario, shipped_scenarios
from dualstream_lab.recording import (
    DROPS,
    Clocks,
    Ending,
    FaultRecord,
    IntervalWriter,
    LatencyHistogram,
    Manifest,
    Meter,
    RowWriter,
    RunDirectory,
)
from dualstream_lab.verdict.verdict import Verdict
from dualstream_lab.workload import Workload

MS = 1_000_000
ZERO = 5_000 * MS


def made(path, *, state="finished", thresholds=("publish.errors==0",), lost=0):
    """10 s at 100/s; Redis is away from 4 to 6 s. ``lost``: so many are not in the log."""
    workload = Workload(rate=100, duration=10, batch=1, plan="constant", seed=7)
    manifest = Manifest(
        name="made-up", run="r", ids="0" * 24, clocks=Clocks.now(), settings={"topic": "a<b>|c"},
        workload=workload.as_dict(), users={"concurrency": 4, "subscribers": 1}, thresholds=list(thresholds),
        started=ZERO, ended=ZERO + (10_000 if state == "finished" else 7_000) * MS, state=state,
        faults=[
            FaultRecord(name="redis.slow", begin=ZERO + 4001 * MS, end=ZERO + 6020 * MS, bite="it <bites>")
        ],
    )  # fmt: skip
    path.mkdir(exist_ok=True)
    RunDirectory(path, manifest).save()
    seq = np.arange(1000)
    intended = ZERO + seq * 10 * MS
    acked = intended + 2 * MS
    there = (seq < 400) | (seq >= 600)
    rows = {
        kind: RowWriter(path, kind, "a")
        for kind in ("published", "delivered", "consumed", "dropped", "listening")
    }
    rows["published"].add(
        seq, intended=intended, sent=intended + 1, acked=acked, outcome=1, source=seq % 7, size=300
    )
    rows["delivered"].add(seq[there], at=intended[there] + 3 * MS, subscriber=0)
    rows["consumed"].add(seq[lost:], at=acked[lost:] + MS, partition=0, offset=seq[lost:])
    rows["dropped"].add(seq[~there], at=acked[~there], reason=DROPS.index("redis down"))
    who = np.zeros(1, np.int64)
    rows["listening"].add(
        who, subscriber=0, source=-1, begin=1, end=ZERO + 11_000 * MS, why=int(Ending.CLOSED)
    )
    for writer in rows.values():
        writer.close()
    meter, intervals = Meter("a"), IntervalWriter(path, "a")
    for name, count in (
        ("durable", 1000), ("delivered", 800), ("consumed", 1000 - lost), ("notified", 800),
        ("dropped: redis down", 200),
    ):  # fmt: skip
        meter.count(name, count)
    meter.level("consumed.caught_up", 1)
    meter.level("published.seconds", 10)
    interval = meter.take()
    interval.begin, interval.end = ZERO, ZERO + 10_000 * MS
    interval.histograms["publish"] = LatencyHistogram()
    interval.histograms["publish"].record(acked - intended)
    intervals.write(interval)
    intervals.close()
    judged(path)
    return path


def judged(path):
    done = Run.open(path)
    done.directory.write_verdict(done.verdict.as_dict(done.directory))
    return done


@pytest.fixture
def path(tmp_path):
    return made(tmp_path / "made-up-1")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_script_network_or_overflow(browser, path, width) -> None:
    page = path / "report.html"
    page.write_text(html(report(path)), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=True)
    tab = context.new_page()
    told, asked = [], []
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    assert tab.locator(".verdict").is_visible()
    assert "Held its threshold" in tab.locator(".verdict").inner_text()
    assert tab.locator("svg").count() == 7
    assert tab.locator("script").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", page.as_uri()))] == []
    context.close()


def test_the_page_says_what_happened_in_the_run_s_own_figures(path) -> None:
    page = html(report(path))
    assert "through redis.slow, 1,000 events, every one durable, 20.0 % of them undelivered" in page
    assert "Most of what was due from 4.0 to 6.0 s (200 events) was durable and not delivered live." in page
    assert "200 events are missing (the band on top), 99.5 % of them due while a fault was on." in page
    assert "800 delivered and 200 undelivered: dropped by the publisher: redis down" in page
    assert "it &lt;bites&gt;" in page
    assert "topic=a&lt;b&gt;|c" in page
    assert str(path) not in page, "where it lay says nothing to others"
    assert page == html(report(path))


def test_a_verdict_comes_back_from_its_json_as_it_was(path) -> None:
    run = Run.open(path)
    stored = json.loads(json.dumps(run.verdict.as_dict(run.directory)))
    assert Verdict.load(stored).as_dict(run.directory) == run.verdict.as_dict(run.directory)
    assert Verdict.load(stored).entries == run.verdict.entries
    assert Verdict.load(stored).checks == run.verdict.checks


@pytest.mark.parametrize(("state", "read"), [("finished", True), ("interrupted", False), ("running", False)])
def test_the_verdict_of_a_finished_run_is_read_and_not_made_anew(tmp_path, state, read) -> None:
    path = made(tmp_path / "run", state=state)
    stored = json.loads((path / "verdict.json").read_text())
    (path / "verdict.json").write_text(json.dumps(stored | {"limit": "the tea was cold"}))
    assert (report(path).verdict.limit == "the tea was cold") is read


@pytest.mark.parametrize(
    ("more", "said", "mood"),
    [
        ({}, "Held its threshold: through redis.slow, 1,000 events", "good"),
        ({"thresholds": ()}, "Through redis.slow, 1,000 events, every one durable", "plain"),
        ({"thresholds": ("live.latency.p99<5ms",)}, "MISSED 1 of 1 thresholds (live.latency.", "bad"),
        ({"lost": 3}, "FAILS: 3 acknowledged events are not in Kafka", "bad"),
        ({"state": "interrupted"}, "Interrupted after 7.0 of 10 s; until then", "open"),
        ({"state": "running"}, "The run did not end", "open"),
    ],
)  # fmt: skip
def test_the_verdict_is_said_first_in_one_sentence(tmp_path, more, said, mood) -> None:
    sentence, found = headline(report(made(tmp_path / "run", **more)))
    assert sentence.startswith(said)
    assert found == mood


def cut(path):
    (part,) = path.glob("published-*.parquet")
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def without(*patterns):
    def remove(path):
        for pattern in patterns:
            for file in path.glob(pattern):
                file.unlink()

    return remove


def said_otherwise(*place):
    """The verdict with another value at a place."""

    def change(path):
        stored = json.loads((path / "verdict.json").read_text())
        within = stored
        for step in place[:-2]:
            within = within[step]
        within[place[-2]] = place[-1]
        (path / "verdict.json").write_text(json.dumps(stored))

    return change


def as_a_directory(name):
    def change(path):
        (path / name).unlink()
        (path / name).mkdir()

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "published-a-00001.parquet is damaged"),
        (without("verdict.json"), "there is no verdict.json: the run was judged anew"),
        (without("delivered-*"), "there are no delivered rows, though 800 events were counted"),
        (without("delivered-*"), "the figures are of the run&#39;s end"),
        (without("*.parquet", "verdict.json"), "1,000 of 1,000 published rows are missing"),
        (without("*.parquet", "*.jsonl", "verdict.json"), "no published rows were recorded"),
        (lambda path: (path / "verdict.json").write_text("{"), "verdict.json is damaged"),
        (lambda path: (path / "verdict.json").write_text("{}"), "verdict.json cannot be read"),
        (lambda path: (path / "verdict.json").write_text('{"a":' * 100_000), "verdict.json is damaged"),
        (said_otherwise("recovery", 0, "begin", "soon"), "verdict.json cannot be read"),
        (said_otherwise("ledger", 0, "share", {}), "verdict.json cannot be read"),
        (said_otherwise("counters", "durable", 1e999), "verdict.json cannot be read"),
        (said_otherwise("measures", "publish.latency.max", None), "verdict.json cannot be read"),
        (as_a_directory("verdict.json"), "verdict.json is damaged (it is no file)"),
        (as_a_directory("published-a-00001.parquet"), "published-a-00001.parquet is damaged"),
        (as_a_directory("intervals-a.jsonl"), "intervals-a.jsonl cannot be read"),
    ],
)
def test_what_is_missing_is_said(path, damage, said) -> None:
    damage(path)
    found = report(path)
    assert said in html(found)
    assert markdown(found)


def test_the_same_run_can_be_made_from_the_page(path, tmp_path) -> None:
    text = markdown(report(path))
    toml = text.partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "again.toml"
    file.write_text(toml)
    again = Scenario.read(str(file))
    assert again.workload.as_dict() == RunDirectory.open(path).manifest.workload
    (fault,) = again.faults
    assert (fault.name, fault.at, fault.length) == ("redis.slow", 4, 2)
    assert "# delay_ms: as you had them; the run did not record it" in toml
    assert [one.text for one in again.thresholds] == ["publish.errors==0"]


@pytest.mark.parametrize("name", shipped_scenarios())
def test_what_was_asked_for_is_made_again_to_the_letter(path, tmp_path, name) -> None:
    asked = Scenario.read(name)
    directory = RunDirectory.open(path)
    made = _manifest(asked, Settings.load(kafka_url="127.0.0.1:1"))
    for field in ("name", "workload", "users", "thresholds", "asked"):
        setattr(directory.manifest, field, getattr(made, field))
    directory.save()
    file = tmp_path / "again.toml"
    file.write_text(markdown(report(path)).partition("```toml\n")[2].partition("```")[0])
    assert Scenario.read(str(file)) == asked


def test_markdown_is_short_and_its_tables_are_whole(path) -> None:
    text = markdown(report(path))
    assert len(text) < 8000
    assert "![" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "| undelivered: dropped by the publisher: redis down | 200 | 20.00% |" in lines
    assert "| publish.errors==0 | held | 0 |" in lines


def test_the_command_makes_a_page_or_markdown_and_says_where(path, tmp_path, capsys) -> None:
    assert dualstream(["report", str(path)]) == 0
    assert (path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    told = capsys.readouterr()
    assert f"report  {path / 'report.html'}" in told.out
    assert "next:" in told.err
    (path / "report.html").unlink()
    assert dualstream(["report", str(path), "--markdown", str(tmp_path / "report.md")]) == 0
    assert not (path / "report.html").exists()
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("### made-up")


def test_what_a_verdict_lacks_is_not_known(path) -> None:
    stored = json.loads((path / "verdict.json").read_text())
    for name in ("publish.latency.max", "durable.latency.max", "publish.durable", "durable.lag.p99"):
        stored["measures"].pop(name, None)
    (path / "verdict.json").write_text(json.dumps(stored))
    assert "slowest not known" in html(report(path))


def test_the_page_never_goes_through_a_link(path, tmp_path) -> None:
    """A run directory may be a stranger's."""
    mine = tmp_path / "mine"
    mine.write_text("keep me")
    (path / "report.html").symlink_to(mine)
    assert dualstream(["report", str(path)]) == 0
    assert mine.read_text() == "keep me"
    assert not (path / "report.html").is_symlink()
    (path / "report.html").unlink()
    (path / "report.html").mkdir()
    assert dualstream(["report", str(path)]) == 2


@pytest.mark.parametrize("command", ["runs", "report", "ledger", "compare"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"thresholds": ["?"]}, "threshold '?'"),
        ({"workload": {"rate": 100, "duration": 10, "plan": "zigzag"}}, "plan: must be one of"),
        ({"workload": {"rate": 1, "duration": 1, "unheard": 1}}, "unknown key 'unheard'"),
        ({"clocks": None}, "Expected `object`"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_one_line(path, capsys, command, change, said) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    code = dualstream([command, str(path)] + [str(path)] * (command == "compare"))
    told = capsys.readouterr().err
    if code:
        assert code == 3
        assert told.count("error: ") == 1
        assert told.count("\n") <= 2
        assert said in told


@pytest.mark.parametrize("command", ["runs", "report", "ledger"])
def test_every_command_ends_alike_where_the_manifest_cannot_be_read(path, capsys, command) -> None:
    (path / "manifest.json").write_text("{")
    assert dualstream([command, str(path)]) == 3
    assert "manifest.json cannot be read" in capsys.readouterr().err


def test_without_its_extra_the_command_names_it(path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from dualstream_lab.cli.root import run; sys.exit(run("
    )
    code += repr(["report", str(path)]) + "))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "`dualstream report` needs matplotlib: pip install 'dualstream-lab[report]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_from_a_file_are_shown_as_they_are(path, tmp_path, capsys) -> None:
    """No markup, no emoji, nothing that a terminal obeys."""
    file = path / "manifest.json"
    values = json.loads(file.read_text())
    values["faults"][0]["bite"] = "[/red] :smile: \x1b]0;owned\x07"
    file.write_text(json.dumps(values))
    path.rename(tmp_path / "[red]:smile:")
    assert dualstream(["runs", str(tmp_path / "[red]:smile:")]) == 0
    assert "[/red] :smile: \ufffd]0;owned\ufffd" in capsys.readouterr().out
    assert dualstream(["runs", str(tmp_path)]) == 0
    assert "[red]:smile:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "nowhere"], "nowhere does not exist"),
        (["ledger", "nowhere"], "nowhere does not exist"),
        (["ledger", "."], "is not a run directory: it has no manifest.json"),
        (["report", "nowhere", "--html", "no/such/page.html"], "no/such/page.html cannot be written"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path, monkeypatch, capsys, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert dualstream(words) == 2
    assert said in capsys.readouterr().err


def test_a_drawing_is_the_same_each_time_small_and_says_what_it_is() -> None:
    def drawn(label, count):
        axes = canvas()
        axes.pcolormesh(np.arange(count * count).reshape(count, count))
        return drawing(axes, label=label)

    small, big = drawn("a <b>", 5), drawn("other", 60)
    assert small == drawn("a <b>", 5)
    assert 'aria-label="a &lt;b&gt;"' in small
    assert "<image" not in small
    assert "<image" in big
    assert len(big) < 60_000
    assert "figure_1" not in small, "ids are for one drawing, and a page has many"


def test_a_page_escapes_whatever_it_is_given() -> None:
    page = render("base.html.j2", title="t", subject="<script>", headline="a & b", mood="good")
    assert "<script>" not in page
    assert "a &amp; b" in page
