"""``dualstream compare``: arguments, files, exit codes, and what it says of runs that are not whole."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from dualstream_lab.cli.root import run
from dualstream_lab.recording import Clocks, Interval, IntervalWriter, Manifest, RowWriter, RunDirectory
from dualstream_lab.workload import Workload

SECONDS, RATE = 6, 500
MS = 1_000_000


def record(
    path: Path,
    *,
    slower: float = 1.0,
    seed: int = 0,
    delivered: bool = True,
    state: str = "finished",
    **how: object,
) -> Path:
    """A run directory as `dualstream run` leaves it; its latencies are made up."""
    path.mkdir(parents=True)
    workload = Workload(rate=how.pop("rate", RATE), duration=SECONDS, seed=seed)  # type: ignore[arg-type]
    clocks = Clocks(monotonic=0, wall=seed * 10**9)
    manifest = Manifest(
        name="made-up", run="r", ids="0" * 24, clocks=clocks, settings={}, workload=workload.as_dict(),
        started=1, ended=SECONDS * 1000 * MS, state=state,
    )  # fmt: skip
    RunDirectory(path, replace(manifest, **how)).save()  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    for slots in workload.slots(chunk=SECONDS * RATE):
        count = len(slots)
        spent = rng.lognormal(np.log(3 * slower * rng.normal(1, 0.01)), 0.3, count)
        acked = slots.intended + 1 + (spent * MS).astype(np.int64)
        published = RowWriter(path, "published", "a")
        published.add(
            slots.seq, intended=slots.intended + 1, sent=slots.intended + 1, acked=acked, outcome=1,
            source=slots.source, size=300,
        )  # fmt: skip
        published.close()
        for kind, more in (
            ("delivered", {"subscriber": 0}),
            ("consumed", {"partition": 0, "offset": slots.seq}),
        ):
            if kind == "consumed" or delivered:
                rows = RowWriter(path, kind, "a")
                rows.add(slots.seq, at=acked + MS, **more)  # type: ignore[arg-type]
                rows.close()
        counters = {"durable": count, "notified": count, "consumed": count} | (
            {"delivered": count} if delivered else {}
        )
        writer = IntervalWriter(path, "a")
        writer.write(Interval(writer="a", begin=0, end=SECONDS * 1000 * MS, counters=counters))
        writer.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four repeats of a base, four of the same, and four that are twice as slow; all in turns."""
    root = tmp_path_factory.mktemp("runs")
    for k in range(4):
        for place, (name, slower) in enumerate({"base": 1.0, "same": 1.0, "slow": 2.0}.items()):
            record(root / f"{name}-{k}", slower=slower, seed=10 * k + place)
    return root


def compare(*arguments: object) -> int:
    return run(["compare", *map(str, arguments)])


