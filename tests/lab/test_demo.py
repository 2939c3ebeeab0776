"""The demonstration and its parts: the plan is kept, the rows are true, the picture is there."""

from __future__ import annotations

import pytest

from dualstream_lab.analysis import load, outage_windows
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab import Run
from dualstream_lab.lab.demo import Demo
from dualstream_lab.workload import Workload


@pytest.mark.usefixtures("_short_warm_up")
def test_a_short_demo_tells_the_story(tmp_path, dualstream):
    arguments = ["--rate", "1000", "--duration", "5", "--outage", "1:2", "--runs", str(tmp_path)]
    code, out, err = dualstream("demo", *arguments)
    assert code == 0, err
    assert "Every event is durable" in out
    assert "next:" in err
    (run,) = tmp_path.iterdir()
    assert str(run / "timeline.png") in out.replace("\n", "")
    assert (run / "timeline.png").read_bytes().startswith(b"\x89PNG")

    frames = load(run)
    events, found = frames.events, Run.open(run).measures
    assert len(events) == 5000 == found["publish.durable"]
    assert (found["ledger.lost"], found["durable.repeated"], found["ledger.orphan"]) == (0, 0, 0)
    assert (events["publish_ms"] >= events["publish_raw_ms"]).all()
    assert events["consumed_ms"].notna().all()
    assert events["live_ms"].notna().sum() == found["live.delivered"]
    ((down, back),) = frames.faults[["begin_s", "end_s"]].to_numpy()
    # By when it happened, not by when it was intended: this machine may be busy, and the events late.
    heard_at, acked_at = (events["intended_s"] + events[name] / 1e3 for name in ("live_ms", "publish_ms"))
    assert not ((heard_at > down + 0.1) & (heard_at < back - 0.1)).any(), "nothing is heard while it is dead"
    assert heard_at[acked_at < down - 0.5].notna().all()
    assert found["live.notified"] + found["live.dropped"] == 5000
    assert found["live.dropped"] >= 900
    outage = outage_windows(frames)
    assert len(outage) == 1
    late = events["publish_ms"].max() / 1e3
    assert down - late - 0.21 <= outage["begin_s"].iloc[0] <= down + 0.21
    assert outage["missed"].iloc[0] == pytest.approx(5000 - found["live.delivered"], abs=210)


@pytest.mark.parametrize("outage", [(0, 2), (2, 2), (3, 2), (2, 5), (2, 9)])
def test_an_outage_outside_the_run_is_refused(outage):
    with pytest.raises(ConfigError, match="0 < from < to < duration"):
        Demo(workload=Workload(duration=5), outage=outage)