def test_a_regression_is_found_told_first_and_exits_with_99(
    runs: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare(f"{runs}/base-*", f"{runs}/slow-*") == 99
    out = capsys.readouterr().out
    assert "Regression: " in out.splitlines()[-1]
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert "regression" in rows[1] or "regression" in rows[0]
    assert "live.dropped" in rows[-1]
    assert "not worse" in rows[-1]


def test_repeats_of_the_same_settings_and_what_is_allowed_exit_with_0(runs: Path) -> None:
    assert compare(f"{runs}/base-*", f"{runs}/same-*") == 0
    every = ("publish.p50", "publish.p99", "publish.p99.9", "live.latency.p50", "live.p99", "live.p99.9")
    allowed = [f"--allow={name}=200%" for name in (*every, "durable.p50", "durable.p99", "durable.lag.p99")]
    assert compare(f"{runs}/base-*", f"{runs}/slow-*", "--allow", "200%") == 0
    assert compare(f"{runs}/base-*", f"{runs}/slow-*", *allowed) == 0
    assert compare(f"{runs}/base-*", f"{runs}/slow-*", *allowed[1:]) == 99


def test_it_writes_files_for_ci_and_for_people(runs: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"c.{kind}" for kind in ("html", "markdown", "json", "junit")}
    options = [f"--{kind}={file}" for kind, file in files.items()]
    assert compare(f"{runs}/base-*", f"{runs}/slow-*", f"{runs}/same-*", *options) == 99
    found = json.loads(files["json"].read_text())
    assert found["regressed"] is True
    assert found["arms"]["base-*"] == [f"base-{k}" for k in range(4)]
    (p50,) = [
        one
        for one in found["differences"]
        if (one["arm"], one["measure"]) == ("slow-*", "publish.latency.p50")
    ]
    assert p50["finding"] == "regression"
    assert p50["low"] < p50["change"] < p50["high"]
    assert p50["change"] == pytest.approx(1, abs=0.05)
    suite = ET.parse(files["junit"]).getroot()[0]
    assert len(suite.findall("testcase")) == len(found["differences"]) == 26
    failed = {case.get("classname") for case in suite.iter("testcase") if case.find("failure") is not None}
    assert failed == {"dualstream.compare.slow-*"}
    text = files["markdown"].read_text()
    assert text.startswith("**Regression: ")
    assert text.count("| publish.latency.p50 |") == 2
    assert "slow-\\* against base-\\*" in text
    page = files["html"].read_text()
    assert page.count("<svg") == 2
    assert "dualstream compare" in page


def test_two_single_runs_are_compared_with_care(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert compare(runs / "base-0", runs / "slow-0") == 0
    captured = capsys.readouterr()
    assert "one run each, which cannot tell how far repeats differ" in captured.err
    assert "cannot tell" in captured.out
    assert compare(*(runs / f"base-{k}" for k in range(3))) == 0
    assert "a quoted pattern ('runs/base-*') or their directory takes them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give two runs at least"),
        (("{runs}/base-0",), "give two runs at least"),
        (("{runs}/base-0", "{runs}/none"), "none does not exist; `dualstream runs` lists"),
        (("{runs}/base-0", "{runs}/none-*"), "none-* matches no run directory"),
        (("{runs}/base-0", "{runs}/base-0/.."), "base-0 is named by both"),
        (("{runs}/base-*", "{runs}/same-*", "--allow", "much"), "--allow 'much': must be per cent"),
        (
            ("{runs}/base-*", "{runs}/same-*", "--allow", "live.latency.p9=5%"),
            "mean live.latency.p9",
        ),
        (("{runs}/base-*", "{runs}/same-*", "--html", "{runs}/no/c.html"), "there is no directory"),
    ],
)
def test_bad_arguments_are_named(
    runs: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert compare(*(text.format(runs=runs) for text in arguments)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--markdown", "--junit", "--html"])
def test_a_full_disk_is_one_line(option: str, runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert compare(runs / "base-0", runs / "base-1", option, "/dev/full") == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said == ["error: /dev/full cannot be written: No space left on device"]


def test_a_directory_without_runs_is_named(tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert compare(runs / "base-0", tmp_path) == 2
    assert "there are no run directories in it" in capsys.readouterr().err


def test_other_settings_within_an_arm_are_an_error_and_between_arms_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for k in range(3):
        record(tmp_path / "a" / f"r{k}", seed=k)
        record(tmp_path / "b" / f"r{k}", seed=10 + k, rate=400.0, versions={"redis": "1"}, machine={})
    assert compare(tmp_path / "a", tmp_path / "b") == 99  # 400 events/s are fewer
    captured = capsys.readouterr()
    assert "workload.rate: 500, 400.0" in captured.out.replace("\n", " ")
    assert "a and b were not measured alike: machine." in captured.err
    assert "a and b did not take turns" in captured.err
    record(tmp_path / "a" / "r9", rate=400.0)
    assert compare(tmp_path / "a", tmp_path / "b") == 2
    assert "a: r0 and r9 are no repeats of the same settings (workload.rate: 500" in capsys.readouterr().err


def test_runs_that_are_not_whole_are_compared_as_far_as_they_go(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture
) -> None:
    """Damaged rows are not taken for events that never arrived."""
    damaged = record(tmp_path / "other" / "damaged")
    (damaged / "delivered-a-00001.parquet").write_bytes(b"PAR1 and no more")
    record(tmp_path / "other" / "cut", state="interrupted")
    record(tmp_path / "other" / "silent", delivered=False)
    empty = tmp_path / "other" / "empty"
    empty.mkdir()
    shutil.copy(damaged / "manifest.json", empty)
    assert compare(f"{runs}/base-*", tmp_path / "other") == 0
    captured = capsys.readouterr()
    assert "live.latency" not in captured.out
    assert "publish.latency.p50" in captured.out
    for said in (
        "damaged: delivered-a-00001.parquet is damaged",
        "cut was interrupted",
        "live.missing is not compared: it was not recorded, or not whole, in damaged; silent",
        "left out: ",
    ):
        assert said in captured.err
    assert compare(f"{runs}/base-*", empty) == 3
    assert "has no rows" in capsys.readouterr().err


def test_the_page_needs_nothing_and_fits(runs: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium on PATH")
    page = tmp_path / "c.html"
    assert compare(f"{runs}/base-*", f"{runs}/slow-*", "--html", page) == 99
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            shown = browser.new_page(viewport={"width": width, "height": 900})
            errors: list[str] = []
            asked: list[str] = []
            shown.on("console", lambda message, errors=errors: errors.append(message.text))
            shown.on("request", lambda request, asked=asked: asked.append(request.url))
            shown.goto(page.as_uri())
            assert shown.locator(".verdict").inner_text().startswith("Regression: ")
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert (errors, asked) == ([], [page.as_uri()])
        browser.close()
